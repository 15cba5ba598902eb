//! The descriptor limit, in a process of its own: it can only be lowered for all of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
    net::{TcpListener as StdListener, TcpStream as StdStream},
};

use penstock_proxy::Limits;
use rustix::process::{Resource, Rlimit, setrlimit};
use support::{PATIENCE, get, model, route, start_within, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

#[tokio::test]
async fn promise_9_at_the_descriptor_limit_connections_are_shed_and_nothing_spins() {
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum: Some(256) }).unwrap();
    let backend = support::backend(|mut stream| async move {
        let _ = support::read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    })
    .await;
    let kept = route("/kept", support::backend(support::echo_heads).await);
    let proxy = start_within(Limits::default(), &model(vec![route("/", backend), kept]));
    assert!(get(&proxy, GET).await.0.starts_with("HTTP/1.1 200"));
    cpu_ticks();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while proxy.plane.metrics().connections_open.get(penstock_proxy::Listener::Http) > 0 {
        assert!(tokio::time::Instant::now() < deadline, "the client's end is not seen");
        tokio::task::yield_now().await;
    }
    // One is left for the client that is to be shed.
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    files.pop();
    let mut shed = StdStream::connect(proxy.http).unwrap();
    shed.set_read_timeout(Some(PATIENCE)).unwrap();
    let before = cpu_ticks();
    let ended = tokio::task::spawn_blocking(move || {
        let mut rest = Vec::new();
        match shed.read_to_end(&mut rest) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    });
    assert!(ended.await.unwrap(), "neither served nor closed");
    let counted = proxy.plane.metrics().encode();
    assert!(counted.contains("penstock_connections_shed_total{listener=\"http\"} 1"), "{counted}");
    // A worker that spins would take all of this time.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let busy = cpu_ticks() - before;
    assert!(busy < 25, "{busy} hundredths of a second in half a second");
    drop(files);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Ok(Ok(mut client)) = tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(proxy.http)).await {
            let mut answer = [0; 12];
            if client.write_all(GET.as_bytes()).await.is_ok() && client.read_exact(&mut answer).await.is_ok() {
                assert_eq!(&answer, b"HTTP/1.1 200");
                break;
            }
        }
        assert!(tokio::time::Instant::now() < deadline, "it does not recover");
    }

    // Where there is none for a connection to a backend, one to another that had no request makes room.
    let mut client = tokio::net::TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(b"GET /kept HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let (head, early) = support::read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    support::read_exactly(&mut client, early, support::length(&head)).await;
    let open = &proxy.plane.metrics().upstream_connections_open;
    let local = |count| support::counted(&proxy, &format!("penstock_upstream_connect_failures_total{{reason=\"local\"}} {count}"));
    until("the connection is not kept", || open.get() == 1).await;
    let other = StdListener::bind("127.0.0.1:0").unwrap();
    let more = model(vec![route("/", backend), route("/other", other.local_addr().unwrap())]);
    proxy.plane.publish(&more, &BTreeMap::new());
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    let taken = files.len();
    client.write_all(b"GET /other HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    until("no room was made", || local(1) && open.get() == 1).await;
    files.pop();
    let (mut asked, _) = other.accept().unwrap();
    asked.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    // Until the proxy has closed it: else its descriptor would be free only after all others are taken.
    asked.set_read_timeout(Some(PATIENCE)).unwrap();
    asked.read_to_end(&mut Vec::new()).unwrap();
    drop(asked);
    let (head, _) = support::read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    // Nor is a backend to blame that cannot be connected for want of one. Those of the connection that made room, of which the backend closes its
    // end when it comes to it, are taken as well: one that is free later would serve the request.
    let all = taken + 2;
    until("not all are closed", || {
        files.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
        files.len() >= all
    })
    .await;
    client.write_all(GET.as_bytes()).await.unwrap();
    let (head, _) = support::read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 502"), "{head}");
    assert!(local(2));
    assert_eq!(proxy.plane.metrics().upstream_ejections.get(), 0);
}

/// Hundredths of a second of processor time that this process took (proc(5), `/proc/[pid]/stat`). Read through a descriptor that is open
/// already: there may be no other.
fn cpu_ticks() -> u64 {
    use std::{
        io::{Seek, SeekFrom},
        sync::{Mutex, OnceLock},
    };
    static STAT: OnceLock<Mutex<File>> = OnceLock::new();
    let mut text = String::new();
    let mut file = STAT.get_or_init(|| Mutex::new(File::open("/proc/self/stat").unwrap())).lock().unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
