//! Clients that are opened, do one exchange, and then hold still: for memory per connection.

use std::{io, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::{
    closed::in_time,
    http1::{Ask, Http1},
    tls::Connector,
    websocket::Echo,
};

/// Connections that are opened at a time. Few, so that the proxy's pool to the backend stays small.
const AT_ONCE: usize = 16;

/// What the orchestrator says, in one line each.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Open so many more.
    Open(usize),
    /// One more exchange on each.
    Check,
}

/// The answer to an order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Held {
    /// How many exchanges went well.
    pub well: usize,
    pub errors: u64,
    pub example: Option<String>,
}

enum Holding {
    Client(Http1),
    Tunnel(Echo),
}

impl Holding {
    async fn open(connector: &Connector, tunnel: bool) -> io::Result<Self> {
        let stream = connector.connect().await?;
        let mut holding =
            if tunnel { Self::Tunnel(Echo::open(stream).await?) } else { Self::Client(Http1::new(stream, Ask::Small, None, 0)) };
        holding.exchange().await?;
        Ok(holding)
    }

    async fn exchange(&mut self) -> io::Result<()> {
        match self {
            Self::Tunnel(echo) => echo.echo().await,
            Self::Client(client) => {
                client.ask().await?;
                client.rest();
                Ok(())
            }
        }
    }
}

/// All that are open.
pub struct Holder {
    connector: Arc<Connector>,
    tunnels: bool,
    open: Vec<Holding>,
}

impl Holder {
    pub fn new(connector: Connector, tunnels: bool) -> Self {
        Self { connector: Arc::new(connector), tunnels, open: Vec::new() }
    }

    pub async fn follow(&mut self, order: &Order) -> Held {
        match order {
            Order::Open(count) => self.more(*count).await,
            Order::Check => self.check().await,
        }
    }

    async fn more(&mut self, count: usize) -> Held {
        let mut held = Held::default();
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let tunnels = self.tunnels;
        let tasks: Vec<_> = (0..count)
            .map(|_| {
                let (connector, turns) = (self.connector.clone(), turns.clone());
                tokio::spawn(async move {
                    let _turn = turns.acquire().await;
                    in_time(Holding::open(&connector, tunnels)).await
                })
            })
            .collect();
        for task in tasks {
            match task.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(holding) => {
                    held.well += 1;
                    self.open.push(holding);
                }
                Err(error) => held.error(&error),
            }
        }
        held
    }

    async fn check(&mut self) -> Held {
        let mut held = Held::default();
        for holding in &mut self.open {
            match in_time(holding.exchange()).await {
                Ok(()) => held.well += 1,
                Err(error) => held.error(&error),
            }
        }
        held
    }
}

impl Held {
    fn error(&mut self, error: &io::Error) {
        self.errors += 1;
        self.example.get_or_insert_with(|| error.to_string());
    }
}
