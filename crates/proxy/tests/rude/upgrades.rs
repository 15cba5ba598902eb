//! Upgrades: who asks how, what the backend makes of it, and whose the bytes are that come early.

use crate::{
    case::{Step, case, say},
    stage::{run, stage},
};

/// To `raw`, with these fields besides.
fn ask(fields: &str, after: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n{fields}\r\n{after}")
}

fn switched(to: &str, after: &str) -> Vec<Step> {
    vec![say(format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {to}\r\n\r\n{after}")), Step::Echo]
}

const ASKED: &str = "GET /x for a Connection: Upgrade Upgrade: raw";
const REFUSED: &str = "502; stays";

#[tokio::test]
async fn who_asks() {
    let upgrade = |fields: &str| format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let ok = "200 length \"/x\"; stays";
    let plain = "GET /x for a";
    let cases = vec![
        case("without Connection", "RFC 9110 §7.8", upgrade("Upgrade: raw\r\n"), ok, plain),
        case("Connection that lists something else", "RFC 9110 §7.8", upgrade("Connection: upgrades\r\nUpgrade: raw\r\n"), ok, plain),
        case("Connection alone", "RFC 9110 §7.8", upgrade("Connection: Upgrade\r\n"), ok, plain),
        case("an empty Upgrade", "RFC 9110 §7.8", upgrade("Connection: Upgrade\r\nUpgrade:\r\n"), ok, plain),
        case("h2c", "RFC 9113 §3.1; CVE-2021-29492", upgrade("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"), ok, plain),
        case("h2c in another case, and by a list of its own", "CVE-2020-8658", upgrade("Connection: Upgrade\r\nUpgrade: H2C,h2c/2\r\n"), ok, plain),
        case("TLS", "RFC 2817 §3", upgrade("Connection: Upgrade\r\nUpgrade: TLS/1.0, HTTP/1.1\r\n"), ok, plain),
        case("HTTP/1.0", "RFC 9110 §7.8", "GET /x HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n", "200 length \"/x\"; closes", plain),
        case(
            "with a body",
            "RFC 9110 §7.8",
            "POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\nContent-Length: 2\r\n\r\nhi",
            ok,
            "POST /x for a length \"hi\"",
        ),
        case(
            "with a body, and it is switched all the same",
            "RFC 9110 §7.8",
            "POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            REFUSED,
            "POST /x for a chunked \"hi\"",
        )
        .says(switched("raw", "")[..1].to_vec()),
        case("unasked", "RFC 9110 §15.2.2", upgrade(""), REFUSED, plain).says(switched("raw", "GET /y HTTP/1.1\r\n\r\n")[..1].to_vec()),
        case("h2c is asked for beside another, which goes on alone", "CVE-2021-29492", upgrade("Connection: Upgrade\r\nUpgrade: h2c, raw\r\n"), "101 Upgrade: raw; tunnel \"ping\"", format!("{ASKED}; tunnel \"ping\""))
            .says(switched("raw", "")),
        case("h2c is switched to, which nobody asked for", "CVE-2021-29492", upgrade("Connection: Upgrade\r\nUpgrade: h2c, raw\r\n"), REFUSED, ASKED)
            .says(switched("h2c", "")[..1].to_vec()),
    ];
    run(&stage().await, cases).await;
}

#[tokio::test]
async fn what_is_answered() {
    let refused = |name, source, answer: &str| {
        case(name, source, ask("", ""), REFUSED, ASKED)
            .says(vec![say(format!("HTTP/1.1 101 Switching Protocols\r\n{answer}\r\n")), Step::Await])
    };
    let ordinary =
        |name, answer: &str, gets| case(name, "RFC 9110 §7.8", ask("", ""), gets, ASKED).says(vec![say(answer.to_owned())]);
    let cases = vec![
        refused("another protocol", "RFC 9110 §15.2.2", "Connection: Upgrade\r\nUpgrade: other\r\n"),
        refused("two protocols", "RFC 9110 §15.2.2", "Connection: Upgrade\r\nUpgrade: raw, other\r\n"),
        refused("no protocol", "RFC 9110 §15.2.2", "Connection: Upgrade\r\n"),
        refused("a protocol without Connection", "RFC 9110 §15.2.2", "Upgrade: raw\r\n"),
        ordinary("200", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 length \"ok\"; stays"),
        ordinary(
            "200 that speaks of an upgrade",
            "HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: raw\r\nContent-Length: 2\r\n\r\nok",
            "200 length \"ok\"; stays",
        ),
        ordinary(
            "426",
            "HTTP/1.1 426 No\r\nServer: x\r\nConnection: Upgrade\r\nUpgrade: raw\r\nContent-Length: 0\r\n\r\n",
            "426 length \"\"; stays",
        ),
        case(
            "a length in a 101 does not go on",
            "RFC 9110 §8.6",
            ask("", ""),
            "101 Upgrade: raw; tunnel \"ping\"",
            format!("{ASKED}; tunnel \"ping\""),
        )
        .says(switched("raw\r\nContent-Length: 5\r\nX-Hop: 1\r\nConnection: x-hop", "")),
        case(
            "another response before a 101",
            "RFC 9110 §15.2",
            ask("", ""),
            "103 Link: x; 101 Upgrade: raw; tunnel \"ping\"",
            format!("{ASKED}; tunnel \"ping\""),
        )
        .says([vec![say("HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n")], switched("raw", "")].concat()),
    ];
    run(&stage().await, cases).await;
}

#[tokio::test]
async fn what_comes_early() {
    let next = "GET /y HTTP/1.1\r\nHost: a\r\n\r\n";
    let cases = vec![
        case(
            "from the client, and it is switched: it is the tunnel's",
            "RFC 9110 §7.8; CVE-2026-2833",
            ask("", next),
            "101 Upgrade: raw; tunnel \"GET /y HTTP/1.1\\r\\nHost: a\\r\\n\\r\\nping\"",
            format!("{ASKED}; tunnel \"GET /y HTTP/1.1\\r\\nHost: a\\r\\n\\r\\nping\""),
        )
        .says(switched("raw", "")),
        case(
            "from the client, and it is not switched: it is the next request",
            "RFC 9110 §7.8; CVE-2026-2833",
            ask("", next),
            "200 length \"ok\"; 200 length \"ok\"; stays",
            format!("{ASKED}; GET /y for a"),
        )
        .says(vec![say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]),
        case(
            "from the client, and nobody takes the switch: what follows is a request",
            "RFC 9110 §7.8",
            ask("", next),
            "502; 502; stays",
            format!("{ASKED}; GET /y for a"),
        )
        .says(switched("other", "")[..1].to_vec()),
        case(
            "from the backend: it is the tunnel's",
            "RFC 9110 §15.2.2",
            ask("", ""),
            "101 Upgrade: raw; tunnel \"HTTP/1.1 200 OK\\r\\n\\r\\nping\"",
            format!("{ASKED}; tunnel \"ping\""),
        )
        .says(switched("raw", "HTTP/1.1 200 OK\r\n\r\n")),
    ];
    run(&stage().await, cases).await;
}
