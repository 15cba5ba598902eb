//! The backend that all proxies share: HTTP/1.1 with WebSockets at one port, gRPC over HTTP/2 in plain text at another.
//!
//! It does as little as can be: it stands on the load's core, and no figure of the bench is its own. It says its two addresses in one line, and ends
//! with its standard input.

pub mod grpc;
mod http1;

use std::{io::Read, net::SocketAddr, time::Duration};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};

use crate::port;

/// Bytes of the usual answer.
pub const ANSWER: usize = 128;
/// After a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(50);

/// Where it listens.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Addresses {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
}

/// The next connection. One that ended before it was taken, or descriptors that ran out, are trouble of a moment: a backend that took no more
/// connections after it would spoil every figure that follows.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                eprintln!("the backend could not accept a connection: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The hidden subcommand.
pub fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (end, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = end.send(());
    });
    runtime.block_on(async {
        let addresses = Addresses { http: port::free()?, grpc: port::free()? };
        let http = TcpListener::bind(addresses.http).await.context("the backend")?;
        let grpc = TcpListener::bind(addresses.grpc).await.context("the backend")?;
        tokio::spawn(async move {
            loop {
                let stream = accept(&http).await;
                // A client that goes away is not the backend's to report.
                tokio::spawn(async move { http1::serve(stream).await });
            }
        });
        tokio::spawn(async move {
            loop {
                tokio::spawn(grpc::serve(accept(&grpc).await));
            }
        });
        println!("{}", serde_json::to_string(&addresses)?);
        let _ = ended.await;
        Ok(())
    })
}
