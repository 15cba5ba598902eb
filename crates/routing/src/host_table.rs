//! The routes of one host, arranged for the match.
//!
//! Routes have one order that depends on no request, their *rank*: first those with an exact path, then regexes (the longest pattern text
//! first, then the one whose first route stands first in the host), then prefixes (the longest first). Routes of the same path stand
//! together: more conditions first (a method, then the number of headers, then of query parameters), then as in the host. So the match is
//! the lowest rank among the routes whose path and conditions hold, and the two forms of a path are merged by rank. Only paths that were made
//! patterns without being meant as such may have to stand back ([`deference`](crate::deference)).

use std::{cmp::Reverse, fmt, iter::Peekable, ptr, sync::Arc};

use penstock_model::{Host, Meant, PathForm, PathMatch, Route, pattern::PathPatterns};

use crate::{
    Ambiguity, Request, Unmet, ambiguity, deference,
    deference::{Deferring, Texts},
    prefixes::{Prefixes, without_slash},
    request::{self, Conditions},
    reuse::Known,
};

/// A host and its compiled routes.
pub struct HostTable<R> {
    host: Arc<Host>,
    /// By rank.
    routes: Box<[CompiledRoute<R>]>,
    /// The routes of each path, by rank.
    paths: Box<[PathRoutes]>,
    /// Exact paths in byte order, with their place in `paths`.
    exact: Box<[(Box<[u8]>, u32)]>,
    regexes: Option<Arc<Regexes>>,
    prefixes: Prefixes,
    forms: Forms,
    /// Some of its paths were made patterns that their authors did not mean as such.
    defers: bool,
}

/// A route and what it was compiled to.
pub struct CompiledRoute<R> {
    route: Arc<Route>,
    compiled: Arc<R>,
    conditions: Option<Arc<Conditions>>,
}

/// Routes of the same path: a range of ranks.
#[derive(Clone, Copy, Debug)]
struct PathRoutes {
    first: u32,
    end: u32,
    forms: Forms,
}

/// The regexes of a host in order of rank. Kept from table to table as long as they are the same: compiling them is what costs most.
struct Regexes {
    texts: Vec<(Box<str>, bool)>,
    patterns: PathPatterns,
}

/// A set of [`PathForm`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forms(u8);

impl Forms {
    const NORMALISED: Self = Self(1);
    const DECODED: Self = Self(2);
    pub(crate) const BOTH: Self = Self(3);

    fn one(form: PathForm) -> Self {
        match form {
            PathForm::Normalised => Self::NORMALISED,
            PathForm::Decoded => Self::DECODED,
        }
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What came of a request.
pub enum Outcome<'t, R> {
    Matched(&'t Arc<R>),
    /// No host answers to the name.
    NoHost,
    /// The host has no route for the request (404).
    NoRoute,
    /// Who would read the path another way would meet another route (400).
    Ambiguous(Ambiguity<'t>),
}

/// A route whose path holds, for explanations.
pub struct Candidate<'t, R> {
    pub route: &'t CompiledRoute<R>,
    /// The first of its conditions that does not hold.
    pub unmet: Option<Unmet<'t>>,
}

/// What the match went through.
pub struct Explanation<'t, R> {
    /// Every route whose path holds, in the order in which they are tried. The first that lacks nothing is the one; those after it would
    /// have been next.
    pub candidates: Vec<Candidate<'t, R>>,
    pub outcome: Outcome<'t, R>,
}

impl<R> HostTable<R> {
    /// Compiles a host, taking from the one before it what did not change (see [`crate::Table::update`]).
    pub(crate) fn build(host: &Arc<Host>, before: Option<&Self>, compile: &mut impl FnMut(&Arc<Host>, &Arc<Route>) -> R) -> Self {
        let known = Known::new(host, before);
        let order = order(&host.routes);
        let mut routes = Vec::with_capacity(order.len());
        let mut paths: Vec<PathRoutes> = Vec::new();
        let (mut exact, mut regexes, mut prefixes) = (Vec::new(), Vec::new(), Vec::new());
        let mut forms = Forms::default();
        for Ranked { route, starts_path } in order {
            let rank = routes.len() as u32;
            let form = Forms::one(route.matches.form);
            forms = forms.and(form);
            match paths.last_mut() {
                Some(path) if !starts_path => {
                    path.end = rank + 1;
                    path.forms = path.forms.and(form);
                }
                _ => {
                    let place = paths.len() as u32;
                    match &route.matches.path {
                        PathMatch::Exact(path) => exact.push((path.as_bytes().into(), place)),
                        PathMatch::Regex { pattern, ignore_case } | PathMatch::Location { pattern, ignore_case, .. } => {
                            regexes.push((pattern.clone(), *ignore_case));
                        }
                        PathMatch::Prefix(path) => prefixes.push((without_slash(path).as_bytes(), place)),
                    }
                    paths.push(PathRoutes { first: rank, end: rank + 1, forms: form });
                }
            }
            routes.push(known.get(route).map_or_else(|| CompiledRoute::new(host, route, compile), CompiledRoute::share));
        }
        exact.sort_unstable();
        Self {
            host: host.clone(),
            routes: routes.into(),
            paths: paths.into(),
            exact: exact.into(),
            regexes: Regexes::new(regexes, before.and_then(|before| before.regexes.as_ref())),
            prefixes: Prefixes::new(prefixes),
            forms,
            defers: host.routes.iter().any(|route| deference::defers(route)),
        }
    }

    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// All routes in order of rank.
    pub fn routes(&self) -> &[CompiledRoute<R>] {
        &self.routes
    }

    /// The route that a request meets. Never [`Outcome::NoHost`].
    pub fn find(&self, request: &impl Request) -> Outcome<'_, R> {
        if self.cannot_read(request) {
            return Outcome::Ambiguous(Ambiguity::AboveRoot);
        }
        self.judge(request, self.candidates(request).find(|candidate| candidate.unmet.is_none()))
    }

    /// As [`HostTable::find`], with all candidates.
    pub fn explain(&self, request: &impl Request) -> Explanation<'_, R> {
        if self.cannot_read(request) {
            return Explanation { candidates: Vec::new(), outcome: Outcome::Ambiguous(Ambiguity::AboveRoot) };
        }
        let candidates: Vec<_> = self.candidates(request).collect();
        let outcome = self.judge(request, candidates.iter().find(|candidate| candidate.unmet.is_none()).copied());
        Explanation { candidates, outcome }
    }

    /// Some routes want a form that the path does not have, so that none can be said to come first.
    fn cannot_read(&self, request: &impl Request) -> bool {
        self.forms.meets(Forms::DECODED) && request.path().decoded().is_none()
    }

    fn judge<'t>(&'t self, request: &impl Request, found: Option<Candidate<'t, R>>) -> Outcome<'t, R> {
        match found {
            None => Outcome::NoRoute,
            Some(Candidate { route, .. }) => match ambiguity::of(self, route, request) {
                None => Outcome::Matched(&route.compiled),
                Some(ambiguity) => Outcome::Ambiguous(ambiguity),
            },
        }
    }

    /// The routes whose path holds, by rank.
    fn candidates<'t, 'q, Q: Request>(&'t self, request: &'q Q) -> impl Iterator<Item = Candidate<'t, R>> + use<'t, 'q, Q, R> {
        let path = request.path();
        let (normalised, decoded) = (path.normalised(), path.decoded().unwrap_or_default());
        let (first, second) = match self.forms {
            Forms::NORMALISED => (Some((normalised, Forms::NORMALISED)), None),
            Forms::DECODED => (Some((decoded, Forms::DECODED)), None),
            _ if path.forms_agree() => (Some((normalised, Forms::BOTH)), None),
            _ => (Some((normalised, Forms::NORMALISED)), Some((decoded, Forms::DECODED))),
        };
        self.merged(first, second).map(|route| Candidate { route, unmet: route.check(request).err() })
    }

    /// The first route that a request would meet if this text were its path in either form.
    pub(crate) fn first_by(&self, text: &[u8], request: &impl Request) -> Option<&CompiledRoute<R>> {
        self.merged(Some((text, Forms::BOTH)), None).find(|route| route.check(request).is_ok())
    }

    /// Whether a text lies in the path of a route of this host, whatever form that looks for.
    pub(crate) fn holds(&self, route: &CompiledRoute<R>, text: &[u8]) -> bool {
        self.merged(Some((text, Forms::BOTH)), None).any(|held| ptr::eq(held, route))
    }

    /// Routes by rank: of each text those of its forms.
    fn merged<'t, 'q>(
        &'t self,
        first: Option<(&'q [u8], Forms)>,
        second: Option<(&'q [u8], Forms)>,
    ) -> impl Iterator<Item = &'t CompiledRoute<R>> + use<'t, 'q, R> {
        let walk = move |view: Option<(&'q [u8], Forms)>| {
            view.into_iter().flat_map(move |(text, forms)| {
                self.places(text).filter_map(move |place| {
                    let routes = self.paths.get(place as usize)?;
                    routes.forms.meets(forms).then_some((place, forms))
                })
            })
        };
        let by_rank = Merge { first: walk(first).peekable(), second: walk(second).peekable() }.flat_map(move |(place, forms)| {
            let range = self.paths.get(place as usize).map_or(0..0, |path| path.first as usize..path.end as usize);
            let routes = self.routes.get(range).unwrap_or_default();
            routes.iter().filter(move |route| Forms::one(route.route.matches.form).meets(forms))
        });
        let text = |view: Option<(&'q [u8], Forms)>| view.map_or(&b""[..], |(text, _)| text);
        let texts = Texts { normalised: text(first), decoded: text(second.or(first)) };
        Deferring::new(by_rank, self.defers, texts)
    }

    /// The places in `paths` of the paths that hold a text, ascending. Each kind is looked up when the one before it is through.
    fn places<'t, 'q>(&'t self, text: &'q [u8]) -> impl Iterator<Item = u32> + use<'t, 'q, R> {
        let exact = self.exact.binary_search_by(|(path, _)| (**path).cmp(text)).ok();
        let exact = exact.and_then(|found| self.exact.get(found)).map(|(_, place)| *place);
        let before_regexes = self.exact.len() as u32;
        let regexes = self.regexes.iter().flat_map(move |regexes| regexes.patterns.matches(text));
        let prefixes = std::iter::once_with(move || self.prefixes.of(text)).flatten();
        exact.into_iter().chain(regexes.map(move |place| place as u32 + before_regexes)).chain(prefixes)
    }
}

impl<R> CompiledRoute<R> {
    fn new(host: &Arc<Host>, route: &Arc<Route>, compile: &mut impl FnMut(&Arc<Host>, &Arc<Route>) -> R) -> Self {
        Self {
            route: route.clone(),
            compiled: Arc::new(compile(host, route)),
            conditions: Conditions::new(&route.matches).map(Arc::new),
        }
    }

    fn share(&self) -> Self {
        Self { route: self.route.clone(), compiled: self.compiled.clone(), conditions: self.conditions.clone() }
    }

    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    pub fn compiled(&self) -> &Arc<R> {
        &self.compiled
    }

    fn check(&self, request: &impl Request) -> Result<(), Unmet<'_>> {
        request::check(&self.route.matches, self.conditions.as_deref(), request)
    }
}

impl Regexes {
    fn new(texts: Vec<(Box<str>, bool)>, before: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        match before {
            _ if texts.is_empty() => None,
            Some(before) if before.texts == texts => Some(before.clone()),
            _ => {
                let patterns = PathPatterns::new(texts.iter().map(|(text, ignore_case)| (&**text, *ignore_case)));
                Some(Arc::new(Self { texts, patterns }))
            }
        }
    }
}

/// Two ascending walks as one.
struct Merge<A: Iterator, B: Iterator> {
    first: Peekable<A>,
    second: Peekable<B>,
}

impl<A, B> Iterator for Merge<A, B>
where
    A: Iterator<Item = (u32, Forms)>,
    B: Iterator<Item = (u32, Forms)>,
{
    type Item = (u32, Forms);

    fn next(&mut self) -> Option<Self::Item> {
        match (self.first.peek(), self.second.peek()) {
            (Some((a, forms_of_a)), Some((b, forms_of_b))) if a == b => {
                let both = (*a, forms_of_a.and(*forms_of_b));
                self.first.next();
                self.second.next();
                Some(both)
            }
            (Some((a, _)), Some((b, _))) if b < a => self.second.next(),
            (None, _) => self.second.next(),
            _ => self.first.next(),
        }
    }
}

struct Ranked<'h> {
    route: &'h Arc<Route>,
    /// It is the first of its path.
    starts_path: bool,
}

/// The routes of a host by rank.
fn order(routes: &[Arc<Route>]) -> Vec<Ranked<'_>> {
    // What makes paths the same, and the place in the host.
    let mut placed: Vec<(PathKey<'_>, u32, &Arc<Route>)> =
        routes.iter().enumerate().map(|(place, route)| (PathKey::of(&route.matches.path), place as u32, route)).collect();
    placed.sort_unstable_by_key(|(key, place, _)| (*key, *place));
    let mut first = (None, 0);
    let mut ranked: Vec<_> = placed
        .into_iter()
        .map(|(key, place, route)| {
            if first.0 != Some(key) {
                first = (Some(key), place);
            }
            let matches = &route.matches;
            let conditions = (matches.method.is_some(), matches.headers.len(), matches.query.len());
            ((key.kind, key.length, first.1), Reverse(conditions), place, route)
        })
        .collect();
    ranked.sort_unstable_by_key(|(path, conditions, place, _)| (*path, *conditions, *place));
    let mut last = None;
    ranked.into_iter().map(|(path, _, _, route)| Ranked { route, starts_path: last.replace(path) != Some(path) }).collect()
}

/// Paths with equal keys are the same, whatever form they are looked for in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct PathKey<'h> {
    kind: u8,
    /// Longer is better. Exact paths are all equally good.
    length: Reverse<usize>,
    text: &'h str,
    ignore_case: bool,
    meant: Meant,
}

impl<'h> PathKey<'h> {
    fn of(path: &'h PathMatch) -> Self {
        match path {
            PathMatch::Exact(path) => Self { kind: 0, length: Reverse(0), text: path, ignore_case: false, meant: Meant::Exact },
            PathMatch::Regex { pattern, ignore_case } => {
                Self { kind: 1, length: Reverse(pattern.len()), text: pattern, ignore_case: *ignore_case, meant: Meant::Regex }
            }
            PathMatch::Location { pattern, ignore_case, written, meant } => {
                Self { kind: 1, length: Reverse(written.len()), text: pattern, ignore_case: *ignore_case, meant: *meant }
            }
            PathMatch::Prefix(path) => {
                let text = without_slash(path);
                Self { kind: 2, length: Reverse(text.len()), text, ignore_case: false, meant: Meant::Prefix }
            }
        }
    }
}

impl<R> Clone for Candidate<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Candidate<'_, R> {}

impl<R> Clone for Outcome<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Outcome<'_, R> {}

impl<R> fmt::Debug for HostTable<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostTable").field("host", &self.host.pattern).field("routes", &self.routes.len()).finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for CompiledRoute<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledRoute").field("object", &self.route.object).field("rule", &self.route.rule).finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for Candidate<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate").field("route", self.route).field("unmet", &self.unmet).finish()
    }
}

impl<R> fmt::Debug for Explanation<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explanation").field("candidates", &self.candidates).field("outcome", &self.outcome).finish()
    }
}

impl<R> fmt::Debug for Outcome<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matched(_) => f.write_str("Matched"),
            Self::NoHost => f.write_str("NoHost"),
            Self::NoRoute => f.write_str("NoRoute"),
            Self::Ambiguous(ambiguity) => f.debug_tuple("Ambiguous").field(ambiguity).finish(),
        }
    }
}
