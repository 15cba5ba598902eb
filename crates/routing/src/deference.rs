//! Paths that were made patterns, and the routes that they must take nothing from.
//!
//! On a host where ingress-nginx makes regular expressions of all its paths, `/a` holds `/app` and stands before every prefix. Between
//! Ingresses that is how it has to be. A ProxyRoute on that host must not notice: what it would get if `/a` were matched as it was meant
//! goes to it still. So a path that was not meant as a pattern ([`Meant`]) stands back behind the first route of the normalised form that
//! comes after it in rank, unless it holds the request as meant, too, and then goes before it (exact, or the longer prefix). Where another
//! pattern stands between the two, that one would have come first in any case, and nothing is taken from anybody.

use std::{collections::VecDeque, iter::Peekable};

use penstock_model::{Meant, PathForm, PathMatch, Route};

use crate::{
    host_table::CompiledRoute,
    prefixes::{holds, without_slash},
};

/// Whether a route may have to stand back.
pub(crate) fn defers(route: &Route) -> bool {
    matches!(route.matches.path, PathMatch::Location { meant: Meant::Prefix | Meant::Exact, .. })
}

/// The path of a request in each form.
#[derive(Clone, Copy)]
pub(crate) struct Texts<'q> {
    pub(crate) normalised: &'q [u8],
    pub(crate) decoded: &'q [u8],
}

/// Whether `native` goes before a route that [`defers`], which stands before it in rank. Both hold the path, each in its form.
fn goes_before(native: &Route, deferring: &Route, texts: Texts<'_>) -> bool {
    let PathMatch::Location { written, meant, .. } = &deferring.matches.path else { return false };
    let path = match deferring.matches.form {
        PathForm::Normalised => texts.normalised,
        PathForm::Decoded => texts.decoded,
    };
    let prefix = without_slash(written).as_bytes();
    let stands = match (meant, &native.matches.path) {
        (Meant::Exact, _) => written.as_bytes() == path,
        (Meant::Prefix, PathMatch::Prefix(other)) => holds(prefix, path) && prefix.len() >= without_slash(other).len(),
        (Meant::Prefix, PathMatch::Exact(_) | PathMatch::Regex { .. } | PathMatch::Location { .. }) | (Meant::Regex, _) => false,
    };
    native.matches.form == PathForm::Normalised && !stands
}

/// Routes in the order in which they are tried.
pub(crate) struct Deferring<'t, 'q, R, I: Iterator<Item = &'t CompiledRoute<R>>> {
    by_rank: Peekable<I>,
    /// Whether there is any route that defers.
    needed: bool,
    /// Those that were passed and may have to stand back.
    waiting: VecDeque<&'t CompiledRoute<R>>,
    texts: Texts<'q>,
}

impl<'t, 'q, R, I: Iterator<Item = &'t CompiledRoute<R>>> Deferring<'t, 'q, R, I> {
    pub(crate) fn new(by_rank: I, needed: bool, texts: Texts<'q>) -> Self {
        Self { by_rank: by_rank.peekable(), needed, waiting: VecDeque::new(), texts }
    }
}

impl<'t, R, I: Iterator<Item = &'t CompiledRoute<R>>> Iterator for Deferring<'t, '_, R, I> {
    type Item = &'t CompiledRoute<R>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.needed {
            return self.by_rank.next();
        }
        loop {
            self.waiting.extend(self.by_rank.next_if(|next| defers(next.route())));
            let Some(next) = self.by_rank.peek() else { return self.waiting.pop_front() };
            if defers(next.route()) {
                continue;
            }
            return match self.waiting.front() {
                Some(first) if !goes_before(next.route(), first.route(), self.texts) => self.waiting.pop_front(),
                _ => self.by_rank.next(),
            };
        }
    }
}
