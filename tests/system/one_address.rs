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
