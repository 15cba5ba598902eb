//! Refusing requests that a backend may read another way than the match did.
//!
//! A route of [`PathForm::Decoded`] is matched as nginx would, but its backend gets the path as it was received. If the backend reads that path
//! in its own way, it may serve what another route stands before: `/admin/..%2fpublic` is `/public` to nginx, and below `/admin` to a
//! backend to which `%2f` is no slash. On the other hand clients do send `//`, `/./` and needless escapes, and ingress-nginx serves them.
//!
//! **The rule.** Let D be the route that the request meets. The request is refused if D has form `Decoded`, forwards to a backend, does not
//! replace the whole path, and in one of these readings of the path the same request would meet something that counts against it:
//!
//! 1. *as received*: the bytes as they came;
//! 2. *normalised*: as RFC 3986 reads it ([`RequestPath::normalised`](crate::RequestPath::normalised));
//! 3. *with parents*: percent-decoded and slashes merged, each `..` left where it stands (only if there is one).
//!
//! In each reading the text is held against all routes of the host. Let E be what it meets:
//!
//! * E is D: nothing counts against it.
//! * E is another route, and the decoded path lies outside E's path: refused. The backend may see itself asked for something that
//!   belongs to E and not to D.
//! * E is another route whose path holds the decoded path too (a shorter prefix, as a rule): refused if E forwards and keeps clients out that
//!   D lets in ([`guards`]). Otherwise served: D is the closer of the two, and passing by E gains nobody anything.
//! * E is nothing, or answers by itself without a backend: refused in reading 3, where the path names a place that no route gives
//!   away; served in readings 1 and 2, where only slashes and escapes differ.
//!
//! So with `/foo/bar` and `/`: `/foo//bar`, `//foo/bar`, `/foo/./bar`, `/foo%2fbar`, `/%66oo/bar`, `/foo/x/../bar/y` meet `/foo/bar`, and `/foo/%2e%2e/x` meets `/`, all as
//! ingress-nginx answers; `/foo/bar/../x` and `/foo/bar/..%2fx` are refused, which it would send to `/`.
//!
//! **Whatever the form** of D, the path is held against the routes in two more readings, those of the most generous backends: decoded, `\` a
//! slash, `;` and what follows it in a segment cut off, slashes merged, `..` resolved or left standing. It is refused if it would then meet another
//! route that keeps clients out whom D lets in, or that answers with an error by itself: such a rule on a prefix cannot be passed by, whoever reads
//! the path behind us (CVE-2021-29492). All other paths of this kind go on as they are.
//!
//! A path that leads above the root once decoded is refused at every host that has `Decoded` routes, as ingress-nginx does.

use std::{fmt, ptr, sync::Arc};

use penstock_model::{Action, AddressRules, Forward, PathForm, PathRewrite, Policies, Route};

use crate::{
    Request,
    host_table::{CompiledRoute, HostTable},
};

/// Why a request is refused for its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambiguity<'t> {
    /// The decoded path leads above the root.
    AboveRoot,
    Another {
        /// The route that the match selected.
        selected: &'t Arc<Route>,
        reading: Reading,
        /// What would be met in that reading. None: no route.
        other: Option<&'t Arc<Route>>,
    },
}

/// The ways in which a backend may read a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    AsReceived,
    Normalised,
    WithParents,
    Loose,
}

impl fmt::Display for Ambiguity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Another { selected, reading, other } = self else { return f.write_str("the path leads above the root") };
        let reading = match reading {
            Reading::AsReceived => "as received",
            Reading::Normalised => "as RFC 3986 reads it",
            Reading::WithParents => "with its `..` left standing",
            Reading::Loose => "read generously",
        };
        write!(f, "the path belongs to {} {}, but {reading} the path belongs to ", selected.object, selected.rule)?;
        match other {
            Some(other) => write!(f, "{} {}", other.object, other.rule),
            None => f.write_str("no route"),
        }
    }
}

/// What counts against sending this request to this route of the host.
pub(crate) fn of<'t, R>(host: &'t HostTable<R>, selected: &'t CompiledRoute<R>, request: &impl Request) -> Option<Ambiguity<'t>> {
    if !shows_path(&selected.route().action) {
        return None;
    }
    let of_form = match selected.route().matches.form {
        PathForm::Decoded => of_decoded(host, selected, request),
        PathForm::Normalised => None,
    };
    of_form.or_else(|| passed_by(host, selected, request))
}

fn of_decoded<'t, R>(host: &'t HostTable<R>, selected: &'t CompiledRoute<R>, request: &impl Request) -> Option<Ambiguity<'t>> {
    let path = request.path();
    let decoded = path.decoded()?;
    if path.raw() == decoded {
        return None;
    }
    let judge = |reading: Reading, text: &[u8]| {
        let other = host.first_by(text, request);
        let harmful = match other {
            Some(other) if ptr::eq(other, selected) => false,
            Some(other) if !host.holds(other, decoded) => true,
            Some(other) if matches!(*other.route().action, Action::Forward(_)) => is_stricter(other, selected),
            Some(_) | None => reading == Reading::WithParents,
        };
        harmful.then(|| Ambiguity::Another { selected: selected.route(), reading, other: other.map(CompiledRoute::route) })
    };
    judge(Reading::AsReceived, path.raw())
        .or_else(|| (!path.forms_agree()).then(|| judge(Reading::Normalised, path.normalised()))?)
        .or_else(|| judge(Reading::WithParents, &path.decoded_with_parents()?))
}

/// A route that keeps out whom the selected one lets in, and that a generous reading of the path would meet.
fn passed_by<'t, R>(host: &'t HostTable<R>, selected: &'t CompiledRoute<R>, request: &impl Request) -> Option<Ambiguity<'t>> {
    let readings = request.path().loose(selected.route().matches.form)?;
    let other = readings.iter().filter_map(|text| host.first_by(text, request)).find(|other| {
        let refuses = match &*other.route().action {
            Action::Respond(respond) => respond.code >= 400,
            Action::Forward(_) | Action::Redirect(_) => is_stricter(other, selected),
        };
        !ptr::eq(*other, selected) && refuses
    })?;
    Some(Ambiguity::Another { selected: selected.route(), reading: Reading::Loose, other: Some(other.route()) })
}

fn is_stricter<R>(other: &CompiledRoute<R>, selected: &CompiledRoute<R>) -> bool {
    let guards_of_other = guards(&other.route().policies);
    *guards_of_other != AddressRules::default() && guards_of_other != guards(&selected.route().policies)
}

/// Whether a backend gets to see how the client wrote the path.
fn shows_path(action: &Action) -> bool {
    match action {
        Action::Forward(Forward { path, .. }) => match path {
            PathRewrite::AsReceived | PathRewrite::Normalised | PathRewrite::Prefix(_) => true,
            // Made from the decoded form, or from nothing of the request.
            PathRewrite::Full(_) | PathRewrite::Regex { .. } => false,
        },
        Action::Redirect(_) | Action::Respond(_) => false,
    }
}

/// Those policies that keep clients out. Named one by one, so that a new policy has to be decided on here.
fn guards(policies: &Policies) -> &AddressRules {
    let Policies {
        addresses,
        https_redirect: _,
        max_body_size: _,
        timeouts: _,
        websocket: _,
        request_headers: _,
        response_headers: _,
        forwarding: _,
        balancing: _,
        retries: _,
    } = policies;
    addresses
}
