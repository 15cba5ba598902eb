//! Manifests on the command line: what the commands that read files make of their arguments.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use penstock_model::ObjectRef;
use penstock_translate::{CLASS_ANNOTATION, Change, Kind, Ownership, Report, Settings, World};

use crate::{
    cli::ManifestOptions,
    files::{FileNote, Files, Reading, STDIN},
    serving::{Mode, secret_key},
};

/// The settings of the modes without a cluster.
pub fn settings(options: &ManifestOptions) -> anyhow::Result<Settings> {
    let default = options.default_ssl_certificate.as_deref();
    Ok(Settings {
        ownership: match &options.ingress_class {
            None => Ownership::Everything,
            Some(class) => Ownership::OfClass(class.as_str().into()),
        },
        allow_external_backends: options.allow_external_backends != Some(false),
        guard: Mode::Standalone.guard(),
        default_certificate: default.map(secret_key).transpose().context("--default-ssl-certificate")?,
        namespaces: Vec::new(),
    })
}

/// The files of a command. Which of them cannot be read is for their reading to say, but what is not there ends the command.
pub fn files(options: &ManifestOptions) -> anyhow::Result<Files> {
    for path in options.paths.iter().filter(|path| path.as_os_str() != STDIN) {
        std::fs::metadata(path).with_context(|| path.display().to_string())?;
    }
    let secrets = &options.tls_secret;
    for (place, secret) in secrets.iter().enumerate() {
        let twice = secrets.iter().take(place).any(|earlier| earlier.id() == secret.id());
        ensure!(!twice, "--tls-secret: {} is given twice", secret.id().object_ref());
    }
    Ok(Files::new(options.paths.clone(), secrets.clone()))
}

/// A World of files, read once.
#[derive(Debug)]
pub struct Loaded {
    pub world: World,
    pub errors: Vec<FileNote>,
    pub warnings: Vec<FileNote>,
    /// `file:line` of each object that stands in a file.
    pub places: BTreeMap<ObjectRef, String>,
}

impl Loaded {
    pub fn read(options: &ManifestOptions) -> anyhow::Result<Self> {
        let mut files = files(options)?;
        let Reading { changes, errors, mut warnings } = files.read();
        let mut world = World::default();
        for change in changes {
            if let Change::Put(object) = change {
                world.put(object);
            }
        }
        let told = |path: &std::path::Path| errors.iter().chain(&warnings).any(|note| note.path.starts_with(path));
        let empty: Vec<_> = files.empty_roots().filter(|root| !told(root)).map(ToOwned::to_owned).collect();
        warnings.extend(empty.into_iter().map(|path| FileNote { path, place: None, message: "holds no object".to_owned() }));
        let places = files.places().into_iter().map(|(object, (path, line))| (object, format!("{}:{line}", path.display())));
        Ok(Self { world, errors, warnings, places: places.collect() })
    }

    /// How many there are of the kinds that only serve others: they have no report of their own.
    pub fn supporting(&self) -> Vec<(Kind, usize)> {
        let world = &self.world;
        let counts = [
            (Kind::IngressClass, world.ingress_classes.len()),
            (Kind::Service, world.services.len()),
            (Kind::EndpointSlice, world.endpoint_slices.len()),
            (Kind::Secret, world.secrets.len()),
        ];
        counts.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// Ingresses and ProxyRoutes that belong to another class than was asked for, with the class that they name.
    pub fn of_other_classes(&self, report: &Report) -> Vec<(ObjectRef, Option<String>)> {
        let ingresses = self.world.ingresses.iter().map(|(key, ingress)| {
            let field = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.clone());
            let annotation = || ingress.metadata.annotations.as_ref()?.get(CLASS_ANNOTATION).cloned();
            (ObjectRef::new("Ingress", &key.namespace, &key.name), field.or_else(annotation))
        });
        let routes =
            self.world.proxy_routes.iter().map(|(key, route)| {
                (ObjectRef::new("ProxyRoute", &key.namespace, &key.name), route.spec.ingress_class_name.clone())
            });
        ingresses.chain(routes).filter(|(object, _)| !report.objects.contains_key(object)).collect()
    }
}
