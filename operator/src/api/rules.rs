//! CEL rules of the CRD: what the API server refuses, and the message that tells the way on.

use serde_json::{Value, json};

/// The value of `x-kubernetes-validations` for pairs of rule and message.
pub(crate) fn rules(rules: &[(&str, &str)]) -> Value {
    rules
        .iter()
        .map(|(rule, message)| json!({"rule": rule, "message": message}))
        .collect()
}

/// Exactly one of these members of a union is set.
pub(crate) fn exactly_one(members: &[&str], message: &str) -> Value {
    let counted = members
        .iter()
        .map(|member| format!("(has(self.{member}) ? 1 : 0)"))
        .collect::<Vec<_>>()
        .join(" + ");
    rules(&[(&format!("{counted} == 1"), message)])
}

/// At most one of these members of a union is set.
pub(crate) fn at_most_one(members: &[&str], message: &str) -> Value {
    let counted = members
        .iter()
        .map(|member| format!("(has(self.{member}) ? 1 : 0)"))
        .collect::<Vec<_>>()
        .join(" + ");
    rules(&[(&format!("{counted} <= 1"), message)])
}
