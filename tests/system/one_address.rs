//! `proxy`: one address under one name.

use std::process::Command;

use crate::support::{Backend, Penstock, WebSocket};

#[test]
fn one_address_is_served_under_one_name_with_nothing_to_write() {
    let backend = Backend::start("home");
    let penstock = Penstock::start(&["proxy", "--from", "code.test", "--to", &backend.url()]);
    assert_eq!(penstock.get("code.test", "/"), (200, "home".to_owned()));
    assert_eq!(penstock.get("other.test", "/").0, 404);
    WebSocket::open(penstock.http, "code.test").echo("hello");
}

#[test]
fn a_backend_that_is_not_there_is_named_in_the_log() {
    let port = crate::support::free_port();
    let penstock = Penstock::start(&["proxy", "--from", "a.test", "--to", &format!("http://127.0.0.1:{port}")]);
    assert_eq!(penstock.get("a.test", "/").0, 502);
    let line = penstock.told("could not be forwarded");
    assert!(line.contains("WARN") && line.contains(&format!("127.0.0.1:{port}")) && line.contains("refused"), "{line}");
}

#[test]
fn a_certificate_that_cannot_be_served_ends_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let pair = || rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
    let (one, two) = (pair(), pair());
    std::fs::write(path("cert"), one.cert.pem()).unwrap();
    std::fs::write(path("key"), two.signing_key.serialize_pem()).unwrap();
    for (cert, key) in [("cert", "key"), ("cert", "cert"), ("none", "key")] {
        let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
            .args(["proxy", "--from", "a.test", "--to", "http://127.0.0.1:1", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0"])
            .args(["--admin", "off", "--cert", &path(cert), "--key", &path(key)])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("--cert, --key: "), "{cert} {key}: {said}");
    }
}

#[test]
fn slips_on_the_command_line_are_named_by_their_flag() {
    for (arguments, expected) in [
        (vec!["proxy", "--from", "a.test", "--to", "ftp://x"], "--to"),
        (vec!["proxy", "--from", "a b", "--to", "http://127.0.0.1:1"], "--from"),
        (vec!["serve", "/does/not/exist"], "/does/not/exist"),
        (vec!["proxy", "--from", "a.test", "--to", "http://127.0.0.1:1", "--http", "nonsense"], "--http"),
        (vec!["proxy", "--from", "a.test", "--to", "http://127.0.0.1:1", "--drain-grace", "soon"], "--drain-grace"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_penstock")).args(&arguments).args(["--admin", "off"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{arguments:?}: {said}");
    }
}

#[test]
fn a_port_that_another_process_holds_is_refused_by_name() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(["proxy", "--from", "a.test", "--to", "http://127.0.0.1:1", "--http", &address, "--https", "off", "--admin", "off"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("--http") && said.contains("in use"), "{said}");
}
