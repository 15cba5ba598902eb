//! Connections to upstreams, kept by each thread for itself: no lock, no atomic.
//!
//! * An HTTP/1.1 connection is lent to one request at a time and comes back only when both bodies are through. The last used goes
//!   first, so that the others can age out.
//! * An HTTP/2 connection is shared by the requests of its thread.
//! * A connection is known by its backend's identity and its address: never lent to a backend that speaks otherwise.

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use penstock_model::Protocol;
use tokio::{net::TcpStream, time::Instant};

use crate::{
    body::RequestBody, error::UpstreamError, executor::Local, registry::BackendState, socket, stream::Stream, tls::ClientTls,
};

/// How long an idle connection is kept. Below the 75 s of nginx and above the few seconds of short-lived servers, whose close is seen at once.
const IDLE: Duration = Duration::from_secs(60);
/// Idle connections a thread keeps for one endpoint.
const MAX_IDLE: usize = 256;
/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_secs(10);

pub(crate) type Http1 = http1::SendRequest<RequestBody>;
pub(crate) type Http2 = http2::SendRequest<RequestBody>;

/// A connection ready for a request.
pub(crate) enum Connection {
    Http1 { sender: Http1 },
    Http2 { sender: Http2, reused: bool },
}

#[derive(Default)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<(u64, SocketAddr), Vec<(Http1, Instant)>>>,
    shared: RefCell<HashMap<(u64, SocketAddr), Http2>>,
}

impl Pool {
    /// A kept connection, if there is one that lives.
    pub(crate) fn take(&self, backend: &BackendState, address: SocketAddr) -> Option<Connection> {
        let key = (backend.id, address);
        if backend.key.protocol != Protocol::Http1 {
            let mut shared = self.shared.borrow_mut();
            let sender = shared.get(&key)?;
            if sender.is_closed() {
                shared.remove(&key);
                return None;
            }
            return Some(Connection::Http2 { sender: sender.clone(), reused: true });
        }
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(&key)?;
        while let Some((sender, _)) = list.pop() {
            if sender.is_ready() {
                return Some(Connection::Http1 { sender });
            }
        }
        None
    }

    /// Takes a connection back.
    pub(crate) fn give_back(&self, backend: u64, address: SocketAddr, sender: Http1) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry((backend, address)).or_default();
        if list.len() < MAX_IDLE {
            list.push((sender, Instant::now()));
        }
    }

    pub(crate) fn share(&self, backend: u64, address: SocketAddr, sender: Http2) {
        self.shared.borrow_mut().insert((backend, address), sender);
    }

    /// Drops what was idle for too long, for ever.
    pub(crate) async fn keep(&self) {
        let mut ticks = tokio::time::interval(SWEEP);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            self.idle.borrow_mut().retain(|_, list| {
                list.retain(|(sender, since)| !sender.is_closed() && now.duration_since(*since) < IDLE);
                !list.is_empty()
            });
            self.shared.borrow_mut().retain(|_, sender| !sender.is_closed());
        }
    }
}

/// Opens a connection. The limit covers TCP and TLS.
pub(crate) async fn connect(backend: &BackendState, address: SocketAddr, limit: Duration) -> Result<Connection, UpstreamError> {
    let opening = open(backend, address);
    tokio::time::timeout(limit, opening).await.map_err(|_| UpstreamError::ConnectTimeout { address, limit })?
}

async fn open(backend: &BackendState, address: SocketAddr) -> Result<Connection, UpstreamError> {
    let connect_error = |error| UpstreamError::Connect { address, error };
    let tcp = TcpStream::connect(address).await.map_err(connect_error)?;
    let _ = socket::prepare(&tcp);
    let h2 = backend.key.protocol != Protocol::Http1;
    let stream = match &backend.tls {
        None => Stream::Plain(tcp),
        Some(tls) => handshake(tcp, address, tls).await?,
    };
    let io = TokioIo::new(stream);
    let handshake_error = |error: hyper::Error| UpstreamError::Handshake { address, message: error.to_string() };
    if h2 {
        let (sender, connection) = http2::Builder::new(Local)
            .timer(hyper_util::rt::TokioTimer::new())
            .keep_alive_interval(Some(Duration::from_secs(30)))
            .keep_alive_timeout(Duration::from_secs(20))
            .handshake(io)
            .await
            .map_err(handshake_error)?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "upstream connection ended");
            }
        });
        return Ok(Connection::Http2 { sender, reused: false });
    }
    let (sender, connection) = http1::Builder::new().preserve_header_case(true).handshake(io).await.map_err(handshake_error)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%address, %error, "upstream connection ended");
        }
    });
    Ok(Connection::Http1 { sender })
}

async fn handshake(tcp: TcpStream, address: SocketAddr, tls: &Result<ClientTls, String>) -> Result<Stream, UpstreamError> {
    let problem = |message: String| UpstreamError::Handshake { address, message };
    let tls = tls.as_ref().map_err(|message| problem(message.clone()))?;
    let connector = tokio_rustls::TlsConnector::from(tls.config.clone());
    let stream = connector.connect(tls.server_name.clone(), tcp).await.map_err(|error| problem(error.to_string()))?;
    Ok(Stream::UpstreamTls(Box::new(stream)))
}

/// A lent HTTP/1.1 connection on its way back to the pool.
pub(crate) struct Lent {
    pub(crate) pool: Rc<Pool>,
    pub(crate) backend: Arc<BackendState>,
    pub(crate) address: SocketAddr,
    pub(crate) sender: Http1,
}

impl Lent {
    /// Called when the response is through.
    pub(crate) fn finish(mut self) {
        if self.sender.is_ready() {
            self.pool.give_back(self.backend.id, self.address, self.sender);
        } else if !self.sender.is_closed() {
            // The request's body may still be on its way, or the connection's task not have had its turn.
            tokio::task::spawn_local(async move {
                if self.sender.ready().await.is_ok() {
                    self.pool.give_back(self.backend.id, self.address, self.sender);
                }
            });
        }
    }
}
