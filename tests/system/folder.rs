//! `serve` on a folder: edit, break, mend, symlink swap, PEM files renewed.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use crate::support::{Backend, Penstock, WebSocket, eventually, proxy_route, served_certificate, write};

/// The sockets that a process listens on, by inode.
fn listeners(process: u32) -> BTreeSet<String> {
    let own: BTreeSet<String> = fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .filter_map(|entry| {
            Some(fs::read_link(entry.ok()?.path()).ok()?.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned())
        })
        .collect();
    let tables = ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/{process}/net/{name}")).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1)).map(|line| line.split_whitespace().collect::<Vec<_>>());
    // State 0A: listening.
    lines.filter(|fields| fields[3] == "0A" && own.contains(fields[9])).map(|fields| fields[9].to_owned()).collect()
}

#[test]
fn edits_are_live_a_broken_file_costs_nobody_anything_and_sockets_stay() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
    write(&a, &proxy_route("a", "a.test", &one.url()));
    write(&b, &proxy_route("b", "b.test", &two.url()));
    let penstock = Penstock::start(&["serve", folder.path().to_str().unwrap()]);
    assert_eq!(penstock.get("a.test", "/"), (200, "one".to_owned()));
    let mut socket = WebSocket::open(penstock.http, "a.test");
    socket.echo("before");
    let listening = listeners(penstock.id());
    assert!(listening.len() >= 3, "http, https and admin: {listening:?}");

    write(&a, &proxy_route("a", "a.test", &two.url()));
    eventually("the edit is live", || (penstock.get("a.test", "/").1 == "two").then_some(()));
    write(&a, "kind: [");
    let line = format!("{}:1:", a.display());
    eventually("the broken file is named with its line", || penstock.log().contains(&line).then_some(()));
    assert_eq!(penstock.get("a.test", "/"), (200, "two".to_owned()), "its last good state serves on");
    assert_eq!(penstock.get("b.test", "/"), (200, "two".to_owned()));
    write(&a, &proxy_route("a", "a.test", &one.url()));
    eventually("the mended file is live", || (penstock.get("a.test", "/").1 == "one").then_some(()));
    fs::remove_file(&a).unwrap();
    eventually("the removed route is gone", || (penstock.get("a.test", "/").0 == 404).then_some(()));
    for step in 0..100 {
        let url = if step % 2 == 0 { one.url() } else { two.url() };
        write(&a, &proxy_route("a", "a.test", &url));
        if step % 10 == 9 {
            let expected = if step % 2 == 0 { "one" } else { "two" };
            eventually("the edit is live", || (penstock.get("a.test", "/").1 == expected).then_some(()));
            socket.echo(&format!("after edit {step}"));
        }
    }
    assert_eq!(listeners(penstock.id()), listening, "no listener is opened or closed by an edit");
}

/// Makes edits one after the other and waits for each to be live; says how long each took.
fn edits(penstock: &Penstock, how_many: usize, mut edit: impl FnMut(usize) -> &'static str) -> Vec<Duration> {
    let took = (0..how_many).map(|number| {
        let began = Instant::now();
        let expected = edit(number);
        eventually("an edit is live", || (penstock.get("r.test", "/").1 == expected).then_some(()));
        began.elapsed()
    });
    took.collect()
}

/// Half of them at least within a second: others may have had a busy machine. Were the files only looked at from time to time, all would be
/// seconds late.
fn are_live_within_a_second(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    println!("{what}: {took:?}");
    assert!(took[took.len() / 2] < Duration::from_secs(1), "{what}: {took:?}");
}

#[test]
fn an_edit_is_live_within_a_second_however_the_files_are_linked() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let (to_one, to_two) = (proxy_route("r", "r.test", &one.url()), proxy_route("r", "r.test", &two.url()));
    let version = |number: usize| if number.is_multiple_of(2) { (&to_two, "two") } else { (&to_one, "one") };
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    for path in ["plain", "linked", "available", "releases/1", "releases/2"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    for path in ["plain/r.yaml", "available/r.yaml", "releases/1/r.yaml"] {
        write(&at(path), &to_one);
    }
    symlink("../available/r.yaml", at("linked/r.yaml")).unwrap();
    symlink("releases", at("current")).unwrap();

    let penstock = Penstock::start(&["serve", at("plain").to_str().unwrap()]);
    let edit = |path: &Path, number| {
        let (text, expected) = version(number);
        write(path, text);
        expected
    };
    are_live_within_a_second("a file in the folder", edits(&penstock, 6, |number| edit(&at("plain/r.yaml"), number)));
    let swap = |number| {
        let next = at(&format!("next{number}"));
        fs::create_dir(&next).unwrap();
        let expected = edit(&next.join("r.yaml"), number);
        fs::rename(at("plain"), at(&format!("old{number}"))).unwrap();
        fs::rename(next, at("plain")).unwrap();
        expected
    };
    are_live_within_a_second("another folder in its place", edits(&penstock, 6, swap));
    are_live_within_a_second("a file in that one", edits(&penstock, 6, |number| edit(&at("plain/r.yaml"), number)));
    drop(penstock);

    let penstock = Penstock::start(&["serve", at("linked").to_str().unwrap()]);
    are_live_within_a_second("what a link leads to", edits(&penstock, 6, |number| edit(&at("available/r.yaml"), number)));
    drop(penstock);

    let penstock = Penstock::start(&["serve", at("current/1").to_str().unwrap()]);
    are_live_within_a_second("below a linked folder", edits(&penstock, 6, |number| edit(&at("releases/1/r.yaml"), number)));
}

#[test]
fn sighup_reads_again_and_ends_nothing() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.yaml");
    write(&file, &proxy_route("r", "r.test", &one.url()));
    let penstock = Penstock::start(&["serve", "--watch=false", folder.path().to_str().unwrap()]);
    let mut socket = WebSocket::open(penstock.http, "r.test");
    write(&file, &proxy_route("r", "r.test", &two.url()));
    assert_eq!(penstock.get("r.test", "/").1, "one");
    penstock.signal("HUP");
    eventually("the edit is live", || (penstock.get("r.test", "/").1 == "two").then_some(()));
    socket.echo("still open");
}

#[test]
fn a_folder_swapped_through_a_symlink_is_followed() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let folder = tempfile::tempdir().unwrap();
    for (version, backend) in [("v1", &one), ("v2", &two)] {
        fs::create_dir(folder.path().join(version)).unwrap();
        write(&folder.path().join(version).join("r.yaml"), &proxy_route("r", "r.test", &backend.url()));
    }
    // As a mounted ConfigMap is: files are links through a hidden link that is swapped.
    let mount = folder.path().join("mount");
    fs::create_dir(&mount).unwrap();
    symlink("../v1", mount.join("..data")).unwrap();
    symlink("..data/r.yaml", mount.join("r.yaml")).unwrap();
    let penstock = Penstock::start(&["serve", mount.to_str().unwrap()]);
    assert_eq!(penstock.get("r.test", "/").1, "one");
    symlink("../v2", mount.join("..next")).unwrap();
    fs::rename(mount.join("..next"), mount.join("..data")).unwrap();
    eventually("the swap is live", || (penstock.get("r.test", "/").1 == "two").then_some(()));
}

fn certificate(folder: &Path, name: &str) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(vec!["p.test".to_owned()]).unwrap();
    write(&folder.join(format!("{name}.crt")), &made.cert.pem());
    write(&folder.join(format!("{name}.key")), &made.signing_key.serialize_pem());
    made.cert.der().to_vec()
}

#[test]
fn renewed_pem_files_are_served_to_the_next_handshake() {
    let backend = Backend::start("one");
    let folder = tempfile::tempdir().unwrap();
    // As certbot does: a link in the live folder, swapped to the next files.
    let first = certificate(folder.path(), "one");
    let second = certificate(folder.path(), "two");
    for end in ["crt", "key"] {
        symlink(format!("one.{end}"), folder.path().join(format!("live.{end}"))).unwrap();
    }
    let routes = folder.path().join("r.yaml");
    write(&routes, &proxy_route("p", "p.test", &backend.url()).replace("  rules:", "  tls: {secretName: pem}\n  rules:"));
    let pair = format!("pem={0}/live.crt,{0}/live.key", folder.path().display());
    let penstock = Penstock::start(&["serve", routes.to_str().unwrap(), "--tls-secret", &pair]);
    assert!(served_certificate(penstock.https, "p.test") == first, "not the first certificate");
    for end in ["crt", "key"] {
        symlink(format!("two.{end}"), folder.path().join("next")).unwrap();
        fs::rename(folder.path().join("next"), folder.path().join(format!("live.{end}"))).unwrap();
    }
    eventually("the renewed certificate is served", || (served_certificate(penstock.https, "p.test") == second).then_some(()));
}
