//! A client connection from its acceptance to its first request: PROXY header, TLS, and which version of HTTP is spoken, each within its time.

use std::{cell::Cell, io, net::SocketAddr, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
};
use tokio_rustls::LazyConfigAcceptor;

use super::{client_http1, client_http2, http1::Http1, side::Side};
use crate::{
    client_address::Scheme,
    control::Control,
    head::{Entrance, PublicPorts},
    io::{ClientStream, Open, Transport},
    metrics::{HandshakeFailure, LimitHit, Listener},
    proxy_protocol::{self, Header, Parsed},
    socket, tls,
    worker::{Arriving, Worker},
};

/// How the preface of HTTP/2 begins (RFC 9113 §3.4). No method begins so (IANA keeps `PRI` for it).
const PREFACE: &[u8] = b"PRI";
/// The first byte of a TLS handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

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
    pub(super) control: Rc<Control>,
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

/// Brings a connection to HTTP, and hands it to a task of its own: what came before is large, and gone then. `held` is kept until that ends.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    arriving: Arriving,
    stream: TcpStream,
    peer: SocketAddr,
    open: Open,
    held: impl Sized + 'static,
) {
    let Some((client, stream, http2)) = begin(worker, stream, peer, open).await else { return };
    let held = (held, client.worker.connections.enter(&client.control));
    drop(arriving);
    if http2 {
        tokio::task::spawn_local(client_http2::serve(client, stream, held));
    } else {
        tokio::task::spawn_local(client_http1::serve(client, Side::Http1(Box::new(Http1::to_client(stream))), held));
    }
}

async fn begin(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, open: Open) -> Option<(Rc<Client>, ClientStream, bool)> {
    let shared = worker.shared.clone();
    let listener = open.listener;
    let step = Cell::new(Step::First);
    let arrival = tokio::time::timeout(shared.options.limits.head_time, arrive(&worker, stream, peer, listener, &step));
    let Ok(arrived) = arrival.await else {
        match step.get() {
            Step::ProxyHeader => drop(shared.metrics.proxy_protocol_failures.inc()),
            Step::Tls => shared.metrics.handshake_failures.inc(HandshakeFailure::Timeout),
            Step::First => {}
        }
        shared.metrics.limits.inc(LimitHit::HeadTime);
        return None;
    };
    let Arrived { transport, peer, told_port, sni, http2 } = arrived?;
    let control = Control::new();
    let stream = ClientStream::new(transport, control.clone(), open);
    let scheme = match listener {
        Listener::Http => Scheme::Http,
        Listener::Https => Scheme::Https,
    };
    Some((Rc::new(Client { worker, peer, listener, scheme, told_port, sni, control }), stream, http2))
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
        Listener::Https => {
            let place = worker.handshakes.enter().await?;
            // In a box that is not there for those that wait.
            match place.hold(Box::pin(handshake(worker, stream))).await {
                Some(Ok((transport, sni, http2))) => Some(Arrived { transport, peer, told_port, sni, http2 }),
                Some(Err(error)) => {
                    shared.metrics.handshake_failures.inc(tls::failure_of(&error));
                    tracing::debug!(%error, %peer, "a TLS handshake failed");
                    None
                }
                None => {
                    shared.metrics.handshake_failures.inc(HandshakeFailure::CrowdedOut);
                    tracing::debug!(%peer, "a TLS handshake was ended for others that waited");
                    None
                }
            }
        }
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
