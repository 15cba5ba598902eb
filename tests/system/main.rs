//! Whole-system tests: the real binary, real files, real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod access_log;
mod bad_input;
mod browser;
mod chart;
mod cluster;
mod conformance;
mod descriptor_limit;
mod drain;
mod folder;
mod h2spec;
mod idle_tunnels;
mod jupyter;
mod kubernetes;
mod manifests;
mod one_address;
mod own_addresses;
mod rbac;
mod recorded;
mod relay;
mod replicas;
mod streams;
mod support;
mod survival;
mod system_calls;
mod systemd;
mod turns;
mod upstream_tls;
mod watches;
