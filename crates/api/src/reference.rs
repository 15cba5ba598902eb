//! The reference of ProxyRoute as Markdown, printed from the schema: what the documentation says is what the API server checks.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use crate::crd::{property, proxy_route, schema};

/// `docs/reference/proxyroute.md`: for every field its type, default, bounds and meaning.
pub fn reference() -> String {
    let mut out = String::from(
        "# ProxyRoute\n\n`apiVersion: penstock.dev/v1alpha1`, `kind: ProxyRoute`, namespaced, short name `pr`.\n\n\
         Printed from the schema of the CRD; do not edit.\n",
    );
    let Some(root) = schema(proxy_route()) else { return out };
    for (name, title) in [("spec", "spec"), ("status", "status")] {
        if let Some(schema) = property(root, name) {
            section(&mut out, title, schema);
        }
    }
    out
}

/// One table for the fields of an object, then one for each object among them.
fn section(out: &mut String, path: &str, schema: &JSONSchemaProps) {
    let _ = write!(out, "\n## `{path}`\n\n");
    if let Some(text) = &schema.description {
        let _ = write!(out, "{text}\n\n");
    }
    for rule in schema.x_kubernetes_validations.iter().flatten() {
        let _ = writeln!(out, "* Checked: {}.", rule.message.as_deref().unwrap_or(&rule.rule));
    }
    if schema.x_kubernetes_validations.is_some() {
        out.push('\n');
    }
    out.push_str("| field | type | default | bounds | meaning |\n|---|---|---|---|---|\n");
    let required = schema.required.as_deref().unwrap_or_default();
    let mut inner = Vec::new();
    for (name, field) in schema.properties.iter().flatten() {
        let (meaning, documented) = split_default(field.description.as_deref().unwrap_or_default());
        let default = match &field.default {
            Some(value) => format!("`{}`", value.0.as_str().map_or_else(|| value.0.to_string(), str::to_owned)),
            None if required.contains(name) => "required".to_owned(),
            None => documented.to_owned(),
        };
        let _ = writeln!(
            out,
            "| `{name}` | {} | {} | {} | {} |",
            type_of(field),
            cell(&default),
            cell(&bounds(field).join(", ")),
            cell(meaning)
        );
        if let Some((suffix, object)) = object_of(field) {
            inner.push((format!("{path}.{name}{suffix}"), object));
        }
    }
    for (path, object) in inner {
        section(out, &path, object);
    }
}

fn items(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => Some(items),
        _ => None,
    }
}

/// The object that a field holds or lists, if it has fields of its own.
fn object_of(schema: &JSONSchemaProps) -> Option<(&'static str, &JSONSchemaProps)> {
    if schema.properties.is_some() {
        return Some(("", schema));
    }
    items(schema).filter(|items| items.properties.is_some()).map(|items| ("[]", items))
}

fn type_of(schema: &JSONSchemaProps) -> String {
    if let Some(items) = items(schema) {
        return format!("list of {}", type_of(items));
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        return format!("map of string to {}", type_of(values));
    }
    if schema.x_kubernetes_int_or_string == Some(true) {
        return "integer or string".to_owned();
    }
    schema.type_.clone().unwrap_or_default()
}

fn bounds(schema: &JSONSchemaProps) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(values) = &schema.enum_ {
        let values: Vec<_> = values.iter().map(|value| format!("`{}`", value.0.as_str().unwrap_or_default())).collect();
        out.push(values.join(" or "));
    } else {
        out.extend(range(schema.min_length, schema.max_length, " characters"));
    }
    out.extend(range(schema.minimum, schema.maximum, ""));
    out.extend(schema.max_items.map(|max| match schema.min_items {
        Some(min) if min > 0 => format!("{min} to {max} items"),
        _ => format!("at most {max} items"),
    }));
    out.extend(schema.max_properties.map(|max| format!("at most {max} entries")));
    out.extend(schema.pattern.as_ref().map(|pattern| format!("`{pattern}`")));
    for rule in schema.x_kubernetes_validations.iter().flatten().filter(|_| schema.properties.is_none()) {
        out.push(rule.message.clone().unwrap_or_else(|| format!("`{}`", rule.rule)));
    }
    if let Some(items) = items(schema).filter(|items| items.properties.is_none()) {
        out.extend(bounds(items).into_iter().map(|bound| format!("each {bound}")));
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        out.extend(bounds(values).into_iter().map(|bound| format!("each {bound}")));
    }
    out
}

fn range<T: std::fmt::Display + PartialOrd + Default>(min: Option<T>, max: Option<T>, unit: &str) -> Option<String> {
    match (min, max) {
        (Some(min), Some(max)) if min > T::default() => Some(format!("{min} to {max}{unit}")),
        (_, Some(max)) => Some(format!("at most {max}{unit}")),
        (Some(min), None) => Some(format!("at least {min}{unit}")),
        (None, None) => None,
    }
}

/// The docs of optional fields end in `Default: this.`: it gets a column of its own.
fn split_default(text: &str) -> (&str, &str) {
    match text.find("Default: ") {
        Some(at) => {
            let (meaning, default) = text.split_at(at);
            (meaning.trim_end(), default.trim_start_matches("Default: ").trim_end_matches('.'))
        }
        None => (text, ""),
    }
}

/// A text as one cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_schema_stands_in_the_reference() {
        fn fields<'a>(schema: &'a JSONSchemaProps, out: &mut Vec<&'a str>) {
            for (name, field) in schema.properties.iter().flatten() {
                out.push(name);
                fields(field, out);
                if let Some(items) = items(field) {
                    fields(items, out);
                }
            }
        }
        let text = reference();
        let mut names = Vec::new();
        fields(schema(proxy_route()).unwrap(), &mut names);
        assert!(names.len() > 60, "{names:?}");
        for name in names {
            assert!(text.contains(&format!("`{name}`")), "{name} is missing");
        }
    }

    #[test]
    fn a_field_is_printed_with_its_type_default_bounds_and_meaning() {
        let text = reference();
        let row = |name: &str| text.lines().find(|line| line.starts_with(&format!("| `{name}` "))).unwrap().to_owned();
        assert_eq!(
            row("weight"),
            "| `weight` | integer | 1 | at most 1000000 | The share of requests, relative to the other backends of the rule. |"
        );
        assert!(row("connect").contains("| 5s |"), "{}", row("connect"));
        assert!(
            row("rules").contains("| list of object | required | 1 to 64 items, the names of rules must differ |"),
            "{}",
            row("rules")
        );
        assert!(row("set").starts_with("| `set` | map of string to string |"), "{}", row("set"));
        assert!(text.contains("* Checked: exactly one of service and url is needed."));
        assert!(text.contains("## `spec.rules[].matches[].path`"));
    }

    #[test]
    fn no_cell_breaks_its_table() {
        for line in reference().lines().filter(|line| line.starts_with('|')) {
            assert_eq!(line.replace("\\|", "").matches('|').count(), 6, "{line}");
        }
    }
}
