//! `-target`: which components a process runs.

use crate::document::Node;
use crate::nearest::nearest;
use crate::render::Rendered;
use crate::retired;
use crate::value::{Decoder, Value, scalar};

/// Which components a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Target {
    /// All of a monolith.
    #[default]
    All,
    /// Receiving spans.
    Distributor,
    /// Recent traces.
    LiveStore,
    /// Blocks from Kafka.
    BlockBuilder,
    /// Metrics from spans.
    MetricsGenerator,
    /// Metrics from spans, found by their own ring.
    MetricsGeneratorNoLocalBlocks,
    /// Jobs of queries.
    Querier,
    /// Queries.
    QueryFrontend,
    /// The plan of compaction and retention.
    BackendScheduler,
    /// Compaction and retention.
    BackendWorker,
    /// The API of user-configurable overrides.
    OverridesApi,
}

/// What can be written, and whether this version has it.
const TARGETS: &[(&str, Target)] = &[
    ("all", Target::All),
    ("distributor", Target::Distributor),
    ("live-store", Target::LiveStore),
    ("block-builder", Target::BlockBuilder),
    ("metrics-generator", Target::MetricsGenerator),
    (
        "metrics-generator-no-local-blocks",
        Target::MetricsGeneratorNoLocalBlocks,
    ),
    ("querier", Target::Querier),
    ("query-frontend", Target::QueryFrontend),
    ("backend-scheduler", Target::BackendScheduler),
    ("backend-worker", Target::BackendWorker),
    ("overrides-api", Target::OverridesApi),
];

impl Target {
    /// All names that can be written.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TARGETS.iter().map(|(name, _)| *name)
    }

    /// The name that is written.
    pub fn name(self) -> &'static str {
        TARGETS
            .iter()
            .find(|(_, target)| *target == self)
            .map_or("all", |(name, _)| name)
    }

    /// The target of this name.
    ///
    /// # Errors
    /// The reason and the way on, for the user.
    pub fn parse(name: &str) -> Result<Self, String> {
        if let Some((_, target)) = TARGETS.iter().find(|(known, _)| *known == name) {
            return Ok(*target);
        }
        if let Some(reason) = retired::target(name) {
            return Err(format!("target {name:?} was removed in Tempo 3: {reason}"));
        }
        let names: Vec<&str> = Self::names().collect();
        Err(match nearest(name, Self::names()) {
            Some(near) => format!("unrecognised module name: {name}; did you mean {near:?}?"),
            None => format!(
                "unrecognised module name: {name}; known are {}",
                names.join(", ")
            ),
        })
    }
}

impl Value for Target {
    fn merge(&mut self, node: &Node, decoder: &mut Decoder<'_>) {
        let Some(name) = scalar(node, "the name of a target", decoder) else {
            return;
        };
        match Self::parse(name) {
            Ok(target) => *self = target,
            Err(reason) => decoder.issue(node.mark, reason),
        }
    }
    fn render(&self) -> Rendered {
        Rendered::text(self.name())
    }
    fn type_name(&self) -> String {
        let names: Vec<&str> = Self::names().collect();
        format!("one of {}", names.join(", "))
    }
}
