//! Where bulk begins in a buffer.
//!
//! Large buffers begin with a page, those of rustls too, and there a record's header of five bytes comes first. So bulk that begins with its buffer is
//! copied to a place which is, modulo the page, a few bytes behind it; and of all distances those from 1 to 31 are slow where memory is copied by
//! `rep movsb` (on AMD's Zen 3 some twenty times: a load takes each store before it for one to its own address). Measured: `docs/design/performance.md`.

/// What is left free at the beginning: a line of the cache, which keeps what comes after it aligned.
pub(crate) const SKEW: usize = 64;
