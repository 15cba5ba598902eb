//! `penstock controller`: the Kubernetes mode.

use std::process::ExitCode;

use anyhow::Context;
use penstock_kubernetes::{SourceOptions, connect};
use penstock_translate::{Change, INGRESS_NGINX_CONTROLLER, NATIVE_CONTROLLER, Ownership, Profile, Settings, Translation};

use crate::{
    cli::ControllerOptions,
    serving::{self, Mode, Source, secret_key},
};

pub fn run(options: &ControllerOptions) -> anyhow::Result<ExitCode> {
    let on = |switch: Option<bool>| switch == Some(true);
    let settings = Settings {
        ownership: by_class(
            &options.ingress_class,
            options.controller_class.as_deref(),
            on(options.ingress_class_by_name),
            on(options.watch_ingress_without_class),
        ),
        allow_external_backends: on(options.allow_external_backends),
        default_certificate: options
            .default_ssl_certificate
            .as_deref()
            .map(secret_key)
            .transpose()
            .context("--default-ssl-certificate")?,
        namespaces: options.watch_namespace.iter().map(|namespace| namespace.as_str().into()).collect(),
    };
    let mode = Mode::Cluster { allowed_addresses: options.allow_external_addresses.clone() };
    serving::run(&options.serving, &mode, settings, async || {
        let (client, _) = connect(options.kubeconfig.as_deref()).await?;
        let source = penstock_kubernetes::Source::start(&client, SourceOptions { namespaces: options.watch_namespace.clone() });
        Ok(Cluster(source))
    })
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
