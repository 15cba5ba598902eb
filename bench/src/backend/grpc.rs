//! gRPC unary over HTTP/2 in plain text: any message is answered with one of the same size, and `grpc-status: 0`.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use tokio::net::TcpStream;

/// A gRPC message as it stands in a body: not compressed, its length, its bytes.
pub fn message(size: usize) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + size);
    framed.put_u8(0);
    framed.put_u32(size as u32);
    framed.put_bytes(b'x', size);
    framed.freeze()
}

pub async fn serve(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(1000).initial_window_size(1 << 20).initial_connection_window_size(1 << 24);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(async move { answer(request, respond).await });
    }
}

async fn answer(request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut body = request.into_body();
    let mut size = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        size += data.len();
        body.flow_control().release_capacity(data.len())?;
    }
    let mut response = Response::new(());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut send = respond.send_response(response, false)?;
    send.send_data(message(size.saturating_sub(5)), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    send.send_trailers(trailers)
}
