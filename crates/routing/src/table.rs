//! All hosts, arranged for the look-up by name, and the step from one table to the next.

use std::{fmt, sync::Arc};

use penstock_model::{Host, HostPattern, Model, Route, WildcardDepth};

use crate::{Explanation, HostName, HostTable, Outcome, Request, host_map::HostMap, host_name::is_plain_label};

/// A compiled model.
pub struct Table<R> {
    exact: HostMap<R>,
    /// By what follows `*.`.
    one: HostMap<R>,
    many: HostMap<R>,
    any: Option<Arc<HostTable<R>>>,
}

impl<R> Table<R> {
    /// Compiles a model from scratch.
    pub fn build(model: &Model, compile: &mut impl FnMut(&Arc<Host>, &Arc<Route>) -> R) -> Self {
        Self::default().update(model, model.hosts.keys(), compile)
    }

    /// Compiles a model, sharing with this table whatever did not change: every host that is not touched, or is the same after all, and of
    /// the others every route that is. Costs what is touched.
    ///
    /// What `compile` gives may depend on the route, and of the host on its pattern and on whether it speaks TLS, on nothing else: on no other
    /// route, no certificate, and on no backend's content. Backends are to be held by key, or by a handle that stays good when they change.
    #[must_use]
    pub fn update<'m>(
        &self,
        model: &Model,
        touched: impl IntoIterator<Item = &'m HostPattern>,
        compile: &mut impl FnMut(&Arc<Host>, &Arc<Route>) -> R,
    ) -> Self {
        let mut table = Self { exact: self.exact.clone(), one: self.one.clone(), many: self.many.clone(), any: self.any.clone() };
        for pattern in touched {
            let before = self.get(pattern);
            // Requests to a host that has no more than a certificate belong to others.
            match model.hosts.get(pattern).filter(|host| !host.certificate_only) {
                Some(host) if before.is_some_and(|before| before.host() == host) => {}
                Some(host) => {
                    let built = HostTable::build(host, before.map(|before| &**before), compile);
                    table.set(pattern, Some(Arc::new(built)));
                }
                None if before.is_some() => table.set(pattern, None),
                None => {}
            }
        }
        table
    }

    fn set(&mut self, pattern: &HostPattern, host: Option<Arc<HostTable<R>>>) {
        let (map, name) = match pattern {
            HostPattern::Any => {
                self.any = host;
                return;
            }
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Wildcard { suffix, depth: WildcardDepth::One } => (&mut self.one, suffix),
            HostPattern::Wildcard { suffix, depth: WildcardDepth::Many } => (&mut self.many, suffix),
        };
        match host {
            Some(host) => map.insert(name, host),
            None => map.remove(name),
        }
    }

    /// The host with exactly this pattern.
    pub fn get(&self, pattern: &HostPattern) -> Option<&Arc<HostTable<R>>> {
        match pattern {
            HostPattern::Any => self.any.as_ref(),
            HostPattern::Exact(name) => self.exact.get(name),
            HostPattern::Wildcard { suffix, depth: WildcardDepth::One } => self.one.get(suffix),
            HostPattern::Wildcard { suffix, depth: WildcardDepth::Many } => self.many.get(suffix),
        }
    }

    /// The host that answers to a name; None for a request without one.
    ///
    /// The exact host, else the wildcard with the longest suffix (of two with the same suffix the one for a single label), else the default
    /// host.
    pub fn host(&self, name: Option<&HostName<'_>>) -> Option<&Arc<HostTable<R>>> {
        name.and_then(|name| self.named(name.as_str())).or(self.any.as_ref())
    }

    fn named(&self, name: &str) -> Option<&Arc<HostTable<R>>> {
        let exact = self.exact.get(name);
        if exact.is_some() || (self.one.is_empty() && self.many.is_empty()) {
            return exact;
        }
        let (label, suffix) = name.split_once('.')?;
        if !is_plain_label(label) {
            return None;
        }
        if let Some(host) = self.one.get(suffix) {
            return Some(host);
        }
        if self.many.is_empty() {
            return None;
        }
        let mut rest = Some((label, suffix));
        while let Some((label, suffix)) = rest {
            if !is_plain_label(label) {
                return None;
            }
            if let Some(host) = self.many.get(suffix) {
                return Some(host);
            }
            rest = suffix.split_once('.');
        }
        None
    }

    /// The route that a request meets at the host that answers to the name. Never one of another host.
    pub fn find(&self, name: Option<&HostName<'_>>, request: &impl Request) -> Outcome<'_, R> {
        self.host(name).map_or(Outcome::NoHost, |host| host.find(request))
    }

    /// As [`Table::find`], with every route whose path holds.
    pub fn explain(&self, name: Option<&HostName<'_>>, request: &impl Request) -> Explanation<'_, R> {
        match self.host(name) {
            Some(host) => host.explain(request),
            None => Explanation { candidates: Vec::new(), outcome: Outcome::NoHost },
        }
    }

    /// All hosts, in no particular order.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<HostTable<R>>> {
        self.exact.values().chain(self.one.values()).chain(self.many.values()).chain(&self.any)
    }
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self { exact: HostMap::default(), one: HostMap::default(), many: HostMap::default(), any: None }
    }
}

impl<R> fmt::Debug for Table<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("hosts", &self.hosts().count()).finish_non_exhaustive()
    }
}
