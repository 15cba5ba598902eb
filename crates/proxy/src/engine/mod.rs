//! HTTP on both sides. Of it the rest of the house sees heads and fields (`penstock_http1`), answers and compiled edits; the types of the http
//! crate stay in the files that speak HTTP/2.
//!
//! Upwards: `http1` and `http2` are one connection or stream each, on either side; `side` is one of them, and a body's way from one to another;
//! `plan`, `forward`, `upload` and `relay` are the parts of an `exchange`, which `client_http1` and `client_http2` begin.

mod answer;
mod arrival;
mod buffers;
mod client_http1;
mod client_http2;
mod coroutine;
mod exchange;
mod fault;
mod forward;
mod headers;
mod http1;
mod http2;
mod http2_budget;
mod http2_frames;
mod http2_heads;
mod intake;
mod message;
mod outgoing;
mod patience;
mod plan;
mod record;
mod relay;
mod side;
mod spares;
mod upgrade;
mod upload;
mod workspace;

pub(crate) use arrival::serve;
pub(crate) use headers::HeaderPlan;
pub(crate) use outgoing::{BeginError, Http1Upstream, Http2Sender};
pub(crate) use record::Record;

/// Gives up what this thread keeps for exchanges and did not need lately.
pub(crate) fn trim() {
    buffers::trim();
    coroutine::trim();
    workspace::trim();
    patience::trim();
}
