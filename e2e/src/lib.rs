//! Scenarios on a real Kubernetes: what a person does with `helm` and `kubectl`, and what must come
//! of it, with traces from a real OpenTelemetry SDK through the stack's Services.
//!
//! Owns the scenarios, and how they reach a cluster of any kind. Must never look into the operator
//! or the components: only what users have (manifests, the API server, the Services) is used.
//!
//! Everything goes through `kubectl` and `helm` as child processes. A scenario is then what the
//! guides tell users to type, and runs wherever a kubeconfig leads.

pub mod access;
pub mod breaking;
pub mod cluster;
pub mod command;
pub mod context;
pub mod failure;
pub mod neighbours;
pub mod nodeless;
pub mod operator;
pub mod process;
pub mod report;
pub mod scenarios;
pub mod secure;
pub mod stack;
pub mod traces;
pub mod traffic;
pub mod watcher;

pub use failure::{Failure, Outcome, ensure};
