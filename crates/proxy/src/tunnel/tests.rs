use std::task::Context;

use tokio::io::DuplexStream;

use super::*;

impl Duplex for DuplexStream {
    fn fail(&mut self) {}
}

fn pump(direction: &mut Direction, reader: &mut Side, writer: &mut Side) {
    let pumped = direction.poll_pump(&mut Context::from_waker(Waker::noop()), reader, writer, false, None, &mut 0);
    assert!(pumped.is_pending());
}

fn read(from: &mut DuplexStream, most: usize) -> usize {
    let mut bytes = vec![0; most];
    let mut buf = ReadBuf::new(&mut bytes);
    assert!(Pin::new(from).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf).is_ready());
    buf.filled().len()
}

#[test]
fn what_a_slow_reader_takes_counts_as_activity() {
    let (mut source, reader) = tokio::io::duplex(1 << 20);
    let (writer, mut sink) = tokio::io::duplex(1024);
    let (mut reader, mut writer) = (Side::Stream(Box::new(reader)), Side::Stream(Box::new(writer)));
    assert!(Pin::new(&mut source).poll_write(&mut Context::from_waker(Waker::noop()), &[b'x'; 8 * 1024]).is_ready());
    let mut direction = Direction::beginning_with(Bytes::new(), false);
    pump(&mut direction, &mut reader, &mut writer);
    assert!(std::mem::take(&mut direction.active) && !direction.spill.is_empty());
    pump(&mut direction, &mut reader, &mut writer);
    assert!(!direction.active, "nothing moved");
    read(&mut sink, 512);
    pump(&mut direction, &mut reader, &mut writer);
    assert!(direction.active);
}

#[test]
fn only_a_websocket_has_little_time_once_a_side_has_ended() {
    let limit = |websocket, idle| {
        let (last_activity, half_closed, word, waker) = (Cell::new(0), Cell::new(true), Cell::new(Word::None), RefCell::new(None));
        Control { last_activity, idle, websocket, half_closed, word, waker }.limit()
    };
    let (hour, least) = (clock::millis(Duration::from_hours(1)), clock::millis(HALF_CLOSED));
    assert_eq!([limit(true, Some(hour)), limit(true, None), limit(true, Some(5))], [Some(least), Some(least), Some(5)]);
    assert_eq!([limit(false, Some(hour)), limit(false, None)], [Some(hour), None]);
}

#[test]
fn how_much_is_read_at_once_follows_what_is_taken() {
    const PLENTY: usize = 4 << 20;
    const ROOM: usize = 1 << 20;
    let (mut source, reader) = tokio::io::duplex(PLENTY);
    let (writer, mut sink) = tokio::io::duplex(ROOM);
    let (mut reader, mut writer) = (Side::Stream(Box::new(reader)), Side::Stream(Box::new(writer)));
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut source).poll_write(&mut context, &vec![b'x'; PLENTY]).is_ready());
    let mut direction = Direction::beginning_with(Bytes::new(), false);
    assert_eq!(direction.reach, LEAST_REACH);
    pump(&mut direction, &mut reader, &mut writer);
    assert_eq!((direction.reach, direction.spill.len()), (SCRATCH, 0), "all was taken");
    let mut taken = 0;
    while direction.reach > LEAST_REACH {
        taken += read(&mut sink, 64 * 1024);
        pump(&mut direction, &mut reader, &mut writer);
        assert!(taken < PLENTY / 2, "it is read as if all were taken");
    }
    // What was kept while more was read at once goes first.
    while direction.spill.len() > LEAST_REACH {
        taken += read(&mut sink, 64 * 1024);
        pump(&mut direction, &mut reader, &mut writer);
    }
    let passed = |direction: &Direction| direction.bytes - direction.spill.len() as u64;
    assert!(passed(&direction) <= (taken + ROOM) as u64);
    for _ in 0..10 {
        read(&mut sink, 4 * 1024);
        pump(&mut direction, &mut reader, &mut writer);
        assert!(direction.spill.len() <= LEAST_REACH, "{} bytes are kept for a slow writer", direction.spill.len());
    }
}
