//! What the status of an object should be, drawn from the object and the report of what is served. Pure.
//!
//! What is written is applied by our own field manager. To take it back nothing is applied, so that the API server removes what is ours and
//! leaves what others wrote meanwhile.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::{core::v1::Service, networking::v1::Ingress},
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time},
    jiff::Timestamp,
};
use penstock_api::ProxyRoute;
use penstock_translate::{Id, Key, ObjectReport, Report, conditions};
use serde_json::{Value, json};

use crate::trim::has_our_status;

/// Where the addresses in an Ingress's status come from.
#[derive(Clone, Debug)]
pub enum StatusAddress {
    /// The Ingresses get none.
    None,
    /// Addresses or names as given.
    Fixed(Vec<String>),
    /// Those of a Service (`--publish-service`).
    Service(Key),
}

/// What is to be applied to the status of an Ingress, if it is not so already.
pub(crate) fn of_ingress(id: &Id, ingress: &Ingress, report: &Report, addresses: &[Value]) -> Option<Value> {
    let object = report.objects.get(&id.object_ref());
    if !is_of(object, &ingress.metadata) {
        return None;
    }
    let wanted = if object.is_some() { addresses } else { &[] };
    let current =
        ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref()).and_then(|balancer| balancer.ingress.as_ref());
    let current: Vec<Value> = current
        .into_iter()
        .flatten()
        .map(|entry| match (&entry.ip, &entry.hostname) {
            (Some(ip), _) => json!({ "ip": ip }),
            (None, name) => json!({ "hostname": name }),
        })
        .collect();
    if current == wanted {
        return None;
    }
    let head = ("networking.k8s.io/v1", "Ingress", metadata(id, &ingress.metadata));
    if wanted.is_empty() {
        return has_our_status(&ingress.metadata).then(|| applied(head, None));
    }
    Some(applied(head, Some(json!({ "loadBalancer": { "ingress": wanted } }))))
}

/// What is to be applied to the status of a ProxyRoute, if it is not so already.
pub(crate) fn of_route(id: &Id, route: &ProxyRoute, report: &Report) -> Option<Value> {
    let object = report.objects.get(&id.object_ref());
    if !is_of(object, &route.metadata) {
        return None;
    }
    let current = route.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let head = ("penstock.dev/v1alpha1", "ProxyRoute", metadata(id, &route.metadata));
    let Some(object) = object else {
        return (has_our_status(&route.metadata) && !current.is_empty()).then(|| applied(head, None));
    };
    let mut sketches: Vec<(&str, bool, &str, String)> =
        conditions(report, id).into_iter().map(|sketch| (sketch.type_, sketch.status, sketch.reason, sketch.message)).collect();
    sketches.push(if object.served {
        ("Programmed", true, "Programmed", "every worker serves it".to_owned())
    } else {
        ("Programmed", false, "NotServed", "no rule of it is served; the other conditions say why".to_owned())
    });
    let wanted: Vec<Condition> = sketches
        .into_iter()
        .map(|(type_, status, reason, message)| {
            let status = if status { "True" } else { "False" };
            let before = current.iter().find(|condition| condition.type_ == type_ && condition.status == status);
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message,
                last_transition_time: before.map_or_else(|| Time(Timestamp::now()), |before| before.last_transition_time.clone()),
                observed_generation: route.metadata.generation,
            }
        })
        .collect();
    // Conditions of other types are somebody else's.
    if wanted.iter().all(|wanted| current.contains(wanted)) {
        return None;
    }
    Some(applied(head, Some(json!({ "conditions": wanted }))))
}

/// The body of an apply. Without a status it takes back what is ours.
fn applied((version, kind, metadata): (&str, &str, Value), status: Option<Value>) -> Value {
    match status {
        None => json!({ "apiVersion": version, "kind": kind, "metadata": metadata }),
        Some(status) => json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "status": status }),
    }
}

/// Whether a report speaks of this generation of the object. None speaks of any: the object is not ours.
fn is_of(report: Option<&Arc<ObjectReport>>, metadata: &ObjectMeta) -> bool {
    report.is_none_or(|report| report.generation == metadata.generation.unwrap_or_default())
}

/// With the version that the status was drawn from: whoever stood still, and wakes when another leads, finds that it is not the last.
fn metadata(id: &Id, known: &ObjectMeta) -> Value {
    json!({ "name": id.key.name, "namespace": id.key.namespace, "resourceVersion": known.resource_version, "uid": known.uid })
}

/// The addresses as they stand in a status.
pub(crate) fn addresses(address: &StatusAddress, published: Option<&Service>) -> Vec<Value> {
    let entry =
        |text: &String| if text.parse::<std::net::IpAddr>().is_ok() { json!({ "ip": text }) } else { json!({ "hostname": text }) };
    let texts: BTreeSet<String> = match address {
        StatusAddress::None => BTreeSet::new(),
        StatusAddress::Fixed(texts) => texts.iter().cloned().collect(),
        StatusAddress::Service(_) => published.map(service_addresses).unwrap_or_default(),
    };
    texts.iter().map(entry).collect()
}

/// As ingress-nginx reads `--publish-service`: by the Service's type.
fn service_addresses(service: &Service) -> BTreeSet<String> {
    let Some(spec) = &service.spec else { return BTreeSet::new() };
    let external = spec.external_ips.iter().flatten().cloned();
    let cluster = spec.cluster_ip.iter().filter(|ip| *ip != "None").cloned();
    match spec.type_.as_deref() {
        Some("ExternalName") => spec.external_name.iter().cloned().collect(),
        Some("LoadBalancer") => {
            let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let given = status.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
            given.filter_map(|entry| entry.ip.clone().or_else(|| entry.hostname.clone())).chain(external).collect()
        }
        Some("NodePort") if spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()) => external.collect(),
        _ => cluster.collect(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
    use penstock_translate::{Finding, Kind, Reason, Verdict};

    use super::*;
    use crate::FIELD_MANAGER;

    fn addresses() -> Vec<Value> {
        super::addresses(&StatusAddress::Fixed(vec!["192.0.2.1".to_owned()]), None)
    }

    fn ingress(address: Option<&str>, ours: bool) -> (Id, Ingress) {
        let mut ingress: Ingress = serde_json::from_value(json!({
            "metadata": { "name": "i", "namespace": "n", "generation": 2, "uid": "u", "resourceVersion": "7" },
        }))
        .unwrap();
        if let Some(address) = address {
            ingress.status = Some(serde_json::from_value(json!({ "loadBalancer": { "ingress": [{ "ip": address }] } })).unwrap());
        }
        mark(&mut ingress.metadata, ours);
        (Id::new(Kind::Ingress, "n", "i"), ingress)
    }

    fn mark(metadata: &mut ObjectMeta, ours: bool) {
        let entry = ManagedFieldsEntry {
            manager: Some(FIELD_MANAGER.to_owned()),
            subresource: Some("status".to_owned()),
            ..ManagedFieldsEntry::default()
        };
        metadata.managed_fields = ours.then(|| vec![entry]);
    }

    fn report(id: &Id, generation: i64, served: bool, findings: Vec<Finding>) -> Report {
        let mut report = Report::default();
        report.objects.insert(id.object_ref(), Arc::new(ObjectReport { generation, served, findings: findings.into() }));
        report
    }

    fn written(body: Option<&Value>) -> &Value {
        &body.expect("nothing is written")["status"]
    }

    #[test]
    fn an_ingress_that_is_served_gets_the_address_and_once() {
        let (id, without) = ingress(None, false);
        let report = report(&id, 2, true, Vec::new());
        let body = of_ingress(&id, &without, &report, &addresses());
        assert_eq!(written(body.as_ref()), &json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } }));
        assert_eq!(body.unwrap()["metadata"], json!({ "name": "i", "namespace": "n", "resourceVersion": "7", "uid": "u" }));
        let (_, with) = ingress(Some("192.0.2.1"), true);
        assert_eq!(of_ingress(&id, &with, &report, &addresses()), None);
    }

    #[test]
    fn nothing_is_said_of_a_generation_that_was_not_translated() {
        let (id, ingress) = ingress(None, false);
        assert_eq!(of_ingress(&id, &ingress, &report(&id, 1, true, Vec::new()), &addresses()), None);
    }

    #[test]
    fn of_an_ingress_that_is_not_ours_only_what_we_wrote_is_taken_back() {
        let none = Report::default();
        let (id, others) = ingress(Some("198.51.100.9"), false);
        assert_eq!(of_ingress(&id, &others, &none, &addresses()), None, "another controller's address");
        let (id, ours) = ingress(Some("192.0.2.1"), true);
        let body = of_ingress(&id, &ours, &none, &addresses()).expect("nothing is written");
        assert_eq!(body.get("status"), None, "to apply nothing takes back what is ours");
        let (id, clean) = ingress(None, true);
        assert_eq!(of_ingress(&id, &clean, &none, &addresses()), None);
    }

    #[test]
    fn where_there_is_no_address_ours_is_taken_back() {
        let (id, ours) = ingress(Some("192.0.2.1"), true);
        let body = of_ingress(&id, &ours, &report(&id, 2, true, Vec::new()), &[]).expect("nothing is written");
        assert_eq!(body.get("status"), None);
    }

    fn route(conditions: &Value, ours: bool) -> (Id, ProxyRoute) {
        let mut route: ProxyRoute = serde_json::from_value(json!({
            "apiVersion": "penstock.dev/v1alpha1", "kind": "ProxyRoute",
            "metadata": { "name": "r", "namespace": "n", "generation": 3 },
            "spec": { "hosts": ["r.test"], "rules": [{ "respond": { "code": 200 } }] },
            "status": { "conditions": conditions },
        }))
        .unwrap();
        mark(&mut route.metadata, ours);
        (Id::new(Kind::ProxyRoute, "n", "r"), route)
    }

    fn states(body: Option<&Value>) -> Vec<(String, String)> {
        let conditions = written(body)["conditions"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        conditions.iter().map(|condition| (text(&condition["type"]), text(&condition["status"]))).collect()
    }

    fn state(type_: &str, status: &str) -> (String, String) {
        (type_.to_owned(), status.to_owned())
    }

    #[test]
    fn a_route_without_a_rule_that_is_served_is_not_programmed() {
        let (id, route) = route(&json!([]), false);
        let body = of_route(&id, &route, &report(&id, 3, true, Vec::new()));
        assert_eq!(states(body.as_ref())[2], state("Programmed", "True"));
        let conflict = Finding {
            verdict: Verdict::Refused,
            field: "spec.rules[0]".to_owned(),
            reason: Reason::Conflict,
            message: "an older one has it".to_owned(),
        };
        let body = of_route(&id, &route, &report(&id, 3, false, vec![conflict]));
        assert_eq!(
            states(body.as_ref()),
            [state("Accepted", "False"), state("ResolvedRefs", "True"), state("Programmed", "False")]
        );
    }

    #[test]
    fn conditions_are_written_when_they_differ_and_those_of_others_do_not_count() {
        let (id, route_) = route(&json!([]), false);
        let report_ = report(&id, 3, true, Vec::new());
        let body = of_route(&id, &route_, &report_).unwrap();
        let mut conditions = body["status"]["conditions"].as_array().unwrap().clone();
        let mut foreign = conditions[0].clone();
        foreign["type"] = json!("Foreign");
        conditions.insert(0, foreign);
        let (_, current) = route(&json!(conditions), true);
        assert_eq!(of_route(&id, &current, &report_), None);
        let body = of_route(&id, &current, &Report::default()).expect("it left our class");
        assert_eq!(body.get("status"), None);
        let (_, others) = route(&json!(conditions), false);
        assert_eq!(of_route(&id, &others, &Report::default()), None);
    }
}
