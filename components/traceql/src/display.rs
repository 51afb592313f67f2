//! The canonical text of a query.
//!
//! Cache keys, fragment keys on the wire and error messages use it, so it is Tempo's to the
//! character: operands that are operations stand in parentheses, strings in backticks, elements
//! are joined by `|` without spaces. It differs only where Tempo's text is not a query or is
//! another query: strings with a backtick, attribute names that start like a number, negative
//! left operands of `*`, and `compare` (which Tempo prints with a wrong brace and without its
//! numbers). Every text parses back to an equal tree, but for what has no syntax: the smallest
//! integer, and the lists that the rewrite makes.

use std::fmt::{self, Display, Formatter, Write};

use crate::ast::{
    Aggregate, ArithmeticOp, Attribute, Compare, ComparisonOp, FieldExpr, Intrinsic, Kind, ListOp,
    LogicalOp, MetricsAggregate, MetricsExpr, MetricsLeaf, MetricsSource, Pipeline,
    PipelineElement, Query, QueryBody, Relation, ScalarExpr, ScalarFilter, Scope, SecondStage,
    SeriesFunction, SpansetExpr, SpansetOp, Static, Status, StructuralForm, StructuralOp,
};
use crate::duration::GoDuration;
use crate::hints::Hints;
use crate::token::is_attribute_rune;

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.body {
            QueryBody::Search(pipeline) => pipeline.fmt(f)?,
            QueryBody::Metrics(metrics) => metrics.fmt(f)?,
            QueryBody::ScalarPipelines(filter) => filter.fmt(f)?,
        }
        if !self.hints.is_empty() {
            write!(f, " {}", self.hints)?;
        }
        Ok(())
    }
}

impl Display for Hints {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("with(")?;
        for (index, (name, value)) in self.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{name}={value}")?;
        }
        f.write_str(")")
    }
}

impl Display for Pipeline {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        joined(f, &self.elements, "|")
    }
}

impl Display for PipelineElement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spanset(spanset) => spanset.fmt(f),
            Self::ScalarFilter(filter) => filter.fmt(f),
            Self::GroupBy(expr) => write!(f, "by({expr})"),
            Self::Coalesce => f.write_str("coalesce()"),
            Self::Select(attributes) => {
                f.write_str("select(")?;
                joined(f, attributes, ", ")?;
                f.write_str(")")
            }
        }
    }
}

impl Display for SpansetExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(expr) => write!(f, "{{ {expr} }}"),
            Self::Operation { op, lhs, rhs } => write!(f, "({lhs}) {op} ({rhs})"),
            Self::Pipeline(pipeline) => pipeline.fmt(f),
        }
    }
}

impl Display for ScalarFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { op, lhs, rhs } = self;
        write!(f, "{} {op} {}", Operand(lhs), Operand(rhs))
    }
}

impl Display for ScalarExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(Static::Float(value)) if value.is_nan() => f.write_str("(0.0 / 0.0)"),
            Self::Static(Static::Float(value)) if value.is_infinite() => {
                write!(f, "({}1.0 / 0.0)", if *value < 0.0 { "-" } else { "" })
            }
            Self::Static(value) => value.fmt(f),
            Self::Aggregate(aggregate) => aggregate.fmt(f),
            Self::Operation { op, lhs, rhs } => {
                write!(f, "{} {op} {}", Operand(&**lhs), Operand(&**rhs))
            }
            Self::Pipeline {
                pipeline,
                aggregate,
            } => write!(f, "{pipeline}|{aggregate}"),
        }
    }
}

impl Display for Aggregate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count => f.write_str("count()"),
            Self::Min(expr) => write!(f, "min({expr})"),
            Self::Max(expr) => write!(f, "max({expr})"),
            Self::Sum(expr) => write!(f, "sum({expr})"),
            Self::Avg(expr) => write!(f, "avg({expr})"),
        }
    }
}

/// An operand: in parentheses unless it is a constant or an attribute.
struct Operand<'a, T>(&'a T);

impl Display for Operand<'_, ScalarExpr> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            ScalarExpr::Static(_) => self.0.fmt(f),
            operation => write!(f, "({operation})"),
        }
    }
}

impl Display for Operand<'_, FieldExpr> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            FieldExpr::Static(_) | FieldExpr::Attribute(_) => self.0.fmt(f),
            operation => write!(f, "({operation})"),
        }
    }
}

impl Display for FieldExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(value) => value.fmt(f),
            Self::Attribute(attribute) => attribute.fmt(f),
            Self::Negate(operand) => write!(f, "-{}", Operand(&**operand)),
            Self::Not(operand) => write!(f, "!{}", Operand(&**operand)),
            Self::Exists(operand) => write!(f, "{} != nil", Operand(&**operand)),
            Self::NotExists(operand) => write!(f, "{} = nil", Operand(&**operand)),
            Self::Arithmetic { op, lhs, rhs } => {
                // A leading minus would take the whole product.
                if op.is_multiplicative() && is_negative(lhs) {
                    write!(f, "({lhs}) {op} {}", Operand(&**rhs))
                } else {
                    write!(f, "{} {op} {}", Operand(&**lhs), Operand(&**rhs))
                }
            }
            Self::Comparison { op, lhs, rhs } => {
                write!(f, "{} {op} {}", Operand(&**lhs), Operand(&**rhs))
            }
            Self::Logical { op, operands } => Chain { op: *op, operands }.fmt(f),
            Self::List {
                op,
                attribute,
                values,
            } => {
                write!(f, "{attribute} {op} [")?;
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        f.write_str(", ")?;
                    }
                    match value {
                        Static::Float(value) => f.write_str(&go_float(*value))?,
                        value => value.fmt(f)?,
                    }
                }
                f.write_str("]")
            }
        }
    }
}

/// The first operands of a chain of one logical operator, nested to the left.
pub(crate) struct Chain<'a> {
    pub(crate) op: LogicalOp,
    pub(crate) operands: &'a [FieldExpr],
}

impl Display for Chain<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for _ in 2..self.operands.len() {
            f.write_str("(")?;
        }
        for (index, operand) in self.operands.iter().enumerate() {
            if index > 0 {
                let close = if index > 1 { ")" } else { "" };
                write!(f, "{close} {} ", self.op)?;
            }
            Operand(operand).fmt(f)?;
        }
        Ok(())
    }
}

fn is_negative(expr: &FieldExpr) -> bool {
    match expr {
        FieldExpr::Static(Static::Int(value) | Static::Duration(value)) => *value < 0,
        FieldExpr::Static(Static::Float(value)) => value.is_sign_negative(),
        _ => false,
    }
}

impl Display for Static {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("nil"),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => {
                let text = go_float(*value);
                let is_float = text.contains(['e', '.']);
                write!(f, "{text}{}", if is_float { "" } else { ".0" })
            }
            Self::String(text) => quoted(f, text),
            Self::Bool(value) => value.fmt(f),
            Self::Duration(nanos) => GoDuration { nanos: *nanos }.fmt(f),
            Self::Status(status) => f.write_str(status.name()),
            Self::Kind(kind) => f.write_str(kind.name()),
        }
    }
}

/// A string in backticks, or with escapes when backticks can't hold it.
fn quoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    if !text.contains(['`', '\r']) {
        return write!(f, "`{text}`");
    }
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            c => f.write_char(c)?,
        }
    }
    f.write_str("\"")
}

/// The shortest text that reads back to the same float, with an exponent as Go's `%g` sets it.
pub(crate) fn go_float(value: f64) -> String {
    if !value.is_finite() {
        return match value {
            _ if value.is_nan() => "NaN",
            _ if value > 0.0 => "+Inf",
            _ => "-Inf",
        }
        .to_owned();
    }
    // `d.ddde±x`, the shortest digits.
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    format!("{value}")
}

impl Status {
    /// Its keyword.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Ok => "ok",
            Self::Unset => "unset",
        }
    }
}

impl Kind {
    /// Its keyword.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Internal => "internal",
            Self::Client => "client",
            Self::Server => "server",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

impl Display for Attribute {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self::Named {
            parent,
            scope,
            name,
        } = self
        else {
            let Self::Intrinsic(intrinsic) = self else {
                return Ok(());
            };
            return f.write_str(intrinsic.name());
        };
        if *parent {
            f.write_str("parent.")?;
        }
        match scope {
            Some(scope) => write!(f, "{}.", scope.name())?,
            None if *parent => {}
            None => f.write_str(".")?,
        }
        let looks_like_number =
            scope.is_none() && !parent && name.starts_with(|c: char| c.is_ascii_digit());
        let is_plain = !name.is_empty()
            && !looks_like_number
            && name.chars().all(|c| is_attribute_rune(c) && c != '"');
        if is_plain {
            return f.write_str(name);
        }
        f.write_str("\"")?;
        for c in name.chars() {
            if matches!(c, '"' | '\\') {
                f.write_str("\\")?;
            }
            f.write_char(c)?;
        }
        f.write_str("\"")
    }
}

impl Scope {
    /// Its keyword, without the dot.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resource => "resource",
            Self::Span => "span",
            Self::Event => "event",
            Self::Link => "link",
            Self::Instrumentation => "instrumentation",
        }
    }
}

impl Intrinsic {
    /// Its canonical text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Duration => "duration",
            Self::Name => "name",
            Self::Status => "status",
            Self::StatusMessage => "statusMessage",
            Self::Kind => "kind",
            Self::SpanId => "span:id",
            Self::ParentId => "span:parentID",
            Self::ChildCount => "span:childCount",
            Self::NestedSetLeft => "nestedSetLeft",
            Self::NestedSetRight => "nestedSetRight",
            Self::NestedSetParent => "nestedSetParent",
            Self::TraceDuration => "traceDuration",
            Self::TraceRootName => "rootName",
            Self::TraceRootService => "rootServiceName",
            Self::TraceId => "trace:id",
            Self::EventName => "event:name",
            Self::EventTimeSinceStart => "event:timeSinceStart",
            Self::LinkTraceId => "link:traceID",
            Self::LinkSpanId => "link:spanID",
            Self::InstrumentationName => "instrumentation:name",
            Self::InstrumentationVersion => "instrumentation:version",
            Self::Parent => "parent",
        }
    }
}

impl Display for Intrinsic {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Display for ArithmeticOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
        })
    }
}

impl Display for ComparisonOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        })
    }
}

impl Display for LogicalOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::And => "&&",
            Self::Or => "||",
        })
    }
}

impl Display for ListOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::In => "IN",
            Self::NotIn => "NOT IN",
            Self::MatchAny => "MATCH ANY",
            Self::MatchNone => "MATCH NONE",
        })
    }
}

impl Display for SpansetOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::And => f.write_str("&&"),
            Self::Or => f.write_str("||"),
            Self::Structural(op) => op.fmt(f),
        }
    }
}

impl Display for StructuralOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.form {
            StructuralForm::Matching => "",
            StructuralForm::Negated => "!",
            StructuralForm::Union => "&",
        })?;
        f.write_str(match self.relation {
            Relation::Child => ">",
            Relation::Parent => "<",
            Relation::Descendant => ">>",
            Relation::Ancestor => "<<",
            Relation::Sibling => "~",
        })
    }
}

impl Display for MetricsExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // A scalar operation wraps all that stands before it: the openings come first, outermost
        // first.
        for stage in self.stages.iter().rev() {
            match stage {
                SecondStage::Scalar {
                    op,
                    value,
                    value_on_left: true,
                } => write!(f, "{} {op} (", Number(*value))?,
                SecondStage::Scalar { .. } => f.write_str("(")?,
                _ => {}
            }
        }
        match &self.source {
            MetricsSource::Leaf(leaf) => leaf.fmt(f)?,
            MetricsSource::Binary { op, lhs, rhs } => write!(f, "({lhs}) {op} ({rhs})")?,
        }
        for stage in &self.stages {
            match stage {
                SecondStage::TopK(limit) => write!(f, " | topk({limit})")?,
                SecondStage::BottomK(limit) => write!(f, " | bottomk({limit})")?,
                SecondStage::Filter { op, threshold } => {
                    write!(f, " {op} {}", Number(*threshold))?;
                }
                SecondStage::Scalar {
                    value_on_left: true,
                    ..
                } => f.write_str(")")?,
                SecondStage::Scalar { op, value, .. } => {
                    write!(f, ") {op} {}", Number(*value))?;
                }
            }
        }
        Ok(())
    }
}

impl Display for MetricsLeaf {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {}", self.pipeline, self.aggregate)
    }
}

impl Display for MetricsAggregate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Series { function, by } => {
                write!(f, "{}(", function.name())?;
                if let Some(attribute) = function.attribute() {
                    attribute.fmt(f)?;
                }
                if let SeriesFunction::QuantileOverTime(_, quantiles) = function {
                    for quantile in quantiles {
                        write!(f, ",{quantile:.5}")?;
                    }
                }
                f.write_str(")")?;
                if !by.is_empty() {
                    f.write_str("by(")?;
                    joined(f, by, ",")?;
                    f.write_str(")")?;
                }
                Ok(())
            }
            Self::Compare(Compare {
                selection,
                top,
                start_nanos,
                end_nanos,
            }) => {
                write!(f, "compare({{ {selection} }}")?;
                if (*start_nanos, *end_nanos) != (0, 0) {
                    write!(f, ",{top},{start_nanos},{end_nanos}")?;
                } else if *top != Compare::DEFAULT_TOP {
                    write!(f, ",{top}")?;
                }
                f.write_str(")")
            }
        }
    }
}

impl SeriesFunction {
    /// Its keyword, which is also the `__name__` of its series.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::CountOverTime => "count_over_time",
            Self::MinOverTime(_) => "min_over_time",
            Self::MaxOverTime(_) => "max_over_time",
            Self::SumOverTime(_) => "sum_over_time",
            Self::AvgOverTime(_) => "avg_over_time",
            Self::HistogramOverTime(_) => "histogram_over_time",
            Self::QuantileOverTime(..) => "quantile_over_time",
        }
    }
}

/// A threshold or a factor: without a fraction when it has none.
struct Number(f64);

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if !value.is_finite() {
            return ScalarExpr::Static(Static::Float(value)).fmt(f);
        }
        if value == (value as i64) as f64 {
            write!(f, "{}", value as i64)
        } else {
            f.write_str(&go_float(value))
        }
    }
}

fn joined<T: Display>(f: &mut Formatter<'_>, items: &[T], separator: &str) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(separator)?;
        }
        item.fmt(f)?;
    }
    Ok(())
}
