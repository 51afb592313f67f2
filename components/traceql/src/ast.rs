//! The syntax tree of a TraceQL query.
//!
//! Owns the types and nothing else: how text becomes a tree is in `parser`, the canonical
//! text in `display`, the type rules in `validate`. The tree is plain data; it
//! compares by value, so that a query and its canonical text parse to equal trees.
//!
//! Operators are split by what they yield (arithmetic, comparison, logic, spansets), so that
//! whoever evaluates a node matches on the operators that can really occur there.

use std::sync::Arc;

use crate::hints::Hints;

/// A whole query.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// What is asked.
    pub body: QueryBody,
    /// The last `with(…)` list; empty when there is none.
    pub hints: Hints,
}

/// What a query asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryBody {
    /// Traces: `{ … } | count() > 2`.
    Search(Pipeline),
    /// Time series: `{ … } | rate() by(name) > 5`, `({ … } | rate()) / ({ … } | rate())`.
    Metrics(MetricsExpr),
    /// `({ … } | count()) > ({ … } | count())`: parses, but never validates.
    ScalarPipelines(ScalarFilter),
}

impl Query {
    /// The pipeline when there is exactly one (a search, or metrics without arithmetic between
    /// sub-queries).
    pub fn single_pipeline(&self) -> Option<&Pipeline> {
        match &self.body {
            QueryBody::Search(pipeline) => Some(pipeline),
            QueryBody::Metrics(metrics) => metrics.single_leaf().map(|leaf| &leaf.pipeline),
            QueryBody::ScalarPipelines(_) => None,
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Pipelines of spansets
// ---------------------------------------------------------------------------------------------

/// Elements joined by `|`; each maps the spansets of one trace to spansets. Never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// In the order of evaluation.
    pub elements: Vec<PipelineElement>,
}

/// One element of a [`Pipeline`].
#[derive(Debug, Clone, PartialEq)]
pub enum PipelineElement {
    /// `{ … }`, `{ … } >> { … }`, or pipelines joined by spanset operators.
    Spanset(SpansetExpr),
    /// `count() > 2`: keeps spansets.
    ScalarFilter(ScalarFilter),
    /// `by(<expression>)`: splits every spanset by value.
    GroupBy(FieldExpr),
    /// `coalesce()`: merges the spansets of a trace into one.
    Coalesce,
    /// `select(<attribute>, …)`: attributes to return; never empty.
    Select(Vec<Attribute>),
}

/// An expression that yields spans.
#[derive(Debug, Clone, PartialEq)]
pub enum SpansetExpr {
    /// `{ <expression> }`; `{ }` is `{ true }`.
    Filter(FieldExpr),
    /// Two spansets of one trace.
    Operation {
        /// How they are related.
        op: SpansetOp,
        /// Left side.
        lhs: Box<SpansetExpr>,
        /// Right side.
        rhs: Box<SpansetExpr>,
    },
    /// A parenthesised pipeline as operand: `({ … } | count() > 1) && ({ … })`.
    Pipeline(Pipeline),
}

/// An operator between spansets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpansetOp {
    /// `&&`: the union when both sides have spans.
    And,
    /// `||`: the union when either side has spans.
    Or,
    /// Position in the trace.
    Structural(StructuralOp),
}

/// A structural operator: a relation, and which spans it yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StructuralOp {
    /// What the right-hand span is to the left-hand span.
    pub relation: Relation,
    /// What is returned.
    pub form: StructuralForm,
}

/// What a span of the right-hand side is to a span of the left-hand side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// `>`: a direct child.
    Child,
    /// `<`: the direct parent.
    Parent,
    /// `>>`: a descendant.
    Descendant,
    /// `<<`: an ancestor.
    Ancestor,
    /// `~`: another span with the same parent.
    Sibling,
}

/// What a structural operator returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StructuralForm {
    /// `>>`: right-hand spans for which some left-hand span stands in the relation.
    Matching,
    /// `!>>`: right-hand spans for which none does.
    Negated,
    /// `&>>`: the spans of both sides that take part in a pair.
    Union,
}

// ---------------------------------------------------------------------------------------------
// Scalars
// ---------------------------------------------------------------------------------------------

/// A comparison of numbers that are computed per spanset.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalarFilter {
    /// Never [`ComparisonOp::Regex`] or [`ComparisonOp::NotRegex`].
    pub op: ComparisonOp,
    /// Left side.
    pub lhs: ScalarExpr,
    /// Right side.
    pub rhs: ScalarExpr,
}

/// A number per spanset.
#[derive(Debug, Clone, PartialEq)]
pub enum ScalarExpr {
    /// A constant: int, float or duration. Arithmetic between constants is already folded.
    Static(Static),
    /// An aggregate over the spans of the spanset.
    Aggregate(Aggregate),
    /// Arithmetic with at least one aggregate below it.
    Operation {
        /// The operator.
        op: ArithmeticOp,
        /// Left side.
        lhs: Box<ScalarExpr>,
        /// Right side.
        rhs: Box<ScalarExpr>,
    },
    /// `({ … } | count())`: parses, but never validates.
    Pipeline {
        /// Everything before the aggregate.
        pipeline: Pipeline,
        /// The last element.
        aggregate: Aggregate,
    },
}

/// An aggregate over the spans of a spanset.
#[derive(Debug, Clone, PartialEq)]
pub enum Aggregate {
    /// `count()`
    Count,
    /// `min(<expression>)`
    Min(FieldExpr),
    /// `max(<expression>)`
    Max(FieldExpr),
    /// `sum(<expression>)`
    Sum(FieldExpr),
    /// `avg(<expression>)`
    Avg(FieldExpr),
}

impl Aggregate {
    /// What is aggregated; nothing for `count()`.
    pub fn operand(&self) -> Option<&FieldExpr> {
        match self {
            Self::Count => None,
            Self::Min(operand) | Self::Max(operand) | Self::Sum(operand) | Self::Avg(operand) => {
                Some(operand)
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Field expressions: a value per span
// ---------------------------------------------------------------------------------------------

/// A value per span.
///
/// Nodes that reference no span, have valid types and evaluate without error are folded to a
/// [`FieldExpr::Static`] when they are built, so `1 / 0` is the only kind of constant arithmetic
/// that is left in a valid tree.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldExpr {
    /// A constant.
    Static(Static),
    /// A value of the span.
    Attribute(Attribute),
    /// `-x`
    Negate(Box<FieldExpr>),
    /// `!x`
    Not(Box<FieldExpr>),
    /// `x != nil`
    Exists(Box<FieldExpr>),
    /// `x = nil`
    NotExists(Box<FieldExpr>),
    /// A number from two numbers.
    Arithmetic {
        /// The operator.
        op: ArithmeticOp,
        /// Left side.
        lhs: Box<FieldExpr>,
        /// Right side.
        rhs: Box<FieldExpr>,
    },
    /// A boolean from two values.
    Comparison {
        /// The operator.
        op: ComparisonOp,
        /// Left side.
        lhs: Box<FieldExpr>,
        /// Right side.
        rhs: Box<FieldExpr>,
    },
    /// A left-associative chain of one operator: `a || b || c` and `(a || b) || c` are one node
    /// with three operands, `a || (b || c)` is two nodes. At least two operands.
    Logical {
        /// The operator.
        op: LogicalOp,
        /// From left to right.
        operands: Vec<FieldExpr>,
    },
    /// An attribute against a list of constants; only the rewrite makes it, it has no syntax.
    List {
        /// The operator.
        op: ListOp,
        /// What is compared.
        attribute: Attribute,
        /// At least two, all of one type: string, int, float or bool; strings when `op` matches.
        values: Vec<Static>,
    },
}

impl FieldExpr {
    /// `{ }`
    pub const TRUE: Self = Self::Static(Static::Bool(true));
    /// A filter that keeps nothing.
    pub const FALSE: Self = Self::Static(Static::Bool(false));

    /// Whether the value depends on the span.
    pub fn references_span(&self) -> bool {
        match self {
            Self::Static(_) => false,
            Self::Attribute(_) | Self::List { .. } => true,
            Self::Negate(operand)
            | Self::Not(operand)
            | Self::Exists(operand)
            | Self::NotExists(operand) => operand.references_span(),
            Self::Arithmetic { lhs, rhs, .. } | Self::Comparison { lhs, rhs, .. } => {
                lhs.references_span() || rhs.references_span()
            }
            Self::Logical { operands, .. } => operands.iter().any(Self::references_span),
        }
    }
}

/// `+ - * / % ^`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArithmeticOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
}

/// `= != < <= > >= =~ !~`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ComparisonOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
    /// `=~`: the whole string matches (RE2 syntax, `.` matches a newline).
    Regex,
    /// `!~`: the whole string does not match.
    NotRegex,
}

impl ComparisonOp {
    /// The operator that says the same with its sides exchanged; none for regular expressions.
    pub fn flipped(self) -> Option<Self> {
        match self {
            Self::Equal => Some(Self::Equal),
            Self::NotEqual => Some(Self::NotEqual),
            Self::Less => Some(Self::Greater),
            Self::LessEqual => Some(Self::GreaterEqual),
            Self::Greater => Some(Self::Less),
            Self::GreaterEqual => Some(Self::LessEqual),
            Self::Regex | Self::NotRegex => None,
        }
    }
}

/// `&& ||`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogicalOp {
    /// `&&`
    And,
    /// `||`
    Or,
}

/// What a chain of comparisons of one attribute is rewritten to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListOp {
    /// `a = x || a = y`
    In,
    /// `a != x && a != y`
    NotIn,
    /// `a =~ x || a =~ y`
    MatchAny,
    /// `a !~ x && a !~ y`
    MatchNone,
}

// ---------------------------------------------------------------------------------------------
// Attributes
// ---------------------------------------------------------------------------------------------

/// A value that a span has, or that its resource, scope, events, links or trace have.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attribute {
    /// A value that every span has by its nature.
    Intrinsic(Intrinsic),
    /// A value that the user has set.
    Named {
        /// `parent.…`: parses, but never validates.
        parent: bool,
        /// Where it is set; nothing for `.name`.
        scope: Option<Scope>,
        /// The exact key, without quotes and escapes.
        name: Arc<str>,
    },
}

impl Attribute {
    /// `scope.name`
    pub fn scoped(scope: Scope, name: &str) -> Self {
        Self::Named {
            parent: false,
            scope: Some(scope),
            name: Arc::from(name),
        }
    }

    /// `.name`
    pub fn unscoped(name: &str) -> Self {
        Self::Named {
            parent: false,
            scope: None,
            name: Arc::from(name),
        }
    }
}

impl From<Intrinsic> for Attribute {
    fn from(intrinsic: Intrinsic) -> Self {
        Self::Intrinsic(intrinsic)
    }
}

/// Where an attribute is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// `resource.`
    Resource,
    /// `span.`
    Span,
    /// `event.`
    Event,
    /// `link.`
    Link,
    /// `instrumentation.`
    Instrumentation,
}

/// The intrinsics that can be written in a query. Forms that mean the same are one variant; the
/// first form named is the canonical text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Intrinsic {
    /// `duration`, `span:duration`: nanoseconds.
    Duration,
    /// `name`, `span:name`: string.
    Name,
    /// `status`, `span:status`.
    Status,
    /// `statusMessage`, `span:statusMessage`: string.
    StatusMessage,
    /// `kind`, `span:kind`.
    Kind,
    /// `span:id`: 16 hex digits.
    SpanId,
    /// `span:parentID`: 16 hex digits, zeros for a root.
    ParentId,
    /// `span:childCount`: int.
    ChildCount,
    /// `nestedSetLeft`: int.
    NestedSetLeft,
    /// `nestedSetRight`: int.
    NestedSetRight,
    /// `nestedSetParent`: int.
    NestedSetParent,
    /// `traceDuration`, `trace:duration`: nanoseconds.
    TraceDuration,
    /// `rootName`, `trace:rootName`: string.
    TraceRootName,
    /// `rootServiceName`, `trace:rootService`: string.
    TraceRootService,
    /// `trace:id`: lower-case hex without leading zeros.
    TraceId,
    /// `event:name`: string per event.
    EventName,
    /// `event:timeSinceStart`: nanoseconds per event.
    EventTimeSinceStart,
    /// `link:traceID`: hex per link.
    LinkTraceId,
    /// `link:spanID`: hex per link.
    LinkSpanId,
    /// `instrumentation:name`: string, but without a static type.
    InstrumentationName,
    /// `instrumentation:version`: string, but without a static type.
    InstrumentationVersion,
    /// `parent`: parses, but never validates.
    Parent,
}

// ---------------------------------------------------------------------------------------------
// Constants
// ---------------------------------------------------------------------------------------------

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub enum Static {
    /// `nil`
    Nil,
    /// A 64-bit integer.
    Int(i64),
    /// A 64-bit float.
    Float(f64),
    /// A string, unescaped.
    String(Arc<str>),
    /// `true`, `false`
    Bool(bool),
    /// Nanoseconds.
    Duration(i64),
    /// `ok`, `error`, `unset`
    Status(Status),
    /// `server`, `client`, …
    Kind(Kind),
}

/// The status of a span, in Tempo's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// `error`; 2 in OTLP.
    Error,
    /// `ok`; 1 in OTLP.
    Ok,
    /// `unset`; 0 in OTLP.
    Unset,
}

/// The kind of a span, in Tempo's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `unspecified`; 0 in OTLP.
    Unspecified,
    /// `internal`; 1 in OTLP.
    Internal,
    /// `client`; 3 in OTLP.
    Client,
    /// `server`; 2 in OTLP.
    Server,
    /// `producer`; 4 in OTLP.
    Producer,
    /// `consumer`; 5 in OTLP.
    Consumer,
}

// ---------------------------------------------------------------------------------------------
// Metrics
// ---------------------------------------------------------------------------------------------

/// Time series, and what is done to them.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsExpr {
    /// Where the series come from.
    pub source: MetricsSource,
    /// Applied from left to right.
    pub stages: Vec<SecondStage>,
}

impl MetricsExpr {
    /// The sub-query when there is no arithmetic between sub-queries.
    pub fn single_leaf(&self) -> Option<&MetricsLeaf> {
        match &self.source {
            MetricsSource::Leaf(leaf) => Some(leaf),
            MetricsSource::Binary { .. } => None,
        }
    }

    /// The sub-queries from left to right, repeated ones included.
    pub fn leaves(&self) -> Vec<&MetricsLeaf> {
        fn collect<'a>(expr: &'a MetricsExpr, into: &mut Vec<&'a MetricsLeaf>) {
            match &expr.source {
                MetricsSource::Leaf(leaf) => into.push(leaf),
                MetricsSource::Binary { lhs, rhs, .. } => {
                    collect(lhs, into);
                    collect(rhs, into);
                }
            }
        }
        let mut leaves = Vec::new();
        collect(self, &mut leaves);
        leaves
    }
}

/// Where time series come from.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricsSource {
    /// Spans.
    Leaf(MetricsLeaf),
    /// Two sets of series, joined by their labels.
    Binary {
        /// Add, Sub, Mul or Div.
        op: ArithmeticOp,
        /// Left side.
        lhs: Box<MetricsExpr>,
        /// Right side.
        rhs: Box<MetricsExpr>,
    },
}

/// A pipeline of spans and the aggregate that makes series of them. Its canonical text
/// (`Display`) identifies the sub-query on the wire (`__query_fragment`).
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsLeaf {
    /// Which spans.
    pub pipeline: Pipeline,
    /// What is computed.
    pub aggregate: MetricsAggregate,
}

/// The first stage of a metrics query.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricsAggregate {
    /// A value per interval and group.
    Series {
        /// What is computed.
        function: SeriesFunction,
        /// `by(…)`; empty when there is none.
        by: Vec<Attribute>,
    },
    /// `compare({ … }, …)`
    Compare(Compare),
}

/// What is computed per interval.
#[derive(Debug, Clone, PartialEq)]
pub enum SeriesFunction {
    /// `rate()`: spans per second.
    Rate,
    /// `count_over_time()`
    CountOverTime,
    /// `min_over_time(<attribute>)`
    MinOverTime(Attribute),
    /// `max_over_time(<attribute>)`
    MaxOverTime(Attribute),
    /// `sum_over_time(<attribute>)`
    SumOverTime(Attribute),
    /// `avg_over_time(<attribute>)`
    AvgOverTime(Attribute),
    /// `histogram_over_time(<attribute>)`
    HistogramOverTime(Attribute),
    /// `quantile_over_time(<attribute>, <quantile>, …)`; at least one quantile.
    QuantileOverTime(Attribute, Vec<f64>),
}

impl SeriesFunction {
    /// What is measured; nothing for functions that count.
    pub fn attribute(&self) -> Option<&Attribute> {
        match self {
            Self::Rate | Self::CountOverTime => None,
            Self::MinOverTime(attribute)
            | Self::MaxOverTime(attribute)
            | Self::SumOverTime(attribute)
            | Self::AvgOverTime(attribute)
            | Self::HistogramOverTime(attribute)
            | Self::QuantileOverTime(attribute, _) => Some(attribute),
        }
    }
}

/// `compare({ <selection> }, <top>, <start>, <end>)`: how the attributes of selected spans differ
/// from those of the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Compare {
    /// Which spans are the selection.
    pub selection: FieldExpr,
    /// Values to return per attribute; 10 when not written.
    pub top: i64,
    /// Selection window, exclusive start, in nanoseconds since the epoch; 0 with `end_nanos` 0
    /// means no window.
    pub start_nanos: i64,
    /// Selection window, inclusive end, in nanoseconds since the epoch.
    pub end_nanos: i64,
}

impl Compare {
    /// Values to return per attribute when the query does not say.
    pub const DEFAULT_TOP: i64 = 10;
}

/// What is done to finished series.
#[derive(Debug, Clone, PartialEq)]
pub enum SecondStage {
    /// `| topk(5)`: per timestamp.
    TopK(i64),
    /// `| bottomk(5)`: per timestamp.
    BottomK(i64),
    /// `> 5`: keeps points.
    Filter {
        /// Never [`ComparisonOp::Regex`] or [`ComparisonOp::NotRegex`].
        op: ComparisonOp,
        /// Thresholds written as durations are seconds.
        threshold: f64,
    },
    /// `* 2`, `100 *`: applied to every point.
    Scalar {
        /// Add, Sub, Mul or Div.
        op: ArithmeticOp,
        /// The constant.
        value: f64,
        /// Whether the constant is the left operand.
        value_on_left: bool,
    },
}
