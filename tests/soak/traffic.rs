//! What clients do: the ones that behave, each of which checks what it gets, and the ones that do not.

use std::{io, net::SocketAddr, sync::OnceLock, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::streams::{self, Account, Connection, H2};

/// How long an answer may take. It is a bound against hanging, not a measure.
const ANSWER: Duration = Duration::from_secs(60);
/// What is asked for and sent as a large body.
pub const LARGE: usize = 2 << 20;
/// Requests that a connection carries before the client closes it.
const REQUESTS: u64 = 20;
/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(30);

/// The same one both ways, in which nothing stands twice at a distance that a buffer may have. Made once: without optimisation it takes a while.
pub fn large_body() -> Bytes {
    static BODY: OnceLock<Bytes> = OnceLock::new();
    BODY.get_or_init(|| (0..LARGE).map(|place| (place % 251) as u8).collect()).clone()
}

/// One request and its answer, as they are written here.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    Small,
    LargeDown,
    LargeUp,
}

impl Ask {
    fn method_and_path(self) -> (&'static str, &'static str) {
        match self {
            Self::Small => ("GET", "/"),
            Self::LargeDown => ("GET", "/large"),
            Self::LargeUp => ("POST", "/count"),
        }
    }

    fn body(self) -> Bytes {
        if matches!(self, Self::LargeUp) { large_body() } else { Bytes::new() }
    }

    /// Whether this is the answer to it. A status that is not 200 comes first in what is told.
    fn check(self, status: u16, body: &[u8]) -> Result<(), String> {
        if status != 200 {
            return Err(format!("{status} as the answer to {self:?}: {}", String::from_utf8_lossy(&body[..body.len().min(200)])));
        }
        let right = match self {
            Self::Small => !body.is_empty(),
            Self::LargeDown => *body == *large_body(),
            Self::LargeUp => body == LARGE.to_string().as_bytes(),
        };
        if right { Ok(()) } else { Err(format!("the answer to {self:?}: {} bytes, not what was expected", body.len())) }
    }
}

async fn answer_of(stream: &mut BufReader<impl Connection>) -> io::Result<(u16, Vec<u8>)> {
    let (mut status, mut length) = (None, None);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::Error::other("the end instead of an answer"));
        }
        let line = line.trim_end().to_ascii_lowercase();
        if status.is_none() {
            status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        }
        if let Some(given) = line.strip_prefix("content-length: ") {
            length = given.parse().ok();
        }
        if line.is_empty() {
            break;
        }
    }
    let (Some(status), Some(length)) = (status, length) else { return Err(io::Error::other("no status or no length")) };
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((status, body))
}

async fn ask(stream: &mut BufReader<impl Connection>, host: &str, ask: Ask, close: bool) -> Account {
    let ((method, path), body) = (ask.method_and_path(), ask.body());
    let connection = if close { "Connection: close\r\n" } else { "" };
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}{connection}\r\n");
    let exchange = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await?;
        let answer = answer_of(stream).await?;
        if close && stream.read(&mut [0]).await? > 0 {
            return Err(io::Error::other("something after the last answer"));
        }
        Ok(answer)
    };
    let (status, body) = timeout(ANSWER, exchange)
        .await
        .map_err(|_| format!("no answer to {ask:?}"))?
        .map_err(|error| format!("{ask:?}: {error}"))?;
    ask.check(status, &body)?;
    Ok(1)
}

/// One request on a connection of its own, which the server is told to close.
pub async fn once(stream: impl Connection, host: &str, what: Ask) -> Account {
    ask(&mut BufReader::new(stream), host, what, true).await
}

/// Some requests on one connection.
pub async fn kept_alive(stream: impl Connection, host: &str, what: Ask) -> Account {
    let mut stream = BufReader::new(stream);
    for _ in 0..REQUESTS {
        ask(&mut stream, host, what, false).await?;
        sleep(PACE).await;
    }
    Ok(REQUESTS)
}

/// Some requests on one connection of HTTP/2.
pub async fn over_http2(connection: H2, host: &str, what: Ask) -> Account {
    for _ in 0..REQUESTS {
        let (method, path) = what.method_and_path();
        let request = http::Request::builder().method(method).uri(format!("https://{host}{path}")).body(()).unwrap();
        let (status, body, _) =
            http2_answer(&connection, request, what.body()).await.map_err(|error| format!("{what:?}: {error}"))?;
        what.check(status, &body)?;
        sleep(PACE).await;
    }
    Ok(REQUESTS)
}

async fn http2_answer(
    connection: &H2,
    request: http::Request<()>,
    body: Bytes,
) -> Result<(u16, BytesMut, Option<http::HeaderMap>), String> {
    let text = |error: h2::Error| error.to_string();
    let exchange = async {
        let mut connection = connection.clone().ready().await.map_err(text)?;
        let (response, mut send) = connection.send_request(request, body.is_empty()).map_err(text)?;
        if !body.is_empty() {
            send.send_data(body, true).map_err(text)?;
        }
        let response = response.await.map_err(text)?;
        let status = response.status().as_u16();
        let (mut body, mut whole) = (response.into_body(), BytesMut::new());
        while let Some(data) = body.data().await {
            let data = data.map_err(text)?;
            body.flow_control().release_capacity(data.len()).map_err(text)?;
            whole.extend_from_slice(&data);
        }
        let trailers = body.trailers().await.map_err(text)?;
        Ok((status, whole, trailers))
    };
    timeout(ANSWER, exchange).await.map_err(|_| "no answer".to_owned())?
}

/// Some gRPC calls, each of one message that comes back.
pub async fn unary(connection: H2, host: &str) -> Account {
    for number in 0..REQUESTS {
        let request = http::Request::builder()
            .method("POST")
            .uri(format!("https://{host}/echo.Echo/Unary"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let message = Bytes::from([&[0, 0, 0, 0, 8][..], &number.to_be_bytes()].concat());
        let (status, body, trailers) = http2_answer(&connection, request, message.clone()).await?;
        let said = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status")).and_then(|said| said.to_str().ok());
        if status != 200 || body != message || said != Some("0") {
            return Err(format!("{status} {said:?} {body:?} as the answer to call {number}"));
        }
        sleep(PACE).await;
    }
    Ok(REQUESTS)
}

/// What a client does that is slow, or vanishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vanishing {
    HalfAHead,
    HalfAHeadAndReset,
    HalfAHandshake,
    BodyNotRead,
    BodyNotReadOverTls,
    HalfABody,
    WebSocketReset,
    WebSocketInAFrame,
    Events,
    EventsOverHttp2,
    Http2WithTunnels,
    UploadReset,
}

pub const VANISHING: [Vanishing; 12] = [
    Vanishing::HalfAHead,
    Vanishing::HalfAHeadAndReset,
    Vanishing::HalfAHandshake,
    Vanishing::BodyNotRead,
    Vanishing::BodyNotReadOverTls,
    Vanishing::HalfABody,
    Vanishing::WebSocketReset,
    Vanishing::WebSocketInAFrame,
    Vanishing::Events,
    Vanishing::EventsOverHttp2,
    Vanishing::Http2WithTunnels,
    Vanishing::UploadReset,
];

/// When it is closed the peer gets a reset.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

impl Vanishing {
    /// Does it once. An error is what a client has that expects too much; only that it happened counts.
    pub async fn perform(self, http: SocketAddr, https: SocketAddr) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        let pause = Duration::from_millis(200);
        match self {
            Self::HalfAHead | Self::HalfAHeadAndReset => {
                let mut stream = streams::plain(http).await.map_err(text)?;
                stream.write_all(b"GET / HTTP/1.1\r\nHost: plain.test\r\nX-Long: aaaa").await.map_err(text)?;
                sleep(pause).await;
                if self == Self::HalfAHeadAndReset {
                    reset(&stream);
                }
            }
            Self::HalfAHandshake => {
                let mut stream = streams::plain(https).await.map_err(text)?;
                // The beginning of a record with a ClientHello (RFC 8446 §5.1).
                stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.map_err(text)?;
                sleep(pause).await;
            }
            Self::BodyNotRead => {
                let mut stream = streams::plain(http).await.map_err(text)?;
                stream.write_all(b"GET /large HTTP/1.1\r\nHost: plain.test\r\n\r\n").await.map_err(text)?;
                sleep(Duration::from_secs(2)).await;
                reset(&stream);
            }
            Self::BodyNotReadOverTls => {
                let mut stream = streams::tls(https, "plain.test", "http/1.1").await.map_err(text)?;
                stream.write_all(b"GET /large HTTP/1.1\r\nHost: plain.test\r\n\r\n").await.map_err(text)?;
                sleep(Duration::from_secs(2)).await;
                // Without close_notify.
                drop(stream);
            }
            Self::HalfABody => {
                let mut stream = streams::plain(http).await.map_err(text)?;
                let head = format!("POST /count HTTP/1.1\r\nHost: plain.test\r\nContent-Length: {LARGE}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.map_err(text)?;
                stream.write_all(&large_body()[..LARGE / 2]).await.map_err(text)?;
                reset(&stream);
            }
            Self::WebSocketReset | Self::WebSocketInAFrame => {
                let stream = streams::plain(http).await.map_err(text)?;
                let opening = "GET /ws HTTP/1.1\r\nHost: stream.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
                let mut stream = BufReader::new(stream);
                stream.write_all(opening.as_bytes()).await.map_err(text)?;
                stream.read_line(&mut String::new()).await.map_err(text)?;
                if self == Self::WebSocketInAFrame {
                    stream.write_all(&[0x81, 0xfe, 0x10, 0, 0, 0, 0, 0, 1, 2, 3]).await.map_err(text)?;
                    sleep(pause).await;
                } else {
                    reset(stream.get_ref());
                }
            }
            Self::Events => {
                let mut stream = streams::tls(https, "stream.test", "http/1.1").await.map_err(text)?;
                stream.write_all(b"GET /events HTTP/1.1\r\nHost: stream.test\r\n\r\n").await.map_err(text)?;
                stream.read(&mut [0; 64]).await.map_err(text)?;
                sleep(pause).await;
            }
            Self::EventsOverHttp2 => {
                let mut connection = streams::http2(https, "stream.test").await.ready().await.map_err(|error| error.to_string())?;
                for _ in 0..3 {
                    let request = http::Request::builder().uri("https://stream.test/events").body(()).unwrap();
                    let (response, _) = connection.send_request(request, true).map_err(|error| error.to_string())?;
                    let response = response.await.map_err(|error| error.to_string())?;
                    let _ = response.into_body().data().await;
                }
            }
            Self::Http2WithTunnels => {
                let connection = streams::http2(https, "stream.test").await;
                let one = streams::open_web_socket_h2(&connection, "stream.test").await?;
                let two = streams::open_web_socket_h2(&connection, "stream.test").await?;
                drop((one, two));
            }
            Self::UploadReset => {
                let mut connection = streams::http2(https, "plain.test").await.ready().await.map_err(|error| error.to_string())?;
                let request = http::Request::builder().method("POST").uri("https://plain.test/count").body(()).unwrap();
                let (_, mut send) = connection.send_request(request, false).map_err(|error| error.to_string())?;
                send.send_data(large_body(), false).map_err(|error| error.to_string())?;
                sleep(pause).await;
                send.send_reset(h2::Reason::CANCEL);
            }
        }
        Ok(())
    }
}
