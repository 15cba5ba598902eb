//! What a kept GET asks of the kernel: two reads, two writes, two waits. Counted from outside, in the real binary, by strace.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ChildStderr, Command, Stdio},
};

use crate::support::{Backend, Penstock, connect};

const REQUESTS: u64 = 500;
/// In a hundred requests: what the clock of each worker does four times a second, and scrapes of nobody. A call more in each would be a hundred.
const BESIDES: u64 = 20;

const REQUEST: &[u8] = b"GET /a/b?c=d HTTP/1.1\r\nHost: a.test\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n\r\n";

fn ask(client: &mut TcpStream) {
    client.write_all(REQUEST).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.ends_with(b"\r\n\r\n....") {
        let read = client.read(&mut buffer).unwrap();
        assert!(read > 0, "closed: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..read]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

/// Counts the system calls of all threads of a process.
struct Strace {
    child: Child,
    /// Kept open: it says something when it ends as well.
    _said: BufReader<ChildStderr>,
    table: tempfile::NamedTempFile,
}

impl Strace {
    fn attach(process: u32) -> Self {
        let table = tempfile::NamedTempFile::new().unwrap();
        let mut child = Command::new("strace")
            .args(["-c", "-f", "-U", "calls,name", "-p", &process.to_string(), "-o"])
            .arg(table.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is needed");
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let strace = Self { child, _said: said, table };
        assert!(line.contains("attached"), "strace cannot look at a process of the same user: {line}");
        strace
    }

    /// Calls by their names.
    fn detach(mut self) -> BTreeMap<String, u64> {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap();
        let text = fs::read_to_string(self.table.path()).unwrap();
        let lines = text.lines().filter_map(|line| {
            let (count, name) = line.trim().split_once(char::is_whitespace)?;
            Some((name.trim().to_owned(), count.parse().ok()?))
        });
        lines.filter(|(name, _)| name != "total").collect()
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_kept_get_takes_two_reads_two_writes_and_two_waits() {
    // It answers each request with one write.
    let backend = Backend::start("....");
    let penstock = Penstock::start(&["proxy", "--from", "a.test", "--to", &backend.url(), "--workers", "1"]);
    let mut client = connect(penstock.http);
    (0..50).for_each(|_| ask(&mut client));
    let strace = Strace::attach(penstock.id());
    (0..REQUESTS).for_each(|_| ask(&mut client));
    let calls = strace.detach();
    let sum = |names: &[&str]| -> u64 { names.iter().filter_map(|name| calls.get(*name)).sum() };
    let besides = REQUESTS * BESIDES / 100;
    println!("{REQUESTS} requests: {calls:?}");
    for (what, names, each) in [
        ("reads", &["recvfrom", "read", "readv", "recvmsg"][..], 2),
        ("writes", &["sendto", "write", "writev", "sendmsg"], 2),
        ("waits", &["epoll_wait", "epoll_pwait", "epoll_pwait2"], 2),
    ] {
        let count = sum(names);
        assert!(count <= REQUESTS * each + besides, "{count} {what} in {REQUESTS} requests: {calls:?}");
        // Two things may be ready after one wait; nothing is read or written without a call.
        assert!(count >= REQUESTS * each || what == "waits", "not all was counted: {calls:?}");
    }
    let all: u64 = calls.values().sum();
    assert!(all <= REQUESTS * 6 + 2 * besides, "{all} calls in {REQUESTS} requests: {calls:?}");
}
