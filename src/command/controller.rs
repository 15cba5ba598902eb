//! `penstock controller`: the Kubernetes mode.

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::Context;
use penstock_kubernetes::{
    Client, KubernetesMetrics, Leadership, LeaseOptions, SecretsMode, SourceOptions, StatusAddress, StatusOptions, StatusWriter,
    check_ttl, connect, release_lease, stand_for_election,
};
use penstock_translate::{Change, INGRESS_NGINX_CONTROLLER, Key, NATIVE_CONTROLLER, Ownership, Profile, Settings, Translation};
use prometheus_client::registry::Registry;

use crate::{
    cli::{ControllerOptions, Secrets},
    serving::{self, Mode, Source, Surroundings, secret_key},
};

pub fn run(options: &ControllerOptions) -> anyhow::Result<ExitCode> {
    let on = |switch: Option<bool>| switch == Some(true);
    check_ttl(options.election_ttl).context("--election-ttl")?;
    let namespaces = namespaces(&options.watch_namespace);
    let mode = Mode::Cluster { allowed_addresses: options.allow_external_addresses.clone() };
    let settings = Settings {
        ownership: by_class(
            &options.ingress_class,
            options.controller_class.as_deref(),
            on(options.ingress_class_by_name),
            on(options.watch_ingress_without_class),
        ),
        allow_external_backends: on(options.allow_external_backends),
        guard: mode.guard(),
        default_certificate: options
            .default_ssl_certificate
            .as_deref()
            .map(secret_key)
            .transpose()
            .context("--default-ssl-certificate")?,
        namespaces: namespaces.iter().map(|namespace| namespace.as_str().into()).collect(),
    };
    let published = options.publish_service.as_deref().map(secret_key).transpose().context("--publish-service")?;
    let watch = SourceOptions {
        namespaces,
        secrets: match options.secrets {
            Secrets::All => SecretsMode::All,
            Secrets::ByName => SecretsMode::ByName,
        },
        published_service: published.clone(),
    };
    let metrics = KubernetesMetrics::default();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    serving::run(&options.serving, &mode, settings, registry, async |surroundings| {
        let (client, namespace) = connect(options.kubeconfig.as_deref()).await?;
        let source = penstock_kubernetes::Source::start(&client, &watch, &metrics);
        write_status(options, &client, namespace, published, surroundings, &metrics);
        Ok(Cluster(source))
    })
}

/// Each once. An empty one is none: `--watch-namespace=` means all, as in ingress-nginx.
fn namespaces(given: &[String]) -> Vec<String> {
    let given: BTreeSet<&str> = given.iter().map(|namespace| namespace.trim()).filter(|namespace| !namespace.is_empty()).collect();
    given.into_iter().map(ToOwned::to_owned).collect()
}

/// Stands for election, and writes status and Events while it leads.
fn write_status(
    options: &ControllerOptions,
    client: &Client,
    namespace: String,
    published: Option<Key>,
    surroundings: Surroundings,
    metrics: &KubernetesMetrics,
) {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let identity = variable("POD_NAME").or_else(|| variable("HOSTNAME")).unwrap_or_else(|| "penstock".to_owned());
    let lease = LeaseOptions {
        namespace: options.election_namespace.clone().or_else(|| variable("POD_NAMESPACE")).unwrap_or(namespace),
        name: options.election_id.clone(),
        // Two processes of one name, as in tests and on one machine, must not take each other for themselves.
        identity: format!("{identity}-{}", std::process::id()),
        ttl: options.election_ttl,
    };
    let address = match (published, options.publish_status_address.as_slice()) {
        (Some(service), _) => StatusAddress::Service(service),
        (None, []) => StatusAddress::None,
        (None, given) => StatusAddress::Fixed(given.to_vec()),
    };
    let leadership = Leadership::default();
    let election = tokio::spawn(stand_for_election(client.clone(), lease.clone(), leadership.clone(), metrics.clone()));
    let what = StatusOptions { status: options.update_status == Some(true), address, instance: lease.identity.clone() };
    let writer = StatusWriter::new(client.clone(), leadership.clone(), what, metrics.clone());
    let Surroundings { served, mut ending } = surroundings;
    let writing = tokio::spawn(writer.run(served));
    let client = client.clone();
    tokio::spawn(async move {
        let _ = ending.wait_for(|ending| *ending).await;
        election.abort();
        writing.abort();
        release_lease(client, &lease, &leadership).await;
    });
}

/// A cluster as a source of changes.
#[derive(Debug)]
struct Cluster(penstock_kubernetes::Source);

impl Source for Cluster {
    async fn changes(&mut self) -> anyhow::Result<Vec<Change>> {
        Ok(self.0.changes().await)
    }

    fn incomplete(&mut self, translation: &Translation) -> bool {
        self.0.want(&translation.wanted_secrets)
    }
}

/// Ownership by class. Without a controller string of the operator's, both profiles' own strings stand for what they are called.
pub fn by_class(class: &str, controller: Option<&str>, by_name: bool, without_class: bool) -> Ownership {
    let profile = |controller: &str| match controller {
        INGRESS_NGINX_CONTROLLER => Profile::IngressNginx,
        _ => Profile::Native,
    };
    let controllers = match controller {
        Some(controller) => vec![(controller.into(), profile(controller))],
        None => vec![(NATIVE_CONTROLLER.into(), Profile::Native), (INGRESS_NGINX_CONTROLLER.into(), Profile::IngressNginx)],
    };
    Ownership::ByClass { controllers, ingress_class: class.into(), without_class, by_name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_namespace_is_none_and_each_counts_once() {
        let given = |text: &[&str]| namespaces(&text.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert!(given(&[""]).is_empty());
        assert_eq!(given(&["b", "a", "", "b"]), ["a", "b"]);
    }
}
