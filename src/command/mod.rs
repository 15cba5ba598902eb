//! One file per subcommand.

pub mod check;
pub mod completions;
pub mod controller;
pub mod crds;
pub mod explain;
pub mod proxy;
pub mod reference;
pub mod serve;
