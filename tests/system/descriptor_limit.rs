//! With as many clients as its descriptors allow, the process sheds those that come then, serves the others, and serves all again when there are
//! descriptors. (That nothing spins meanwhile is shown in `crates/proxy/tests/descriptors.rs`.)

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
};

use crate::support::{Backend, Penstock, connect, eventually, read_head};

const DESCRIPTORS: usize = 200;
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Whether the other side closed a connection on which nothing was said.
fn is_shed(stream: &TcpStream) -> bool {
    match (&mut &*stream).read(&mut [0]) {
        Ok(0) => true,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        other => panic!("a connection that says nothing got {other:?}"),
    }
}

fn is_served(stream: &mut TcpStream) -> bool {
    stream.write_all(GET).is_ok() && read_head(stream).starts_with("HTTP/1.1 200") && stream.read_exact(&mut [0; 3]).is_ok()
}

#[test]
fn at_the_descriptor_limit_clients_are_shed_and_served_again_when_there_are_descriptors() {
    // By its own count of clients, and by what the kernel refuses where that count is set too high.
    // (The count leaves 128 for other things than clients, and one for each of them to its backend.)
    for (what, arguments, most) in
        [("the count", &[][..], (DESCRIPTORS - 128) / 2), ("the kernel", &["--max-connections", "100000"], DESCRIPTORS)]
    {
        let backend = Backend::start("one");
        let url = backend.url();
        let arguments = [&["proxy", "--from", "a.test", "--to", &url, "--workers", "2"], arguments].concat();
        let mut penstock = Penstock::start_with_descriptors(DESCRIPTORS, &arguments);
        let mut kept = connect(penstock.http);
        assert!(is_served(&mut kept), "{what}: the first client");

        let mut open: Vec<_> = (0..DESCRIPTORS * 2).map(|_| connect(penstock.http)).collect();
        for stream in &open {
            stream.set_nonblocking(true).unwrap();
        }
        eventually(&format!("{what}: no more than {most} clients are open"), || {
            open.retain(|stream| !is_shed(stream));
            (open.len() < most).then_some(())
        });
        assert!(!open.is_empty(), "{what}: nobody was taken");
        let shed = DESCRIPTORS * 2 - open.len();
        println!("{what}: {} are open, {shed} were shed", open.len());
        assert!(is_served(&mut kept), "{what}: a client that was there before");

        drop(open);
        eventually(&format!("{what}: clients are served again"), || is_served(&mut connect(penstock.http)).then_some(()));
        assert!(is_served(&mut kept), "{what}: a client that was there all the time");
        let counted = penstock.metric("penstock_connections_shed_total", "listener=\"http\"");
        assert!(counted >= shed as f64, "{what}: {counted} were counted of {shed}");
        assert!(penstock.metric("penstock_panics_total", "") < 0.5, "{what}: a panic");
        drop(kept);
        penstock.terminate();
        assert_eq!(penstock.wait(), Some(0), "{what}");
    }
}
