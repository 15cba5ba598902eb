//! Buffers of a thread. A connection has one only while bytes are on their way through it: what is idle owns none.
//!
//! Left to others: how much is read at a time, and for whom.

use bytes::{Buf, Bytes};

use super::spares::Spares;
use crate::skew::SKEW;

/// What is read at once of a body. Larger ones gained nothing measurable on loopback, and this stays within the second cache.
pub(super) const LARGE: usize = 32 * 1024;
/// What is read at once of a request's head, which is kept until its response begins: with a long poll, for long. Few have more.
pub(super) const SMALL: usize = 4 * 1024;
/// Buffers of each size that a thread keeps at most: some 4 MiB. Those of more connections that are active at once come from the allocator.
const KEPT: usize = 128;

thread_local! {
    static LARGE_ONES: Spares<Vec<u8>> = const { Spares::new() };
    static SMALL_ONES: Spares<Vec<u8>> = const { Spares::new() };
}

/// An empty buffer of [`LARGE`] size.
pub(super) fn large() -> Vec<u8> {
    LARGE_ONES.with(Spares::take).unwrap_or_else(|| Vec::with_capacity(LARGE))
}

/// An empty buffer of [`SMALL`] size.
pub(super) fn small() -> Vec<u8> {
    SMALL_ONES.with(Spares::take).unwrap_or_else(|| Vec::with_capacity(SMALL))
}

/// Takes a buffer back, and leaves one without memory. One of another size, which has grown or is none of ours, is dropped.
pub(super) fn give_back(buffer: &mut Vec<u8>) {
    let mut buffer = std::mem::take(buffer);
    buffer.clear();
    let capacity = buffer.capacity();
    let keep = move |spares: &Spares<_>| spares.keep(buffer, KEPT);
    // Growing doubles at least: what lies between has grown a little, and is as good.
    if (SMALL..2 * SMALL).contains(&capacity) {
        SMALL_ONES.with(keep);
    } else if (LARGE..=2 * LARGE).contains(&capacity) {
        LARGE_ONES.with(keep);
    }
}

/// A copy that may go into TLS as it is ([`SKEW`]).
pub(super) fn copy(data: &[u8]) -> Bytes {
    if data.len() < SMALL {
        return Bytes::copy_from_slice(data);
    }
    let mut bytes = Vec::with_capacity(SKEW + data.len());
    bytes.resize(SKEW, 0);
    bytes.extend_from_slice(data);
    let mut bytes = Bytes::from(bytes);
    bytes.advance(SKEW);
    bytes
}

pub(super) fn trim() {
    LARGE_ONES.with(Spares::trim);
    SMALL_ONES.with(Spares::trim);
}
