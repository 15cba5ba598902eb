//! The host-wide rule of ingress-nginx: on some hosts every path is a regular expression, whatever its author meant.
//!
//! As the template of ingress-nginx v1.15.1 writes them: `location ~* "^<path>"`, in which case does not count, the start is anchored and the
//! end is not; a Prefix path of an Ingress without a pattern of its own is split into `/foo/` and `/foo`.

use std::sync::Arc;

use penstock_model::{Action, Meant, PathMatch, PathRewrite, Route, pattern};

use crate::claim::NginxPath;

/// A path as it is matched.
pub(crate) struct Location {
    pub(crate) written: String,
    pub(crate) route: Route,
}

/// Whether a path makes regular expressions of all paths of its host. A Prefix path without regex is split into `/foo/` and `/foo`, of
/// which one always differs from the target.
pub(crate) fn makes_regexes(nginx: &NginxPath) -> bool {
    let splits = !nginx.exact && !nginx.path.ends_with('/');
    nginx.regex || nginx.target.as_ref().is_some_and(|target| *target != nginx.path || splits)
}

/// The patterns that are made of a path. `exact` are the Exact paths of the host.
pub(crate) fn make(nginx: &NginxPath, route: &Arc<Route>, exact: &[&str], locations: &mut Vec<Location>) {
    let rewrites = nginx.target.as_ref().is_some_and(|target| *target != nginx.path);
    let split = !nginx.exact && !nginx.regex && !rewrites && !nginx.path.ends_with('/');
    if split {
        locations.push(location(nginx, route, format!("{}/", nginx.path)));
        if exact.contains(&&*nginx.path) {
            return;
        }
    }
    locations.push(location(nginx, route, nginx.path.to_string()));
}

fn location(nginx: &NginxPath, route: &Route, written: String) -> Location {
    let mut route = route.clone();
    route.matches.path = path_match(nginx, &written);
    if let (Action::Forward(forward), Some(target)) = (&mut *route.action, &nginx.target)
        && **target != *written
    {
        forward.path = PathRewrite::Regex { pattern: compilable(&written).into(), ignore_case: true, replacement: target.clone() };
    }
    Location { written, route }
}

fn path_match(nginx: &NginxPath, written: &str) -> PathMatch {
    let meant = match (makes_regexes(nginx), nginx.exact) {
        (true, _) => Meant::Regex,
        (false, true) => Meant::Exact,
        (false, false) => Meant::Prefix,
    };
    if let Some(start) = &nginx.closed {
        return closed(start, written, true);
    }
    if written == "/" {
        // The pattern `/` holds every path, as the prefix does; as a prefix it leaves those of ProxyRoutes their place.
        return PathMatch::Prefix("/".into());
    }
    let text = compilable(written);
    let pattern = pattern::after_nginx_anchor(&text).unwrap_or(text);
    if meant == Meant::Regex && pattern == written {
        PathMatch::Regex { pattern: pattern.into(), ignore_case: true }
    } else {
        PathMatch::Location { pattern: pattern.into(), ignore_case: true, written: written.into(), meant }
    }
}

/// Holds whatever a pattern that cannot be run might hold, at its place among the others.
pub(crate) fn closed(start: &str, written: &str, ignore_case: bool) -> PathMatch {
    PathMatch::Location { pattern: regex::escape(start).into(), ignore_case, written: written.into(), meant: Meant::Regex }
}

/// A path that nobody meant as a pattern need not be one: then it stands for itself.
fn compilable(path: &str) -> String {
    let plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte));
    if plain || pattern::compile_path(path, true).is_ok() { path.to_owned() } else { regex::escape(path) }
}
