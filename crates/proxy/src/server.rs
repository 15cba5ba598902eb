//! Connections of clients: accepted, told apart, shaken hands with, and served with hyper's low-level connections.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, rc::Rc, time::Duration};

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    client_address::Scheme,
    count::Counted,
    executor::Local,
    handler::{ClientConnection, handle},
    metrics::{HandshakeFailure, Listener as Kind},
    proxy_protocol::{self, Header, Parsed},
    socket,
    stream::Stream,
    tls::failure_of,
    worker::{Phase, Worker},
};

/// How long accepting pauses when the process has no descriptor left. Long enough not to spin, short enough not to be noticed after.
const SHED_PAUSE: Duration = Duration::from_millis(20);

/// Accepts until the phase says otherwise; then empties the queue, so that no client is reset, and closes.
pub(crate) async fn accept(worker: Rc<Worker>, listener: TcpListener, kind: Kind, mut phase: watch::Receiver<Phase>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => break,
        };
        take(&worker, accepted, &listener, kind, &phase).await;
    }
    loop {
        let queued = std::future::poll_fn(|cx| match listener.poll_accept(cx) {
            std::task::Poll::Ready(accepted) => std::task::Poll::Ready(Some(accepted)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        });
        match queued.await {
            Some(accepted) => take(&worker, accepted, &listener, kind, &phase).await,
            None => return,
        }
    }
}

async fn take(
    worker: &Rc<Worker>,
    accepted: io::Result<(TcpStream, SocketAddr)>,
    listener: &TcpListener,
    kind: Kind,
    phase: &watch::Receiver<Phase>,
) {
    match accepted {
        Ok((stream, peer)) => {
            let local = stream.local_addr().or_else(|_| listener.local_addr());
            let Ok(local) = local else { return };
            worker.shared.metrics.connections_accepted.inc(kind);
            let counted = Counted::connection(worker, kind);
            let (worker, phase) = (worker.clone(), phase.clone());
            tokio::task::spawn_local(async move {
                // Dropped with the task, also when the task panics.
                let _counted = counted;
                connection(&worker, stream, socket::canonical(peer), local.port(), kind, phase).await;
            });
        }
        Err(error) if is_descriptor_limit(&error) => {
            worker.shared.metrics.connections_shed.inc(kind);
            tokio::time::sleep(SHED_PAUSE).await;
        }
        // The client went away while it waited, or something passing.
        Err(error) => tracing::debug!(%error, "a connection was not accepted"),
    }
}

async fn connection(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    port: u16,
    kind: Kind,
    phase: watch::Receiver<Phase>,
) {
    let _ = socket::prepare(&stream);
    let limit = worker.shared.limits.handshake;
    let opened = tokio::time::timeout(limit, open(worker, stream, peer, port, kind)).await;
    let Ok(Ok(Some((stream, connection, h2)))) = opened else {
        if opened.is_err() {
            worker.shared.metrics.handshake_failures.inc(HandshakeFailure::Timeout);
        }
        return;
    };
    let connection = Rc::new(connection);
    serve(worker, stream, connection, h2, phase).await;
}

/// EMFILE and ENFILE: the process or the machine has no descriptor left.
fn is_descriptor_limit(error: &io::Error) -> bool {
    let code = error.raw_os_error().unwrap_or_default();
    [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].iter().any(|errno| errno.raw_os_error() == code)
}

type Opened = (Stream, ClientConnection, bool);

/// From accept to the first byte of HTTP. None: there is nothing to serve.
async fn open(
    worker: &Rc<Worker>,
    mut stream: TcpStream,
    mut peer: SocketAddr,
    mut port: u16,
    kind: Kind,
) -> io::Result<Option<Opened>> {
    if worker.shared.proxy_protocol {
        let Some(told) = read_proxy_header(&mut stream).await? else {
            worker.shared.metrics.proxy_protocol_failures.inc();
            return Ok(None);
        };
        if let Some((source, destination)) = told {
            peer = socket::canonical(source);
            port = destination.port();
        }
    }
    let mut first = [0; 3];
    let known = stream.peek(&mut first).await?;
    // Probes of load balancers open and close; they are nothing to speak of.
    if known == 0 {
        return Ok(None);
    }
    match kind {
        Kind::Http => {
            let h2 = is_h2_preface(&stream, first.get(..known).unwrap_or_default()).await?;
            let connection = ClientConnection { peer, scheme: Scheme::Http, port, sni: None };
            Ok(Some((Stream::Plain(stream), connection, h2)))
        }
        Kind::Https if first.first().is_some_and(u8::is_ascii_uppercase) => {
            let body = "This port speaks HTTPS; the request came in plain HTTP.\n";
            let head = format!(
                "HTTP/1.1 400 Bad Request\r\nServer: penstock\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            worker.shared.metrics.handshake_failures.inc(HandshakeFailure::PlainHttp);
            // What was sent is read first: closing over unread bytes would reset the answer away.
            let mut sink = [0; 4096];
            let _ = stream.try_read(&mut sink);
            stream.write_all(head.as_bytes()).await?;
            stream.shutdown().await?;
            Ok(None)
        }
        Kind::Https => {
            let acceptor = tokio_rustls::LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
            let start = match acceptor.await {
                Ok(start) => start,
                Err(error) => {
                    worker.shared.metrics.handshake_failures.inc(failure_of(&error));
                    tracing::debug!(%peer, %error, "no TLS handshake");
                    return Ok(None);
                }
            };
            let sni: Option<Box<str>> = start.client_hello().server_name().map(Into::into);
            let config = worker.shared.tls.config_for(sni.as_deref());
            let stream = match start.into_stream(config).await {
                Ok(stream) => stream,
                Err(error) => {
                    worker.shared.metrics.handshake_failures.inc(failure_of(&error));
                    tracing::debug!(%peer, sni = sni.as_deref().unwrap_or("-"), %error, "TLS handshake failed");
                    return Ok(None);
                }
            };
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let connection = ClientConnection { peer, scheme: Scheme::Https, port, sni };
            Ok(Some((Stream::ClientTls(Box::new(stream)), connection, h2)))
        }
    }
}

/// Prior knowledge of HTTP/2 (RFC 9113 §3.3) begins with `PRI`, which no method of HTTP/1.1 does.
async fn is_h2_preface(stream: &TcpStream, first: &[u8]) -> io::Result<bool> {
    if first.len() >= 3 || !b"PRI".starts_with(first) {
        return Ok(first == b"PRI");
    }
    let mut bytes = [0; 3];
    loop {
        stream.ready(Interest::READABLE).await?;
        let known = stream.peek(&mut bytes).await?;
        let seen = bytes.get(..known).unwrap_or_default();
        if known >= 3 || known == 0 || !b"PRI".starts_with(seen) {
            return Ok(seen == b"PRI");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Reads exactly the header of PROXY protocol. `None`: it is none. `Some(None)`: the proxy speaks for itself.
async fn read_proxy_header(stream: &mut TcpStream) -> io::Result<Option<Option<(SocketAddr, SocketAddr)>>> {
    let mut bytes = vec![0; proxy_protocol::MAX_V2];
    loop {
        let known = stream.peek(&mut bytes).await?;
        if known == 0 {
            return Ok(None);
        }
        match proxy_protocol::parse(bytes.get(..known).unwrap_or_default()) {
            Parsed::Header { header, consumed } => {
                stream.read_exact(bytes.get_mut(..consumed).unwrap_or_default()).await?;
                return Ok(Some(match header {
                    Header::Proxied { source, destination } => Some((source, destination)),
                    Header::Local => None,
                }));
            }
            Parsed::Invalid(_) => return Ok(None),
            // The limit of the handshake bounds this.
            Parsed::Incomplete { .. } => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

async fn serve(worker: &Rc<Worker>, stream: Stream, connection: Rc<ClientConnection>, h2: bool, mut phase: watch::Receiver<Phase>) {
    let limits = &worker.shared.limits;
    let io = TokioIo::new(stream);
    let service = {
        let (worker, connection) = (worker.clone(), connection.clone());
        service_fn(move |request| {
            let (worker, connection) = (worker.clone(), connection.clone());
            async move { Ok::<_, Infallible>(handle(worker, connection, request).await) }
        })
    };
    // A macro because the two connections have no trait in common for this.
    macro_rules! drive {
        ($connection:expr, $goodbye:expr) => {{
            let mut serving = pin!($connection);
            let mut told = false;
            let result = loop {
                tokio::select! {
                    result = serving.as_mut() => break result,
                    _ = phase.wait_for(|phase| *phase >= $goodbye), if !told => {
                        told = true;
                        serving.as_mut().graceful_shutdown();
                    }
                }
            };
            if let Err(error) = result {
                tracing::debug!(peer = %connection.peer, %error, "connection ended");
            }
        }};
    }
    if h2 {
        let serving = http2::Builder::new(Local)
            .timer(TokioTimer::new())
            .enable_connect_protocol()
            .initial_stream_window_size(limits.h2_stream_window)
            .initial_connection_window_size(limits.h2_connection_window)
            .max_concurrent_streams(limits.h2_streams)
            .max_header_list_size(limits.head_size as u32)
            .max_send_buf_size(limits.h2_send_buffer)
            .max_pending_accept_reset_streams(Some(limits.h2_resets))
            .keep_alive_interval(Some(limits.h2_ping))
            .keep_alive_timeout(limits.h2_ping_answer)
            .serve_connection(io, service);
        // GOAWAY goes out at once: a client of HTTP/2 knows what to do with it.
        drive!(serving, Phase::Draining);
    } else {
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .half_close(true)
            .preserve_header_case(true)
            .auto_date_header(false)
            .header_read_timeout(limits.head_time)
            .max_buf_size(limits.head_size.max(8192))
            .serve_connection(io, service)
            .with_upgrades();
        // An idle connection is closed late: closing it while a request is on its way would fail that request.
        drive!(serving, Phase::ClosingIdle);
    }
}
