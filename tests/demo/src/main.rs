//! The backend of the quick start: a page that holds a live WebSocket. `penstock-demo ADDRESS`
//!
//! It ticks every second and echoes what is typed; the page shows for how long its socket has been open.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use base64::Engine;
use sha1::{Digest, Sha1};

const PAGE: &str = include_str!("page.html");
/// RFC 6455 §1.3.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:18080".to_owned());
    let listener = TcpListener::bind(&address)?;
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            // A browser that goes away is no news.
            let _ = serve(stream);
        });
    }
    Ok(())
}

fn serve(stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut key = None;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("sec-websocket-key") => key = Some(value.to_owned()),
                Some(_) => {}
                None => break,
            }
        }
        if let Some(key) = key {
            let accept = base64::engine::general_purpose::STANDARD.encode(Sha1::digest(format!("{key}{MAGIC}")));
            write!(
                writer,
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            )?;
            return live(reader, writer);
        }
        write!(
            writer,
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n{PAGE}",
            PAGE.len()
        )?;
    }
}

fn live(mut reader: BufReader<TcpStream>, writer: TcpStream) -> io::Result<()> {
    let started = Instant::now();
    let mut ticks = writer.try_clone()?;
    thread::spawn(move || {
        while send(&mut ticks, &format!("open for {} s", started.elapsed().as_secs())).is_ok() {
            thread::sleep(Duration::from_secs(1));
        }
    });
    let mut writer = writer;
    loop {
        let mut head = [0; 2];
        reader.read_exact(&mut head)?;
        let [first, second] = head;
        let length = match second & 0x7f {
            126 => {
                let mut long = [0; 2];
                reader.read_exact(&mut long)?;
                usize::from(u16::from_be_bytes(long))
            }
            // A page's text box sends nothing that long.
            127 => return Ok(()),
            short => usize::from(short),
        };
        let mut mask = [0; 4];
        reader.read_exact(&mut mask)?;
        let mut text = vec![0; length];
        reader.read_exact(&mut text)?;
        text.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        match first & 0x0f {
            1 => send(&mut writer, &format!("you said: {}", String::from_utf8_lossy(&text)))?,
            8 => return writer.write_all(&[0x88, 0]),
            _ => {}
        }
    }
}

fn send(writer: &mut TcpStream, text: &str) -> io::Result<()> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let mut frame = match u8::try_from(length) {
        Ok(short) if short < 126 => vec![0x81, short],
        _ => [&[0x81, 126][..], &length.to_be_bytes()].concat(),
    };
    frame.extend(text.bytes().take(usize::from(length)));
    writer.write_all(&frame)
}
