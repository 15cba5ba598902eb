//! What of a host's former table can be used again.
//!
//! The rule: what a route compiles to may depend on the route, and of its host on the pattern and on whether it speaks TLS, on nothing
//! else. So a compiled route is used again if the route is the same and those two are. A rotated certificate compiles nothing anew.

use std::{cell::OnceCell, collections::HashMap, ptr, sync::Arc};

use penstock_model::{Host, ObjectRef, Route};

use crate::host_table::{CompiledRoute, HostTable};

type ByRule<'t, R> = HashMap<(&'t ObjectRef, &'t str), Vec<&'t CompiledRoute<R>>>;

/// The routes compiled before.
pub(crate) struct Known<'t, R> {
    routes: &'t [CompiledRoute<R>],
    by_address: HashMap<*const Route, &'t CompiledRoute<R>>,
    /// Made when the first route is not found by its address.
    by_rule: OnceCell<ByRule<'t, R>>,
}

impl<'t, R> Known<'t, R> {
    pub(crate) fn new(host: &Host, before: Option<&'t HostTable<R>>) -> Self {
        let usable =
            |before: &&HostTable<R>| before.host().pattern == host.pattern && before.host().tls.is_some() == host.tls.is_some();
        let routes = before.filter(usable).map(HostTable::routes).unwrap_or_default();
        let by_address = routes.iter().map(|known| (ptr::from_ref::<Route>(known.route()), known)).collect();
        Self { routes, by_address, by_rule: OnceCell::new() }
    }

    pub(crate) fn get(&self, route: &Arc<Route>) -> Option<&'t CompiledRoute<R>> {
        if self.routes.is_empty() {
            return None;
        }
        self.by_address.get(&ptr::from_ref::<Route>(route)).copied().or_else(|| {
            let candidates = self.by_rule().get(&(&route.object, &*route.rule))?;
            candidates.iter().copied().find(|known| known.route() == route)
        })
    }

    fn by_rule(&self) -> &ByRule<'t, R> {
        self.by_rule.get_or_init(|| {
            let mut map = ByRule::new();
            for known in self.routes {
                map.entry((&known.route().object, &*known.route().rule)).or_default().push(known);
            }
            map
        })
    }
}
