//! From EndpointSlices to the set of endpoints of one Service port. Pure.
//!
//! As the API of `discovery.k8s.io/v1` has it: an endpoint takes traffic if `ready` is true or unset; slices of IPv4 and IPv6 count
//! alike; the port of a slice is the one that bears the name of the Service's port. The result has an order of its own and no duplicates, so
//! that equal endpoints give an equal set however they are spread over slices.

use std::{collections::BTreeSet, net::SocketAddr};

use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort as Port},
        discovery::v1::{EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use penstock_model::{Endpoint, EndpointSet, ServicePort};

use crate::{Key, World};

/// The Service type whose endpoints are a DNS name.
pub(crate) const EXTERNAL_NAME: &str = "ExternalName";

pub(crate) fn is_external_name(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some(EXTERNAL_NAME)
}

/// The port of a Service that is meant by a number, a name, or the text of its `targetPort`. Only TCP.
pub(crate) fn find_port<'s>(service: &'s Service, wanted: &str) -> Option<&'s Port> {
    let ports = service.spec.as_ref()?.ports.as_deref().unwrap_or_default();
    let tcp = || ports.iter().filter(|port| is_tcp(port.protocol.as_deref()));
    let number: Option<i32> = wanted.parse().ok();
    tcp()
        .find(|port| number == Some(port.port) || port.name.as_deref().is_some_and(|name| name == wanted))
        .or_else(|| tcp().find(|port| target(port).as_deref() == Some(wanted)))
}

/// The endpoints that take traffic for this port now.
pub(crate) fn endpoint_set(world: &World, port: &ServicePort) -> EndpointSet {
    let key = Key { namespace: port.namespace.clone(), name: port.name.clone() };
    let mut addresses = BTreeSet::new();
    if let Some(service) = world.services.get(&key).filter(|service| !is_external_name(service))
        && let Some(port) = find_port(service, &port.port)
    {
        for slice in world.slices_of(&key) {
            collect(slice, port, &mut addresses);
        }
    }
    EndpointSet { endpoints: addresses.into_iter().map(|address| Endpoint { address }).collect() }
}

fn collect(slice: &EndpointSlice, port: &Port, addresses: &mut BTreeSet<SocketAddr>) {
    let name = port.name.as_deref().unwrap_or_default();
    let named =
        |candidate: &&EndpointPort| is_tcp(candidate.protocol.as_deref()) && candidate.name.as_deref().unwrap_or_default() == name;
    let ports = slice.ports.as_deref().unwrap_or_default();
    let numbers: Vec<i32> = if ports.is_empty() {
        // "When the list is empty, no ports are defined": a number in the Service is all there is to know.
        match &port.target_port {
            Some(IntOrString::Int(number)) => vec![*number],
            None => vec![port.port],
            Some(IntOrString::String(_)) => Vec::new(),
        }
    } else {
        ports.iter().filter(named).filter_map(|port| port.port).collect()
    };
    let ready = slice
        .endpoints
        .iter()
        .flatten()
        .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true));
    for address in ready.flat_map(|endpoint| &endpoint.addresses) {
        // A slice of addressType FQDN has names here; Kubernetes makes none, and no name is an address.
        let Ok(ip) = address.parse() else { continue };
        addresses.extend(numbers.iter().filter_map(|number| Some(SocketAddr::new(ip, u16::try_from(*number).ok()?))));
    }
}

fn target(port: &Port) -> Option<String> {
    Some(match port.target_port.as_ref()? {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    })
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}
