//! The table as the workers hold it: the one place that names the routing crate's table.

use penstock_model::{HostPattern, Model, Touched};
use penstock_routing::{HostName, Outcome, Request, Table};

use crate::{
    metrics::Metrics,
    route::{CompiledRoute, compile},
    upstream::Registry,
};

/// A compiled model.
#[derive(Debug, Default)]
pub(crate) struct Routes(Table<CompiledRoute>);

impl Routes {
    /// Compiles a model, sharing with this table what is not touched.
    pub(crate) fn update(&self, model: &Model, touched: &Touched, registry: &Registry, metrics: &Metrics) -> Self {
        Self(self.0.update(model, &touched.hosts, &mut |_, route| compile(route, registry, metrics)))
    }

    /// Whether a host of its own answers to a name.
    pub(crate) fn is_claimed(&self, name: Option<&HostName<'_>>) -> bool {
        self.0.host(name).is_some_and(|host| host.host().pattern != HostPattern::Any)
    }

    pub(crate) fn find(&self, name: Option<&HostName<'_>>, request: &impl Request) -> Outcome<'_, CompiledRoute> {
        self.0.find(name, request)
    }
}
