//! From a model to a table, and the match: (host, path, method, headers, query) to what the route was compiled to.
//!
//! Pure and synchronous; generic over `R`, what the data plane makes of a route. Promises:
//!
//! * The host first: exact, then wildcard (the longest suffix), then the default host. Never another host, whatever its routes say.
//! * The path next: `Exact`, then regexes (the longest pattern first), then the longest `Prefix` by whole segments. Among routes of the same
//!   path those with more conditions first (a method, then the number of headers, then of query parameters), then the order of
//!   [`Host::routes`](penstock_model::Host). The first whose conditions all hold wins.
//! * Each route looks at the form of the path that it names ([`PathForm`](penstock_model::PathForm)); the order above runs over the routes of
//!   both forms together.
//! * What a backend might read as a path of another route is refused ([`Ambiguity`]; the rule stands at its module's head).
//! * A table shares with the one before it whatever did not change ([`Table::update`]). A match gives a route's own `Arc`: nothing needs
//!   to hold a table longer than the match takes.
//! * [`Table::explain`] is the match itself, listened to, not a copy of it.
//!
//! Left to others: what a route does (the `R`), listeners, certificates, and the refusal of bad patterns by name (translation; here a
//! route whose pattern does not compile is never met).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod ambiguity;
mod deference;
mod host_map;
mod host_name;
mod host_table;
mod path;
mod prefixes;
mod request;
mod reuse;
mod table;

pub use ambiguity::{Ambiguity, Reading};
pub use host_name::{HostName, HostNameError, MAX_NAME_LENGTH};
pub use host_table::{Candidate, CompiledRoute, Explanation, HostTable, Outcome};
pub use path::{PathError, RequestPath};
pub use request::{Request, Unmet};
pub use table::Table;
