//! Golden cases: objects in, what they mean out.
//!
//! `goldens/NAME.yaml` holds the objects (and, in a document of its own under `settings`, what differs from `serve`);
//! `goldens/NAME.out.yaml` what comes out: model, report, endpoints, wanted Secrets. `@NAME` as a value of a Secret stands for the file
//! `goldens/pem/NAME`. What is empty is left out, and so are policies that have their profile's default.
//!
//! `UPDATE_GOLDENS=1 cargo test -p penstock-translate --test goldens` writes the outputs anew: read the difference before keeping it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{fs, net::IpAddr, path::Path, sync::Arc};

use penstock_translate::{
    AddressGuard, INGRESS_NGINX_CONTROLLER, Key, NATIVE_CONTROLLER, Object, Ownership, Profile, Settings, Translation, Translator,
    World, translate,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

#[test]
fn every_golden_case_means_what_is_written_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let update = std::env::var_os("UPDATE_GOLDENS").is_some_and(|value| value == "1");
    let mut cases = 0;
    let mut wrong = Vec::new();
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let inputs: Vec<String> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    for output in inputs.iter().filter_map(|name| name.strip_suffix(".out.yaml")) {
        assert!(inputs.contains(&format!("{output}.yaml")), "{output}: an output without objects");
    }
    for input in names {
        let name = input.file_name().unwrap().to_string_lossy().into_owned();
        if input.extension().is_none_or(|extension| extension != "yaml") || name.contains(".out.") {
            continue;
        }
        cases += 1;
        let (world, settings) = read(&input, &folder);
        let translation = translate(&world, &settings);
        assert_same_in_any_order(&world, &settings, &translation, &name);
        let found = show(&translation);
        let output = input.with_extension("out.yaml");
        if update {
            fs::write(&output, serde_saphyr::to_string(&found).unwrap()).unwrap();
            continue;
        }
        let text = fs::read_to_string(&output).unwrap_or_default();
        let expected: Value = serde_saphyr::from_str(&text).unwrap_or_default();
        if expected != found {
            wrong.push(format!("{name}:\n{}", difference(&expected, &found)));
        }
    }
    assert!(cases >= 70, "only {cases} cases were found");
    assert!(wrong.is_empty(), "{} of {cases} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// The objects one after the other, last first, give the same as all at once.
fn assert_same_in_any_order(world: &World, settings: &Settings, expected: &Translation, name: &str) {
    let mut translator = Translator::new(settings.clone());
    let mut growing = World::default();
    let mut last = translator.rebuild(&growing);
    for object in objects(world).into_iter().rev() {
        let id = growing.put(object).unwrap();
        last = translator.apply(&growing, &[id]);
    }
    assert_eq!(last.model, expected.model, "{name}");
    assert_eq!(last.report, expected.report, "{name}");
    assert_eq!(last.endpoints, expected.endpoints, "{name}");
    assert_eq!(last.wanted_secrets, expected.wanted_secrets, "{name}");
}

fn objects(world: &World) -> Vec<Object> {
    let mut objects: Vec<Object> = Vec::new();
    objects.extend(world.ingress_classes.values().cloned().map(Object::IngressClass));
    objects.extend(world.ingresses.values().cloned().map(Object::Ingress));
    objects.extend(world.proxy_routes.values().cloned().map(Object::ProxyRoute));
    objects.extend(world.services.values().cloned().map(Object::Service));
    objects.extend(world.endpoint_slices.values().cloned().map(Object::EndpointSlice));
    objects.extend(world.secrets.values().cloned().map(Object::Secret));
    objects
}

fn read(input: &Path, folder: &Path) -> (World, Settings) {
    let text = fs::read_to_string(input).unwrap();
    // `off` and `n` are names here, as they are for kubectl where a string belongs.
    let options = serde_saphyr::options! { strict_booleans: true };
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(&text, options).unwrap_or_else(|error| panic!("{}: {error}", input.display()));
    let mut world = World::default();
    let mut settings = Settings {
        ownership: Ownership::Everything,
        allow_external_backends: true,
        guard: AddressGuard::default(),
        default_certificate: None,
        namespaces: Vec::new(),
    };
    for mut document in documents {
        if let Some(given) = document.get("settings") {
            change(&mut settings, given);
            continue;
        }
        let metadata = document["metadata"].as_object_mut().unwrap();
        metadata.entry("namespace").or_insert_with(|| json!("ns"));
        let object = match document["kind"].as_str().unwrap() {
            "Ingress" => Object::Ingress(parse(&document)),
            "IngressClass" => Object::IngressClass(parse(&document)),
            "ProxyRoute" => Object::ProxyRoute(parse(&document)),
            "Service" => Object::Service(parse(&document)),
            "EndpointSlice" => Object::EndpointSlice(parse(&document)),
            "Secret" => {
                for value in document["stringData"].as_object_mut().into_iter().flat_map(Map::values_mut) {
                    if let Some(file) = value.as_str().and_then(|value| value.strip_prefix('@')) {
                        *value = fs::read_to_string(folder.join("pem").join(file)).unwrap().into();
                    }
                }
                Object::Secret(parse(&document))
            }
            other => panic!("{}: no case has a {other}", input.display()),
        };
        assert!(world.put(object).is_some(), "{}: an object is there twice", input.display());
    }
    (world, settings)
}

fn parse<T: DeserializeOwned>(value: &Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}")))
}

fn change(settings: &mut Settings, given: &Value) {
    for (name, value) in given.as_object().unwrap() {
        match name.as_str() {
            "externalBackends" => settings.allow_external_backends = value.as_bool().unwrap(),
            "guardedAddress" => {
                let guarded: IpAddr = value.as_str().unwrap().parse().unwrap();
                settings.guard =
                    AddressGuard::new(move |address| (address == guarded).then(|| format!("{address} is the node's own")));
            }
            "defaultCertificate" => {
                let (namespace, name) = value.as_str().unwrap().split_once('/').unwrap();
                settings.default_certificate = Some(Key::new(namespace, name));
            }
            "namespaces" => {
                settings.namespaces = value.as_array().unwrap().iter().map(|name| name.as_str().unwrap().into()).collect();
            }
            "byClass" => {
                let flag = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or_default();
                settings.ownership = Ownership::ByClass {
                    controllers: vec![
                        (NATIVE_CONTROLLER.into(), Profile::Native),
                        (INGRESS_NGINX_CONTROLLER.into(), Profile::IngressNginx),
                    ],
                    ingress_class: value.get("ingressClass").and_then(Value::as_str).unwrap_or("nginx").into(),
                    without_class: flag("withoutClass"),
                    by_name: flag("byName"),
                };
            }
            other => panic!("no setting is called {other}"),
        }
    }
}

fn show(translation: &Translation) -> Value {
    let defaults = [default_policies("nothing"), default_policies("nginx")];
    let mut model = serde_json::to_value(&*translation.model).unwrap();
    for route in model["hosts"].as_object_mut().unwrap().values_mut().flat_map(|host| host["routes"].as_array_mut().unwrap()) {
        let policies = route["policies"].as_object_mut().unwrap();
        let default = defaults.iter().find(|default| default["forwarding"] == policies["forwarding"]).unwrap();
        policies.retain(|name, value| name == "forwarding" || default[name] != *value);
    }
    // The names of backends are their keys.
    model["backends"] = model["backends"].as_object().unwrap().keys().cloned().collect();
    let mut shown = json!({
        "model": model,
        "report": &translation.report.objects,
        "endpoints": &*translation.endpoints,
        "wantedSecrets": translation.wanted_secrets.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    prune(&mut shown);
    shown
}

fn default_policies(class: &str) -> Value {
    let mut world = World::default();
    world.put(Object::Ingress(parse(&json!({
        "metadata": { "name": "i" },
        "spec": { "ingressClassName": class, "rules": [{ "http": { "paths": [
            { "path": "/", "pathType": "Prefix", "backend": { "service": { "name": "s", "port": { "number": 80 } } } }
        ] } }] }
    }))));
    let settings = Settings {
        ownership: Ownership::Everything,
        allow_external_backends: false,
        guard: AddressGuard::default(),
        default_certificate: None,
        namespaces: Vec::new(),
    };
    let translation = translate(&world, &settings);
    serde_json::to_value(&translation.model.hosts.values().next().unwrap().routes[0].policies).unwrap()
}

/// Leaves out what is empty.
fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|_, value| !is_empty(value));
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty) || value == ""
}

fn difference(expected: &Value, found: &Value) -> String {
    let text = |value: &Value| serde_saphyr::to_string(value).unwrap();
    let (expected, found) = (text(expected), text(found));
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("  - {line}"));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("  + {line}"));
    gone.chain(come).collect::<Vec<_>>().join("\n")
}
