//! Whom a request is for, and what it asks for: targets, hosts, and paths that lead around a guard.

use penstock_model::{AddressRules, PathForm, PathMatch, PathRewrite, Route};
use penstock_proxy::Limits;

use tokio::io::AsyncWriteExt;

use crate::{
    case::{When, case},
    frames::{Connection, EH, ES, HEADERS, block},
    stage::{ALONE, Over, Stage, run, stage, stage_of},
    support::{http2::frame, route},
};

const REFUSED: &str = "400; closes";

#[tokio::test]
async fn targets_and_hosts() {
    let request = |line: &str, fields: &str| format!("{line} HTTP/1.1\r\n{fields}\r\n");
    let bad = |name, source, line: &str, fields: &str| case(name, source, request(line, fields), REFUSED, "");
    let host = |name, value: &str| bad(name, "RFC 9112 §3.2", "GET /x", &format!("Host: {value}\r\n"));
    let good = |name, line: &str, fields: &str, gets, passes| case(name, "RFC 9112 §3.2", request(line, fields), gets, passes);
    let cases = vec![
        bad("no Host", "RFC 9112 §3.2", "GET /x", ""),
        bad("two Hosts", "RFC 9112 §3.2", "GET /x", "Host: a\r\nHost: b\r\n"),
        bad("two equal Hosts", "RFC 9112 §3.2", "GET /x", "Host: a\r\nhost: a\r\n"),
        bad("an absolute target without Host", "RFC 9112 §3.2.2", "GET http://a/x", ""),
        bad("an absolute target and two Hosts", "RFC 9112 §3.2.2", "GET http://a/x", "Host: a\r\nHost: b\r\n"),
        bad("an absolute target and nonsense as Host", "RFC 9112 §3.2.2", "GET http://a/x", "Host: a b\r\n"),
        host("an empty Host", ""),
        host("userinfo in Host", "u@a"),
        host("a path in Host", "a/x"),
        host("a query in Host", "a?x"),
        host("a fragment in Host", "a#x"),
        host("a backslash in Host", "a\\b"),
        host("a list of hosts", "a, b"),
        host("a blank in Host", "a b"),
        host("a port that is none", "a:b"),
        host("a port with a sign", "a:+80"),
        host("a port that is too large", "a:65536"),
        host("two ports", "a:80:80"),
        host("a bracket without an end", "[::1"),
        host("an address that is none", "[::g]"),
        host("bytes above 127 in Host", "\u{e4}"),
        host("angle brackets in Host", "<a>"),
        bad("userinfo in the target", "RFC 9110 §4.2.4", "GET http://u@a/x", "Host: a\r\n"),
        bad("another scheme", "RFC 9112 §3.2.2", "GET ftp://a/x", "Host: a\r\n"),
        bad("no host in the target", "RFC 9110 §4.2.1", "GET http:///x", "Host: a\r\n"),
        bad("a relative target", "RFC 9112 §3.2", "GET x", "Host: a\r\n"),
        bad("an authority for GET", "RFC 9112 §3.2.3", "GET a:80", "Host: a\r\n"),
        bad("an asterisk for GET", "RFC 9112 §3.2.4", "GET *", "Host: a\r\n"),
        bad("a fragment", "RFC 9112 §3.2", "GET /x#y", "Host: a\r\n"),
        bad("a path for CONNECT", "RFC 9112 §3.2.3", "CONNECT /x", "Host: a\r\n"),
        case("CONNECT", "RFC 9110 §9.3.6", request("CONNECT a:80", "Host: a:80\r\n"), "405; closes", ""),
        good(
            "an escape in Host stays one, and names no other host",
            "GET /x",
            "Host: %61\r\n",
            "200 length \"/x\"; stays",
            "GET /x for %61",
        ),
        case(
            "HTTP/2's own method",
            "RFC 9113 §3.4",
            "GET /x HTTP/1.1\r\nHost: a\r\n\r\nPRI /x HTTP/1.1\r\nHost: a\r\n\r\n",
            "200 length \"/x\"; 501; stays",
            "GET /x for a",
        ),
        case(
            "HTTP/2's preface behind a request",
            "RFC 9113 §3.4",
            "GET /x HTTP/1.1\r\nHost: a\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "200 length \"/x\"; 505; closes",
            "GET /x for a",
        ),
        good("TRACE", "TRACE /x", "Host: a\r\n", "405; stays", ""),
        bad("an absolute target whose host is none", "RFC 9112 §3.2.2", "GET http://[::g]/x", "Host: a\r\n"),
        bad("an absolute target whose port is none", "RFC 9112 §3.2.2", "GET http://a:99999/x", "Host: a\r\n"),
        bad("an absolute target with a fragment", "RFC 9112 §3.2.2", "GET http://a/x#y", "Host: a\r\n"),
        bad("an absolute target for CONNECT", "RFC 9112 §3.2.3", "CONNECT http://a/x", "Host: a\r\n"),
        bad("a NUL in Host", "RFC 9112 §3.2", "GET /x", "Host: a\0b\r\n"),
        bad("a DEL in Host", "RFC 9112 §3.2", "GET /x", "Host: a\x7f\r\n"),
        bad("a label that is too long", "RFC 1035 §2.3.4", "GET /x", &format!("Host: {}\r\n", "a".repeat(300))),
        case("two Hosts in HTTP/1.0", "RFC 9112 §3.2", "GET /x HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", REFUSED, ""),
        good("OPTIONS of a path", "OPTIONS /x", "Host: a\r\n", "200 length \"/x\"; stays", "OPTIONS /x for a"),
        case(
            "OPTIONS of the server, with a body",
            "RFC 9110 §9.3.7",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
            "204; 200 length \"/x\"; stays",
            "GET /x for a",
        ),
        case(
            "OPTIONS of the server, its framing doubtful",
            "RFC 9112 §6.1",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            REFUSED,
            "",
        ),
        good("an escape that is none", "GET /%zz", "Host: a\r\n", "400; stays", ""),
        good("an escape that is cut", "GET /x%4", "Host: a\r\n", "400; stays", ""),
        good("an escaped NUL", "GET /x%00y", "Host: a\r\n", "400; stays", ""),
        good("OPTIONS of the server", "OPTIONS *", "Host: a\r\n", "204; stays", ""),
        good(
            "an absolute target wins over Host",
            "GET http://b.test:81/x?y",
            "Host: a\r\n",
            "200 length \"/x?y\"; stays",
            "GET /x?y for b.test:81",
        ),
        good(
            "an absolute target without a path",
            "GET HTTP://b.test?y",
            "Host: a\r\n",
            "200 length \"/?y\"; stays",
            "GET /?y for b.test",
        ),
        good(
            "a query may hold anything",
            "GET /x?a=/../%2e%00;b//c\\[]{}|^",
            "Host: a\r\n",
            "200 length \"/x?a=/../%2e%00;b//c\\\\[]{}|^\"; stays",
            "GET /x?a=/../%2e%00;b//c\\[]{}|^ for a",
        ),
        good("dots are resolved", "GET /a/./b/../%2e%2e/x", "Host: a\r\n", "200 length \"/x\"; stays", "GET /x for a"),
        good("dots do not lead above the root", "GET /../../x", "Host: a\r\n", "200 length \"/x\"; stays", "GET /x for a"),
        good(
            "slashes and their escapes stay",
            "GET //a%2fb%5c..//x",
            "Host: a\r\n",
            "200 length \"//a%2fb%5c..//x\"; stays",
            "GET //a%2fb%5c..//x for a",
        ),
        case(
            "HTTP/1.0 without a Host",
            "RFC 9112 §3.2",
            "GET /x HTTP/1.0\r\n\r\n",
            "200 length \"/x\"; closes",
            "GET /x for itself",
        ),
    ];
    run(&stage().await, cases).await;
}

/// A route that keeps all out on `/admin`, and one beside it that keeps nobody out.
fn guarded(address: std::net::SocketAddr, form: PathForm, path: &PathMatch) -> Vec<Route> {
    let mut routes = vec![route("/admin", address), route("/", address)];
    routes[0].policies.addresses = AddressRules { allow: Vec::new(), deny: vec!["0.0.0.0/0".parse().unwrap()] };
    routes[0].matches.path = path.clone();
    for route in &mut routes {
        route.matches.form = form;
        if form == PathForm::Decoded {
            let penstock_model::Action::Forward(forward) = &mut *route.action else { unreachable!() };
            forward.path = PathRewrite::AsReceived;
        }
    }
    routes
}

const DENIED: &str = "403; stays";
const DOUBTED: &str = "400; stays";

/// A path, and what a normalised and a decoded guard make of it.
type Spelling = (&'static str, &'static str, &'static str);

const SPELLINGS: &[Spelling] = &[
    ("/admin", DENIED, DENIED),
    ("/admin/", DENIED, DENIED),
    ("/admin?x", DENIED, DENIED),
    ("/%61dmin", DENIED, DENIED),
    ("/%61%64%6D%69%6e/x", DENIED, DENIED),
    ("/./admin", DENIED, DENIED),
    ("/%2e/admin", DENIED, DENIED),
    ("/x/../admin", DENIED, DENIED),
    ("/x/%2E%2e/admin/y", DENIED, DENIED),
    ("/x/.%2e/admin", DENIED, DENIED),
    ("/../admin", DENIED, DOUBTED),
    ("/admin/x/..", DENIED, DENIED),
    ("/admin/./", DENIED, DENIED),
    ("http://b/admin", DENIED, DENIED),
    ("http://b/x/../admin", DENIED, DENIED),
    ("/admin%2f..", DOUBTED, DOUBTED),
    ("/admin%2fx", DOUBTED, DENIED),
    ("/admin/..%2fx", DENIED, DOUBTED),
    ("//admin", DOUBTED, DENIED),
    ("/x//../admin", "200 as /x/admin", DENIED),
    ("/x/..//admin", DOUBTED, DENIED),
    ("/x%2f..%2fadmin", DOUBTED, DENIED),
    ("/%2fadmin", DOUBTED, DENIED),
    ("/admin;x", DOUBTED, DOUBTED),
    ("/admin;x/y", DOUBTED, DOUBTED),
    ("/;x/admin", DOUBTED, DOUBTED),
    ("/..;/admin", DOUBTED, DOUBTED),
    ("/ADMIN", "200", "200"),
    ("/admin%00", DOUBTED, DOUBTED),
    ("/admin%20", "200", "200"),
    ("/admin.", "200", "200"),
    ("/admin\\", DOUBTED, DOUBTED),
    ("\\admin", REFUSED, REFUSED),
    ("/%2561dmin", "200", "200"),
    ("/%c1%a1dmin", "200", "200"),
    ("/admin/../x", "200 as /x", DOUBTED),
    ("/x/..%2fadmin", DOUBTED, DENIED),
    ("/x/%2e%2e%2fadmin", DOUBTED, DENIED),
    ("/x\\..\\admin", DOUBTED, DOUBTED),
    ("/x%5c..%5cadmin", DOUBTED, DOUBTED),
    ("/admin%3fx", "200", "200"),
    ("/admin%23", "200", "200"),
    ("/admin%252fx", "200", "200"),
    ("/admin%2e", "200 as /admin.", "200"),
    ("/%2e%2e/%2e%2e/admin", DENIED, DOUBTED),
    ("/admin/%2e%2e/admin", DENIED, DENIED),
    ("http://b//admin", DOUBTED, DENIED),
];

/// The same of a guard of `/admin` alone.
const SPELLINGS_OF_ONE: &[Spelling] = &[
    ("/admin", DENIED, DENIED),
    ("/admin?x", DENIED, DENIED),
    ("/%61dmin", DENIED, DENIED),
    ("/%61%64%6D%69%6e", DENIED, DENIED),
    ("/./admin", DENIED, DENIED),
    ("/%2e/%61dmin", DENIED, DENIED),
    ("/x/%2E%2e/admin", DENIED, DENIED),
    ("/../admin", DENIED, DOUBTED),
    ("/admin/../admin", DENIED, DENIED),
    ("/admin/", "200", "200"),
    ("/admin/.", "200 as /admin/", "200"),
    ("/admin/x/..", "200 as /admin/", "200"),
    ("/admin/x", "200", "200"),
    ("//admin", DOUBTED, DENIED),
    ("/x/..//admin", DOUBTED, DENIED),
    ("/%2fadmin", DOUBTED, DENIED),
    // As a slash behind it: another path.
    ("/admin%2f", "200", "200"),
    ("/x%2f..%2fadmin", DOUBTED, DENIED),
    ("/x/..%2fadmin", DOUBTED, DENIED),
    ("/admin;x", DOUBTED, DOUBTED),
    ("/;x/admin", DOUBTED, DOUBTED),
    ("/..;/admin", DOUBTED, DOUBTED),
    ("/x\\..\\admin", DOUBTED, DOUBTED),
    ("/admin%00", DOUBTED, DOUBTED),
    ("/%2561dmin", "200", "200"),
];

/// By a prefix, by a pattern that holds the same, and of one path alone, for which what lies below is not its own; with what they make of each spelling.
fn guards() -> impl Iterator<Item = (PathForm, PathMatch, &'static [Spelling])> {
    let pattern = PathMatch::Regex { pattern: "/admin(/.*)?$".into(), ignore_case: false };
    let guards = [
        (PathMatch::Prefix("/admin".into()), SPELLINGS),
        (pattern, SPELLINGS),
        (PathMatch::Exact("/admin".into()), SPELLINGS_OF_ONE),
    ];
    [PathForm::Normalised, PathForm::Decoded]
        .into_iter()
        .flat_map(move |form| guards.clone().map(|(matched, spellings)| (form, matched, spellings)))
}

/// What each form makes of a path, and what the backend sees of it: no path that any reading of slashes, escapes or parameters takes for `/admin`.
#[tokio::test]
async fn no_spelling_of_a_path_passes_by_its_guard() {
    for (form, matched, spellings) in guards() {
        let stage = stage_of(Limits::default(), |address| guarded(address, form, &matched)).await;
        let mut cases = Vec::new();
        for (path, normalised, decoded) in spellings {
            let gets = if form == PathForm::Normalised { *normalised } else { *decoded };
            let request = format!("GET {path} HTTP/1.1\r\nHost: b\r\n\r\n");
            let (gets, passes) = match gets.strip_prefix("200") {
                None => (gets.to_owned(), String::new()),
                Some(seen) => {
                    let seen = seen.strip_prefix(" as ").unwrap_or(path);
                    (format!("200 length \"{}\"; stays", seen.escape_default()), format!("GET {seen} for b"))
                }
            };
            cases.push(case(
                format!("{path} as {form:?}, {matched:?}"),
                "RFC 3986 §6.2.2; CVE-2021-29492, CVE-2021-41773",
                request,
                gets,
                passes,
            ));
        }
        run(&stage, cases).await;
    }
}

/// A stream of its own for each path. h2 refuses by itself what is no path at all.
async fn over_http2(stage: &Stage, path: &str) -> String {
    stage.begin(&[], When::Request);
    let mut connection = Connection::open(stage, &[]).await;
    let request = |path: &str| block(&[(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "b")]);
    let word = format!("/word/{}", stage.word());
    let both = [frame(HEADERS, EH | ES, 1, &request(path)), frame(HEADERS, EH | ES, 3, &request(&word))];
    connection.stream.write_all(&both.concat()).await.unwrap();
    connection.outcome(true).await.0
}

/// The client got what the guard makes of a path, and the backend nothing, or the path as it must be.
async fn came_as(stage: &Stage, path: &str, wanted: &str, got: &str, told: &str) {
    let seen = match wanted.strip_prefix("200") {
        None => {
            assert_eq!(got, &wanted[..3], "{told}");
            String::new()
        }
        Some(seen) => {
            let seen = seen.strip_prefix(" as ").unwrap_or(path);
            assert_eq!(got, format!("200 \"{}\"", seen.escape_default()), "{told}");
            format!("GET {seen} for b")
        }
    };
    stage.passed(&seen).await.unwrap_or_else(|why| panic!("{told}: {why}"));
}

#[tokio::test]
async fn no_spelling_of_a_path_passes_by_its_guard_over_http2() {
    for (form, matched, spellings) in guards() {
        let stage = stage_of(Limits::default(), |address| guarded(address, form, &matched)).await;
        for over in [Over::Tcp, Over::Tls] {
            stage.over.set(over);
            for (path, normalised, decoded) in spellings.iter().filter(|(path, ..)| path.starts_with('/')) {
                let _alone = ALONE.lock().await;
                let wanted = if form == PathForm::Normalised { *normalised } else { *decoded };
                let got = over_http2(&stage, path).await;
                let told = format!("{path} as {form:?}, {matched:?}, {over:?} (RFC 9113 §8.3.1; CVE-2021-29492)");
                came_as(&stage, path, wanted, &got, &told).await;
                stage.others_are_served().await.unwrap();
            }
        }
    }
}
