//! Whole-system tests: the real binary, real files, real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod cluster;
mod drain;
mod folder;
mod one_address;
mod support;
