//! HTTP/2 over TLS: some connections, each with several requests under way. Plain requests, or gRPC unary.

use std::io;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderValue, Request};

use super::client::{Client, Target};
use crate::{
    backend::{ANSWER, grpc},
    certificate::HOST,
};

/// One of the requests under way at a time.
#[derive(Clone, Debug)]
pub struct Http2 {
    send: SendRequest<Bytes>,
    grpc: bool,
}

/// Opens one connection, for this many clients.
pub async fn connect(target: &Target, streams: usize) -> io::Result<Vec<Http2>> {
    let stream = target.connector.connect().await?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 24).enable_push(false);
    let (send, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
    // Ends with its clients.
    tokio::spawn(connection);
    let send = send.ready().await.map_err(io::Error::other)?;
    Ok(vec![Http2 { send, grpc: target.grpc }; streams])
}

impl Http2 {
    async fn ask(&mut self) -> Result<(), h2::Error> {
        std::future::poll_fn(|cx| self.send.poll_ready(cx)).await?;
        let path = if self.grpc { "/bench.Echo/Unary" } else { "/some/path" };
        let mut request = Request::new(());
        *request.method_mut() = if self.grpc { http::Method::POST } else { http::Method::GET };
        *request.uri_mut() = format!("https://{HOST}{path}").parse().map_err(|_| h2::Reason::INTERNAL_ERROR)?;
        *request.version_mut() = http::Version::HTTP_2;
        let headers = request.headers_mut();
        headers.insert("user-agent", HeaderValue::from_static("penstock-bench"));
        if self.grpc {
            headers.insert("content-type", HeaderValue::from_static("application/grpc"));
            headers.insert("te", HeaderValue::from_static("trailers"));
        } else {
            headers.insert("accept", HeaderValue::from_static("*/*"));
        }
        let (response, mut body) = self.send.send_request(request, !self.grpc)?;
        if self.grpc {
            body.send_data(grpc::message(ANSWER), true)?;
        }
        let response = response.await?;
        let status = response.status();
        let mut body = response.into_body();
        let mut size = 0;
        while let Some(data) = body.data().await {
            let data = data?;
            size += data.len();
            body.flow_control().release_capacity(data.len())?;
        }
        let well = if self.grpc {
            let trailers = body.trailers().await?.unwrap_or_default();
            size == ANSWER + 5 && trailers.get("grpc-status").is_some_and(|status| status == "0")
        } else {
            size == ANSWER
        };
        if status == 200 && well { Ok(()) } else { Err(h2::Reason::PROTOCOL_ERROR.into()) }
    }
}

impl Client for Http2 {
    /// A connection of its own: how a client goes on after an error.
    async fn connect(target: &Target, _: usize) -> io::Result<Self> {
        connect(target, 1).await?.pop().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    async fn exchange(&mut self) -> io::Result<u64> {
        self.ask().await.map(|()| 1).map_err(io::Error::other)
    }
}
