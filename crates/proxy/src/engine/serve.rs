//! A client connection, from its acceptance to its end: PROXY header, TLS, then HTTP/1.1 or HTTP/2, each step within its time.

use std::{
    cell::Cell,
    convert::Infallible,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
};
use tokio_rustls::LazyConfigAcceptor;

use super::{exchange, record, streams::StreamExecutor};
use crate::{
    client_address::Scheme,
    control::{Command, Control},
    head::{Entrance, PublicPorts},
    io::{ClientStream, Open, Transport},
    metrics::{HandshakeFailure, LimitHit, Listener},
    proxy_protocol::{self, Header, Parsed},
    socket, tls,
    worker::Worker,
};

/// What a client may send on a stream before we took it: 20 Mbit/s over 50 ms. The connection's window is this for as many streams as there
/// may be: what is not taken counts against both, so with less, streams that are blocked (an upload that its backend does not read) would keep
/// their siblings from sending. It is the most that a client can make us hold, 32 MiB by default; it has to open 256 uploads to backends that
/// do not read for that.
const STREAM_WINDOW: u32 = 128 * 1024;
/// RFC 9113 §6.9.1.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
/// Of each stream, what may wait to be sent: memory follows the slowest client.
const SEND_BUFFER: usize = 128 * 1024;
/// How the preface of HTTP/2 begins (RFC 9113 §3.4). No method begins so (IANA keeps `PRI` for it).
const PREFACE: &[u8] = b"PRI";
/// Fields of a request's head: what hyper takes over HTTP/1.1 (`proto::h1::role::DEFAULT_MAX_HEADERS`), and we over HTTP/2.
pub(super) const MOST_FIELDS: usize = 100;
/// The first byte of a TLS handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

const HEAD_TIMED_OUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nServer: penstock\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// How long a client has to take it.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What is known of a client connection by those who serve its requests.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) worker: Rc<Worker>,
    /// As the PROXY protocol tells it, where that is spoken.
    pub(super) peer: SocketAddr,
    pub(super) listener: Listener,
    pub(super) scheme: Scheme,
    /// The port at which the balancer before us was asked, as the PROXY protocol tells it.
    told_port: Option<u16>,
    /// The server name of the handshake.
    pub(super) sni: Option<Box<str>>,
    pub(super) control: Arc<Control>,
}

impl Client {
    pub(super) fn entrance(&self, ports: PublicPorts) -> Entrance {
        Entrance { scheme: self.scheme, port: self.told_port.unwrap_or_else(|| ports.of(self.scheme)) }
    }
}

/// What is waited for before HTTP.
#[derive(Clone, Copy, Debug)]
enum Step {
    ProxyHeader,
    /// The first byte.
    First,
    Tls,
}

/// What came before HTTP.
struct Arrived {
    transport: Transport,
    peer: SocketAddr,
    told_port: Option<u16>,
    sni: Option<Box<str>>,
    http2: bool,
}

/// Serves a connection until it ends. Becomes a tunnel's if it is upgraded, and ends here then.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, listener: Listener) {
    let shared = worker.shared.clone();
    let open = Open::new(&shared.metrics, listener);
    let limit = shared.options.limits.head_time;
    let step = Cell::new(Step::First);
    // Boxed: a handshake's state is large and gone soon.
    let arrival = Box::pin(tokio::time::timeout(limit, arrive(&worker, stream, peer, listener, &step)));
    let arrived = match arrival.await {
        Ok(Some(arrived)) => arrived,
        Ok(None) => return,
        Err(_) => {
            match step.get() {
                Step::ProxyHeader => drop(shared.metrics.proxy_protocol_failures.inc()),
                Step::Tls => shared.metrics.handshake_failures.inc(HandshakeFailure::Timeout),
                Step::First => {}
            }
            shared.metrics.limits.inc(LimitHit::HeadTime);
            return;
        }
    };
    let control = Control::new();
    let _entry = worker.connections.enter(&control);
    let client = Rc::new(Client {
        peer: arrived.peer,
        listener,
        scheme: match listener {
            Listener::Http => Scheme::Http,
            Listener::Https => Scheme::Https,
        },
        told_port: arrived.told_port,
        sni: arrived.sni,
        control: control.clone(),
        worker,
    });
    let stream = TokioIo::new(ClientStream::new(arrived.transport, control, shared.options.limits.write_time, open));
    if arrived.http2 { serve_http2(client, stream).await } else { serve_http1(client, stream).await }
}

async fn serve_http1(client: Rc<Client>, stream: TokioIo<ClientStream>) {
    let limits = &client.worker.shared.options.limits;
    let control = client.control.clone();
    let metrics = client.worker.shared.metrics.clone();
    let head_size = limits.head_size;
    let requests = client.clone();
    let service = service_fn(move |request| {
        let client = requests.clone();
        async move { Ok::<_, Infallible>(exchange::serve(client, request).await) }
    });
    let mut builder = http1::Builder::new();
    // The sweep keeps the time of heads, so that no connection needs a timer.
    builder.header_read_timeout(None).max_header_size(head_size).max_buf_size(head_size.max(16 * 1024));
    // A client that ends its side is taken for gone, as nginx and Envoy do: TCP says the same of one that left and of one that waits, and backends
    // are not to work for those who left, whose number is by far the greater.
    builder.half_close(false);
    let mut connection = builder.serve_connection(stream, service).with_upgrades();
    let mut told = Command::None;
    let outcome = poll_fn(|cx| {
        let command = control.listen(cx.waker());
        if command != told {
            told = command;
            match command {
                Command::HeadTimedOut | Command::Cut => return Poll::Ready(Ok(command)),
                Command::Finish => Pin::new(&mut connection).graceful_shutdown(),
                Command::None => {}
            }
        }
        Pin::new(&mut connection).poll(cx).map_ok(|()| Command::None)
    })
    .await;
    match outcome {
        Ok(Command::HeadTimedOut) => {
            metrics.limits.inc(LimitHit::HeadTime);
            // Who sent nothing at all waits for no answer.
            if let Some(parts) = connection.into_parts().filter(|parts| !parts.read_buf.is_empty()) {
                let _ = tokio::time::timeout(LAST_WORD, parts.io.into_inner().write_all(HEAD_TIMED_OUT)).await;
            }
        }
        Ok(_) => {}
        Err(error) => {
            if error.is_parse() {
                let unread = connection.into_parts().map(|parts| parts.read_buf).unwrap_or_default();
                refused(&client, &error, &unread);
            }
            tracing::trace!(%error, peer = %client.peer, "a client connection failed");
        }
    }
}

/// Counts and logs a head that hyper answered by itself, with the status that it gave (`proto::h1::role::Server::on_error`).
fn refused(client: &Client, error: &hyper::Error, unread: &[u8]) {
    let status = if error.is_parse_too_large() {
        // It has one error for both. Of a head with too many fields all lines came.
        let lines = unread.split(|byte| *byte == b'\n').count();
        let limit = if lines > MOST_FIELDS { LimitHit::HeaderCount } else { LimitHit::HeadSize };
        client.worker.shared.metrics.limits.inc(limit);
        431
    } else if error.to_string() == "URI too long" {
        414
    } else {
        400
    };
    record::refused(&client.worker, client.peer.ip(), client.scheme, status, &format_args!("{error}"));
}

async fn serve_http2(client: Rc<Client>, stream: TokioIo<ClientStream>) {
    let limits = &client.worker.shared.options.limits;
    let control = client.control.clone();
    control.http2_begins();
    let requests = client.clone();
    let service = service_fn(move |request| {
        let client = requests.clone();
        async move { Ok::<_, Infallible>(exchange::serve(client, request).await) }
    });
    let metrics = client.worker.shared.metrics.clone();
    let mut builder = http2::Builder::new(StreamExecutor { metrics: metrics.clone(), write_time: limits.write_time });
    builder
        .enable_connect_protocol()
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(limits.resets)
        // Twice what we take: what goes over our limit a little gets our own answer, and is counted.
        .max_header_list_size(u32::try_from(limits.head_size.saturating_mul(2)).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW.saturating_mul(limits.streams.max(1)).min(LARGEST_WINDOW))
        .max_send_buf_size(SEND_BUFFER);
    let mut connection = pin!(builder.serve_connection(stream, service));
    let mut told = Command::None;
    let draining = client.worker.draining.get();
    if draining {
        connection.as_mut().graceful_shutdown();
    }
    let outcome = poll_fn(|cx| {
        let command = control.listen(cx.waker());
        if command != told {
            told = command;
            match command {
                Command::None => {}
                Command::HeadTimedOut => {
                    metrics.limits.inc(LimitHit::HeadTime);
                    connection.as_mut().graceful_shutdown();
                }
                Command::Finish => connection.as_mut().graceful_shutdown(),
                Command::Cut => return Poll::Ready(Ok(())),
            }
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = outcome {
        if is_of_resets(&error) {
            metrics.limits.inc(LimitHit::Resets);
        }
        tracing::trace!(%error, peer = %client.peer, "a client connection failed");
    }
}

/// Whether a connection was closed for its streams' resets. Other floods (of CONTINUATION, of empty DATA) have the same code, and count as that too.
fn is_of_resets(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_library() && cause.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

/// All that comes before HTTP. None: there will be no HTTP.
async fn arrive(
    worker: &Worker,
    mut stream: TcpStream,
    peer: SocketAddr,
    listener: Listener,
    step: &Cell<Step>,
) -> Option<Arrived> {
    let shared = &worker.shared;
    let mut arrived = (socket::canonical(peer), None);
    if shared.options.proxy_protocol {
        step.set(Step::ProxyHeader);
        match proxy_header(&mut stream).await {
            Ok(Some(Header::Proxied { source, destination })) => arrived = (source, Some(destination.port())),
            Ok(Some(Header::Local)) => {}
            // A probe of the port.
            Ok(None) => return None,
            Err(error) => {
                shared.metrics.proxy_protocol_failures.inc();
                tracing::debug!(%error, %peer, "no sound PROXY protocol header");
                return None;
            }
        }
    }
    let (peer, told_port) = arrived;
    step.set(Step::First);
    let mut first = [0; PREFACE.len()];
    let length = peek(&stream, &mut first).await.ok()?;
    let first = first.get(..length).filter(|first| !first.is_empty())?;
    step.set(Step::Tls);
    match listener {
        Listener::Http => Some(Arrived { http2: first == PREFACE, transport: Transport::Tcp(stream), peer, told_port, sni: None }),
        Listener::Https if first.first().is_some_and(u8::is_ascii_alphabetic) && first.first() != Some(&HANDSHAKE) => {
            shared.metrics.handshake_failures.inc(HandshakeFailure::PlainHttp);
            plain_on_tls(stream).await;
            None
        }
        Listener::Https => match handshake(worker, stream).await {
            Ok((transport, sni, http2)) => Some(Arrived { transport, peer, told_port, sni, http2 }),
            Err(error) => {
                shared.metrics.handshake_failures.inc(tls::failure_of(&error));
                tracing::debug!(%error, %peer, "a TLS handshake failed");
                None
            }
        },
    }
}

/// Looks at the first bytes without taking them: as many as it takes to tell a preface of HTTP/2 from anything else.
async fn peek(stream: &TcpStream, first: &mut [u8; PREFACE.len()]) -> io::Result<usize> {
    loop {
        let length = stream.peek(first).await?;
        let came = first.get(..length).unwrap_or_default();
        if came.is_empty() || length == PREFACE.len() || !PREFACE.starts_with(came) {
            return Ok(length);
        }
        if stream.ready(Interest::READABLE).await?.is_read_closed() {
            return Ok(length);
        }
        // What is known to be there must not count as news.
        let _ = stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        stream.readable().await?;
    }
}

/// Reads not a byte further than the header goes. None: nothing came at all.
async fn proxy_header(stream: &mut TcpStream) -> io::Result<Option<Header>> {
    let mut bytes = Vec::with_capacity(64);
    loop {
        match proxy_protocol::parse(&bytes) {
            Parsed::Header { header, .. } => return Ok(Some(header)),
            Parsed::Invalid(error) => return Err(io::Error::other(error)),
            Parsed::Incomplete { at_least } => {
                match stream.take(at_least as u64).read_buf(&mut bytes).await {
                    Ok(1..) => {}
                    // Probes end with a reset as well.
                    Ok(0) | Err(_) if bytes.is_empty() => return Ok(None),
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

/// Says in plain HTTP that TLS is spoken here, as browsers show it to the person who mistyped the scheme.
async fn plain_on_tls(mut stream: TcpStream) {
    const BODY: &str = "This port speaks HTTPS. Use https:// instead of http://.\n";
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nServer: {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{BODY}",
        crate::error_page::SERVER,
        BODY.len()
    );
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    // What the client still sends must not make the kernel reset the connection before the answer is read.
    let mut sink = [0; 1024];
    let linger = async { while matches!(stream.read(&mut sink).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(Duration::from_secs(1), linger).await;
}

async fn handshake(worker: &Worker, stream: TcpStream) -> io::Result<(Transport, Option<Box<str>>, bool)> {
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    let sni: Option<Box<str>> = start.client_hello().server_name().map(|name| name.to_ascii_lowercase().into());
    let config = worker.shared.tls.config_for(sni.as_deref());
    let stream = start.into_stream(config).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((Transport::ToClient(Box::new(stream)), sni, http2))
}
