//! The systemd unit, as far as it can be seen without systemd: what is sent to it, and that the unit makes what its command needs.

use std::{fs, os::unix::net::UnixDatagram};

use crate::support::{PATIENCE, Penstock, proxy_route, write};

#[test]
fn systemd_is_told_when_it_serves_and_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut message = [0; 256];
        let length = socket.recv(&mut message).expect("a state is sent to NOTIFY_SOCKET");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let routes = folder.path().join("r.yaml");
    write(&routes, &proxy_route("r", "r.test", "http://127.0.0.1:9"));
    let mut penstock = Penstock::spawn(&["serve", routes.to_str().unwrap()], &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    assert_eq!(hear(), "READY=1");
    // Said no sooner than it holds.
    assert_eq!(penstock.ask_admin("/readyz").0, 200);
    penstock.terminate();
    assert_eq!(hear(), "STOPPING=1");
    assert_eq!(penstock.wait(), Some(0));
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0]).is_err(), "more was sent");
}

#[test]
fn the_unit_makes_the_folder_that_its_command_serves() {
    let unit = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/systemd/penstock.service")).unwrap();
    let setting = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
    let served = setting("ExecStart").rsplit(' ').next().unwrap();
    let made = setting("ConfigurationDirectory").split(' ').map(|name| format!("/etc/{name}"));
    assert!(made.into_iter().any(|folder| folder == served), "{served} is not made: the first start would fail");
}
