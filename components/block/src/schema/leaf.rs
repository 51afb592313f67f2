//! What one leaf column holds and how it is stored.

use parquet::basic::Type as Physical;
use tempo_table::AttributeScope;

/// What a leaf column holds, independent of the block version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeafColumn {
    /// 16 bytes per trace.
    TraceId,
    /// The id in hexadecimal without leading zeros.
    TraceIdText,
    /// Earliest span start of the trace, nanoseconds since the epoch.
    TraceStart,
    /// Latest span end of the trace, nanoseconds since the epoch.
    TraceEnd,
    /// End minus start, nanoseconds.
    TraceDuration,
    /// `service.name` of the root span's resource.
    RootServiceName,
    /// Name of the root span.
    RootSpanName,
    /// Per trace and service: the service's name.
    StatsServiceName,
    /// Per trace and service: spans.
    StatsSpanCount,
    /// Per trace and service: spans whose status is error.
    StatsErrorCount,
    /// `service.name` of a resource when it is a string, else empty.
    ResourceServiceName,
    /// Attributes that the sender dropped from a resource.
    ResourceDroppedAttributes,
    /// A column of its own for one attribute (vParquet4 only).
    WellKnown(WellKnown),
    /// Name of an instrumentation scope.
    ScopeName,
    /// Version of an instrumentation scope.
    ScopeVersion,
    /// Attributes that the sender dropped from a scope.
    ScopeDroppedAttributes,
    /// Spans of the scope (vParquet5 only).
    ScopeSpanCount,
    /// 8 bytes per span.
    SpanId,
    /// 8 bytes per span, empty for a root.
    ParentSpanId,
    /// Nested set: left number of the parent, −1 for roots, 0 when unknown.
    ParentId,
    /// Nested set: left number.
    NestedSetLeft,
    /// Nested set: right number.
    NestedSetRight,
    /// Direct children (vParquet5 only).
    ChildCount,
    /// Name of the span.
    SpanName,
    /// OTLP number of the span kind.
    SpanKind,
    /// W3C trace state.
    TraceState,
    /// Nanoseconds since the epoch.
    SpanStart,
    /// End minus start, nanoseconds.
    SpanDuration,
    /// OTLP number of the status code.
    StatusCode,
    /// Status message.
    StatusMessage,
    /// Attributes that the sender dropped from a span.
    SpanDroppedAttributes,
    /// Events that the sender dropped from a span.
    DroppedEvents,
    /// Links that the sender dropped from a span.
    DroppedLinks,
    /// Number of the interval of that many seconds that the span starts in (vParquet5 only).
    StartRounded(u32),
    /// Event time minus span start, nanoseconds.
    EventTimeSinceStart,
    /// Name of an event.
    EventName,
    /// Attributes that the sender dropped from an event.
    EventDroppedAttributes,
    /// Trace id of a linked span.
    LinkTraceId,
    /// Span id of a linked span.
    LinkSpanId,
    /// Trace state of a linked span.
    LinkTraceState,
    /// Attributes that the sender dropped from a link.
    LinkDroppedAttributes,
    /// A leaf of the generic attributes of a scope.
    Attribute(AttributeScope, AttributeLeaf),
    /// A spare leaf that the block's `dedicatedColumns` assign to one attribute, by type and
    /// position among the scope's columns of that type, from 0.
    Dedicated(AttributeScope, DedicatedType, u8),
}

/// The leaves of a generic attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttributeLeaf {
    /// The attribute's name.
    Key,
    /// Whether the value was an array.
    IsArray,
    /// Strings.
    Value,
    /// Integers.
    ValueInt,
    /// Doubles.
    ValueDouble,
    /// Booleans.
    ValueBool,
    /// Protobuf JSON of every other value.
    ValueUnsupported,
}

/// The attributes that vParquet4 gives a column of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WellKnown {
    /// `resource.cluster`
    Cluster,
    /// `resource.namespace`
    Namespace,
    /// `resource.pod`
    Pod,
    /// `resource.container`
    Container,
    /// `resource.k8s.cluster.name`
    K8sClusterName,
    /// `resource.k8s.namespace.name`
    K8sNamespaceName,
    /// `resource.k8s.pod.name`
    K8sPodName,
    /// `resource.k8s.container.name`
    K8sContainerName,
    /// `span.http.method`
    HttpMethod,
    /// `span.http.url`
    HttpUrl,
    /// `span.http.status_code`, an integer
    HttpStatusCode,
}

impl WellKnown {
    /// All of them, in file order.
    pub const ALL: [Self; 11] = [
        Self::Cluster,
        Self::Namespace,
        Self::Pod,
        Self::Container,
        Self::K8sClusterName,
        Self::K8sNamespaceName,
        Self::K8sPodName,
        Self::K8sContainerName,
        Self::HttpMethod,
        Self::HttpUrl,
        Self::HttpStatusCode,
    ];

    /// Where the attribute is set.
    pub fn scope(self) -> AttributeScope {
        match self {
            Self::HttpMethod | Self::HttpUrl | Self::HttpStatusCode => AttributeScope::Span,
            _ => AttributeScope::Resource,
        }
    }

    /// The attribute's key.
    pub fn key(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Namespace => "namespace",
            Self::Pod => "pod",
            Self::Container => "container",
            Self::K8sClusterName => "k8s.cluster.name",
            Self::K8sNamespaceName => "k8s.namespace.name",
            Self::K8sPodName => "k8s.pod.name",
            Self::K8sContainerName => "k8s.container.name",
            Self::HttpMethod => "http.method",
            Self::HttpUrl => "http.url",
            Self::HttpStatusCode => "http.status_code",
        }
    }

    /// The column's name.
    pub(crate) fn column_name(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::Container => "Container",
            Self::K8sClusterName => "K8sClusterName",
            Self::K8sNamespaceName => "K8sNamespaceName",
            Self::K8sPodName => "K8sPodName",
            Self::K8sContainerName => "K8sContainerName",
            Self::HttpMethod => "HttpMethod",
            Self::HttpUrl => "HttpUrl",
            Self::HttpStatusCode => "HttpStatusCode",
        }
    }

    /// Whether the column holds integers; the others hold text.
    pub fn is_int(self) -> bool {
        self == Self::HttpStatusCode
    }
}

/// The type of a dedicated column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DedicatedType {
    /// Text.
    String,
    /// 64-bit integers.
    Int,
}

/// One assigned dedicated leaf of a vParquet5 block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DedicatedLeaf {
    /// Resource, span or event.
    pub scope: AttributeScope,
    /// Which of the two rows of leaves.
    pub value_type: DedicatedType,
    /// Position among the scope's leaves of that type, from 0.
    pub slot: u8,
    /// Whether values are large and mostly distinct: no dictionary, ZSTD, no bounds.
    pub blob: bool,
}

/// What the values of a leaf are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeafType {
    /// UTF-8 text.
    Text,
    /// Arbitrary bytes.
    Bytes,
    /// Signed 32-bit integers.
    I32,
    /// Unsigned 32-bit integers.
    U32,
    /// Signed 64-bit integers.
    I64,
    /// Unsigned 64-bit integers.
    U64,
    /// Doubles.
    F64,
    /// Booleans.
    Bool,
}

impl LeafType {
    /// The type that the file stores.
    pub(crate) fn physical(self) -> Physical {
        match self {
            Self::Text | Self::Bytes => Physical::BYTE_ARRAY,
            Self::I32 | Self::U32 => Physical::INT32,
            Self::I64 | Self::U64 => Physical::INT64,
            Self::F64 => Physical::DOUBLE,
            Self::Bool => Physical::BOOLEAN,
        }
    }
}

/// How data pages of a leaf are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeafEncoding {
    /// PLAIN.
    Plain,
    /// DELTA_BINARY_PACKED.
    DeltaBinaryPacked,
    /// DELTA_LENGTH_BYTE_ARRAY.
    DeltaLength,
    /// RLE_DICTIONARY with a PLAIN dictionary page.
    Dictionary,
}

/// How pages of a leaf are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not at all.
    Uncompressed,
    /// Snappy, raw format.
    Snappy,
    /// Zstandard.
    Zstd,
}

/// One leaf column of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// What it holds.
    pub column: LeafColumn,
    /// Dotted path from the root, as other readers look it up.
    pub path: String,
    /// Type of its values.
    pub value_type: LeafType,
    /// Encoding that the writer uses; readers accept any.
    pub encoding: LeafEncoding,
    /// Codec that the writer uses; readers accept any.
    pub codec: Codec,
    /// Largest repetition level.
    pub max_rep: i16,
    /// Largest definition level.
    pub max_def: i16,
    /// Whether the bounds that Tempo writes into its page index are made up: never prune on them,
    /// and write none.
    pub blob: bool,
}
