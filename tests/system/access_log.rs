//! The access log, as a program that reads it gets it.

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::{Backend, Penstock, WebSocket, eventually, request};

fn ask(address: SocketAddr, path: &str, agent: &str) -> u16 {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n")).0
}

#[test]
fn each_request_is_one_line_of_json_whatever_the_client_sends() {
    let backend = Backend::start("one");
    let penstock = Penstock::start(&["proxy", "--from", "a.test", "--to", &backend.url(), "--access-log", "json"]);
    assert_eq!(ask(penstock.http, "/x?q=1", "a \"quoted\\ agent\u{1}\x7f"), 400, "no such header");
    assert_eq!(ask(penstock.http, "/x?q=1", "a \"quoted\\ agent"), 200);
    assert_eq!(penstock.get("nobody.test", "/").0, 404);
    let mut socket = WebSocket::open(penstock.http, "a.test");
    socket.echo("hello");
    drop(socket);
    let lines = eventually("four requests and a tunnel are logged", || {
        let lines: Vec<Value> = penstock.output().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (lines.len() >= 3 && lines.iter().any(|line| line["status"] == 101)).then_some(lines)
    });
    let served = lines.iter().find(|line| line["status"] == 200).unwrap();
    for (field, expected) in [
        ("client", "127.0.0.1"),
        ("host", "a.test"),
        ("path", "/x?q=1"),
        ("userAgent", "a \"quoted\\ agent"),
        ("name", "proxy"),
        ("endpoint", &backend.address.to_string()),
    ] {
        assert_eq!(served[field], expected, "{served}");
    }
    assert!(served["duration"].as_f64().unwrap() > 0.0);
    let unread = lines.iter().find(|line| line["status"] == 400).unwrap();
    assert!(unread["note"].as_str().unwrap().contains("the head cannot be read"), "{unread}");
    let unknown = lines.iter().find(|line| line["status"] == 404).unwrap();
    assert!(unknown["note"].as_str().unwrap().contains("host"), "{unknown}");
    let tunnel = lines.iter().find(|line| line["status"] == 101).unwrap();
    assert!(tunnel["bytesReceived"].as_u64().unwrap() > 5 && tunnel["bytesSent"].as_u64().unwrap() > 5, "{tunnel}");
}

#[test]
fn the_combined_form_is_what_web_servers_write() {
    let backend = Backend::start("one");
    let penstock = Penstock::start(&["proxy", "--from", "a.test", "--to", &backend.url(), "--access-log", "combined"]);
    assert_eq!(ask(penstock.http, "/x", "curl \"8\""), 200);
    let line = eventually("a line", || penstock.output().lines().next().map(ToOwned::to_owned));
    assert!(line.starts_with("127.0.0.1 - - [") && line.contains("] \"GET /x HTTP/1.1\" 200 3 \"-\" \"curl "), "{line}");
    assert!(!line.contains("\"8\""), "quotes are escaped: {line}");
}

#[test]
fn bare_probes_of_a_port_leave_no_line() {
    let backend = Backend::start("one");
    let penstock = Penstock::start(&["proxy", "--from", "a.test", "--to", &backend.url(), "--access-log", "json"]);
    let before = penstock.log();
    for _ in 0..20 {
        for address in [penstock.http, penstock.https] {
            drop(std::net::TcpStream::connect(address).unwrap());
        }
    }
    eventually("all are accepted", || (penstock.metric("penstock_connections_accepted_total", "") >= 40.0).then_some(()));
    eventually("all are over", || (penstock.metric("penstock_connections_open", "") == 0.0).then_some(()));
    assert_eq!(penstock.log(), before);
    assert_eq!(penstock.output(), "");
}
