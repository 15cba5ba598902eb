//! `penstock proxy`: one address under one name. It writes the ProxyRoute for the user and serves that.

use std::{process::ExitCode, sync::Arc};

use anyhow::{anyhow, bail};
use penstock_api::{BackendTls, ProxyRoute, ProxyRouteSpec, RouteBackend, RouteRule, RouteTls};
use penstock_translate::{Change, Object, Ownership, Settings, World, translate};
use prometheus_client::registry::Registry;

use super::serve::FileSource;
use crate::{
    cli::ProxyOptions,
    files::{Files, TlsSecret},
    pipeline::has_problems,
    serving::{self, Mode},
};

const NAME: &str = "proxy";
const NAMESPACE: &str = "default";

pub fn run(options: &ProxyOptions) -> anyhow::Result<ExitCode> {
    let given = vec![Change::Put(Object::ProxyRoute(Arc::new(route(options))))];
    let secrets = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            let secret = TlsSecret::new(NAMESPACE, NAME, cert.clone(), key.clone());
            secret.check().map_err(|note| anyhow!("--cert, --key: {note}"))?;
            vec![secret]
        }
        _ => Vec::new(),
    };
    let settings = Settings {
        ownership: Ownership::Everything,
        allow_external_backends: true,
        guard: Mode::Standalone.guard(),
        default_certificate: None,
        namespaces: Vec::new(),
    };
    refuse_mistakes(&given, &settings, secrets.is_empty())?;
    let source = FileSource::new(Files::new(Vec::new(), secrets), true).with(given);
    serving::run(&options.serving, &Mode::Standalone, settings, Registry::default(), async |_| Ok(source))
}

fn route(options: &ProxyOptions) -> ProxyRoute {
    let tls = match &options.cert {
        Some(_) => RouteTls { secret_name: Some(NAME.to_owned()), ..RouteTls::default() },
        None => RouteTls { self_signed: Some(true), ..RouteTls::default() },
    };
    let any = options.from == "*";
    let spec = ProxyRouteSpec {
        hosts: if any { Vec::new() } else { vec![options.from.to_lowercase()] },
        tls: Some(tls),
        rules: vec![RouteRule {
            backends: vec![RouteBackend {
                url: Some(options.to.clone()),
                tls: options.insecure.then(|| BackendTls { verify: Some(false), ..BackendTls::default() }),
                ..RouteBackend::default()
            }],
            ..RouteRule::default()
        }],
        ..ProxyRouteSpec::default()
    };
    let mut route = ProxyRoute::new(NAME, spec);
    route.metadata.namespace = Some(NAMESPACE.to_owned());
    route
}

/// A slip in `--from` or `--to` ends the command at once; in a folder of routes it would be one Problem among others.
fn refuse_mistakes(given: &[Change], settings: &Settings, whole: bool) -> anyhow::Result<()> {
    let mut world = World::default();
    for change in given {
        if let Change::Put(object) = change {
            world.put(object.clone());
        }
    }
    let translation = translate(&world, settings);
    if !has_problems(&translation.report) {
        return Ok(());
    }
    for report in translation.report.objects.values() {
        for problem in report.problems() {
            let flag = match problem.field.as_str() {
                field if field.contains("hosts") => "--from",
                field if field.contains("tls.secretName") && !whole => continue,
                _ => "--to",
            };
            // What becomes of a rule in a folder of routes is of no interest here.
            let message = problem.message.split("; it is left out").next().unwrap_or(&problem.message);
            bail!("{flag}: {}", message.split("; the rule is left out").next().unwrap_or(message));
        }
    }
    Ok(())
}
