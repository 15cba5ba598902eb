//! The CustomResourceDefinitions: as objects, as the YAML that is committed in `crds/`, and as a sieve for objects that a newer
//! version of them let in.

use std::sync::OnceLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use serde_json::Value;

use crate::ProxyRoute;

/// What `kubectl explain` says of the kind itself.
const ABOUT: &str = "Routes of one or more hosts to Services of the namespace, or to addresses outside the cluster.";

/// Bounds of the strings of a condition, as Kubernetes documents them (meta/v1 `Condition`); the Rust type does not carry them.
const CONDITION_BOUNDS: [(&str, i64, i64); 4] = [("type", 1, 316), ("reason", 1, 1024), ("message", 0, 32_768), ("status", 1, 7)];

/// Every kind that Penstock brings, as to be applied to a cluster.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![proxy_route().clone()]
}

/// [`crds`] as a YAML stream.
pub fn crds_yaml() -> String {
    let mut out = String::new();
    for crd in crds() {
        let text = serde_json::to_value(&crd).map(whole_numbers).map(|value| serde_saphyr::to_string(&value));
        if let Ok(Ok(text)) = text {
            out.push_str("---\n");
            out.push_str(&text);
        }
    }
    out
}

/// Removes from a ProxyRoute what its schema does not know, and says where it stood.
///
/// The API server does so by the CRD that is installed. During an upgrade that one can be newer than this program, which then
/// must go on serving the rest of the object.
pub fn prune(object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    if let (Some(schema), Some(fields)) = (schema(proxy_route()), object.as_object_mut()) {
        for name in ["spec", "status"] {
            if let (Some(schema), Some(value)) = (property(schema, name), fields.get_mut(name)) {
                prune_value(value, schema, name, &mut unknown);
            }
        }
    }
    unknown
}

fn prune_value(value: &mut Value, schema: &JSONSchemaProps, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let Some(properties) = &schema.properties else { return };
            fields.retain(|name, value| match properties.get(name) {
                Some(schema) => {
                    prune_value(value, schema, &format!("{path}.{name}"), unknown);
                    true
                }
                None => {
                    unknown.push(format!("{path}.{name}"));
                    false
                }
            });
        }
        Value::Array(items) => {
            let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items else { return };
            for (index, item) in items.iter_mut().enumerate() {
                prune_value(item, schema, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

/// The schema of the (only) version of a CRD.
pub(crate) fn schema(crd: &CustomResourceDefinition) -> Option<&JSONSchemaProps> {
    crd.spec.versions.first()?.schema.as_ref()?.open_api_v3_schema.as_ref()
}

pub(crate) fn property<'a>(schema: &'a JSONSchemaProps, name: &str) -> Option<&'a JSONSchemaProps> {
    schema.properties.as_ref()?.get(name)
}

pub(crate) fn proxy_route() -> &'static CustomResourceDefinition {
    static CRD: OnceLock<CustomResourceDefinition> = OnceLock::new();
    CRD.get_or_init(|| {
        let mut crd = ProxyRoute::crd();
        for version in &mut crd.spec.versions {
            let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else { continue };
            tidy(schema);
            schema.description = Some(ABOUT.to_owned());
            bound_conditions(schema);
        }
        crd
    })
}

/// An absent field is left out: nothing is nullable, so that a rule's `has(self.x)` means that x has a value.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(values) = &mut schema.enum_ {
        values.retain(|value| !value.0.is_null());
    }
    schema.description = schema.description.take().map(|text| text.replace('\n', " "));
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        tidy(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
}

fn bound_conditions(schema: &mut JSONSchemaProps) {
    let conditions = schema
        .properties
        .as_mut()
        .and_then(|fields| fields.get_mut("status"))
        .and_then(|status| status.properties.as_mut())
        .and_then(|fields| fields.get_mut("conditions"));
    let Some(JSONSchemaPropsOrArray::Schema(condition)) = conditions.and_then(|conditions| conditions.items.as_mut()) else {
        return;
    };
    for (name, min, max) in CONDITION_BOUNDS {
        if let Some(field) = condition.properties.as_mut().and_then(|fields| fields.get_mut(name)) {
            (field.min_length, field.max_length) = (Some(min), Some(max));
        }
    }
}

/// Bounds are floating point in the types of Kubernetes; people expect `maximum: 65535`.
fn whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => Value::from(float as i64),
            _ => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(whole_numbers).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, whole_numbers(value))).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    fn walk(schema: &JSONSchemaProps, path: &str, visit: &mut impl FnMut(&str, &JSONSchemaProps)) {
        visit(path, schema);
        for (name, property) in schema.properties.iter().flatten() {
            walk(property, &format!("{path}.{name}"), visit);
        }
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
            walk(items, &format!("{path}[]"), visit);
        }
        if let Some(k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrBool::Schema(values)) =
            &schema.additional_properties
        {
            walk(values, &format!("{path}{{}}"), visit);
        }
    }

    /// With `PENSTOCK_REWRITE=1` the file is written anew.
    #[test]
    fn the_committed_crd_is_what_the_types_say() {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../crds/proxyroutes.penstock.dev.yaml");
        let now = crds_yaml();
        if std::env::var_os("PENSTOCK_REWRITE").is_some() {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, &now).unwrap();
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(committed == now, "{} is out of date: run this test with PENSTOCK_REWRITE=1", file.display());
    }

    #[test]
    fn every_list_map_and_string_is_bounded() {
        let mut seen = 0;
        walk(schema(proxy_route()).unwrap(), "", &mut |path, schema| {
            seen += 1;
            match schema.type_.as_deref() {
                Some("string") => {
                    let bounded =
                        schema.max_length.is_some() || schema.enum_.is_some() || schema.format.as_deref() == Some("date-time");
                    assert!(bounded, "{path}: a string without maxLength");
                }
                Some("array") => assert!(schema.max_items.is_some(), "{path}: a list without maxItems"),
                Some("object") if schema.additional_properties.is_some() => {
                    assert!(schema.max_properties.is_some(), "{path}: a map without maxProperties");
                }
                Some("object" | "integer" | "boolean") => {}
                None if schema.x_kubernetes_int_or_string == Some(true) => {
                    assert!(schema.max_length.is_some(), "{path}: int-or-string without maxLength");
                }
                other => panic!("{path}: a structural schema has no type {other:?}"),
            }
        });
        assert!(seen > 60, "only {seen} nodes were visited");
    }

    #[test]
    fn no_field_is_nullable_and_every_field_of_the_spec_is_documented() {
        walk(schema(proxy_route()).unwrap(), "", &mut |path, schema| {
            assert!(schema.nullable.is_none(), "{path} is nullable");
            assert!(schema.enum_.iter().flatten().all(|value| !value.0.is_null()), "{path} lists null");
            let is_item = path.ends_with("[]") || path.ends_with("{}") || path == ".spec";
            assert!(is_item || schema.description.is_some(), "{path} says nothing of itself");
        });
    }

    /// kubectl reads YAML 1.1, to which these are booleans also as keys.
    #[test]
    fn no_field_is_a_boolean_where_it_is_written_without_quotes() {
        walk(schema(proxy_route()).unwrap(), "", &mut |path, _| {
            let name = path.rsplit(['.', '{']).next().unwrap_or_default().to_ascii_lowercase();
            assert!(!["y", "n", "yes", "no", "on", "off", "true", "false"].contains(&&*name), "{path}");
        });
    }

    #[test]
    fn what_a_newer_crd_let_in_is_dropped_by_name() {
        let mut object = json!({ "metadata": { "anything": 1 }, "spec": { "hosts": ["a"], "later": 1, "rules": [
            { "respond": { "code": 200, "trailers": {} } }, { "requestHeaders": { "set": { "X-Any-Name": "kept" } } } ] } });
        let unknown = prune(&mut object);
        assert_eq!(unknown, ["spec.later", "spec.rules[0].respond.trailers"]);
        let rest = json!({ "metadata": { "anything": 1 }, "spec": { "hosts": ["a"], "rules": [
            { "respond": { "code": 200 } }, { "requestHeaders": { "set": { "X-Any-Name": "kept" } } } ] } });
        assert_eq!(object, rest);
    }

    #[test]
    fn the_yaml_holds_whole_numbers_and_every_kind() {
        let yaml = crds_yaml();
        assert!(yaml.contains("maximum: 65535\n"), "bounds must be whole numbers");
        let parsed: CustomResourceDefinition = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(parsed.metadata.name.as_deref(), Some("proxyroutes.penstock.dev"));
        assert_eq!(schema(&parsed).unwrap().properties.as_ref().unwrap().len(), 2);
    }
}
