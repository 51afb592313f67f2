//! Where the values of an attribute are.

use std::sync::Arc;

use tempo_table::{AttributeScope, ColumnKey, Intrinsic as Stored, Level};
use tempo_traceql::{Attribute, Intrinsic, Scope};

use crate::error::PlanError;

/// How the numbers and ids of a column are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reading {
    /// As they are: attributes, texts.
    Plain,
    /// Integers of an intrinsic.
    Int,
    /// Nanoseconds.
    Duration,
    /// OTLP status codes.
    Status,
    /// OTLP kind numbers.
    Kind,
    /// An id in hexadecimal without leading zeros.
    ShortHex,
    /// An id in hexadecimal.
    FullHex,
}

/// An attribute of a query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Operand {
    pub(crate) attribute: Attribute,
    pub(crate) source: Source,
}

/// The columns of an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// One column.
    Column { key: ColumnKey, reading: Reading },
    /// An unscoped attribute: the span's value, else the resource's.
    SpanThenResource {
        span: ColumnKey,
        resource: ColumnKey,
    },
}

impl Operand {
    pub(crate) fn new(attribute: &Attribute) -> Result<Self, PlanError> {
        let source = match attribute {
            Attribute::Intrinsic(Intrinsic::Parent) | Attribute::Named { parent: true, .. } => {
                return Err(PlanError::NotSupported("parent"));
            }
            Attribute::Intrinsic(intrinsic) => intrinsic_source(*intrinsic),
            Attribute::Named {
                scope: Some(scope),
                name,
                ..
            } => Source::Column {
                key: named(column_scope(*scope), name),
                reading: Reading::Plain,
            },
            Attribute::Named {
                scope: None, name, ..
            } => Source::SpanThenResource {
                span: named(AttributeScope::Span, name),
                resource: named(AttributeScope::Resource, name),
            },
        };
        Ok(Self {
            attribute: attribute.clone(),
            source,
        })
    }

    pub(crate) fn is_unscoped(&self) -> bool {
        matches!(self.source, Source::SpanThenResource { .. })
    }

    /// How its values are read.
    pub(crate) fn reading(&self) -> Reading {
        match self.source {
            Source::Column { reading, .. } => reading,
            Source::SpanThenResource { .. } => Reading::Plain,
        }
    }

    /// The columns to read.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &ColumnKey> {
        let (first, second) = match &self.source {
            Source::Column { key, .. } => (key, None),
            Source::SpanThenResource { span, resource } => (span, Some(resource)),
        };
        std::iter::once(first).chain(second)
    }

    /// The level of its only column; spans for unscoped ones.
    pub(crate) fn level(&self) -> Level {
        match &self.source {
            Source::Column { key, .. } => key.level(),
            Source::SpanThenResource { .. } => Level::Span,
        }
    }
}

/// The scope of a column.
pub(crate) fn column_scope(scope: Scope) -> AttributeScope {
    match scope {
        Scope::Resource => AttributeScope::Resource,
        Scope::Span => AttributeScope::Span,
        Scope::Event => AttributeScope::Event,
        Scope::Link => AttributeScope::Link,
        Scope::Instrumentation => AttributeScope::Instrumentation,
    }
}

fn named(scope: AttributeScope, name: &Arc<str>) -> ColumnKey {
    ColumnKey::Attribute {
        scope,
        name: Arc::clone(name),
    }
}

fn intrinsic_source(intrinsic: Intrinsic) -> Source {
    let (stored, reading) = match intrinsic {
        Intrinsic::Duration => (Stored::SpanDurationNano, Reading::Duration),
        Intrinsic::Name => (Stored::SpanName, Reading::Plain),
        Intrinsic::Status => (Stored::StatusCode, Reading::Status),
        Intrinsic::StatusMessage => (Stored::StatusMessage, Reading::Plain),
        Intrinsic::Kind => (Stored::SpanKind, Reading::Kind),
        Intrinsic::SpanId => (Stored::SpanId, Reading::FullHex),
        // `parent` is refused before.
        Intrinsic::ParentId | Intrinsic::Parent => (Stored::ParentSpanId, Reading::FullHex),
        Intrinsic::ChildCount => (Stored::ChildCount, Reading::Int),
        Intrinsic::NestedSetLeft => (Stored::NestedSetLeft, Reading::Int),
        Intrinsic::NestedSetRight => (Stored::NestedSetRight, Reading::Int),
        Intrinsic::NestedSetParent => (Stored::NestedSetParent, Reading::Int),
        Intrinsic::TraceDuration => (Stored::TraceDurationNano, Reading::Duration),
        Intrinsic::TraceRootName => (Stored::RootSpanName, Reading::Plain),
        Intrinsic::TraceRootService => (Stored::RootServiceName, Reading::Plain),
        Intrinsic::TraceId => (Stored::TraceId, Reading::ShortHex),
        Intrinsic::EventName => (Stored::EventName, Reading::Plain),
        Intrinsic::EventTimeSinceStart => (Stored::EventTimeSinceStartNano, Reading::Duration),
        Intrinsic::LinkTraceId => (Stored::LinkTraceId, Reading::ShortHex),
        Intrinsic::LinkSpanId => (Stored::LinkSpanId, Reading::FullHex),
        Intrinsic::InstrumentationName => (Stored::ScopeName, Reading::Plain),
        Intrinsic::InstrumentationVersion => (Stored::ScopeVersion, Reading::Plain),
    };
    Source::Column {
        key: stored.into(),
        reading,
    }
}
