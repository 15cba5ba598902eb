//! `penstock explain`: which object, rule and backends a request meets, and what happens to it on the way, stage by stage.
//!
//! It runs the same match and the same compilation as the data plane, on a request that is never sent.

use std::{fmt::Write, process::ExitCode};

use anyhow::{Context, ensure};
use penstock_model::{HostPattern, Model, Route};
use penstock_proxy::{CompiledRoute, Registry, Request as Planned, compile};
use penstock_routing::{Explanation, HostName, Outcome, Request, RequestPath, Table, Unmet};
use penstock_translate::{Report, translate};

use super::check::{load, settings};
use crate::cli::ExplainOptions;

/// The path that the data plane answers itself where no object claims it.
const HEALTH: &str = "/healthz";

/// A request as the user describes it.
struct Asked<'a> {
    method: &'a str,
    path: RequestPath<'a>,
    query: Option<&'a str>,
    headers: Vec<(String, &'a str)>,
}

impl Request for Asked<'_> {
    fn method(&self) -> &str {
        self.method
    }

    fn path(&self) -> &RequestPath<'_> {
        &self.path
    }

    fn header<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s [u8]> {
        self.headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_bytes())
    }

    fn query(&self) -> Option<&[u8]> {
        self.query.map(str::as_bytes)
    }
}

pub fn run(options: &ExplainOptions) -> anyhow::Result<ExitCode> {
    let (world, reading) = load(options.paths.clone());
    for error in &reading.errors {
        eprintln!("penstock: {error}");
    }
    let translation = translate(&world, &settings(None));
    let (text, met) = explain(options, &translation.model, &translation.report)?;
    print!("{text}");
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn explain(options: &ExplainOptions, model: &Model, report: &Report) -> anyhow::Result<(String, bool)> {
    let (scheme, rest) = options.url.split_once("://").context("the URL has no scheme: write http://… or https://…")?;
    ensure!(matches!(scheme, "http" | "https"), "the scheme is http or https, not {scheme}");
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let target = target.split('#').next().unwrap_or_default();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let host = HostName::parse(authority).with_context(|| format!("`{authority}`"))?;
    let headers = options
        .headers
        .iter()
        .map(|header| {
            let (name, value) = header.split_once(':').with_context(|| format!("-H `{header}`: expected `name: value`"))?;
            Ok((name.trim().to_lowercase(), value.trim()))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let path = if path.is_empty() { "/" } else { path };
    let asked = Asked { method: &options.method, path: RequestPath::parse(path).context("the answer is 400")?, query, headers };

    let registry = Registry::default();
    let metrics = penstock_proxy::Metrics::default();
    let table = Table::build(model, &mut |_, route| compile(route, &registry, &metrics));
    let mut out = String::new();
    let _ = writeln!(out, "request    {} {scheme}://{authority}{target}", options.method);
    let normal = String::from_utf8_lossy(asked.path.normalised()).into_owned();
    if normal != path {
        let _ = writeln!(out, "path       {normal} in normal form");
    }
    let healthy = "answer     200: what health checks ask of every address";
    let Some(met) = table.host(Some(&host)) else {
        if path == HEALTH {
            let _ = writeln!(out, "host       none answers to {}, and there is no default host\n{healthy}", host.as_str());
            return Ok((out, true));
        }
        let _ = writeln!(out, "host       none answers to {}, and there is no default host\nanswer     404", host.as_str());
        return Ok((out, false));
    };
    let note = if met.host().pattern == HostPattern::Any { " (the default host)" } else { "" };
    let _ = writeln!(out, "host       {}{note}", met.host().pattern);
    let Explanation { candidates, outcome } = table.explain(Some(&host), &asked);
    let mut won = false;
    for candidate in &candidates {
        let verdict = match candidate.unmet {
            Some(Unmet::Method(method)) => format!("no: only for {method}"),
            Some(Unmet::Header(value)) => format!("no: header {} does not hold", value.name),
            Some(Unmet::Query(value)) => format!("no: query parameter {} does not hold", value.name),
            None if won => "stands back: another comes first".to_owned(),
            None => {
                won = true;
                "yes".to_owned()
            }
        };
        let _ = writeln!(out, "candidate  {}: {verdict}", name(candidate.route.route()));
    }
    let compiled = match outcome {
        Outcome::Matched(compiled) => compiled,
        Outcome::Ambiguous(ambiguity) => {
            let _ = writeln!(out, "answer     400: {ambiguity}");
            return Ok((out, false));
        }
        Outcome::NoRoute if path == HEALTH && met.host().pattern == HostPattern::Any => {
            let _ = writeln!(out, "{healthy}");
            return Ok((out, true));
        }
        Outcome::NoRoute | Outcome::NoHost => {
            let _ = writeln!(out, "answer     404: no route of this host holds the path");
            return Ok((out, false));
        }
    };
    let request = Planned {
        scheme,
        authority,
        host: host.as_str(),
        path: &asked.path,
        query,
        client: options.client,
        has_certificate: model.has_certificate(host.as_str()),
    };
    stages(&mut out, compiled, &request);
    if let Some(object) = report.objects.get(&compiled.route.object) {
        for problem in object.problems() {
            let _ = writeln!(out, "problem    {} {}: {}", compiled.route.object, problem.field, problem.message);
        }
    }
    Ok((out, true))
}

fn name(route: &Route) -> String {
    format!("{} {}", route.object, route.rule)
}

fn stages(out: &mut String, compiled: &CompiledRoute, request: &Planned<'_>) {
    let _ = writeln!(out, "route      {}", name(&compiled.route));
    for (stage, what) in compiled.describe(request) {
        let _ = writeln!(out, "{stage:<10} {what}");
    }
}
