//! The field reference, made from the CRD.

use std::fmt::Write;

use serde_json::Value;

use super::crd;

/// The page for people.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Fields of TempoStack\n\n<!-- Made from the types in operator/src/api by `make generate`. Do not edit. -->\n\n\
         `apiVersion: tempostack.io/v1alpha1`, `kind: TempoStack`, short name `tms`. What is refused, and why, stands under *Rules*.\n\n",
    );
    let root = crd::schema();
    for part in ["spec", "status"] {
        let schema = &root["properties"][part];
        let _ = writeln!(
            page,
            "## {part}\n\n| field | type | default | meaning |\n|---|---|---|---|"
        );
        rows(&mut page, part, schema);
        page.push('\n');
    }
    page.push_str("## Rules\n\n| where | what is refused |\n|---|---|\n");
    rule_rows(&mut page, "", root);
    page
}

/// What one field means: its row of the reference, for `explain`.
pub fn explain(path: &str) -> Option<String> {
    let schema = find(path)?;
    let mut text = format!("{path} <{}>\n", type_of(schema));
    if let Some(default) = schema.get("default").filter(|value| !value.is_object()) {
        let _ = writeln!(text, "default: {default}");
    }
    if let Some(meaning) = schema["description"].as_str() {
        let _ = writeln!(text, "\n{meaning}");
    }
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        if let Some(message) = rule["message"].as_str() {
            let _ = writeln!(text, "\nrule: {message}");
        }
    }
    if let Some(properties) = schema["properties"].as_object() {
        text.push_str("\nfields:\n");
        for (name, inner) in properties {
            let _ = writeln!(
                text,
                "  {name} <{}>\n    {}",
                type_of(inner),
                first_line(inner)
            );
        }
    }
    Some(text)
}

fn find(path: &str) -> Option<&'static Value> {
    let mut schema = crd::schema();
    for name in path.split('.') {
        let name = name.trim_end_matches("[]");
        schema = schema
            .get("properties")
            .and_then(|properties| properties.get(name))
            .or_else(|| schema.get("additionalProperties"))?;
        if let Some(items) = schema.get("items") {
            schema = items;
        }
    }
    Some(schema)
}

fn first_line(schema: &Value) -> &str {
    schema["description"]
        .as_str()
        .and_then(|text| text.lines().next())
        .unwrap_or_default()
}

fn type_of(schema: &Value) -> String {
    if let Some(names) = schema["enum"].as_array() {
        return names
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(" | ");
    }
    match schema["type"].as_str() {
        Some("array") => format!("[]{}", type_of(&schema["items"])),
        Some("object") if schema["additionalProperties"].is_object() => {
            format!("map of {}", type_of(&schema["additionalProperties"]))
        }
        Some(name) => name.to_owned(),
        None => "any".to_owned(),
    }
}

/// Text that fits a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn rows(page: &mut String, path: &str, schema: &Value) {
    let inner = match schema["type"].as_str() {
        Some("array") => &schema["items"],
        Some("object") if schema["additionalProperties"].is_object() => {
            &schema["additionalProperties"]
        }
        _ => schema,
    };
    let Some(properties) = inner["properties"].as_object() else {
        return;
    };
    for (name, field) in properties {
        let here = format!("{path}.{name}");
        let default = field
            .get("default")
            .filter(|value| !value.is_object() && *value != &serde_json::json!([]))
            .map(|value| format!("`{}`", value.to_string().replace('|', "\\|")))
            .unwrap_or_default();
        let meaning = field["description"].as_str().map(cell).unwrap_or_default();
        let _ = writeln!(
            page,
            "| `{here}` | {} | {default} | {meaning} |",
            cell(&type_of(field))
        );
        // The pods of every component have the same fields: told once, for the defaults.
        let told = path.starts_with("spec.components") && name != "defaults";
        if told && path == "spec.components" {
            own_rows(page, &here, field, &inner["properties"]["defaults"]);
        } else {
            rows(page, &here, field);
        }
    }
}

/// Fields of a component beyond those that all have.
fn own_rows(page: &mut String, path: &str, schema: &Value, common: &Value) {
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    for (name, field) in properties {
        if common["properties"].get(name).is_none() {
            let default = field
                .get("default")
                .map(|value| format!("`{value}`"))
                .unwrap_or_default();
            let _ = writeln!(
                page,
                "| `{path}.{name}` | {} | {default} | {} |",
                cell(&type_of(field)),
                first_line(field)
            );
        }
    }
}

fn rule_rows(page: &mut String, path: &str, schema: &Value) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        if let Some(message) = rule["message"].as_str() {
            let place = if path.is_empty() {
                "the resource"
            } else {
                path
            };
            let _ = writeln!(page, "| `{place}` | {} |", message.replace('|', "\\|"));
        }
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            rule_rows(page, path, &schema[key]);
        }
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let repeated = path == "spec.components"
            && !matches!(
                &**name,
                "defaults" | "liveStore" | "blockBuilder" | "backendScheduler"
            );
        if !repeated {
            let here = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            rule_rows(page, &here, field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_fresh() {
        crate::generated::assert_fresh("docs/reference/tempostack.md", &markdown());
    }

    #[test]
    fn every_field_can_be_explained() {
        let text = explain("spec.kafka.topic.partitions").unwrap();
        assert!(text.contains("as many as live-stores in a zone"), "{text}");
        assert!(explain("spec.components.liveStore.replicas").is_some());
        assert!(explain("spec.kafka.topics").is_none());
    }
}
