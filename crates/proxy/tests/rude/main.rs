//! Rude clients and rude backends, byte by byte, at both sides of the whole data plane in process.
//!
//! Each group is a table of cases against one proxy with one worker and one backend, so that connections to it are shared for sure. A case says
//! what the client sends, what the backend answers, and in a line each what both must get; both ends read by [`wire`], which takes nothing that
//! two parsers could read differently. After each case others are served: a fresh client, and the same connection where it was kept, ask for
//! a word of their own from the same backend, and must get that and nothing else. What is left over of a case shows there.
//!
//! Each case is played three times: written at once, byte by byte, and over TLS. What it takes of the heap is measured and bounded; which connection to the
//! backend it went over is known, and whether that is used on must be as the case has it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod case;
mod connect;
mod endpoint_floods;
mod endpoints;
mod floods;
mod frames;
mod framing;
mod http2;
mod requests;
mod responses;
mod responses_http2;
mod slow;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod targets;
mod upgrades;
mod wire;

/// What a case takes is measured.
#[global_allocator]
static ALLOCATOR: support::heap::Counting = support::heap::Counting;
