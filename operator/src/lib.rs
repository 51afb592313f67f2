//! The operator: runs tracing backends from `TempoStack` resources.
//!
//! Owns the resource ([`api`]), what is made of it, and the controller that carries it out. The
//! middle is pure: what to do next, every manifest and every line of configuration are functions
//! of the resource and of what was observed. Must never touch a span: without the operator all
//! stacks go on.

pub mod api;
mod certificates;
pub mod config;
pub mod controller;
#[cfg(test)]
mod generated;
pub mod manifests;
mod merge;
pub mod plan;
pub mod references;
mod settings;
mod text;
pub mod topology;
