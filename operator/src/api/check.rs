//! The checks of the API server without one: form, limits, defaults and rules of the CRD.

use std::fmt;

use kube::core::cel::{Validator, apply_defaults};
use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{GROUP, TempoStack, VERSION, crd};

/// Documents in one file.
const MAX_DOCUMENTS: usize = 1000;

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, such as `spec.storage.s3.bucket`.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// A file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no YAML.
    #[error("not YAML: {0}")]
    Yaml(#[from] serde_yaml::Error),
    /// It holds no resource of ours.
    #[error("no TempoStack of {GROUP}/{VERSION} in it; found {found}")]
    NoStack {
        /// Kinds that were found instead.
        found: String,
    },
    /// The resource is wrong.
    #[error("{}", lines(.0))]
    Problems(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Reads the stacks of a file with one or more YAML documents, with defaults filled in.
///
/// # Errors
/// When there is none, or one that the API server would refuse.
pub fn load(text: &str) -> Result<Vec<TempoStack>, Error> {
    let mut stacks = Vec::new();
    let mut kinds = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text).take(MAX_DOCUMENTS) {
        let value = Value::deserialize(document)?;
        if value.is_null() {
            continue;
        }
        let kind = value["kind"].as_str().unwrap_or("something without a kind");
        if kind == "TempoStack" && value["apiVersion"] == format!("{GROUP}/{VERSION}") {
            stacks.push(admit(&value, None).map_err(Error::Problems)?);
        } else {
            let version = value["apiVersion"].as_str().unwrap_or_default();
            kinds.push(format!("{kind} of {version:?}"));
        }
    }
    if stacks.is_empty() {
        let found = if kinds.is_empty() {
            "nothing".to_owned()
        } else {
            kinds.join(", ")
        };
        return Err(Error::NoStack { found });
    }
    Ok(stacks)
}

/// What the API server does with a resource: checks it, against the one it replaces if there is
/// one, and fills in defaults.
///
/// # Errors
/// Everything that is wrong with it.
pub fn admit(value: &Value, old: Option<&Value>) -> Result<TempoStack, Vec<Problem>> {
    let schema = crd::schema();
    let mut problems = Vec::new();
    walk("", value, schema, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let defaulted = apply_defaults(schema, value);
    if let Err(errors) = Validator::new().validate(schema, &defaulted, old) {
        return Err(errors
            .into_vec()
            .into_iter()
            .map(|error| Problem {
                path: error.field_path,
                message: error.message,
            })
            .collect());
    }
    serde_json::from_value(defaulted).map_err(|error| {
        vec![Problem {
            path: String::new(),
            message: error.to_string(),
        }]
    })
}

fn walk(path: &str, value: &Value, schema: &Value, problems: &mut Vec<Problem>) {
    let mut problem = |message: String| {
        problems.push(Problem {
            path: path.to_owned(),
            message,
        });
    };
    if let Some(allowed) = schema["enum"].as_array() {
        if !allowed.contains(value) {
            let names: Vec<String> = allowed.iter().map(plain).collect();
            problem(format!("{} is none of {}", plain(value), names.join(", ")));
        }
        return;
    }
    let expected = schema["type"].as_str().unwrap_or_default();
    match (expected, value) {
        ("string", Value::String(text)) => {
            if let Some(fault) = text_fault(text, schema) {
                problem(fault);
            }
        }
        ("integer", Value::Number(number)) if number.is_i64() || number.is_u64() => {
            if let Some(fault) = number_fault(number.as_f64().unwrap_or(0.0), schema) {
                problem(fault);
            }
        }
        ("boolean", Value::Bool(_)) => {}
        ("array", Value::Array(items)) => {
            if let Some(fault) =
                length_fault(items.len(), "entries", schema, "minItems", "maxItems")
            {
                problem(fault);
            }
            for (index, item) in items.iter().enumerate() {
                walk(
                    &format!("{path}[{index}]"),
                    item,
                    &schema["items"],
                    problems,
                );
            }
        }
        ("object", Value::Object(fields)) => walk_object(path, fields, schema, problems),
        // No schema: apiVersion, kind and metadata are checked by Kubernetes.
        ("", _) => {}
        _ => problem(format!(
            "expected {}, found {}",
            article(expected),
            kind(value)
        )),
    }
}

fn walk_object(
    path: &str,
    fields: &Map<String, Value>,
    schema: &Value,
    problems: &mut Vec<Problem>,
) {
    let properties = schema["properties"].as_object();
    let additional = schema.get("additionalProperties");
    let free = schema["x-kubernetes-preserve-unknown-fields"] == true
        || (properties.is_none() && additional.is_none());
    if additional.is_some()
        && let Some(fault) = length_fault(
            fields.len(),
            "entries",
            schema,
            "minProperties",
            "maxProperties",
        )
    {
        problems.push(Problem {
            path: path.to_owned(),
            message: fault,
        });
    }
    for (name, value) in fields {
        let here = join(path, name);
        if path.is_empty() && name == "metadata" {
            continue;
        }
        match properties
            .and_then(|properties| properties.get(name))
            .or(additional)
        {
            // Kubernetes drops fields that are null.
            Some(_) if value.is_null() => {}
            Some(inner) => walk(&here, value, inner, problems),
            None if free || (path.is_empty() && matches!(&**name, "apiVersion" | "kind")) => {}
            None => {
                let known = properties
                    .map(|properties| properties.keys().map(String::as_str).collect::<Vec<_>>())
                    .unwrap_or_default();
                let hint = crate::text::nearest(name, known.iter().copied()).map_or_else(
                    || format!("known here: {}", known.join(", ")),
                    |near| format!("did you mean {near:?}?"),
                );
                problems.push(Problem {
                    path: here,
                    message: format!("unknown field; {hint}"),
                });
            }
        }
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        if let Some(name) = required.as_str()
            && fields.get(name).is_none_or(Value::is_null)
        {
            problems.push(Problem {
                path: join(path, name),
                message: "is missing, and must be set".to_owned(),
            });
        }
    }
}

fn text_fault(text: &str, schema: &Value) -> Option<String> {
    if let Some(fault) = length_fault(
        text.chars().count(),
        "characters",
        schema,
        "minLength",
        "maxLength",
    ) {
        return Some(fault);
    }
    let pattern = schema["pattern"].as_str()?;
    let matches = Regex::new(pattern).is_ok_and(|regex| regex.is_match(text));
    (!matches).then(|| format!("{text:?} does not match {pattern}"))
}

fn number_fault(number: f64, schema: &Value) -> Option<String> {
    if let Some(least) = schema["minimum"].as_f64()
        && number < least
    {
        return Some(format!("{number} is less than {least}"));
    }
    if let Some(most) = schema["maximum"].as_f64()
        && number > most
    {
        return Some(format!("{number} is more than {most}"));
    }
    None
}

fn length_fault(
    length: usize,
    what: &str,
    schema: &Value,
    least: &str,
    most: &str,
) -> Option<String> {
    let length = length as u64;
    if let Some(least) = schema[least].as_u64()
        && length < least
    {
        return Some(format!("{length} {what}; there must be at least {least}"));
    }
    if let Some(most) = schema[most].as_u64()
        && length > most
    {
        return Some(format!("{length} {what}; there can be at most {most}"));
    }
    None
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

fn article(expected: &str) -> &'static str {
    match expected {
        "string" => "text",
        "integer" => "a whole number",
        "boolean" => "true or false",
        "array" => "a list",
        _ => "a map",
    }
}

#[cfg(test)]
mod tests;
