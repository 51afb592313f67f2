//! The names of columns.

use std::sync::Arc;

/// What one row of a column stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// A trace.
    Trace,
    /// A resource within a trace (one `ResourceSpans`).
    Resource,
    /// An instrumentation scope within a resource (one `ScopeSpans`).
    Scope,
    /// A span.
    Span,
    /// An event of a span.
    Event,
    /// A link of a span.
    Link,
}

/// The attribute of a resource that names its service.
pub const SERVICE_NAME: &str = "service.name";

/// Where an attribute is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttributeScope {
    /// `resource.`
    Resource,
    /// `instrumentation.`
    Instrumentation,
    /// `span.`
    Span,
    /// `event.`
    Event,
    /// `link.`
    Link,
}

impl AttributeScope {
    /// The rows that attributes of this scope belong to.
    pub fn level(self) -> Level {
        match self {
            Self::Resource => Level::Resource,
            Self::Instrumentation => Level::Scope,
            Self::Span => Level::Span,
            Self::Event => Level::Event,
            Self::Link => Level::Link,
        }
    }
}

/// The columns that every table has, with the lane that holds them. No row of an intrinsic is
/// absent: a text that was not sent is empty, an id that was not sent is zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Intrinsic {
    /// 16 bytes per trace; id lane.
    TraceId,
    /// Earliest span start, nanoseconds since the epoch (as `i64`); int lane.
    TraceStartNano,
    /// Latest end minus earliest start, nanoseconds; int lane.
    TraceDurationNano,
    /// `service.name` of the root span's resource, empty when there is no root; string lane.
    RootServiceName,
    /// Name of the root span, empty when there is no root; string lane.
    RootSpanName,
    /// 8 bytes per span; id lane.
    SpanId,
    /// 8 bytes per span, zeros for a root; id lane.
    ParentSpanId,
    /// String lane.
    SpanName,
    /// OTLP number (0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer); int lane.
    SpanKind,
    /// OTLP number (0 unset, 1 ok, 2 error); int lane.
    StatusCode,
    /// String lane.
    StatusMessage,
    /// W3C trace state; string lane.
    TraceState,
    /// Nanoseconds since the epoch (as `i64`); int lane.
    SpanStartNano,
    /// Nanoseconds; int lane.
    SpanDurationNano,
    /// See [`crate::shape`]; int lane.
    NestedSetLeft,
    /// See [`crate::shape`]; int lane.
    NestedSetRight,
    /// Left number of the parent, −1 for roots, 0 when unknown; int lane.
    NestedSetParent,
    /// Direct children; int lane. vParquet4 does not store it: readers derive it from the tree.
    ChildCount,
    /// String lane, one row per scope.
    ScopeName,
    /// String lane, one row per scope.
    ScopeVersion,
    /// String lane, one row per event.
    EventName,
    /// Event time minus span start, nanoseconds; int lane.
    EventTimeSinceStartNano,
    /// 16 bytes per link; id lane.
    LinkTraceId,
    /// 8 bytes per link; id lane.
    LinkSpanId,
}

impl Intrinsic {
    /// The rows that the column has a value for.
    pub fn level(self) -> Level {
        match self {
            Self::TraceId
            | Self::TraceStartNano
            | Self::TraceDurationNano
            | Self::RootServiceName
            | Self::RootSpanName => Level::Trace,
            Self::SpanId
            | Self::ParentSpanId
            | Self::SpanName
            | Self::SpanKind
            | Self::StatusCode
            | Self::StatusMessage
            | Self::TraceState
            | Self::SpanStartNano
            | Self::SpanDurationNano
            | Self::NestedSetLeft
            | Self::NestedSetRight
            | Self::NestedSetParent
            | Self::ChildCount => Level::Span,
            Self::ScopeName | Self::ScopeVersion => Level::Scope,
            Self::EventName | Self::EventTimeSinceStartNano => Level::Event,
            Self::LinkTraceId | Self::LinkSpanId => Level::Link,
        }
    }
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ColumnKey {
    /// A column that every table has.
    Intrinsic(Intrinsic),
    /// An attribute by its exact name, however it is stored (generic or dedicated column;
    /// `resource.service.name` included).
    Attribute {
        /// Where it is set.
        scope: AttributeScope,
        /// Its key.
        name: Arc<str>,
    },
}

impl ColumnKey {
    /// An attribute column.
    pub fn attribute(scope: AttributeScope, name: &str) -> Self {
        Self::Attribute {
            scope,
            name: Arc::from(name),
        }
    }

    /// The rows that the column has a value for.
    pub fn level(&self) -> Level {
        match self {
            Self::Intrinsic(intrinsic) => intrinsic.level(),
            Self::Attribute { scope, .. } => scope.level(),
        }
    }
}

impl From<Intrinsic> for ColumnKey {
    fn from(intrinsic: Intrinsic) -> Self {
        Self::Intrinsic(intrinsic)
    }
}
