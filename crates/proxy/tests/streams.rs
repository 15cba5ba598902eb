//! Promise 4 over TLS and HTTP/2: the end of a side passes through, and so does back-pressure, both ways.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use support::{
    PATIENCE, Proxy, UPGRADE, accept_websocket, backend,
    http2::{self, H2Tunnel},
    model, read_exactly, read_head, route, start,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, watch},
};

/// A tunnel as its client has it.
enum Client {
    /// And what came with the head.
    Tls(Box<http2::Tls>, Vec<u8>),
    Http2(Box<H2Tunnel>),
}

impl Client {
    async fn both(proxy: &Proxy) -> [Self; 2] {
        let mut tls = http2::connect(proxy.https, "a.test", &[b"http/1.1"]).await;
        tls.write_all(UPGRADE.as_bytes()).await.unwrap();
        let (head, early) = read_head(&mut tls).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let tunnel = http2::open_websocket_h2(proxy, "/ws").await;
        [Self::Tls(Box::new(tls), early), Self::Http2(Box::new(tunnel))]
    }

    async fn send(&mut self, bytes: &'static [u8]) {
        match self {
            Self::Tls(stream, _) => stream.write_all(bytes).await.unwrap(),
            Self::Http2(tunnel) => tunnel.out.send_data(Bytes::from_static(bytes), false).unwrap(),
        }
    }

    async fn end(&mut self) {
        match self {
            Self::Tls(stream, _) => stream.shutdown().await.unwrap(),
            Self::Http2(tunnel) => tunnel.out.send_data(Bytes::new(), true).unwrap(),
        }
    }

    async fn read(&mut self, length: usize) -> Vec<u8> {
        match self {
            Self::Tls(stream, early) => {
                let (now, later) = early.split_at(length.min(early.len()));
                let (now, later) = (now.to_vec(), later.to_vec());
                *early = later;
                read_exactly(stream, now, length).await
            }
            Self::Http2(tunnel) => tunnel.read(length).await,
        }
    }

    async fn ends(&mut self) {
        match self {
            Self::Tls(stream, _) => assert_eq!(http2::closes(stream).await, b""),
            Self::Http2(tunnel) => tunnel.ends().await,
        }
    }

    /// Reads to the end; gives how much it was.
    async fn drain(&mut self) -> usize {
        let mut total = 0;
        match self {
            Self::Tls(stream, early) => {
                total += early.len();
                let mut block = vec![0; BLOCK];
                while let read @ 1.. = tokio::time::timeout(PATIENCE, stream.read(&mut block)).await.expect("stuck").unwrap() {
                    total += read;
                }
            }
            Self::Http2(tunnel) => {
                while let Some(data) = tokio::time::timeout(PATIENCE, tunnel.body.data()).await.expect("stuck") {
                    let data = data.unwrap();
                    tunnel.body.flow_control().release_capacity(data.len()).unwrap();
                    total += data.len();
                }
            }
        }
        total
    }

    /// Sends until nothing goes for a moment.
    async fn fill(&mut self) -> usize {
        match self {
            Self::Http2(tunnel) => http2::fill(&mut tunnel.out).await,
            Self::Tls(stream, _) => {
                let block = vec![0; 16 * 1024];
                let mut sent = 0;
                while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), stream.write(&block)).await {
                    sent += written.unwrap();
                }
                sent
            }
        }
    }
}

#[tokio::test]
async fn promise_4_half_close_passes_through_tls_and_http2_when_the_client_ends_first() {
    let (sender, mut got) = mpsc::channel(1);
    let address = backend(move |mut stream| {
        let sender = sender.clone();
        async move {
            let mut all = accept_websocket(&mut stream).await;
            stream.read_to_end(&mut all).await.unwrap();
            sender.send(all).await.unwrap();
            stream.write_all(b"after the end").await.unwrap();
        }
    })
    .await;
    let proxy = start(&model(vec![route("/", address)]));
    for mut client in Client::both(&proxy).await {
        client.send(b"all there is").await;
        client.end().await;
        let all = tokio::time::timeout(PATIENCE, got.recv()).await.expect("the end does not arrive");
        assert_eq!(all.unwrap(), b"all there is");
        assert_eq!(client.read(13).await, b"after the end");
        client.ends().await;
    }
}

#[tokio::test]
async fn promise_4_half_close_passes_through_tls_and_http2_when_the_upstream_ends_first() {
    let (sender, mut got) = mpsc::channel(1);
    let address = backend(move |mut stream| {
        let sender = sender.clone();
        async move {
            let mut all = accept_websocket(&mut stream).await;
            stream.write_all(b"all there is").await.unwrap();
            stream.shutdown().await.unwrap();
            stream.read_to_end(&mut all).await.unwrap();
            sender.send(all).await.unwrap();
        }
    })
    .await;
    let proxy = start(&model(vec![route("/", address)]));
    for mut client in Client::both(&proxy).await {
        assert_eq!(client.read(12).await, b"all there is");
        client.ends().await;
        client.send(b"after the end").await;
        client.end().await;
        let all = tokio::time::timeout(PATIENCE, got.recv()).await.expect("cut").unwrap();
        assert_eq!(all, b"after the end");
    }
}

/// What sockets and windows may hold; unbounded buffers would hold all 50 MiB.
const HELD: usize = 24 << 20;
const BLOCKS: usize = 800;
const BLOCK: usize = 64 * 1024;

#[tokio::test]
async fn promise_4_nothing_is_read_for_a_client_that_takes_nothing_over_tls_and_http2() {
    let (sent, mut progress) = watch::channel(0_usize);
    let flood = backend(move |mut stream| {
        let sent = sent.clone();
        async move {
            let _ = accept_websocket(&mut stream).await;
            let block = vec![7; BLOCK];
            for _ in 0..BLOCKS {
                if stream.write_all(&block).await.is_err() {
                    return;
                }
                sent.send_modify(|count| *count += BLOCK);
            }
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let proxy = start(&model(vec![route("/", flood)]));
    let clients = Client::both(&proxy).await;
    let mut last = 0;
    while let Ok(Ok(())) = tokio::time::timeout(Duration::from_millis(500), progress.changed()).await {
        last = *progress.borrow_and_update();
    }
    assert!(last < 2 * HELD, "{last} bytes went somewhere");
    for mut client in clients {
        assert_eq!(client.drain().await, BLOCKS * BLOCK);
    }
}

#[tokio::test]
async fn promise_4_nothing_is_read_for_an_upstream_that_takes_nothing_over_tls_and_http2() {
    let (go, gone) = watch::channel(false);
    let (sender, mut got) = mpsc::channel(2);
    let address: SocketAddr = backend(move |mut stream| {
        let (mut gone, sender) = (gone.clone(), sender.clone());
        async move {
            let mut total = accept_websocket(&mut stream).await.len();
            gone.wait_for(|gone| *gone).await.unwrap();
            let mut block = vec![0; BLOCK];
            while let Ok(read @ 1..) = stream.read(&mut block).await {
                total += read;
            }
            sender.send(total).await.unwrap();
        }
    })
    .await;
    let proxy = start(&model(vec![route("/", address)]));
    let mut clients = Client::both(&proxy).await;
    let mut sent = Vec::new();
    for client in &mut clients {
        let held = client.fill().await;
        assert!(held < HELD, "{held} bytes went somewhere");
        sent.push(held);
    }
    go.send_replace(true);
    for client in &mut clients {
        client.end().await;
    }
    let mut arrived = Vec::new();
    for _ in 0..2 {
        arrived.push(tokio::time::timeout(PATIENCE, got.recv()).await.expect("stuck").unwrap());
    }
    sent.sort_unstable();
    arrived.sort_unstable();
    assert_eq!(arrived, sent);
}
