//! What a phase of load came to.

use std::{io, time::Duration};

use serde::{Deserialize, Serialize};

use crate::statistics::percentile;

/// Counts of one client or of all.
#[derive(Debug, Default)]
pub struct Tally {
    pub operations: u64,
    pub errors: u64,
    pub example: Option<String>,
    /// Nanoseconds of each exchange.
    pub times: Vec<u64>,
}

impl Tally {
    pub fn error(&mut self, error: &io::Error) {
        self.errors += 1;
        self.example.get_or_insert_with(|| error.to_string());
    }

    pub fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.errors += other.errors;
        self.example = self.example.take().or(other.example);
        self.times.extend(other.times);
    }

    pub fn outcome(mut self, warm_up: u64, took: Duration) -> Outcome {
        Outcome {
            operations: self.operations,
            warm_up,
            errors: self.errors,
            example: self.example,
            seconds: took.as_secs_f64(),
            p50_us: percentile(&mut self.times, 0.5) as f64 / 1e3,
            p99_us: percentile(&mut self.times, 0.99) as f64 / 1e3,
        }
    }
}

/// What a load generator tells of a phase.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub operations: u64,
    /// Those before, that count for nothing; the proxy logs them all the same.
    #[serde(default)]
    pub warm_up: u64,
    pub errors: u64,
    pub example: Option<String>,
    pub seconds: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}
