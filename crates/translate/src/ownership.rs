//! Whose objects are ours, and in which profile.
//!
//! The rules are those of ingress-nginx (the field before the annotation before `--watch-ingress-without-class`), but a class that is
//! added or removed counts at once for every object that names it: the class is a dependency of what was read.

use std::collections::BTreeMap;

use crate::{
    DEFAULT_CLASS, INGRESS_NGINX_CONTROLLER, Id, Kind, Ownership, Profile, Settings, annotations::NGINX_PREFIX, reading::Reading,
};

/// The annotation by which classes were named before `spec.ingressClassName` (deprecated in Kubernetes 1.18, and still in use).
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Marks the class of objects that name none (Kubernetes API, IngressClass).
const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";
/// What everybody calls the class of ingress-nginx. Where no such class is to be seen (manifests in files), the name says enough.
const NGINX_CLASS: &str = "nginx";

/// The profile in which an Ingress is ours; None if it is not.
pub(crate) fn of_ingress(
    reading: &mut Reading<'_>,
    namespace: &str,
    field: Option<&str>,
    annotations: Option<&BTreeMap<String, String>>,
) -> Option<Profile> {
    if !watched(reading.settings, namespace) {
        return None;
    }
    let annotation = annotations.and_then(|annotations| annotations.get(CLASS_ANNOTATION)).map(String::as_str);
    let like_nginx = annotations.is_some_and(|annotations| annotations.keys().any(|name| name.starts_with(NGINX_PREFIX)));
    match &reading.settings.ownership {
        Ownership::Everything => Some(profile_of_class(reading, field.or(annotation), like_nginx)),
        Ownership::OfClass(name) => {
            let class = field.or(annotation);
            // The API server gives the default class to Ingresses that name none.
            let ours = class.map_or_else(|| reading.is_default_class(name), |class| *class == **name);
            ours.then(|| profile_of_class(reading, Some(name), like_nginx))
        }
        Ownership::ByClass { controllers, ingress_class, without_class, by_name } => {
            let owned = |reading: &mut Reading<'_>, class: &str| by_controller(reading, class, controllers);
            match (field, annotation) {
                (Some(class), _) => owned(reading, class).or_else(|| {
                    let named = *by_name && *class == **ingress_class && reading.class_exists(class);
                    named.then(|| unknown_class(class, like_nginx))
                }),
                (None, Some(class)) if *class == **ingress_class => {
                    Some(owned(reading, class).unwrap_or_else(|| only_profile(controllers, unknown_class(class, like_nginx))))
                }
                (None, Some(_)) => None,
                (None, None) => without_class.then(|| only_profile(controllers, by_annotations(like_nginx))),
            }
        }
    }
}

/// Whether a ProxyRoute is ours. Its profile is always native.
pub(crate) fn of_proxy_route(reading: &mut Reading<'_>, namespace: &str, class: Option<&str>) -> bool {
    if !watched(reading.settings, namespace) {
        return false;
    }
    let class = class.unwrap_or(DEFAULT_CLASS);
    match &reading.settings.ownership {
        Ownership::Everything => true,
        Ownership::OfClass(name) => *class == **name,
        Ownership::ByClass { controllers, ingress_class, by_name, .. } => {
            by_controller(reading, class, controllers).is_some()
                || *by_name && *class == **ingress_class && reading.class_exists(class)
        }
    }
}

fn profile_of_class(reading: &mut Reading<'_>, class: Option<&str>, like_nginx: bool) -> Profile {
    match class {
        Some(class) => match reading.controller(class) {
            Some(controller) => profile_of(controller),
            None => unknown_class(class, like_nginx),
        },
        None => by_annotations(like_nginx),
    }
}

fn by_controller(reading: &mut Reading<'_>, class: &str, controllers: &[(Box<str>, Profile)]) -> Option<Profile> {
    let controller = reading.controller(class)?;
    controllers.iter().find(|(ours, _)| **ours == *controller).map(|(_, profile)| *profile)
}

fn watched(settings: &Settings, namespace: &str) -> bool {
    settings.namespaces.is_empty() || settings.namespaces.iter().any(|watched| **watched == *namespace)
}

fn profile_of(controller: &str) -> Profile {
    if controller == INGRESS_NGINX_CONTROLLER { Profile::IngressNginx } else { Profile::Native }
}

fn unknown_class(class: &str, like_nginx: bool) -> Profile {
    if class == NGINX_CLASS { Profile::IngressNginx } else { by_annotations(like_nginx) }
}

fn by_annotations(like_nginx: bool) -> Profile {
    if like_nginx { Profile::IngressNginx } else { Profile::Native }
}

/// A controller that serves one profile only serves everything in it.
fn only_profile(controllers: &[(Box<str>, Profile)], otherwise: Profile) -> Profile {
    match controllers.split_first() {
        Some(((_, first), rest)) if rest.iter().all(|(_, profile)| profile == first) => *first,
        _ => otherwise,
    }
}

impl<'w> Reading<'w> {
    /// The controller string of a class, if the class is there.
    fn controller(&mut self, class: &str) -> Option<&'w str> {
        let id = Id::new(Kind::IngressClass, "", class);
        let found = self
            .world
            .ingress_classes
            .get(&id.key)
            .map(|class| class.spec.as_ref().and_then(|spec| spec.controller.as_deref()).unwrap_or_default());
        self.depend(id);
        found
    }

    fn is_default_class(&mut self, class: &str) -> bool {
        let there = self.class_exists(class);
        let key = Id::new(Kind::IngressClass, "", class).key;
        let annotations = self.world.ingress_classes.get(&key).and_then(|class| class.metadata.annotations.as_ref());
        there && annotations.and_then(|annotations| annotations.get(DEFAULT_CLASS_ANNOTATION)).is_some_and(|value| value == "true")
    }

    fn class_exists(&mut self, class: &str) -> bool {
        self.controller(class).is_some()
    }
}
