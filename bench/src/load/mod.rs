//! A load generator: one process for one sample, told what to do in one line, answering in lines.
//!
//! It connects, warms up, comes to rest and says `ready`; on `go` it runs the phase that counts, comes to rest again and says what
//! came of it. Between the two answers the orchestrator reads what the proxy spent. Every phase ends by itself.

mod client;
mod closed;
mod handshake;
mod hold;
mod http1;
mod http2;
mod open;
mod tally;
mod tls;
pub mod websocket;
pub mod wire;

use std::{
    io::{BufRead, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use client::{Client, Target};
pub use hold::{Held, Order};
pub use http1::route_host;
pub use tally::Outcome;

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    pub address: SocketAddr,
    pub tls: bool,
    pub kind: Kind,
    /// Connections at once.
    pub connections: usize,
    /// Exchanges a second in an open loop. None: a closed loop.
    pub rate: Option<f64>,
    pub warm_up: Duration,
    pub time: Duration,
}

/// What an exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Kind {
    /// A GET over HTTP/1.1 that is answered with 128 bytes; of the hosts of so many routes in turn.
    Get {
        hosts: Option<u32>,
    },
    Download {
        size: u64,
    },
    Upload {
        size: u64,
    },
    /// The GET over HTTP/2.
    Get2 {
        streams: usize,
    },
    /// gRPC unary, 128 bytes each way.
    Grpc {
        streams: usize,
    },
    /// A message of 64 bytes and its echo.
    Echo,
    /// Messages of 4 KiB and their echoes, as fast as they go.
    Flood,
    Handshake {
        resume: bool,
    },
    /// Connections that do one exchange and hold still.
    Hold {
        tunnels: bool,
    },
}

/// The hidden subcommand.
pub fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let task: Task = serde_json::from_str(&hear()?.context("no task")?)?;
    runtime.block_on(perform(&task))
}

/// A line from the orchestrator. None: it wants no more.
fn hear() -> anyhow::Result<Option<String>> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line)?;
    Ok((read > 0).then_some(line))
}

fn say(answer: &impl Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(answer)?)?;
    Ok(out.flush()?)
}

async fn perform(task: &Task) -> anyhow::Result<()> {
    let ask = match task.kind {
        Kind::Download { size } => http1::Ask::Download(size),
        Kind::Upload { size } => http1::Ask::Upload(size),
        _ => http1::Ask::Small,
    };
    let over_http2 = matches!(task.kind, Kind::Get2 { .. } | Kind::Grpc { .. });
    let protocol: &[u8] = if over_http2 { b"h2" } else { b"http/1.1" };
    let tls = task.tls.then(|| tls::config(protocol, false)).transpose()?;
    let target = Target {
        connector: tls::Connector::new(task.address, tls),
        ask,
        hosts: if let Kind::Get { hosts } = task.kind { hosts } else { None },
        resume: matches!(task.kind, Kind::Handshake { resume: true }),
        grpc: matches!(task.kind, Kind::Grpc { .. }),
    };
    let count = task.connections;
    match task.kind {
        Kind::Get { .. } | Kind::Download { .. } | Kind::Upload { .. } => {
            phases(closed::connect::<http1::Http1>(&target, count).await?, &target, task).await
        }
        Kind::Get2 { streams } | Kind::Grpc { streams } => {
            let mut clients = Vec::new();
            for _ in 0..count {
                clients.extend(closed::in_time(http2::connect(&target, streams)).await?);
            }
            phases(clients, &target, task).await
        }
        Kind::Echo => phases(closed::connect::<websocket::Echo>(&target, count).await?, &target, task).await,
        Kind::Flood => phases(closed::connect::<websocket::Flood>(&target, count).await?, &target, task).await,
        Kind::Handshake { .. } => phases(closed::connect::<handshake::Handshakes>(&target, count).await?, &target, task).await,
        Kind::Hold { tunnels } => {
            let mut holder = hold::Holder::new(target.connector, tunnels);
            say(&"ready")?;
            while let Some(line) = hear()? {
                say(&holder.follow(&serde_json::from_str(&line)?).await)?;
            }
            Ok(())
        }
    }
}

/// Warms up, waits for the word, runs, tells.
async fn phases<C: Client>(mut clients: Vec<C>, target: &Target, task: &Task) -> anyhow::Result<()> {
    let warm_up = phase(&mut clients, target, task.rate, task.warm_up).await?.operations;
    say(&"ready")?;
    if hear()?.is_none() {
        return Ok(());
    }
    let began = Instant::now();
    let tally = phase(&mut clients, target, task.rate, task.time).await?;
    say(&tally.outcome(warm_up, began.elapsed()))
}

async fn phase<C: Client>(
    clients: &mut Vec<C>,
    target: &Target,
    rate: Option<f64>,
    time: Duration,
) -> anyhow::Result<tally::Tally> {
    match rate {
        Some(rate) => Ok(open::phase(clients, target, rate, time).await?),
        None => Ok(closed::phase(clients, target, time).await),
    }
}
