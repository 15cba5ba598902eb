//! Floods by endpoints of HTTP/2: the connection is given up within bounds, what was under way on it fares as if it had broken, and others are served.

use crate::{
    endpoints::{Case, Step, case, data, hello, ok, run, run_in_turn},
    frames::{CONTINUATION, DATA, EH, ES, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block},
    support::http2::frame,
};

const HELLO: &str = "200 chunked \"hello\"";
/// Frames in one write.
const AT_ONCE: usize = 1000;

fn flood(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Step {
    Step::Flood(frame(kind, flags, stream, payload).repeat(AT_ONCE))
}

#[tokio::test]
async fn floods_by_endpoints_cost_their_connection_alone() {
    // The stage's own word came on stream 1; the case's request is stream 3.
    const OVER: u32 = 1;
    const OWN: u32 = 3;
    let before = |name, source, step: Step| case(name, source, vec![step], HELLO, 1).again(hello());
    let within = |name, source, step: Step| {
        case(name, source, vec![ok(0), data("hello", 0), Step::Begun, step], "200 chunked \"hello\" cut", 1)
    };
    let post = |case: Case| case.asked_by("POST").gets("502");
    let pings = || flood(PING, 0, 0, &[7; 8]);
    run(vec![
        before("pings", "CVE-2019-9512", pings()),
        within("pings within a body", "CVE-2019-9512", pings()),
        post(case("pings", "CVE-2019-9512", vec![pings()], HELLO, 1)),
        before("answers to pings of nobody", "CVE-2019-9512", flood(PING, 1, 0, &[7; 8])),
        before("settings", "CVE-2019-9515", flood(SETTINGS, 0, 0, &[])),
        before(
            "settings that move all windows",
            "CVE-2019-9515",
            Step::Flood([255_u8, 254].map(|low| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, low])).concat().repeat(AT_ONCE)),
        ),
        before("windows opened by a byte", "CVE-2019-9511", flood(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        before("a stream's window opened by a byte", "CVE-2019-9511", flood(WINDOW_UPDATE, 0, OWN, &1_u32.to_be_bytes())),
        before("priorities", "CVE-2019-9513", flood(PRIORITY, 0, OWN, &[0, 0, 0, 1, 7])),
        before("frames that nobody knows", "RFC 9113 §10.5", flood(77, 0, 0, &[])),
        before("resets of a stream that is over", "CVE-2019-9514", flood(RST_STREAM, 0, OVER, &8_u32.to_be_bytes())),
        within("empty data", "CVE-2019-9518", flood(DATA, 0, OWN, &[])),
        case("resets of the request", "CVE-2019-9514", vec![flood(RST_STREAM, 0, OWN, &8_u32.to_be_bytes())], "502", 1),
        case(
            "empty pieces of a head",
            "CVE-2024-27316",
            vec![Step::On(HEADERS, 0, block(&[(":status", "200")])), flood(CONTINUATION, 0, OWN, &[])],
            "502",
            1,
        ),
    ])
    .await;
}

/// h2 takes 100 pieces of DATA that hold nothing in the life of a connection.
#[tokio::test]
async fn empty_data_in_each_response_costs_no_request_its_connection() {
    let answer = || vec![ok(0), data("", 0), data("hello", 0), data("", 0), data("", ES)];
    let empty = || case("a response that is flushed with nothing", "RFC 9113 §6.1", answer(), HELLO, 0);
    run_in_turn(std::iter::repeat_with(empty).take(120).collect()).await;
    // Where it has no place, it is a fault as ever.
    let misplaced = frame(DATA, 0, 3, &[]);
    run(vec![
        case("empty data of no stream", "RFC 9113 §6.1", vec![Step::Raw(frame(DATA, 0, 0, &[]))], "502", 1),
        case(
            "empty data within a head",
            "RFC 9113 §6.10",
            vec![Step::On(HEADERS, 0, block(&[(":status", "200")])), Step::Raw(misplaced), Step::On(CONTINUATION, EH, Vec::new())],
            "502",
            1,
        ),
    ])
    .await;
}
