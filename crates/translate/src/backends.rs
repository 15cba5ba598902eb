//! From a reference to a Service to the identity of a backend, for Ingress and ProxyRoute alike.
//!
//! What is missing still yields a backend, one that never has endpoints: its share of the requests is answered 503, and the route keeps its
//! place until the Service comes.

use std::{net::IpAddr, sync::Arc};

use penstock_model::{BackendKey, Origin, Protocol, ServicePort, UpstreamTls, Verify};

use crate::{
    Reason,
    endpoints::{find_port, is_external_name},
    names,
    reading::Reading,
};

/// How endpoints are to be spoken to.
#[derive(Clone, Debug)]
pub(crate) struct Spoken {
    pub(crate) protocol: Protocol,
    pub(crate) tls: Option<SpokenTls>,
}

/// TLS towards endpoints, as far as it does not depend on which.
#[derive(Clone, Debug)]
pub(crate) struct SpokenTls {
    /// None: the name of what is connected to.
    pub(crate) name: Option<Box<str>>,
    pub(crate) send_sni: bool,
    pub(crate) trust: Trust,
}

#[derive(Clone, Debug)]
pub(crate) enum Trust {
    Everybody,
    System,
    Authorities(Arc<str>),
}

/// A Service and one of its ports, as a field names them.
#[derive(Debug)]
pub(crate) struct ServiceReference<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) port: String,
    pub(crate) field: String,
}

impl Spoken {
    /// The identity of a backend at this origin, whose name is `name` unless another was asked for.
    pub(crate) fn key(&self, origin: Origin, name: &str) -> BackendKey {
        BackendKey { origin, protocol: self.protocol, tls: self.tls.as_ref().map(|tls| tls.upstream(name)) }
    }
}

impl SpokenTls {
    fn upstream(&self, name: &str) -> UpstreamTls {
        let name: Box<str> = self.name.clone().unwrap_or_else(|| name.into());
        // An address is never sent as SNI (RFC 6066 §3).
        let sni = (self.send_sni && name.parse::<IpAddr>().is_err()).then(|| name.clone());
        let verify = match &self.trust {
            Trust::Everybody => Verify::Off,
            Trust::System => Verify::System { name },
            Trust::Authorities(pem) => Verify::Authorities { name, pem: Arc::clone(pem) },
        };
        UpstreamTls { sni, verify }
    }
}

/// The backend that is meant, with a finding for what is missing.
pub(crate) fn of_service(
    reading: &mut Reading<'_>,
    reference: &ServiceReference<'_>,
    spoken: &Spoken,
    external_names_need_leave: bool,
) -> BackendKey {
    let ServiceReference { namespace, name, port, field } = reference;
    let origin = ServicePort { namespace: (*namespace).into(), name: (*name).into(), port: port.as_str().into() };
    let dns_name = format!("{name}.{namespace}.svc");
    let empty = |origin| spoken.key(Origin::Missing(origin), &dns_name);
    let Some(service) = reading.service(namespace, name) else {
        let message = format!("Service {namespace}/{name} does not exist; requests are answered 503");
        reading.refused(field, Reason::BackendNotFound, message);
        return empty(origin);
    };
    if is_external_name(service) {
        let target = service.spec.as_ref().and_then(|spec| spec.external_name.as_deref()).unwrap_or_default();
        let Some(target) = external_name(reading, field, target, external_names_need_leave) else { return empty(origin) };
        if leads_back(reading, namespace, name, &target) {
            let message = format!("the externalName of Service {namespace}/{name} leads back to itself; requests are answered 503");
            reading.refused(field, Reason::BackendNotFound, message);
            return empty(origin);
        }
        let number = port.parse().ok().or_else(|| find_port(service, port).and_then(|port| u16::try_from(port.port).ok()));
        return match number.filter(|number| *number > 0) {
            Some(port) => spoken.key(Origin::Address { host: target.clone(), port }, &target),
            None => {
                refuse_port(reading, reference);
                empty(origin)
            }
        };
    }
    if find_port(service, port).is_none() {
        refuse_port(reading, reference);
        return empty(origin);
    }
    reading.services.push((field.clone(), origin.clone()));
    spoken.key(Origin::Service(origin), &dns_name)
}

fn refuse_port(reading: &mut Reading<'_>, reference: &ServiceReference<'_>) {
    let ServiceReference { namespace, name, port, field } = reference;
    let message = if port.is_empty() {
        format!("no port of Service {namespace}/{name} is named; requests are answered 503")
    } else {
        format!("Service {namespace}/{name} has no TCP port {port}; requests are answered 503")
    };
    reading.refused(format!("{field}.port"), Reason::PortNotFound, message);
}

/// How many ExternalName Services that name each other are followed; a longer chain is somebody's intent.
const MAX_CHAIN: usize = 8;

/// Whether an externalName names another Service in the cluster's own way (`NAME.NAMESPACE.svc…`), and that one another, up to the first.
fn leads_back(reading: &mut Reading<'_>, namespace: &str, name: &str, target: &str) -> bool {
    let mut target: Box<str> = target.into();
    for _ in 0..MAX_CHAIN {
        let next = {
            let mut labels = target.split('.');
            let (Some(next), Some(within), Some("svc")) = (labels.next(), labels.next(), labels.next()) else { return false };
            if (within, next) == (namespace, name) {
                return true;
            }
            let Some(service) = reading.service(within, next).filter(|service| is_external_name(service)) else { return false };
            let name = service.spec.as_ref().and_then(|spec| spec.external_name.as_deref()).unwrap_or_default();
            name.trim_end_matches('.').to_ascii_lowercase().into_boxed_str()
        };
        target = next;
    }
    false
}

fn external_name(reading: &mut Reading<'_>, field: &str, target: &str, needs_leave: bool) -> Option<Box<str>> {
    if needs_leave && !reading.settings.allow_external_backends {
        let message = "the Service is of type ExternalName, which needs --allow-external-backends; requests are answered 503";
        reading.refused(field, Reason::ExternalBackendRefused, message);
        return None;
    }
    let target = target.strip_suffix('.').unwrap_or(target);
    let name = names::dns_name(target).filter(|name| !names::is_loopback_name(name));
    if name.is_none() {
        let message = format!(
            "the Service's externalName {} is not a DNS name of another machine; requests are answered 503",
            crate::annotations::quoted(target)
        );
        reading.refused(field, Reason::ExternalBackendRefused, message);
    }
    name
}
