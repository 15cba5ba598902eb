//! Long-lived streams of every kind, each with numbered messages: WebSockets over plain TCP, TLS and HTTP/2, server-sent events, gRPC
//! streams, slow uploads and downloads. The backend that they end at, too.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::Engine;
use bytes::{Buf, Bytes, BytesMut};
use sha1::{Digest, Sha1};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{interval, timeout},
};

use crate::support::{any_certificate, own_address};

/// Between two messages of a stream.
pub const PACE: Duration = Duration::from_millis(100);
/// How long one message may take. It is a bound against hanging, not a measure.
const ANSWER: Duration = Duration::from_secs(20);
/// RFC 6455 §1.3.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// True once every stream shall end by itself.
pub type Finish = watch::Receiver<bool>;

/// A backend of streams; lives as long as its runtime.
#[derive(Clone, Debug)]
pub struct StreamBackend {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub opened: Arc<AtomicUsize>,
}

impl StreamBackend {
    pub async fn start(finish: Finish) -> Self {
        let any = SocketAddr::from((own_address(), 0));
        Self::start_at(any, any, finish).await
    }

    /// At these addresses: one that was killed comes back.
    pub async fn start_at(http: SocketAddr, grpc: SocketAddr, finish: Finish) -> Self {
        let http = TcpListener::bind(http).await.unwrap();
        let grpc = TcpListener::bind(grpc).await.unwrap();
        let backend =
            Self { http: http.local_addr().unwrap(), grpc: grpc.local_addr().unwrap(), opened: Arc::new(AtomicUsize::new(0)) };
        let opened = backend.opened.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = http.accept().await {
                let (opened, finish) = (opened.clone(), finish.clone());
                tokio::spawn(async move {
                    // A client that goes away shows in the client's own account.
                    let _ = serve(stream, &opened, finish).await;
                });
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = grpc.accept().await {
                tokio::spawn(serve_grpc(stream));
            }
        });
        backend
    }
}

async fn read_head(stream: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            return Ok(lines);
        }
        lines.push(line);
    }
}

fn header<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    head.iter().find_map(|line| line.split_once(": ").filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

async fn serve(stream: TcpStream, opened: &AtomicUsize, mut finish: Finish) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let head = read_head(&mut stream).await?;
        let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
        match path.as_str() {
            "/ws" => {
                let key = header(&head, "sec-websocket-key").unwrap_or_default();
                let accept = base64::engine::general_purpose::STANDARD.encode(Sha1::digest(format!("{key}{MAGIC}")));
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).await?;
                opened.fetch_add(1, Ordering::SeqCst);
                let mut chunk = [0; 4096];
                loop {
                    let read = stream.read(&mut chunk).await?;
                    if read == 0 {
                        return stream.shutdown().await;
                    }
                    stream.write_all(&chunk[..read]).await?;
                }
            }
            "/events" | "/down" => {
                opened.fetch_add(1, Ordering::SeqCst);
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                    .await?;
                let mut ticks = interval(PACE);
                for number in 0.. {
                    let text = format!("data: {number}\n\n");
                    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await?;
                    tokio::select! {
                        _ = ticks.tick() => {}
                        _ = finish.wait_for(|finish| *finish) => break,
                    }
                }
                stream.write_all(b"0\r\n\r\n").await?;
            }
            "/up" => {
                opened.fetch_add(1, Ordering::SeqCst);
                // Chunks that came whole and in order.
                let mut whole = 0;
                loop {
                    let mut size = String::new();
                    stream.read_line(&mut size).await?;
                    let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
                    let mut chunk = vec![0; size + 2];
                    stream.read_exact(&mut chunk).await?;
                    if size == 0 {
                        break;
                    }
                    if chunk.get(..size) != Some(format!("{whole:08}").as_bytes()) {
                        return Err(io::Error::other(format!("chunk {whole} of an upload is {chunk:?}")));
                    }
                    whole += 1;
                }
                let body = whole.to_string();
                stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
            }
            _ => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstream").await?,
        }
    }
}

/// Sends every message back.
async fn serve_grpc(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let response = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let Ok(mut send) = respond.send_response(response, false) else { return };
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                if send.send_data(data, false).is_err() {
                    return;
                }
            }
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            let _ = send.send_trailers(trailers);
        });
    }
}

pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

pub async fn plain(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub async fn tls(address: SocketAddr, host: &str, protocol: &str) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(any_certificate(&[protocol])));
    connector.connect(host.to_owned().try_into().unwrap(), plain(address).await?).await
}

/// A stream that tells how many messages it exchanged, or what went wrong.
pub type Account = Result<u64, String>;

fn failed(what: &str, number: u64) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}, message {number}: {error}")
}

fn frame(number: u64) -> Vec<u8> {
    // A masked text frame; its mask is zero, so that the text can be read in a capture.
    let text = format!("message {number:06}");
    let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// A WebSocket over HTTP/1.1.
pub async fn web_socket(mut stream: impl Connection, host: &str, pace: Duration, mut finish: Finish) -> Account {
    let opening = failed("the opening of a WebSocket", 0);
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(&opening)?;
    let mut stream = BufReader::new(stream);
    let head = read_head(&mut stream).await.map_err(&opening)?;
    if !head[0].starts_with("HTTP/1.1 101") {
        return Err(format!("the opening of a WebSocket to {host}: {head:?}"));
    }
    let mut ticks = interval(pace);
    for number in 0.. {
        let wrong = failed(host, number);
        let sent = frame(number);
        stream.write_all(&sent).await.map_err(&wrong)?;
        let mut back = vec![0; sent.len()];
        timeout(ANSWER, stream.read_exact(&mut back)).await.map_err(|_| wrong(io::ErrorKind::TimedOut.into()))?.map_err(&wrong)?;
        if back != sent {
            return Err(format!("{host}, message {number} came back as {:?}", String::from_utf8_lossy(&back)));
        }
        tokio::select! {
            _ = ticks.tick() => {}
            _ = finish.wait_for(|finish| *finish) => return Ok(number),
        }
    }
    unreachable!()
}

pub type H2 = h2::client::SendRequest<Bytes>;

/// An HTTP/2 connection over TLS that takes extended CONNECT.
pub async fn http2(address: SocketAddr, host: &str) -> H2 {
    let stream = tls(address, host, "h2").await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    send
}

async fn exact(body: &mut h2::RecvStream, buffer: &mut BytesMut, length: usize) -> Result<Bytes, String> {
    while buffer.len() < length {
        match timeout(ANSWER, body.data()).await {
            Ok(Some(Ok(data))) => {
                body.flow_control().release_capacity(data.len()).map_err(|error| error.to_string())?;
                buffer.extend_from_slice(&data);
            }
            Ok(Some(Err(error))) => return Err(error.to_string()),
            Ok(None) => return Err("the stream ended".to_owned()),
            Err(_) => return Err("no answer".to_owned()),
        }
    }
    Ok(buffer.split_to(length).freeze())
}

/// Opens a WebSocket over HTTP/2 (RFC 8441).
pub async fn open_web_socket_h2(connection: &H2, host: &str) -> Result<(h2::RecvStream, h2::SendStream<Bytes>), String> {
    let mut connection = connection.clone();
    let mut ticks = interval(Duration::from_millis(10));
    // The server's settings, which offer it, come a moment after the connection.
    timeout(ANSWER, async {
        while !connection.is_extended_connect_protocol_enabled() {
            ticks.tick().await;
        }
    })
    .await
    .map_err(|_| "extended CONNECT is not offered".to_owned())?;
    let mut request = http::Request::builder()
        .method(http::Method::CONNECT)
        .uri(format!("https://{host}/ws"))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    connection = connection.ready().await.map_err(|error| error.to_string())?;
    let (response, send) = connection.send_request(request, false).map_err(|error| error.to_string())?;
    let response = response.await.map_err(|error| format!("the opening of a WebSocket over h2: {error}"))?;
    if response.status() != 200 {
        return Err(format!("the opening of a WebSocket over h2: {}", response.status()));
    }
    Ok((response.into_body(), send))
}

/// A WebSocket over HTTP/2.
pub async fn web_socket_h2(connection: H2, host: &str, pace: Duration, mut finish: Finish) -> Account {
    let (mut body, mut send) = open_web_socket_h2(&connection, host).await?;
    echo(&mut body, &mut send, host, &mut finish, pace, frame).await
}

/// A gRPC stream.
pub async fn grpc(connection: H2, host: &str, mut finish: Finish) -> Account {
    let request = http::Request::builder()
        .method(http::Method::POST)
        .uri(format!("https://{host}/echo.Echo/Stream"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let mut connection = connection.ready().await.map_err(|error| error.to_string())?;
    let (response, mut send) = connection.send_request(request, false).map_err(|error| error.to_string())?;
    let response = response.await.map_err(|error| format!("the opening of a gRPC stream: {error}"))?;
    if response.status() != 200 || response.headers().contains_key("grpc-status") {
        return Err(format!("the opening of a gRPC stream: {response:?}"));
    }
    let message = |number: u64| {
        let mut message = vec![0, 0, 0, 0, 8];
        message.extend_from_slice(&number.to_be_bytes());
        message
    };
    let mut body = response.into_body();
    let exchanged = echo(&mut body, &mut send, host, &mut finish, PACE, message).await?;
    // The end of the call is said in trailers.
    match timeout(ANSWER, body.data()).await {
        Ok(None) => {}
        other => return Err(format!("{host}: not the end of a gRPC stream: {other:?}")),
    }
    let trailers = timeout(ANSWER, body.trailers()).await.map_err(|_| format!("{host}: no trailers"))?;
    match trailers {
        Ok(Some(trailers)) if trailers.get("grpc-status").is_some_and(|status| status == "0") => Ok(exchanged),
        other => Err(format!("{host}: the trailers of a gRPC stream: {other:?}")),
    }
}

async fn echo(
    body: &mut h2::RecvStream,
    send: &mut h2::SendStream<Bytes>,
    host: &str,
    finish: &mut Finish,
    pace: Duration,
    message: impl Fn(u64) -> Vec<u8>,
) -> Account {
    let mut buffer = BytesMut::new();
    let mut ticks = interval(pace);
    for number in 0.. {
        let sent = message(number);
        send.send_data(sent.clone().into(), false).map_err(|error| format!("{host}, message {number}: {error}"))?;
        let back = exact(body, &mut buffer, sent.len()).await.map_err(|error| format!("{host}, message {number}: {error}"))?;
        if back != sent {
            return Err(format!("{host}, message {number} came back as {back:?}"));
        }
        tokio::select! {
            _ = ticks.tick() => {}
            _ = finish.wait_for(|finish| *finish) => {
                let _ = send.send_data(Bytes::new(), true);
                return Ok(number);
            }
        }
    }
    unreachable!()
}

/// Server-sent events, or a slow download: numbered lines until the backend ends it.
pub async fn events(stream: impl Connection, host: &str, path: &str) -> Account {
    let mut stream = BufReader::new(stream);
    let wrong = |number: u64| failed(host, number);
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await.map_err(wrong(0))?;
    let head = read_head(&mut stream).await.map_err(wrong(0))?;
    if !head[0].starts_with("HTTP/1.1 200") {
        return Err(format!("{host}{path}: {head:?}"));
    }
    let mut body = BytesMut::new();
    let mut number = 0;
    loop {
        let mut size = String::new();
        timeout(ANSWER, stream.read_line(&mut size))
            .await
            .map_err(|_| format!("{host}{path}: nothing after event {number}"))?
            .map_err(wrong(number))?;
        let size =
            usize::from_str_radix(size.trim(), 16).map_err(|_| format!("{host}{path}: cut after event {number}: {size:?}"))?;
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await.map_err(wrong(number))?;
        if size == 0 {
            return Ok(number);
        }
        body.extend_from_slice(&chunk[..size]);
        loop {
            let expected = format!("data: {number}\n\n");
            if body.len() < expected.len() {
                break;
            }
            if !body.starts_with(expected.as_bytes()) {
                return Err(format!("{host}{path}: {:?} is not event {number}", String::from_utf8_lossy(&body)));
            }
            body.advance(expected.len());
            number += 1;
        }
    }
}

/// A slow upload of numbered chunks, which the backend checks and counts.
pub async fn upload(stream: impl Connection, host: &str, mut finish: Finish) -> Account {
    let mut stream = BufReader::new(stream);
    let mut number = 0;
    stream
        .write_all(format!("POST /up HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes())
        .await
        .map_err(failed(host, 0))?;
    let mut ticks = interval(PACE);
    loop {
        stream.write_all(format!("8\r\n{number:08}\r\n").as_bytes()).await.map_err(failed(host, number))?;
        number += 1;
        tokio::select! {
            _ = ticks.tick() => {}
            _ = finish.wait_for(|finish| *finish) => break,
        }
    }
    stream.write_all(b"0\r\n\r\n").await.map_err(failed(host, number))?;
    let answer = async {
        let head = read_head(&mut stream).await?;
        let length = header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        Ok((head, String::from_utf8_lossy(&body).into_owned()))
    };
    let (head, body) =
        timeout(ANSWER, answer).await.map_err(|_| format!("{host}: no answer to an upload"))?.map_err(failed(host, number))?;
    if !head[0].starts_with("HTTP/1.1 200") || body != number.to_string() {
        return Err(format!("{host}: an upload of {number} chunks: {head:?} {body}"));
    }
    Ok(number)
}

/// Status and body of a GET over a connection of its own.
pub async fn get_h2(address: SocketAddr, host: &str, path: &str) -> Result<(u16, String), String> {
    let text = |error: h2::Error| error.to_string();
    let mut connection = http2(address, host).await.ready().await.map_err(text)?;
    let request = http::Request::builder().uri(format!("https://{host}{path}")).body(()).unwrap();
    let (response, _) = connection.send_request(request, true).map_err(text)?;
    let response = timeout(ANSWER, response).await.map_err(|_| "no answer".to_owned())?.map_err(text)?;
    let status = response.status().as_u16();
    let (mut body, mut whole) = (response.into_body(), BytesMut::new());
    while let Some(data) = body.data().await {
        whole.extend_from_slice(&data.map_err(text)?);
    }
    Ok((status, String::from_utf8_lossy(&whole).into_owned()))
}
