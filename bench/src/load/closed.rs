//! The closed loop: each client begins its next exchange when the last one is done. For CPU per operation.
//!
//! At the end of a phase every client is at rest: what was begun is counted, and nothing is under way while the proxy's account is read.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    client::{Client, Target},
    tally::Tally,
};

/// The longest that one exchange or connect may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// A client that had so many errors in a phase does nothing more in it.
const MOST_ERRORS: u64 = 20;

/// An error instead of waiting for ever.
pub async fn in_time<T>(exchange: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Connects so many clients, some at a time.
pub async fn connect<C: Client>(target: &Target, count: usize) -> io::Result<Vec<C>> {
    let mut clients = Vec::with_capacity(count);
    for number in 0..count {
        clients.push(in_time(C::connect(target, number)).await?);
    }
    Ok(clients)
}

/// Runs all clients for a time.
pub async fn phase<C: Client>(clients: &mut Vec<C>, target: &Target, time: Duration) -> Tally {
    let end = Instant::now() + time;
    let tasks: Vec<_> = clients
        .drain(..)
        .enumerate()
        .map(|(number, mut client)| {
            let target = target.clone();
            tokio::spawn(async move {
                let mut tally = Tally::default();
                let mut before = Instant::now();
                while before < end && tally.errors < MOST_ERRORS {
                    match in_time(client.exchange()).await {
                        Ok(operations) => {
                            let now = Instant::now();
                            tally.operations += operations;
                            tally.times.push((now - before).as_nanos() as u64);
                            before = now;
                        }
                        Err(error) => {
                            tally.error(&error);
                            match in_time(C::connect(&target, number)).await {
                                Ok(again) => client = again,
                                Err(error) => tally.error(&error),
                            }
                            before = Instant::now();
                        }
                    }
                }
                (client, tally)
            })
        })
        .collect();
    let mut tally = Tally::default();
    for task in tasks {
        match task.await {
            Ok((client, own)) => {
                clients.push(client);
                tally.add(own);
            }
            Err(error) => tally.error(&io::Error::other(error)),
        }
    }
    tally
}
