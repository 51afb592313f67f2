//! `/partition-ring`: the partitions as this process sees them, for people and for the operator, and
//! the form that changes them by hand. `/memberlist`: who gossips.
//!
//! Paths, JSON and form fields are Tempo's.

use std::fmt::Write as _;

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use tempo_backend::Timestamp;
use tempo_membership::{ChangeError, Membership, Partition, PartitionState};

/// The pages of a process that gossips.
pub(crate) fn router(membership: Membership) -> Router {
    Router::new()
        .route("/partition-ring", get(partitions).post(change))
        .route("/memberlist", get(members))
        .with_state(membership)
}

fn time(unix_seconds: i64) -> String {
    Timestamp::from_unix_nanos(unix_seconds.saturating_mul(1_000_000_000)).to_string()
}

async fn partitions(State(membership): State<Membership>, headers: HeaderMap) -> Response {
    let ring = membership.partitions();
    let wants_json = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    let partitions = ring.partitions.values();
    if wants_json {
        let partitions: Vec<Value> = partitions.map(as_json).collect();
        return Json(json!({ "partitions": partitions })).into_response();
    }
    let mut rows = String::new();
    for partition in partitions {
        rows.push_str(&as_row(partition));
    }
    Html(format!(
        "<!doctype html><meta charset=utf-8><title>Partitions</title>\
         <style>body{{font-family:sans-serif}}td,th{{padding:.3em .8em;text-align:left}}\
         tr:nth-child(even){{background:#eee}}</style>\
         <h1>Partitions</h1><table><tr><th>Id<th>State<th>Since<th>Owners<th>Locked<th>Change</tr>\
         {rows}</table>"
    ))
    .into_response()
}

fn as_json(partition: &Partition) -> Value {
    let owners: Vec<&str> = partition
        .owners
        .iter()
        .map(|owner| owner.instance_id.as_str())
        .collect();
    let tokens = tempo_membership::tokens(partition.id);
    json!({
        "id": partition.id,
        "corrupted": false,
        "state": partition.state.number(),
        "state_timestamp": time(partition.state_since),
        "state_change_locked": partition.locked,
        "owner_ids": owners,
        "tokens": tokens.as_deref().unwrap_or_default(),
    })
}

fn as_row(partition: &Partition) -> String {
    let mut owners = String::new();
    for owner in &partition.owners {
        let state = match owner.alive {
            true => owner.state.to_string(),
            false => "gone".to_owned(),
        };
        let _ = write!(
            owners,
            "{} ({}, zone {}, {})<br>",
            escape(&owner.instance_id),
            escape(&owner.grpc_addr),
            escape(&owner.zone),
            state
        );
    }
    let mut buttons = String::new();
    for state in PartitionState::ALL {
        if partition.state.may_become(state) && !partition.locked {
            let _ = write!(
                buttons,
                "<button name=partition_state value={state}>{}</button> ",
                state.name()
            );
        }
    }
    let id = partition.id;
    format!(
        "<tr><td>{id}<td>{}<td>{}<td>{owners}<td>{}<td>\
         <form method=post><input type=hidden name=partition_id value={id}>\
         <input type=hidden name=action value=change_state>{buttons}</form></tr>",
        partition.state.name(),
        time(partition.state_since),
        if partition.locked { "yes" } else { "no" },
    )
}

/// What others say of themselves is not markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The form.
#[derive(serde::Deserialize)]
struct Change {
    action: String,
    partition_id: String,
    #[serde(default)]
    partition_state: String,
    #[serde(default)]
    locked: String,
}

async fn change(State(membership): State<Membership>, body: String) -> Response {
    // A form is written like the query of an address.
    let form = format!("/?{}", body.trim())
        .parse::<Uri>()
        .map_err(|error| error.to_string())
        .and_then(|uri| {
            Query::<Change>::try_from_uri(&uri)
                .map(|Query(form)| form)
                .map_err(|error| error.to_string())
        });
    let changed = match form {
        Ok(form) => apply(&membership, &form).await,
        Err(reason) => Err(format!("not the form of this page: {reason}")),
    };
    match changed {
        Ok(()) => (StatusCode::FOUND, [(header::LOCATION, "#")]).into_response(),
        Err(reason) => (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response(),
    }
}

async fn apply(membership: &Membership, form: &Change) -> Result<(), String> {
    let partition: i32 = form
        .partition_id
        .parse()
        .map_err(|_| format!("partition_id '{}' is not a number", form.partition_id))?;
    let state = || {
        PartitionState::ALL
            .into_iter()
            .find(|state| state.to_string() == form.partition_state)
            .ok_or_else(|| {
                format!(
                    "partition_state '{}' is none of PartitionPending, PartitionActive, \
                     PartitionInactive",
                    form.partition_state
                )
            })
    };
    let changed = match form.action.as_str() {
        "change_state" => membership.change_partition(partition, state()?).await,
        "change_state_and_lock" => {
            membership
                .lock_partition(partition, Some(state()?), true)
                .await
        }
        "state_change_lock" => {
            let locked = form.locked == "true";
            membership.lock_partition(partition, None, locked).await
        }
        other => {
            return Err(format!(
                "action '{other}' is none of change_state, change_state_and_lock, state_change_lock"
            ));
        }
    };
    changed
        .map(drop)
        .map_err(|error: ChangeError| error.to_string())
}

async fn members(State(membership): State<Membership>) -> Response {
    let members: Vec<Value> = membership
        .members()
        .into_iter()
        .map(|member| {
            json!({
                "name": member.name,
                "address": member.addr.to_string(),
                "alive": member.alive,
            })
        })
        .collect();
    Json(json!({ "members": members })).into_response()
}
