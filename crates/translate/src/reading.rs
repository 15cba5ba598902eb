//! Reading one object: the World with a memory of what was looked at, and of what was found.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Secret, Service};
use penstock_model::{ServicePort, Shared};

use crate::{
    Finding, Id, Key, Kind, Reason, Settings, Verdict, World, certificates::Certificate, certificates::SecretProblem, claim::Needs,
    pool::Pools,
};

/// Certificates by Secret, so that a Secret named by a thousand objects is parsed once.
pub(crate) type CertificateCache = HashMap<Key, (Arc<Secret>, Result<Arc<Certificate>, SecretProblem>)>;

/// What is being read, and what was found so far.
pub(crate) struct Reading<'w> {
    pub(crate) world: &'w World,
    pub(crate) settings: &'w Settings,
    pub(crate) certificates: &'w mut CertificateCache,
    /// Parts of what is said, shared with whoever says the same.
    pub(crate) pools: &'w mut Pools,
    pub(crate) findings: Vec<Finding>,
    pub(crate) dependencies: BTreeSet<Id>,
    pub(crate) secrets: BTreeSet<Key>,
    pub(crate) services: Vec<(String, ServicePort)>,
}

impl<'w> Reading<'w> {
    pub(crate) fn new(
        world: &'w World,
        settings: &'w Settings,
        certificates: &'w mut CertificateCache,
        pools: &'w mut Pools,
    ) -> Self {
        Self {
            world,
            settings,
            certificates,
            pools,
            findings: Vec::new(),
            dependencies: BTreeSet::new(),
            secrets: BTreeSet::new(),
            services: Vec::new(),
        }
    }

    /// Leaves none.
    pub(crate) fn share_findings(&mut self) -> Shared<[Finding]> {
        self.pools.findings.share(std::mem::take(&mut self.findings))
    }

    /// What was found to be named.
    pub(crate) fn needs(self) -> Option<Box<Needs>> {
        Needs::of(self.services, self.secrets, self.dependencies)
    }

    pub(crate) fn depend(&mut self, id: Id) {
        self.dependencies.insert(id);
    }

    pub(crate) fn service(&mut self, namespace: &str, name: &str) -> Option<&'w Arc<Service>> {
        let id = Id::new(Kind::Service, namespace, name);
        let found = self.world.services.get(&id.key);
        self.depend(id);
        found
    }

    pub(crate) fn secret(&mut self, namespace: &str, name: &str) -> Option<&'w Arc<Secret>> {
        let id = Id::new(Kind::Secret, namespace, name);
        let found = self.world.secrets.get(&id.key);
        self.secrets.insert(id.key.clone());
        self.depend(id);
        found
    }

    pub(crate) fn honoured(&mut self, field: impl Into<String>) {
        self.find(Verdict::Honoured, field, Reason::Honoured, String::new());
    }

    /// Something that the owner must know.
    pub(crate) fn refused(&mut self, field: impl Into<String>, reason: Reason, message: impl Into<String>) {
        self.find(Verdict::Refused, field, reason, message);
    }

    pub(crate) fn ignored(&mut self, field: impl Into<String>, reason: Reason, message: impl Into<String>) {
        self.find(Verdict::Ignored, field, reason, message);
    }

    fn find(&mut self, verdict: Verdict, field: impl Into<String>, reason: Reason, message: impl Into<String>) {
        self.findings.push(Finding { verdict, field: field.into(), reason, message: message.into() });
    }
}

/// Bytes of a Secret, whether they came encoded (`data`) or as text (`stringData`, which wins, as in the API server).
pub(crate) fn secret_value<'s>(secret: &'s Secret, key: &str) -> Option<&'s [u8]> {
    let text = secret.string_data.as_ref().and_then(|data: &BTreeMap<String, String>| data.get(key)).map(String::as_bytes);
    text.or_else(|| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice()))
}
