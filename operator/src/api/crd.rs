//! The CRD, made from the types: what `crds/` holds, and what checks without a cluster use.

use std::sync::OnceLock;

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::rules::rules;
use super::{MAX_NAME_LENGTH, TempoStack};

/// Longest text where a field does not say its own length.
const MAX_TEXT_LENGTH: u32 = 1024;
/// Most entries where a list or map does not say its own number.
const MAX_ENTRIES: u32 = 64;

/// The CRD as JSON.
///
/// Beyond what derives from the types, every text, list and map has a limit (Kubernetes refuses
/// rules whose cost it cannot bound), numbers have the formats that Kubernetes knows, and names
/// are as short as the names made from them need.
pub fn crd() -> &'static Value {
    static CRD: OnceLock<Value> = OnceLock::new();
    CRD.get_or_init(|| {
        let mut crd = serde_json::to_value(TempoStack::crd()).unwrap_or_default();
        if let Some(schema) = crd.pointer_mut(SCHEMA) {
            settle(schema);
            let name_rule = format!("self.metadata.name.size() <= {MAX_NAME_LENGTH}");
            let message = format!(
                "metadata.name must have at most {MAX_NAME_LENGTH} characters: names of pods are made from it"
            );
            let label_rule = "self.metadata.name.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$')";
            if let Some(root) = schema.as_object_mut() {
                root.insert(
                    "x-kubernetes-validations".to_owned(),
                    rules(&[
                        (&name_rule, &message),
                        (
                            label_rule,
                            "metadata.name must begin with a letter, end with a letter or digit, and hold only a-z, 0-9 and -: names of Services are made from it",
                        ),
                    ]),
                );
            }
        }
        crd
    })
}

/// The schema of the resource.
pub fn schema() -> &'static Value {
    static NOTHING: Value = Value::Null;
    crd().pointer(SCHEMA).unwrap_or(&NOTHING)
}

const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";

/// The CRD as YAML, as `crds/` holds it.
pub fn yaml() -> String {
    let body = serde_yaml::to_string(crd()).unwrap_or_default();
    format!("# Made from the types in operator/src/api by `make generate`. Do not edit.\n{body}")
}

fn settle(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    object.remove("nullable");
    settle_number(object);
    match object.get("type").and_then(Value::as_str) {
        Some("string") if !has_any(object, &["enum", "maxLength", "format"]) => {
            object.insert("maxLength".to_owned(), json!(MAX_TEXT_LENGTH));
        }
        Some("array") if !object.contains_key("maxItems") => {
            object.insert("maxItems".to_owned(), json!(MAX_ENTRIES));
        }
        Some("object")
            if object.contains_key("additionalProperties")
                && !object.contains_key("maxProperties") =>
        {
            object.insert("maxProperties".to_owned(), json!(MAX_ENTRIES));
        }
        _ => {}
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key) {
            settle(inner);
        }
    }
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(settle);
    }
}

/// Kubernetes knows only signed formats.
fn settle_number(object: &mut Map<String, Value>) {
    let signed = match object.get("format").and_then(Value::as_str) {
        Some("uint8" | "uint16" | "uint32") => "int32",
        Some("uint64" | "uint") => "int64",
        _ => return,
    };
    object.insert("format".to_owned(), json!(signed));
    if !object.contains_key("minimum") {
        object.insert("minimum".to_owned(), json!(0));
    }
    if signed == "int32" && !object.contains_key("maximum") {
        object.insert("maximum".to_owned(), json!(i32::MAX));
    }
}

fn has_any(object: &Map<String, Value>, keys: &[&str]) -> bool {
    keys.iter().any(|key| object.contains_key(*key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
        visit(path, schema);
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(key).filter(|inner| inner.is_object()) {
                walk(&format!("{path}[]"), inner, visit);
            }
        }
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (name, inner) in properties {
                walk(&format!("{path}.{name}"), inner, visit);
            }
        }
    }

    #[test]
    fn everything_is_described_and_bounded() {
        let mut amiss = Vec::new();
        walk("", schema(), &mut |path, schema| {
            let any = schema.get("x-kubernetes-preserve-unknown-fields").is_some();
            let described = schema.get("description").is_some();
            if !described && !path.ends_with("[]") && path != ".metadata" {
                amiss.push(format!("{path} has no description"));
            }
            match schema["type"].as_str() {
                Some("string")
                    if !has_any(
                        schema.as_object().unwrap(),
                        &["enum", "maxLength", "format"],
                    ) =>
                {
                    amiss.push(format!("{path} has no length"));
                }
                Some("array") if schema.get("maxItems").is_none() => {
                    amiss.push(format!("{path} has no number of items"));
                }
                Some("object")
                    if schema.get("additionalProperties").is_some()
                        && schema.get("maxProperties").is_none() =>
                {
                    amiss.push(format!("{path} has no number of entries"));
                }
                Some(_) => {}
                None if any => {}
                None => amiss.push(format!("{path} has no type")),
            }
            for key in ["oneOf", "anyOf", "allOf", "$ref"] {
                if schema.get(key).is_some() {
                    amiss.push(format!("{path} has {key}, which is not structural"));
                }
            }
        });
        assert!(amiss.is_empty(), "{}", amiss.join("\n"));
    }

    #[test]
    fn rules_compile() {
        let compiled = kube::core::cel::compile_schema(schema());
        assert!(
            !compiled.has_errors(),
            "{:?}",
            compiled.compilation_errors()
        );
    }

    #[test]
    fn the_file_is_fresh() {
        crate::generated::assert_fresh("crds/tempostack.io_tempostacks.yaml", &yaml());
    }
}
