//! What the operator decided, as far as translation needs it.

use std::{fmt, net::IpAddr, sync::Arc};

use crate::Key;

/// The controller string of classes in the native profile (`IngressClass.spec.controller`).
pub const NATIVE_CONTROLLER: &str = "penstock.dev/ingress-controller";
/// The controller string of ingress-nginx, whose classes are served in its profile.
pub const INGRESS_NGINX_CONTROLLER: &str = "k8s.io/ingress-nginx";
/// The class that a ProxyRoute without one belongs to.
pub const DEFAULT_CLASS: &str = "penstock";

/// Whose defaults hold where two worlds differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    #[default]
    Native,
    IngressNginx,
}

/// The operator's decisions.
#[derive(Clone, Debug)]
pub struct Settings {
    pub ownership: Ownership,
    /// `--allow-external-backends`: `url` backends, and ExternalName Services in the native profile.
    pub allow_external_backends: bool,
    /// Which addresses a `url` backend may not name.
    pub guard: AddressGuard,
    /// `--default-ssl-certificate`
    pub default_certificate: Option<Key>,
    /// `--watch-namespace`; empty: all.
    pub namespaces: Vec<Box<str>>,
}

/// Says why a backend may not be at an address, if it may not.
///
/// The rules are the data plane's: it asks them of every address before it connects, since a name can mean another address each time. What
/// a route says outright can be told on the object, instead of as a failure of each request. So the same rules are passed in here.
#[derive(Clone)]
pub struct AddressGuard(Arc<dyn Fn(IpAddr) -> Option<String> + Send + Sync>);

impl AddressGuard {
    pub fn new(refusal: impl Fn(IpAddr) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(refusal))
    }

    /// Why not, in a few words.
    pub fn refusal(&self, address: IpAddr) -> Option<String> {
        (self.0)(address)
    }
}

/// Every address may be named.
impl Default for AddressGuard {
    fn default() -> Self {
        Self::new(|_| None)
    }
}

impl fmt::Debug for AddressGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AddressGuard")
    }
}

/// Which objects are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// All of them, whatever their class says (`serve`, `proxy`, `check`). The profile follows the controller of the class where that is
    /// there; else the class's name, if it is `nginx`; else an `nginx.ingress.kubernetes.io/` annotation.
    Everything,
    /// Those of one class by its name, whoever its controller is (`check` and `serve` with `--ingress-class`). The profile is found as for
    /// all of them.
    OfClass(Box<str>),
    /// By class, as a controller in a cluster.
    ByClass {
        /// `--controller-class`: controller strings that are ours, each with its profile. By default both of the constants above stand for
        /// what they are called.
        controllers: Vec<(Box<str>, Profile)>,
        /// `--ingress-class`: the value expected in the annotation `kubernetes.io/ingress.class`.
        ingress_class: Box<str>,
        /// `--watch-ingress-without-class`
        without_class: bool,
        /// `--ingress-class-by-name`
        by_name: bool,
    },
}
