//! Backends of a rule: Services, and addresses outside the cluster.

use std::net::{IpAddr, Ipv6Addr};

use penstock_api::{BackendProtocol, BackendTls, RouteBackend, ServicePort};
use penstock_model::{Origin, Protocol, WeightedBackend};

use super::rule::RuleReader;
use crate::{
    Reason,
    annotations::quoted,
    backends::{self, ServiceReference, Spoken, SpokenTls, Trust},
    names,
};

/// As the schema has it. Enough for shares in parts per million.
const MAX_WEIGHT: i32 = 1_000_000;
const MAX_PORT_NAME: usize = 63;

/// None: it cannot be used, which was said.
pub(super) fn read(reader: &mut RuleReader<'_, '_>, place: usize, backend: &RouteBackend) -> Option<WeightedBackend> {
    let field = format!("backends[{place}]");
    let weight = backend.weight.unwrap_or(1);
    if !(0..=MAX_WEIGHT).contains(&weight) {
        reader.bad(&format!("{field}.weight"), format!("{weight} is not a weight (0 to {MAX_WEIGHT})"));
    }
    let weight = u32::try_from(weight).unwrap_or_default();
    let key = match (&backend.service, &backend.url) {
        (Some(service), None) => {
            let port = match &service.port {
                ServicePort::Number(number) => number.to_string(),
                ServicePort::Name(name) => name.clone(),
            };
            let number = matches!(service.port, ServicePort::Number(number) if !(1..=65_535).contains(&number));
            if number || port.is_empty() || port.len() > MAX_PORT_NAME {
                reader.bad(&format!("{field}.service.port"), format!("{} is not a port by number or name", quoted(&port)));
                return None;
            }
            let spoken = spoken(reader, &field, backend, false)?;
            let namespace = reader.namespace.clone();
            let reference = ServiceReference {
                namespace: &namespace,
                name: &service.name,
                port,
                field: format!("{}.{field}.service", reader.field),
            };
            backends::of_service(reader.reading, &reference, &spoken, true)
        }
        (None, Some(url)) => {
            let Some(Url { tls, host, port }) = Url::parse(url) else {
                let what = format!("{} is not http://HOST:PORT or https://HOST:PORT", quoted(url));
                reader.bad(&format!("{field}.url"), what);
                return None;
            };
            let spoken = spoken(reader, &field, backend, tls)?;
            if spoken.tls.is_some() != tls {
                reader.bad(&format!("{field}.protocol"), format!("it does not go with {}", quoted(url)));
                return None;
            }
            if !reader.reading.settings.allow_external_backends {
                let field = format!("{}.{field}.url", reader.field);
                let message = "addresses outside the cluster need --allow-external-backends; the backend is left out, and if there is no \
                               other requests are answered 503";
                reader.reading.refused(field, Reason::ExternalBackendRefused, message);
                return None;
            }
            if let Some(why) = host.parse().ok().and_then(|address: IpAddr| reader.reading.settings.guard.refusal(address)) {
                let field = format!("{}.{field}.url", reader.field);
                let message = format!("{why}; the backend is left out, and if there is no other requests are answered 503");
                reader.reading.refused(field, Reason::ExternalBackendRefused, message);
                return None;
            }
            spoken.key(Origin::Address { host: host.clone(), port }, &host)
        }
        _ => {
            reader.bad(&field, "exactly one of service and url is needed");
            return None;
        }
    };
    Some(WeightedBackend { backend: key, weight })
}

fn spoken(reader: &mut RuleReader<'_, '_>, field: &str, backend: &RouteBackend, tls_by_url: bool) -> Option<Spoken> {
    let by_url = if tls_by_url { BackendProtocol::Https } else { BackendProtocol::Http };
    let (protocol, with_tls) = match backend.protocol.unwrap_or(by_url) {
        BackendProtocol::Http => (Protocol::Http1, false),
        BackendProtocol::Https => (Protocol::Http1, true),
        BackendProtocol::H2c => (Protocol::Http2, false),
        BackendProtocol::Grpc => (Protocol::Grpc, false),
        BackendProtocol::Grpcs => (Protocol::Grpc, true),
    };
    if !with_tls {
        if backend.tls.is_some() {
            reader.no_effect(&format!("{field}.tls"), "the protocol of this backend has no TLS");
        }
        return Some(Spoken { protocol, tls: None });
    }
    let default = BackendTls::default();
    let BackendTls { server_name, ca_secret_name, verify } = backend.tls.as_ref().unwrap_or(&default);
    let name = server_name.as_ref().map(|name| {
        let address = name.parse::<IpAddr>().ok().map(|_| name.as_str().into());
        let read = names::dns_name(name).or(address);
        if read.is_none() {
            reader.bad(&format!("{field}.tls.serverName"), format!("{} is not a DNS name or an address", quoted(name)));
        }
        read.unwrap_or_default()
    });
    let trust = match (verify.unwrap_or(true), ca_secret_name) {
        (false, secret) => {
            if secret.is_some() {
                reader.no_effect(&format!("{field}.tls.caSecretName"), "the certificate is not verified (verify is false)");
            }
            Trust::Everybody
        }
        (true, None) => Trust::System,
        (true, Some(secret)) => {
            let namespace = reader.namespace.clone();
            match reader.reading.authorities(&namespace, secret) {
                Ok(pem) => Trust::Authorities(pem),
                Err(problem) => {
                    let field = format!("{}.{field}.tls.caSecretName", reader.field);
                    let message = format!("{problem}; the backend is left out, and if there is no other requests are answered 503");
                    reader.reading.refused(field, problem.reason(), message);
                    return None;
                }
            }
        }
    };
    Some(Spoken { protocol, tls: Some(SpokenTls { name, send_sni: true, trust }) })
}

/// A place outside the cluster.
struct Url {
    tls: bool,
    host: Box<str>,
    port: u16,
}

impl Url {
    /// `http(s)://host[:port][/]`, and nothing else: a path belongs into `rewrite`.
    fn parse(text: &str) -> Option<Self> {
        let (tls, rest) = match text.split_once("://")? {
            ("http", rest) => (false, rest),
            ("https", rest) => (true, rest),
            _ => return None,
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']')?;
                (
                    address.parse::<Ipv6Addr>().ok()?.to_string().into(),
                    if after.is_empty() { None } else { Some(after.strip_prefix(':')?) },
                )
            }
            None => {
                let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
                let address = host.parse::<IpAddr>().ok().map(|address| address.to_string().into());
                (address.or_else(|| names::dns_name(host.strip_suffix('.').unwrap_or(host)))?, port)
            }
        };
        let port = match port {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok().filter(|port| *port > 0)?,
            Some(_) => return None,
        };
        Some(Self { tls, host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_a_scheme_a_host_and_a_port() {
        for (text, read) in [
            ("http://192.168.90.100:8443", Some((false, "192.168.90.100", 8443))),
            ("https://Home.example.com/", Some((true, "home.example.com", 443))),
            ("http://[2001:db8::1]:80", Some((false, "2001:db8::1", 80))),
            ("http://[2001:db8::1]", Some((false, "2001:db8::1", 80))),
            ("http://name:0", None),
            ("http://name:65536", None),
            ("http://name:+80", None),
            ("http://name:", None),
            ("http://[::1", None),
            ("http://[::1]80", None),
            ("http://user@name", None),
            ("http://name/path", None),
            ("http://name?x", None),
            ("ftp://name", None),
            ("name:80", None),
            ("http://", None),
        ] {
            let parsed = Url::parse(text).map(|url| (url.tls, url.host.to_string(), url.port));
            assert_eq!(parsed, read.map(|(tls, host, port)| (tls, host.to_owned(), port)), "{text}");
        }
    }
}
