//! Which endpoint a request goes to, and whether it goes to another after that.
//!
//! The state of a backend ([`State`]) hangs on its identity and outlives tables: requests in flight, latency, failures of each endpoint. All of it
//! is atomics that every worker reads and writes; no request waits for a lock. The choice ([`choose`]) is a pure function of that state, of what the request
//! asks for ([`Wish`]) and of numbers drawn beforehand. [`Tries`] is what the engine speaks to: it gives one endpoint after the other, and is
//! told what became of each.
//!
//! Left to others: where endpoints come from (`upstream::registry`, `resolve`), and what is safe to send twice, as far as that depends on the message
//! (`engine::forward`).

mod choose;
mod cookie;
mod describe;
mod endpoint;
mod places;
mod state;
mod tries;
mod wish;

pub(crate) use describe::{Description, describe};
pub(crate) use endpoint::Flight;
pub(crate) use state::State;
pub(crate) use tries::{BeginError, Loss, Tries};
pub(crate) use wish::Wish;

/// A 64-bit hash of bytes that come in pieces, the same in every process and on every machine: replicas must agree on whose a key is. FNV-1a,
/// which is quick for the short keys that there are, then mixed, since its high bits are weak.
#[derive(Clone, Copy, Debug)]
struct StableHash(u64);

impl StableHash {
    const fn new() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }

    fn finish(self) -> u64 {
        mix(self.0)
    }
}

/// The finaliser of SplitMix64: every bit of the input changes half of the output.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// A random number, without asking anybody: of the thread, counted on from a random start. Good enough to spread load, and for nothing else.
fn random() -> u64 {
    use std::cell::Cell;
    thread_local! {
        static NEXT: Cell<u64> = Cell::new(rand::random());
    }
    let next = NEXT.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    NEXT.set(next);
    mix(next)
}
