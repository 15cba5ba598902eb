//! The open loop: exchanges are due at a fixed rate, whatever became of those before. For latency.
//!
//! A time is counted from when the exchange was due, not from when a client was free for it, so that a stall shows in all
//! that it held up (no coordinated omission). A timer of the kernel gives the beat: the runtime's own is as coarse as a millisecond.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use tokio::{io::unix::AsyncFd, sync::Semaphore};

use super::{
    client::{Client, Target},
    closed::in_time,
    tally::Tally,
};

/// How long after the last beat what is still due may take.
const AFTERWARDS: Duration = Duration::from_secs(10);

/// What is due, and a permit for each.
struct Due {
    times: Mutex<VecDeque<Instant>>,
    permits: Semaphore,
}

impl Due {
    fn next(&self) -> Option<Instant> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// Runs all clients at `rate` exchanges a second for a time.
pub async fn phase<C: Client>(clients: &mut Vec<C>, target: &Target, rate: f64, time: Duration) -> io::Result<Tally> {
    let due = Arc::new(Due { times: Mutex::default(), permits: Semaphore::new(0) });
    let give_up = Instant::now() + time + AFTERWARDS;
    let tasks: Vec<_> = clients
        .drain(..)
        .enumerate()
        .map(|(number, mut client)| {
            let (due, target) = (due.clone(), target.clone());
            tokio::spawn(async move {
                let mut tally = Tally::default();
                loop {
                    // Closed after the last beat: what is left is still done.
                    match due.permits.acquire().await {
                        Ok(permit) => permit.forget(),
                        Err(_) if Instant::now() < give_up => {}
                        Err(_) => break,
                    }
                    let Some(at) = due.next() else { break };
                    match in_time(client.exchange()).await {
                        Ok(operations) => {
                            tally.operations += operations;
                            tally.times.push(at.elapsed().as_nanos() as u64);
                        }
                        Err(error) => {
                            tally.error(&error);
                            if let Ok(again) = in_time(C::connect(&target, number)).await {
                                client = again;
                            }
                        }
                    }
                }
                (client, tally)
            })
        })
        .collect();
    beat(&due, rate, time).await?;
    due.permits.close();
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
    while due.next().is_some() {
        tally.error(&io::ErrorKind::TimedOut.into());
    }
    Ok(tally)
}

/// Makes exchanges due, one each interval.
async fn beat(due: &Due, rate: f64, time: Duration) -> io::Result<()> {
    let interval = Duration::from_secs_f64(1.0 / rate);
    let beats = (time.as_secs_f64() * rate) as u32;
    let every = Timespec { tv_sec: interval.as_secs() as i64, tv_nsec: interval.subsec_nanos().into() };
    let timer: OwnedFd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: every, it_value: every })?;
    let start = Instant::now();
    #[expect(deprecated, reason = "the other constructor is unsafe; an OwnedFd stays open as long as it is owned")]
    let timer = AsyncFd::new(timer)?;
    let mut done = 0;
    while done < beats {
        let mut ready = timer.readable().await?;
        let mut count = [0; 8];
        let Ok(read) = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut count)?)) else { continue };
        read?;
        let more = u64::from_ne_bytes(count).min(u64::from(beats - done)) as u32;
        let mut times = due.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.extend((0..more).map(|beat| start + interval * (done + beat + 1)));
        drop(times);
        due.permits.add_permits(more as usize);
        done += more;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{http1::Ask, tls::Connector};

    /// Takes a moment for each exchange.
    struct Slow;

    impl Client for Slow {
        async fn connect(_: &Target, _: usize) -> io::Result<Self> {
            Ok(Self)
        }

        async fn exchange(&mut self) -> io::Result<u64> {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(1)
        }
    }

    #[tokio::test]
    async fn what_waits_for_a_client_is_counted_from_when_it_was_due() {
        let connector = Connector::new(([127, 0, 0, 1], 9).into(), None);
        let target = Target { connector, ask: Ask::Small, hosts: None, resume: false, grpc: false };
        let tally = phase(&mut vec![Slow], &target, 100.0, Duration::from_millis(200)).await.unwrap();
        assert_eq!((tally.operations, tally.errors, tally.times.len()), (20, 0, 20));
        // Due every 10 ms, done every 20 ms: the last one waited for some 200 ms.
        assert!(tally.times.iter().max().is_some_and(|longest| *longest > 150_000_000), "{:?}", tally.times);
    }
}
