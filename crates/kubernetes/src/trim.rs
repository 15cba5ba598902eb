//! What is kept of objects: only what somebody reads. A cluster may have a hundred thousand endpoints.

use k8s_openapi::{
    api::{
        core::v1::{Secret, Service},
        discovery::v1::EndpointSlice,
        networking::v1::{Ingress, IngressClass},
    },
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta},
};
use penstock_api::ProxyRoute;

use crate::FIELD_MANAGER;

/// Drops what nobody reads.
pub(crate) trait Trim {
    fn trim(&mut self);
}

/// The keys of a Secret that certificates and authorities are read from.
const SECRET_KEYS: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

impl Trim for Ingress {
    fn trim(&mut self) {
        keep_mark(&mut self.metadata);
    }
}

impl Trim for ProxyRoute {
    fn trim(&mut self) {
        keep_mark(&mut self.metadata);
    }
}

impl Trim for IngressClass {
    fn trim(&mut self) {
        without_last_applied(&mut self.metadata);
        self.metadata.managed_fields = None;
    }
}

impl Trim for Service {
    fn trim(&mut self) {
        keep_identity(&mut self.metadata);
        self.metadata.labels = None;
    }
}

impl Trim for EndpointSlice {
    fn trim(&mut self) {
        // Its labels name the Service.
        keep_identity(&mut self.metadata);
        for endpoint in self.endpoints.iter_mut().flatten() {
            endpoint.target_ref = None;
            endpoint.deprecated_topology = None;
            endpoint.hints = None;
            endpoint.hostname = None;
            endpoint.node_name = None;
            endpoint.zone = None;
        }
    }
}

impl Trim for Secret {
    fn trim(&mut self) {
        keep_identity(&mut self.metadata);
        self.metadata.labels = None;
        if let Some(data) = &mut self.data {
            data.retain(|key, _| SECRET_KEYS.contains(&key.as_str()));
        }
    }
}

fn keep_identity(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.annotations = None;
    metadata.owner_references = None;
    metadata.finalizers = None;
}

/// Of the managed fields only whether some of the status are ours: whoever writes status takes back no more than that.
fn keep_mark(metadata: &mut ObjectMeta) {
    without_last_applied(metadata);
    let ours = has_our_status(metadata);
    let mark = ManagedFieldsEntry {
        manager: Some(FIELD_MANAGER.to_owned()),
        subresource: Some("status".to_owned()),
        ..ManagedFieldsEntry::default()
    };
    metadata.managed_fields = ours.then(|| vec![mark]);
}

/// Whether fields of an object's status are ours, as the API server keeps account of it.
pub(crate) fn has_our_status(metadata: &ObjectMeta) -> bool {
    metadata
        .managed_fields
        .iter()
        .flatten()
        .any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.subresource.as_deref() == Some("status"))
}

fn without_last_applied(metadata: &mut ObjectMeta) {
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn of_managed_fields_stays_whether_the_status_is_ours() {
        let managed = |manager: &str, subresource: Option<&str>| {
            let entry = ManagedFieldsEntry {
                manager: Some(manager.to_owned()),
                operation: Some("Apply".to_owned()),
                subresource: subresource.map(ToOwned::to_owned),
                ..ManagedFieldsEntry::default()
            };
            let mut ingress = Ingress::default();
            ingress.metadata.managed_fields = Some(vec![entry]);
            ingress.trim();
            ingress.metadata
        };
        let ours = managed(FIELD_MANAGER, Some("status"));
        assert!(has_our_status(&ours));
        assert_eq!(ours.managed_fields.unwrap()[0].operation, None);
        assert_eq!(managed("nginx-ingress-controller", Some("status")).managed_fields, None);
        // Somebody who applies an object under our name owns no status by that.
        assert_eq!(managed(FIELD_MANAGER, None).managed_fields, None);
    }

    #[test]
    fn of_secrets_only_certificates_keys_and_authorities_stay() {
        let mut secret = Secret::default();
        secret.metadata.annotations = Some([("a".to_owned(), "b".to_owned())].into());
        let keys = ["tls.crt", "tls.key", "ca.crt", "password"];
        secret.data = Some(keys.map(|key| (key.to_owned(), ByteString::default())).into());
        secret.trim();
        assert_eq!(secret.metadata.annotations, None);
        assert_eq!(secret.data.unwrap().into_keys().collect::<Vec<_>>(), ["ca.crt", "tls.crt", "tls.key"]);
    }
}
