//! HTTP/2 and HPACK as the RFCs have them: every case of h2spec, the strict ones too, over TLS and by prior knowledge in plain text. None is
//! skipped; over TLS none may fail, in plain text the one that [`NOT_HTTP2`] names.

use std::process::{Command, Stdio};

use axum::{Router, body::Bytes};

use crate::support::{Penstock, proxy_route, write};

/// All that the pinned version (tests/h2spec/go.mod) has: fewer would be cases that did not run.
const CASES: usize = 146;
/// Seconds that a case waits for an answer or an end. It is a bound against hanging: no case that passes waits for it.
const TIMEOUT: &str = "20";
/// What cannot pass where one port speaks HTTP/1.1 and HTTP/2: whoever does not begin with the preface of HTTP/2 speaks HTTP/1.1, and gets its 400
/// before the end. h2spec takes nothing but the end (case 2 of section 3.5).
const NOT_HTTP2: &str = "2: Sends invalid connection preface";

/// Builds it if that was not done yet; gives the program.
fn h2spec() -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/h2spec/build");
    let output = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{script} failed; it needs Go 1.26 or newer");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn every_case_of_h2spec_passes() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // Whatever is asked, it reads the body whole and answers with one that takes more than a window of one byte.
    let backend = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(async |_: Bytes| "a backend behind a proxy\n");
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    });
    let folder = tempfile::tempdir().unwrap();
    // Without hosts: h2spec asks for the address that it connects to.
    let route = proxy_route("any", "any.test", &format!("http://{backend}")).replace("  hosts: [any.test]\n", "");
    write(&folder.path().join("any.yaml"), &route);
    let penstock = Penstock::start(&["serve", folder.path().to_str().unwrap()]);
    let h2spec = h2spec();

    for (transport, address, flags, exceptions) in
        [("TLS", penstock.https, &["-t", "-k"][..], &[][..]), ("plain text", penstock.http, &[], &[NOT_HTTP2])]
    {
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let output = Command::new(&h2spec)
            .args(["--strict", "--timeout", TIMEOUT, "-h", &host, "-p", &port])
            .args(flags)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let summary = text.lines().rev().find(|line| line.contains(" tests, ")).unwrap_or("it tells nothing");
        println!("{transport}: {summary}");
        // It lists again at the end what failed, with what was expected and seen.
        let failures = text.split_once("Failures:").map_or("", |(_, failures)| failures);
        let wrong = format!("{transport}: {summary}\n{failures}\n{}", String::from_utf8_lossy(&output.stderr));
        let failed: Vec<_> = failures.lines().filter_map(|line| line.trim().strip_prefix("× ")).collect();
        assert_eq!(failed, exceptions, "{wrong}");
        let passed = CASES - exceptions.len();
        assert_eq!(summary, format!("{CASES} tests, {passed} passed, 0 skipped, {} failed", exceptions.len()), "{wrong}");
        assert_eq!(output.status.success(), exceptions.is_empty(), "{wrong}");
    }
    assert!(penstock.metric("penstock_panics_total", "") < 1.0, "a panic");
}
