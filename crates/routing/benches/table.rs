//! What a table costs: to build, to follow a change of one route, and to match. In three shapes: each route on a host of its own, all
//! routes on one host, and (up to 1 000) all of them regexes on one host.
//!
//! `cargo bench -p penstock-routing` takes about half a minute; criterion's flags (`--measurement-time`, a filter) give more or less.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a bench fails by panicking")]
#![allow(missing_docs, reason = "the macros of criterion make public items")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use penstock_model::{Model, Touched};
use penstock_routing::{HostName, RequestPath};
use support::{Asked, compile, host, met, model, prefix, regex, route, table};

const SIZES: [usize; 4] = [10, 1_000, 5_000, 50_000];

#[derive(Clone, Copy)]
enum Shape {
    Hosts,
    OneHost,
    Regexes,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Hosts => "a host each",
            Self::OneHost => "one host",
            Self::Regexes => "regexes on one host",
        }
    }

    fn model(self, count: usize) -> Model {
        match self {
            Self::Hosts => {
                model((0..count).map(|n| host(&format!("host{n}.example.test"), vec![route(&n.to_string(), prefix("/"))])))
            }
            Self::OneHost => {
                let routes = (0..count).map(|n| route(&n.to_string(), prefix(&format!("/team{}/service{n}", n % 100)))).collect();
                model([host("host.example.test", routes)])
            }
            Self::Regexes => {
                let routes = (0..count).map(|n| route(&n.to_string(), regex(&format!("/service{n}(/|$)(.*)")))).collect();
                model([host("host.example.test", routes)])
            }
        }
    }

    /// A host and a path that meet a route in the middle.
    fn request(self, count: usize) -> (String, String) {
        let n = count / 2;
        match self {
            Self::Hosts => (format!("host{n}.example.test"), "/some/path/of/usual/length".to_owned()),
            Self::OneHost => ("host.example.test".to_owned(), format!("/team{}/service{n}/of/usual/length", n % 100)),
            Self::Regexes => ("host.example.test".to_owned(), format!("/service{n}/of/usual/length")),
        }
    }
}

/// The model with one route of its middle host changed.
fn changed(model: &Model) -> Model {
    let mut changed = model.clone();
    let host = changed.hosts.values_mut().nth(model.hosts.len() / 2).unwrap();
    let mut new = (**host).clone();
    let middle = new.routes.len() / 2;
    let mut route = (*new.routes[middle]).clone();
    route.policies.max_body_size = Some(1 << 20);
    new.routes[middle] = Arc::new(route);
    *host = Arc::new(new);
    changed
}

fn tables(criterion: &mut Criterion) {
    for shape in [Shape::Hosts, Shape::OneHost, Shape::Regexes] {
        let sizes = SIZES.into_iter().filter(|size| *size <= 1_000 || !matches!(shape, Shape::Regexes));
        for size in sizes {
            let model = shape.model(size);
            let changed = changed(&model);
            let touched = Touched::between(&model, &changed).hosts;
            let before = table(&model);
            let mut group = criterion.benchmark_group(shape.name());
            group.bench_function(BenchmarkId::new("build", size), |bencher| {
                bencher.iter_batched(|| (), |()| table(&model), BatchSize::PerIteration);
            });
            group.bench_function(BenchmarkId::new("one route changed", size), |bencher| {
                bencher.iter_batched(|| (), |()| before.update(&changed, &touched, &mut compile), BatchSize::PerIteration);
            });
            let (name, path) = shape.request(size);
            group.bench_function(BenchmarkId::new("match", size), |bencher| {
                bencher.iter(|| {
                    let name = HostName::parse(black_box(&name)).unwrap();
                    let path = RequestPath::parse(black_box(&path)).unwrap();
                    let asked = Asked { method: "GET", path, headers: Vec::new(), query: None };
                    let outcome = before.find(Some(&name), &asked);
                    assert!(met(&outcome) != "no route");
                });
            });
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700))
        .without_plots();
    targets = tables
}
criterion_main!(benches);
