//! The limits of all connections as flags. What each is for, and why its default is what it is, stands at
//! [`penstock_proxy::Limits`]; the limits of a route stand in its own policies.

use std::{num::NonZeroUsize, time::Duration};

use clap::Args;
use penstock_proxy::Limits;

use super::{duration, size};

/// Smaller heads than this would refuse browsers with a few cookies.
const SMALLEST_HEAD: u64 = 4 * 1024;
/// Larger ones would let a few thousand clients take gigabytes.
const LARGEST_HEAD: u64 = 1 << 20;

/// Fewer than browsers send behind a few proxies.
const FEWEST_HEADERS: usize = 32;
/// Of more each request costs more than all the rest of it.
const MOST_HEADERS: usize = 1000;

const HEADING: &str = "Limits";

#[derive(Debug, Args)]
pub struct LimitOptions {
    /// Client connections open at once; further ones are closed as they come [default: what the descriptors allow]
    #[arg(long, help_heading = HEADING, value_name = "N")]
    pub max_connections: Option<NonZeroUsize>,
    /// TLS handshakes under way at once in each worker; further ones wait, and after a while the oldest are ended for them
    #[arg(long, help_heading = HEADING, default_value = "512", value_name = "N")]
    pub max_handshakes: NonZeroUsize,
    /// Bytes of a request's head; longer ones are answered 431
    #[arg(long, help_heading = HEADING, default_value = "64Ki", value_parser = head_size, value_name = "SIZE")]
    pub max_head_size: usize,
    /// Fields of a request's head; more are answered 431
    #[arg(long, help_heading = HEADING, default_value = "100", value_parser = header_count, value_name = "N")]
    pub max_header_count: usize,
    /// How long a client may take for a request's head, and for the TLS handshake; 408 after that
    #[arg(long, help_heading = HEADING, default_value = "15s", value_parser = duration, value_name = "TIME")]
    pub head_timeout: Duration,
    /// How long a client's connection without a request is kept
    #[arg(long, help_heading = HEADING, default_value = "75s", value_parser = duration, value_name = "TIME")]
    pub idle_timeout: Duration,
    /// How long the next bytes of a request's body may take (HTTP/1.1); 408 after that
    #[arg(long, help_heading = HEADING, default_value = "1m", value_parser = duration, value_name = "TIME")]
    pub body_timeout: Duration,
    /// How long a client may take nothing of what it is sent
    #[arg(long, help_heading = HEADING, default_value = "1m", value_parser = duration, value_name = "TIME")]
    pub write_timeout: Duration,
    /// Requests at once in one HTTP/2 connection
    #[arg(long, help_heading = HEADING, default_value = "256", value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    pub max_streams: u32,
    /// Streams that an HTTP/2 client may reset before they were looked at, before its connection is closed
    #[arg(long, help_heading = HEADING, default_value = "50", value_name = "N")]
    pub max_resets: usize,
    /// Frames without use (PING and others) in a second of an HTTP/2 client or endpoint beyond what requests need, before its connection is closed; a request that a client takes back counts as ten
    #[arg(long, help_heading = HEADING, default_value = "10000", value_parser = clap::value_parser!(u32).range(200..), value_name = "N")]
    pub max_control_frames: u32,
    /// Connections without a request that each worker keeps to one endpoint
    #[arg(long, help_heading = HEADING, default_value = "256", value_name = "N")]
    pub upstream_keepalive: usize,
    /// How long those are kept
    #[arg(long, help_heading = HEADING, default_value = "1m", value_parser = duration, value_name = "TIME")]
    pub upstream_keepalive_timeout: Duration,
    /// Endpoints that are tried for one request when connecting fails
    #[arg(long, help_heading = HEADING, default_value = "3", value_name = "N")]
    pub connect_attempts: NonZeroUsize,
}

fn header_count(text: &str) -> Result<usize, String> {
    let count = text.parse().map_err(|_| "expected a number".to_owned())?;
    if !(FEWEST_HEADERS..=MOST_HEADERS).contains(&count) {
        return Err(format!("expected between {FEWEST_HEADERS} and {MOST_HEADERS}"));
    }
    Ok(count)
}

fn head_size(text: &str) -> Result<usize, String> {
    let size = size(text)?;
    if !(SMALLEST_HEAD..=LARGEST_HEAD).contains(&size) {
        return Err(format!("expected between {}Ki and {}Ki", SMALLEST_HEAD >> 10, LARGEST_HEAD >> 10));
    }
    usize::try_from(size).map_err(|error| error.to_string())
}

impl From<&LimitOptions> for Limits {
    fn from(options: &LimitOptions) -> Self {
        Self {
            connections: options.max_connections.map(NonZeroUsize::get),
            handshakes: options.max_handshakes.get(),
            head_size: options.max_head_size,
            header_count: options.max_header_count,
            head_time: options.head_timeout,
            idle_time: options.idle_timeout,
            body_time: options.body_timeout,
            write_time: options.write_timeout,
            streams: options.max_streams,
            resets: options.max_resets,
            control_frames: options.max_control_frames,
            upstream_idle: options.upstream_keepalive,
            upstream_idle_time: options.upstream_keepalive_timeout,
            connect_attempts: options.connect_attempts.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches};

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Limits, clap::Error> {
        let command = LimitOptions::augment_args(clap::Command::new("test").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments)?;
        Ok(Limits::from(&LimitOptions::from_arg_matches(&matches)?))
    }

    #[test]
    fn the_defaults_are_those_of_the_data_plane() {
        assert_eq!(parse(&[]).unwrap(), Limits::default());
    }

    #[test]
    fn limits_that_would_stop_everything_are_refused() {
        for arguments in [
            ["--max-connections", "0"],
            ["--max-handshakes", "0"],
            ["--max-head-size", "0"],
            ["--max-head-size", "1Gi"],
            ["--max-header-count", "0"],
            ["--max-streams", "0"],
            ["--max-control-frames", "0"],
            ["--connect-attempts", "0"],
            ["--idle-timeout", "soon"],
        ] {
            assert!(parse(&arguments).is_err(), "{arguments:?}");
        }
        assert_eq!(parse(&["--max-head-size", "16Ki"]).unwrap().head_size, 16 * 1024);
    }
}
