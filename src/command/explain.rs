//! `penstock explain`: which object, rule and backends a request meets, and what happens to it on the way, stage by stage.
//!
//! It runs the same match and the same compilation as the data plane, on a request that is never sent.

use std::{fmt::Write, process::ExitCode};

use anyhow::{Context, bail};
use penstock_model::{HostPattern, Route};
use penstock_proxy::{CompiledRoute, Registry, Request as Planned, compile};
use penstock_routing::{Explanation, HostName, Outcome, Request, RequestPath, Table, Unmet};
use penstock_translate::{Report, Translation, translate};

use crate::{
    cli::ExplainOptions,
    manifests::{Loaded, settings},
    output,
};

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
    let settings = settings(&options.manifests)?;
    let loaded = Loaded::read(&options.manifests)?;
    for error in &loaded.errors {
        eprintln!("penstock: {error}");
    }
    let (text, met) = explain(options, &translate(&loaded.world, &settings))?;
    output::print(&text)?;
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A URL as somebody types it, cut into what a request has.
struct Url<'a> {
    scheme: &'static str,
    /// It asks for a WebSocket.
    websocket: bool,
    authority: &'a str,
    target: &'a str,
}

fn url(text: &str) -> anyhow::Result<Url<'_>> {
    let (scheme, rest) = text.split_once("://").context("the URL has no scheme: write http://… or https://…")?;
    let (scheme, websocket) = match scheme.to_ascii_lowercase().as_str() {
        "http" => ("http", false),
        "https" => ("https", false),
        "ws" => ("http", true),
        "wss" => ("https", true),
        _ => bail!("the scheme is http, https, ws or wss, not {scheme}"),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    Ok(Url { scheme, websocket, authority, target: target.split('#').next().unwrap_or_default() })
}

fn explain(options: &ExplainOptions, translation: &Translation) -> anyhow::Result<(String, bool)> {
    let Translation { model, report, endpoints, .. } = translation;
    let Url { scheme, websocket, authority, target } = url(&options.url)?;
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let headers = options
        .headers
        .iter()
        .map(|header| {
            let (name, value) = header.split_once(':').with_context(|| format!("-H `{header}`: expected `name: value`"))?;
            Ok((name.trim().to_lowercase(), value.trim()))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let given = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
    // As with curl: the field of the request counts, the URL only says where to connect.
    let authority = given("host").unwrap_or(authority);
    let upgrade = given("upgrade").or(websocket.then_some("websocket"));
    let host = HostName::parse(authority).with_context(|| format!("`{authority}`"))?;
    let path = if path.is_empty() { "/" } else { path };
    // A WebSocket over HTTP/2 is matched as the GET that it is over HTTP/1.1 (RFC 8441).
    let method = if options.method == "CONNECT" { "GET" } else { &options.method };
    let asked = Asked { method, path: RequestPath::parse(path).context("the answer is 400")?, query, headers: headers.clone() };

    let registry = Registry::default();
    registry.fill(endpoints, &endpoints.keys().cloned().collect());
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
        problems(&mut out, report);
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
            let why = if candidates.is_empty() {
                "no route of this host holds the path"
            } else {
                "no route that holds the path takes this request"
            };
            let _ = writeln!(out, "answer     404: {why}");
            problems(&mut out, report);
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
        upgrade,
        ports: (options.public_http_port, options.public_https_port),
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

/// Where nothing answers, what could not be served may be why.
fn problems(out: &mut String, report: &Report) {
    for (object, entry) in &report.objects {
        for problem in entry.problems() {
            let _ = writeln!(out, "problem    {object} {}: {}", problem.field, problem.message);
        }
    }
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
