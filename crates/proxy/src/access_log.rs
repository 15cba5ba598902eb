//! The access log: one line per request, as JSON or in the combined form, on standard output.
//!
//! The thread that served the request writes the line into memory and hands it over; one thread writes them out. Handing over
//! never waits: if the reader of standard output is slow, lines are dropped and counted. Whatever a client sends, it can't end a
//! line or forge a field.

mod queue;

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
    io::{self, Write},
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use penstock_model::ObjectRef;
use prometheus_client::metrics::counter::Counter;

use queue::Queue;

/// What a thread keeps for the next line, of one that was longer.
const USUAL_LINE: usize = 4 * 1024;

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The form of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogFormat {
    #[default]
    Off,
    Json,
    /// As Apache and nginx call it; tools such as GoAccess read it.
    Combined,
}

/// What is told of a request.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When the request's head had come.
    pub time: SystemTime,
    pub client: IpAddr,
    pub scheme: &'a str,
    pub method: &'a str,
    pub host: &'a str,
    /// As received, with the query.
    pub path: &'a str,
    pub protocol: &'a str,
    pub status: u16,
    /// Of the request's body.
    pub bytes_received: u64,
    /// Of the response's body.
    pub bytes_sent: u64,
    pub duration: Duration,
    pub request_id: &'a str,
    pub user_agent: Option<&'a [u8]>,
    pub referer: Option<&'a [u8]>,
    /// None: no route was met.
    pub route: Option<Route<'a>>,
    pub upstream: Option<Upstream<'a>>,
    /// Why the proxy answered itself, or how the response or tunnel ended, if not in the common way.
    pub note: Option<&'a str>,
}

/// The route that a request met.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    pub object: &'a ObjectRef,
    pub rule: &'a str,
}

/// To whom a request went last.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a> {
    pub backend: &'a str,
    pub endpoint: std::net::SocketAddr,
    /// From the first byte sent until the response's head.
    pub head_after: Option<Duration>,
    /// How often the request was sent.
    pub attempts: u32,
}

/// Where records go. Clones share one writer.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: AccessLogFormat,
    queue: Option<Queue>,
    dropped: Counter,
}

impl AccessLog {
    /// Writes to standard output. `dropped` counts the lines that nobody took.
    pub fn start(format: AccessLogFormat, dropped: Counter) -> io::Result<Self> {
        Self::start_on(format, dropped, io::stdout())
    }

    /// Writes to something else.
    pub fn start_on(format: AccessLogFormat, dropped: Counter, out: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = (format != AccessLogFormat::Off).then(|| Queue::start(out)).transpose()?;
        Ok(Self { format, queue, dropped })
    }

    /// Whether records are wanted: if not, there is no need to gather them.
    pub fn enabled(&self) -> bool {
        self.queue.is_some()
    }

    /// Hands a record over. Never waits.
    pub fn log(&self, record: &Record<'_>) {
        let Some(queue) = &self.queue else { return };
        let taken = LINE.with_borrow_mut(|line| {
            line.clear();
            match self.format {
                AccessLogFormat::Off => return true,
                AccessLogFormat::Json => json(line, record),
                AccessLogFormat::Combined => combined(line, record),
            }
            line.push(b'\n');
            let taken = queue.put(line);
            line.shrink_to(USUAL_LINE);
            taken
        });
        if !taken {
            self.dropped.inc();
        }
    }

    /// Writes what was handed over so far and ends. Returns whether that was done within the time; a reader that takes nothing
    /// can't hold the process up for longer.
    pub fn shutdown(&self, within: Duration) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.end(within))
    }
}

fn json(line: &mut Vec<u8>, record: &Record<'_>) {
    let mut fields = Fields { line, first: true };
    fields.name("time");
    fields.line.push(b'"');
    rfc3339(fields.line, record.time);
    fields.line.push(b'"');
    fields.plain("client", format_args!("\"{}\"", record.client));
    fields.text("scheme", record.scheme.as_bytes());
    fields.text("method", record.method.as_bytes());
    fields.text("host", record.host.as_bytes());
    fields.text("path", record.path.as_bytes());
    fields.text("protocol", record.protocol.as_bytes());
    fields.number("status", record.status.into());
    fields.number("bytesReceived", record.bytes_received);
    fields.number("bytesSent", record.bytes_sent);
    fields.seconds("duration", record.duration);
    fields.text("requestId", record.request_id.as_bytes());
    if let Some(agent) = record.user_agent {
        fields.text("userAgent", agent);
    }
    if let Some(referer) = record.referer {
        fields.text("referer", referer);
    }
    if let Some(route) = record.route {
        fields.text("kind", route.object.kind.as_bytes());
        fields.text("namespace", route.object.namespace.as_bytes());
        fields.text("name", route.object.name.as_bytes());
        fields.text("rule", route.rule.as_bytes());
    }
    if let Some(upstream) = record.upstream {
        fields.text("backend", upstream.backend.as_bytes());
        fields.plain("endpoint", format_args!("\"{}\"", upstream.endpoint));
        if let Some(after) = upstream.head_after {
            fields.seconds("upstreamDuration", after);
        }
        if upstream.attempts > 1 {
            fields.number("attempts", upstream.attempts.into());
        }
    }
    if let Some(note) = record.note {
        fields.text("note", note.as_bytes());
    }
    line.push(b'}');
}

struct Fields<'a> {
    line: &'a mut Vec<u8>,
    first: bool,
}

impl Fields<'_> {
    fn name(&mut self, name: &str) {
        self.line.extend_from_slice(if std::mem::take(&mut self.first) { b"{\"" } else { b",\"" });
        self.line.extend_from_slice(name.as_bytes());
        self.line.extend_from_slice(b"\":");
    }

    /// Names and values that need no escaping.
    fn plain(&mut self, name: &str, value: fmt::Arguments<'_>) {
        self.name(name);
        let _ = self.line.write_fmt(value);
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        digits(self.line, value, 1);
    }

    fn seconds(&mut self, name: &str, value: Duration) {
        self.number(name, value.as_secs());
        self.line.push(b'.');
        digits(self.line, value.subsec_micros().into(), 6);
    }

    fn text(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        // Nearly all is so, and is copied as it stands.
        if value.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
            self.line.push(b'"');
            self.line.extend_from_slice(value);
            self.line.push(b'"');
        } else {
            let _ = write!(self.line, "{}", JsonString(value));
        }
    }
}

/// A number in so many digits at least.
fn digits(line: &mut Vec<u8>, number: u64, least: usize) {
    let begin = line.len();
    let mut rest = number;
    while rest > 0 || line.len() < begin + least {
        line.push(b'0' + (rest % 10) as u8);
        rest /= 10;
    }
    if let Some(written) = line.get_mut(begin..) {
        written.reverse();
    }
}

/// What is no UTF-8 shows as U+FFFD.
struct JsonString<'a>(&'a [u8]);

impl fmt::Display for JsonString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for chunk in self.0.utf8_chunks() {
            let mut rest = chunk.valid();
            while let Some(at) = rest.find(|c: char| c == '"' || c == '\\' || c.is_control()) {
                let (plain, after) = rest.split_at_checked(at).unwrap_or((rest, ""));
                f.write_str(plain)?;
                let mut characters = after.chars();
                match characters.next() {
                    Some(c @ ('"' | '\\')) => write!(f, "\\{c}")?,
                    Some(c) => write!(f, "\\u{:04x}", u32::from(c))?,
                    None => {}
                }
                rest = characters.as_str();
            }
            f.write_str(rest)?;
            if !chunk.invalid().is_empty() {
                f.write_char('\u{fffd}')?;
            }
        }
        f.write_char('"')
    }
}

/// `client - - [time] "request line" status bytes "referer" "user agent"` (Apache's `combined`; user names are not known here).
fn combined(line: &mut Vec<u8>, record: &Record<'_>) {
    let _ = write!(
        line,
        "{} - - [{}] \"{} {} {}\" {} {} \"{}\" \"{}\"",
        record.client,
        Common(record.time),
        Quoted(record.method.as_bytes()),
        Quoted(record.path.as_bytes()),
        Quoted(record.protocol.as_bytes()),
        record.status,
        record.bytes_sent,
        Quoted(record.referer.unwrap_or(b"-")),
        Quoted(record.user_agent.unwrap_or(b"-")),
    );
}

/// As nginx escapes: quote, backslash and all that is not printable ASCII as `\xHH`.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            match byte {
                b'"' | b'\\' | ..=0x1f | 0x7f.. => write!(f, "\\x{byte:02X}")?,
                byte => f.write_char(char::from(*byte))?,
            }
        }
        Ok(())
    }
}

/// A moment in UTC, broken down.
struct Utc {
    year: u64,
    month: usize,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    millis: u32,
}

impl Utc {
    fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        // Years counted from 1 March 0000, in cycles of 400 years (146 097 days): the leap day is the last of its year.
        let shifted = days + 719_468;
        let of_cycle = shifted % 146_097;
        let year_of_cycle = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
        let day_of_year = of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Self {
            year: shifted / 146_097 * 400 + year_of_cycle + u64::from(month <= 2),
            month: month as usize,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
            millis: since.subsec_millis(),
        }
    }
}

/// `2000-10-10T13:55:36.123Z` (RFC 3339).
fn rfc3339(line: &mut Vec<u8>, time: SystemTime) {
    let Utc { year, month, day, hour, minute, second, millis } = Utc::of(time);
    let parts = [(year, 4, b'-'), (month as u64, 2, b'-'), (day, 2, b'T'), (hour, 2, b':'), (minute, 2, b':'), (second, 2, b'.')];
    for (number, least, after) in parts.into_iter().chain([(millis.into(), 3, b'Z')]) {
        digits(line, number, least);
        line.push(after);
    }
}

/// `10/Oct/2000:13:55:36 +0000`
struct Common(SystemTime);

impl fmt::Display for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let Utc { year, month, day, hour, minute, second, .. } = Utc::of(self.0);
        let month = MONTHS.get(month - 1).unwrap_or(&"");
        write!(f, "{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
    }
}

#[cfg(test)]
mod tests {
    use std::{io::BufRead, sync::mpsc};

    use proptest::prelude::*;

    use super::*;

    fn record(object: &ObjectRef) -> Record<'_> {
        Record {
            time: UNIX_EPOCH + Duration::from_millis(1_795_492_800_123),
            client: "2001:db8::7".parse().unwrap(),
            scheme: "https",
            method: "GET",
            host: "a.example",
            path: "/x?y=\"1\"",
            protocol: "HTTP/2.0",
            status: 200,
            bytes_received: 1,
            bytes_sent: 1234,
            duration: Duration::from_micros(1_500_042),
            request_id: "abc",
            user_agent: Some(b"curl/8\n\xff\"\\"),
            referer: None,
            route: Some(Route { object, rule: "main" }),
            upstream: Some(Upstream {
                backend: "http://ns/s:80",
                endpoint: "10.0.0.1:8080".parse().unwrap(),
                head_after: Some(Duration::from_millis(2)),
                attempts: 2,
            }),
            note: None,
        }
    }

    #[derive(Clone)]
    struct Shared(mpsc::Sender<Vec<u8>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn json_lines_hold_all_fields() {
        let object = ObjectRef::new("ProxyRoute", "ns", "r");
        let mut line = Vec::new();
        json(&mut line, &record(&object));
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let expected = serde_json::json!({
            "time": "2026-11-24T04:00:00.123Z", "client": "2001:db8::7", "scheme": "https", "method": "GET", "host": "a.example",
            "path": "/x?y=\"1\"", "protocol": "HTTP/2.0", "status": 200, "bytesReceived": 1, "bytesSent": 1234, "duration": 1.500_042,
            "requestId": "abc", "userAgent": "curl/8\n\u{fffd}\"\\", "kind": "ProxyRoute", "namespace": "ns", "name": "r",
            "rule": "main", "backend": "http://ns/s:80", "endpoint": "10.0.0.1:8080", "upstreamDuration": 0.002, "attempts": 2,
        });
        assert_eq!(value, expected);
        assert!(!line.contains(&b'\n'));
    }

    #[test]
    fn combined_lines_have_the_known_form() {
        let object = ObjectRef::new("ProxyRoute", "ns", "r");
        let mut line = Vec::new();
        combined(&mut line, &record(&object));
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "2001:db8::7 - - [24/Nov/2026:04:00:00 +0000] \"GET /x?y=\\x221\\x22 HTTP/2.0\" 200 1234 \"-\" \"curl/8\\x0A\\xFF\\x22\\x5C\""
        );
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (1_735_689_600, "2025-01-01T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut line = Vec::new();
            rfc3339(&mut line, UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(String::from_utf8(line).unwrap(), expected);
        }
    }

    #[test]
    fn shutdown_writes_what_was_handed_over() {
        let (sender, written) = mpsc::channel();
        let log = AccessLog::start_on(AccessLogFormat::Combined, Counter::default(), Shared(sender)).unwrap();
        let object = ObjectRef::new("Ingress", "ns", "i");
        for _ in 0..100 {
            log.clone().log(&record(&object));
        }
        assert!(log.shutdown(Duration::from_secs(10)));
        let lines: Vec<u8> = written.try_iter().flatten().collect();
        assert_eq!(lines.lines().count(), 100);
        log.log(&record(&object));
        assert_eq!(log.dropped.get(), 1);
    }

    #[test]
    fn a_reader_that_takes_nothing_costs_lines_and_never_time() {
        struct Stuck(mpsc::Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = mpsc::channel::<()>();
        let log = AccessLog::start_on(AccessLogFormat::Combined, Counter::default(), Stuck(stuck)).unwrap();
        let object = ObjectRef::new("Ingress", "ns", "i");
        // What is being written, and what waits; no line is shorter.
        for _ in 0..2 * queue::MOST / 100 {
            log.log(&record(&object));
        }
        assert!(log.dropped.get() > 0);
        assert!(!log.shutdown(Duration::from_millis(50)));
        drop(release);
    }

    #[test]
    fn off_costs_nothing() {
        let log = AccessLog::start(AccessLogFormat::Off, Counter::default()).unwrap();
        assert!(!log.enabled());
        log.log(&record(&ObjectRef::new("Ingress", "ns", "i")));
        assert!(log.shutdown(Duration::ZERO));
        assert_eq!(log.dropped.get(), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_client_break_a_line(agent in prop::collection::vec(any::<u8>(), 0..60), path in any::<String>()) {
            let object = ObjectRef::new("Ingress", "ns", "i");
            let record = Record { user_agent: Some(&agent), path: &path, ..record(&object) };
            let mut line = Vec::new();
            json(&mut line, &record);
            prop_assert!(!line.iter().any(|byte| *byte < 0x20));
            let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(value["path"].as_str().unwrap(), &path);
            let agent = String::from_utf8_lossy(&agent);
            prop_assert_eq!(value["userAgent"].as_str().unwrap(), &*agent);
            line.clear();
            combined(&mut line, &record);
            prop_assert!(line.iter().all(|byte| (0x20..0x7f).contains(byte)));
            prop_assert_eq!(line.split(|byte| *byte == b'"').count(), 7);
        }
    }
}
