//! HTTP/2 to endpoints that end badly, or take nothing: whatever they do, the connection to them is closed and the request is over in time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use penstock_model::{Model, Timeouts};
use penstock_proxy::Limits;
use support::{
    GET, PATIENCE, Proxy, backend, get,
    http2::{self, PREFACE, frame},
    met, read_exactly, read_head, route, start_within, until,
};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::mpsc};

const SHORT: Duration = Duration::from_millis(300);
/// SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 §6.5.2): all that there can be, and nothing.
const WIDE: [u8; 6] = [0, 4, 0x7f, 0xff, 0xff, 0xff];
const CLOSED: [u8; 6] = [0, 4, 0, 0, 0, 0];
/// `:status: 200` by its number in the static table (RFC 7541, appendix A).
const OK: [u8; 1] = [0x88];

/// A connection to an endpoint, frame by frame.
struct Endpoint {
    stream: TcpStream,
    /// What it said in SETTINGS is known there.
    acknowledged: bool,
}

impl Endpoint {
    /// Says SETTINGS, and reads up to the head of the first request; gives its stream.
    async fn asked(stream: TcpStream, settings: &[u8]) -> (Self, u32) {
        let mut this = Self { stream, acknowledged: false };
        assert_eq!(read_exactly(&mut this.stream, Vec::new(), PREFACE.len()).await, PREFACE);
        this.say(4, 0, 0, settings).await;
        let number = this.next(1).await.0;
        (this, number)
    }

    /// One that has answered a request, so that its SETTINGS hold for what follows.
    async fn warm(proxy: &Proxy, connections: &mut mpsc::UnboundedReceiver<TcpStream>, settings: &[u8]) -> Self {
        let asking = async {
            let (head, _) = get(proxy, GET).await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        };
        let answering = async {
            let (mut this, number) = Self::asked(connection(connections).await, settings).await;
            while !this.acknowledged {
                this.read().await;
            }
            this.answer(number).await;
            this
        };
        tokio::join!(asking, answering).1
    }

    async fn say(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.stream.write_all(&frame(kind, flags, stream, payload)).await.unwrap();
    }

    /// The whole of a response.
    async fn answer(&mut self, stream: u32) {
        self.say(1, 5, stream, &OK).await;
    }

    /// A frame's kind, its stream, and what it says.
    async fn read(&mut self) -> (u8, u32, Vec<u8>) {
        let head = read_exactly(&mut self.stream, Vec::new(), 9).await;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = read_exactly(&mut self.stream, Vec::new(), length).await;
        self.acknowledged |= (head[3], head[4]) == (4, 1);
        (head[3], u32::from_be_bytes(head[5..9].try_into().unwrap()), payload)
    }

    /// Reads up to a frame of this kind; gives its stream, and what it says.
    async fn next(&mut self, wanted: u8) -> (u32, Vec<u8>) {
        loop {
            let (kind, stream, payload) = self.read().await;
            if kind == wanted {
                return (stream, payload);
            }
            assert_ne!(kind, 0, "a window that is closed was passed");
        }
    }
}

/// A backend whose connections are given to the test.
async fn given() -> (SocketAddr, mpsc::UnboundedReceiver<TcpStream>) {
    let (give, given) = mpsc::unbounded_channel();
    let address = backend(move |stream| {
        let _ = give.send(stream);
        std::future::ready(())
    })
    .await;
    (address, given)
}

async fn connection(given: &mut mpsc::UnboundedReceiver<TcpStream>) -> TcpStream {
    tokio::time::timeout(PATIENCE, given.recv()).await.expect("nobody connects").unwrap()
}

/// To this endpoint, within these limits of the route's.
fn proxy_to(address: SocketAddr, timeouts: impl FnOnce(&mut Timeouts), limits: Limits) -> Proxy {
    let mut made = route("/", address);
    timeouts(&mut made.policies.timeouts);
    start_within(limits, &http2::to_http2(made))
}

fn unlimited(timeouts: &mut Timeouts) {
    timeouts.read = None;
    timeouts.send = None;
}

async fn no_connection_is_left(proxy: &Proxy) {
    let open = &proxy.plane.metrics().upstream_connections_open;
    until("a connection to an endpoint stays open", || open.get() == 0).await;
}

async fn no_request_is_left(proxy: &Proxy) {
    until("a request stays", || proxy.plane.metrics().requests_in_flight.get() == 0).await;
}

const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n";

/// Sends a body until nothing goes for a moment.
async fn fill(client: &mut TcpStream) {
    let block = vec![0; 64 * 1024];
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), client.write(&block)).await {
        written.unwrap();
    }
}

/// What is still to be written when the endpoint's end is seen can be written to nobody.
#[tokio::test]
async fn a_connection_whose_endpoint_dies_while_it_is_written_to_is_closed() {
    for breaks_rules in [false, true] {
        let (address, mut connections) = given().await;
        let proxy = proxy_to(address, unlimited, Limits::default());
        let mut client = TcpStream::connect(proxy.http).await.unwrap();
        client.write_all(POST).await.unwrap();
        let (mut endpoint, _) = Endpoint::asked(connection(&mut connections).await, &WIDE).await;
        // The window of the connection is as wide.
        endpoint.say(8, 0, 0, &0x7fff_0000_u32.to_be_bytes()).await;
        fill(&mut client).await;
        if breaks_rules {
            // A PING of another length, at which we say GOAWAY (RFC 9113 §6.7).
            endpoint.say(6, 0, 0, &[0; 7]).await;
        } else {
            endpoint.stream.shutdown().await.unwrap();
        }
        let (head, _) = read_head(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 502"), "{head}");
        // What it did not read makes the kernel send a reset.
        drop(endpoint);
        no_connection_is_left(&proxy).await;
    }
}

/// What the endpoint is told in the end of a stream: RST_STREAM with CANCEL.
async fn is_given_up(endpoint: &mut Endpoint, stream: u32) {
    assert_eq!(endpoint.next(3).await, (stream, 8_u32.to_be_bytes().to_vec()));
}

#[tokio::test]
async fn promise_9_an_upload_to_a_window_that_stays_closed_ends_in_time() {
    let (address, mut connections) = given().await;
    let limited = |timeouts: &mut Timeouts| {
        timeouts.read = None;
        timeouts.send = Some(SHORT);
    };
    let proxy = proxy_to(address, limited, Limits::default());
    let mut endpoint = Endpoint::warm(&proxy, &mut connections, &CLOSED).await;
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(POST).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    let stream = endpoint.next(1).await.0;
    let (head, _) = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 504"), "{head}");
    assert_eq!(met(&proxy, "response_time"), 1);
    is_given_up(&mut endpoint, stream).await;
    // Another, whose response is over before its body is; nothing came over that connection, which may be dead and gets no more requests.
    let mut endpoint = Endpoint::warm(&proxy, &mut connections, &CLOSED).await;
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(POST).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    let stream = endpoint.next(1).await.0;
    endpoint.answer(stream).await;
    let (head, _) = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    is_given_up(&mut endpoint, stream).await;
    http2::closes(&mut client).await;
    until("the client's connection stays", || support::counted(&proxy, "penstock_connections_open{listener=\"http\"} 0")).await;
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_while_its_upload_waits_for_the_endpoint() {
    let (address, mut connections) = given().await;
    let proxy = proxy_to(address, unlimited, Limits::default());
    let mut endpoint = Endpoint::warm(&proxy, &mut connections, &CLOSED).await;
    let mut sender = http2::client(&proxy).await;
    let mut post = || {
        let request = Request::post("https://a.test/").body(()).unwrap();
        let (answer, mut out) = sender.send_request(request, false).unwrap();
        out.send_data(Bytes::from_static(b"hello"), false).unwrap();
        (answer, out)
    };
    let left = post();
    let stream = endpoint.next(1).await.0;
    drop(left);
    is_given_up(&mut endpoint, stream).await;
    no_request_is_left(&proxy).await;
    // Another, which has its whole response.
    let (answer, out) = post();
    let stream = endpoint.next(1).await.0;
    endpoint.answer(stream).await;
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    drop((answer, out));
    is_given_up(&mut endpoint, stream).await;
}

#[tokio::test]
async fn a_shared_connection_that_nobody_needs_is_closed_after_its_time() {
    let (address, mut connections) = given().await;
    let proxy = proxy_to(address, unlimited, Limits { upstream_idle_time: SHORT, ..Limits::default() });
    let mut endpoint = Endpoint::warm(&proxy, &mut connections, &[]).await;
    // Also when no route leads there any more.
    proxy.plane.publish(&Arc::new(Model::default()), &BTreeMap::new());
    let farewell = http2::closes(&mut endpoint.stream).await;
    let last = &farewell[farewell.len() - 17..];
    assert_eq!((last[3], &last[13..]), (7, &[0; 4][..]), "not a GOAWAY with NO_ERROR: {last:?}");
    no_connection_is_left(&proxy).await;
}

#[tokio::test]
async fn what_an_endpoint_does_not_take_on_one_connection_goes_over_another() {
    /// SETTINGS_MAX_CONCURRENT_STREAMS.
    const TWO: [u8; 6] = [0, 3, 0, 0, 0, 2];
    let (address, mut connections) = given().await;
    let proxy = proxy_to(address, |_| {}, Limits::default());
    let mut first = Endpoint::warm(&proxy, &mut connections, &TWO).await;
    let answering = async {
        let (one, two) = (first.next(1).await.0, first.next(1).await.0);
        let (mut second, three) = Endpoint::asked(connection(&mut connections).await, &TWO).await;
        first.answer(one).await;
        first.answer(two).await;
        second.answer(three).await;
    };
    let (one, two, three, ()) = tokio::join!(get(&proxy, GET), get(&proxy, GET), get(&proxy, GET), answering);
    for (head, _) in [one, two, three] {
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
}

/// One more request goes over the same connection.
async fn serves_on(proxy: &Proxy, endpoint: &mut Endpoint, connections: &mut mpsc::UnboundedReceiver<TcpStream>) {
    let answering = async {
        let stream = endpoint.next(1).await.0;
        endpoint.answer(stream).await;
    };
    let ((head, _), ()) = tokio::join!(get(proxy, GET), answering);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(connections.try_recv().is_err(), "the shared connection was lost");
}

/// What an endpoint sent before it knew of a reset comes for a stream that is forgotten here, and is answered by a reset (RFC 9113 §5.1). h2 lets 1024
/// of those happen in the life of a connection.
#[tokio::test]
async fn clients_that_leave_cost_the_others_no_connection() {
    const AT_ONCE: usize = 90;
    const ROUNDS: usize = 30;
    let (address, mut connections) = given().await;
    let proxy = proxy_to(address, unlimited, Limits::default());
    let mut endpoint = Endpoint::warm(&proxy, &mut connections, &WIDE).await;
    for _ in 0..ROUNDS {
        let mut clients = Vec::new();
        let mut streams = Vec::new();
        for _ in 0..AT_ONCE {
            let mut client = TcpStream::connect(proxy.http).await.unwrap();
            client.write_all(GET.as_bytes()).await.unwrap();
            let stream = endpoint.next(1).await.0;
            endpoint.say(1, 4, stream, &OK).await;
            read_head(&mut client).await;
            clients.push(client);
            streams.push(stream);
        }
        drop(clients);
        for _ in 0..AT_ONCE {
            endpoint.next(3).await;
        }
        for stream in streams {
            endpoint.say(0, 0, stream, b"x").await;
        }
    }
    serves_on(&proxy, &mut endpoint, &mut connections).await;
}

/// Each of the messages is small, and h2 weighs them as if they were not (CVE-2019-9511).
#[tokio::test]
async fn clients_that_do_not_read_small_messages_cost_the_others_no_connection() {
    const MESSAGES: usize = 60_000;
    let (address, mut connections) = given().await;
    let proxy = proxy_to(address, unlimited, Limits::default());
    let mut endpoint = Endpoint::warm(&proxy, &mut connections, &WIDE).await;
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    let asks = |stream| frame(1, 5, stream, http2::GET_BLOCK);
    http2::said(&mut client, &[frame(4, 0, 0, &CLOSED), asks(1), asks(3)]).await;
    for _ in 0..2 {
        let stream = endpoint.next(1).await.0;
        endpoint.say(1, 4, stream, &OK).await;
        endpoint.stream.write_all(&frame(0, 0, stream, b"small").repeat(MESSAGES)).await.unwrap();
    }
    serves_on(&proxy, &mut endpoint, &mut connections).await;
}
