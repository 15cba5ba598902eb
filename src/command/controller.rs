//! `penstock controller`: the Kubernetes mode.

use std::process::ExitCode;

use penstock_translate::{INGRESS_NGINX_CONTROLLER, NATIVE_CONTROLLER, Ownership, Profile};

use crate::cli::ControllerOptions;

pub fn run(_options: &ControllerOptions) -> anyhow::Result<ExitCode> {
    anyhow::bail!("being written")
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
