//! Laying one object over another.

use serde_json::{Map, Value};

/// Lays maps over maps; everything else, lists too, is replaced, and `null` removes.
pub(crate) fn deep(below: &mut Value, above: &Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                if value.is_null() {
                    below.shift_remove(key);
                } else {
                    deep(below.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (below, above) => *below = above.clone(),
    }
}

/// Keys by which Kubernetes matches entries of lists in a pod.
const MERGE_KEYS: &[(&str, &str)] = &[
    ("containers", "name"),
    ("initContainers", "name"),
    ("ephemeralContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("imagePullSecrets", "name"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("hostAliases", "ip"),
    ("ports", "containerPort"),
    ("topologySpreadConstraints", "topologyKey"),
];

/// Lays one over the other as a strategic merge patch of a pod does.
pub(crate) fn strategic(below: &mut Value, above: &Value) {
    let (Value::Object(below), Value::Object(above)) = (&mut *below, above) else {
        *below = above.clone();
        return;
    };
    for (key, value) in above {
        if value.is_null() {
            below.shift_remove(key);
            continue;
        }
        let merge_key = MERGE_KEYS
            .iter()
            .find(|(list, _)| list == key)
            .map(|(_, merge_key)| *merge_key);
        match (below.get_mut(key), value, merge_key) {
            (Some(Value::Array(old)), Value::Array(new), Some(merge_key)) => {
                merge_lists(old, new, merge_key);
            }
            (Some(old @ Value::Object(_)), Value::Object(_), _) => strategic(old, value),
            _ => {
                below.insert(key.clone(), value.clone());
            }
        }
    }
}

fn merge_lists(old: &mut Vec<Value>, new: &[Value], merge_key: &str) {
    for item in new {
        let same = old.iter_mut().find(|other| {
            other.get(merge_key).is_some() && other.get(merge_key) == item.get(merge_key)
        });
        match same {
            Some(_) if item["$patch"] == "delete" => {
                old.retain(|other| other.get(merge_key) != item.get(merge_key));
            }
            Some(other) => strategic(other, item),
            None => old.push(item.clone()),
        }
    }
}

/// Removes fields that say nothing: `null`, empty lists and empty maps that were written as a
/// place for optional fields.
pub(crate) fn prune(value: &mut Value) {
    if let Value::Object(fields) = value {
        drop_empty(fields);
    } else if let Value::Array(items) = value {
        items.iter_mut().for_each(prune);
    }
}

/// Empty maps that mean something.
const MEANINGFUL_WHEN_EMPTY: &[&str] = &[
    "emptyDir",
    "podSelector",
    "namespaceSelector",
    "instanceSelector",
];

fn drop_empty(fields: &mut Map<String, Value>) {
    fields.values_mut().for_each(prune);
    fields.retain(|key, value| match value {
        Value::Null => false,
        Value::Object(inner) => !inner.is_empty() || MEANINGFUL_WHEN_EMPTY.contains(&&**key),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_of_a_pod_are_matched_by_name() {
        let mut pod = json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}], "args": ["x"]}], "tolerations": [1]});
        strategic(
            &mut pod,
            &json!({"containers": [
                {"name": "a", "env": [{"name": "X", "value": "2"}, {"name": "Y", "value": "3"}], "args": ["y"]},
                {"name": "b"},
            ], "tolerations": [2], "nodeName": "n"}),
        );
        assert_eq!(
            pod,
            json!({"containers": [
                {"name": "a", "env": [{"name": "X", "value": "2"}, {"name": "Y", "value": "3"}], "args": ["y"]},
                {"name": "b"},
            ], "tolerations": [2], "nodeName": "n"})
        );
        strategic(
            &mut pod,
            &json!({"containers": [{"name": "b", "$patch": "delete"}], "nodeName": null}),
        );
        assert_eq!(pod["containers"].as_array().unwrap().len(), 1);
        assert!(pod.get("nodeName").is_none());
    }

    #[test]
    fn configuration_is_merged_deeply() {
        let mut below = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1});
        deep(&mut below, &json!({"a": {"c": [3]}, "d": null, "e": 2}));
        assert_eq!(below, json!({"a": {"b": 1, "c": [3]}, "e": 2}));
    }
}
