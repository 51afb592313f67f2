//! What is done with columns.
//!
//! Owns the form of the decisions that need no data: which comparisons are column tests, in which
//! order conjuncts run, which columns the first pass reads, which values a result carries. A plan
//! is made once per query, by `planner`, and used for every table.

use std::sync::Arc;

use tempo_table::ColumnKey;
use tempo_traceql::{
    Attribute, Intrinsic, Static,
    ast::{ArithmeticOp, ComparisonOp, SpansetOp, StructuralForm, StructuralOp},
};

use crate::{operand::Operand, pattern::TextPattern, test::Test};

/// Number of an operand within its plan.
pub(crate) type OperandId = usize;

/// A pipeline, ready to run on any table.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) operands: Vec<Operand>,
    pub(crate) stages: Vec<Stage>,
    /// What the query has loaded of a span, and so what results show of it.
    pub(crate) loaded: Vec<Loaded>,
    /// Conditions on events (links) all hold for the same event (link).
    pub(crate) same_event: bool,
    pub(crate) first_pass: Vec<ColumnKey>,
}

/// A pipeline, and what its spans are measured by.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) plan: Plan,
    /// In the order in which they were asked for.
    pub(crate) attributes: Vec<OperandId>,
    pub(crate) selection: Option<Filter>,
    /// What the selection asks for.
    pub(crate) selection_loaded: Vec<Loaded>,
}

/// One element of a pipeline. `select()` has no effect on which spans are found and is none.
#[derive(Debug, Clone)]
pub(crate) enum Stage {
    Spans(SpanExpr),
    Scalar(ScalarTest),
    GroupBy { expr: Expr, label: Arc<str> },
    Coalesce,
}

/// An expression that yields spans.
#[derive(Debug, Clone)]
pub(crate) enum SpanExpr {
    Filter(Filter),
    Operation {
        op: SpansetOp,
        lhs: Box<SpanExpr>,
        rhs: Box<SpanExpr>,
    },
    Pipeline(Vec<Stage>),
}

/// Which spans, by columns.
#[derive(Debug, Clone)]
pub(crate) enum Filter {
    Const(bool),
    Test(OperandId, Box<Test>),
    Exists(OperandId),
    Missing(OperandId),
    /// In the order of evaluation.
    All(Vec<Filter>),
    /// In the order of evaluation.
    Any(Vec<Filter>),
    Not(Box<Filter>),
    /// Evaluated span by span, for spans that have all of `required`.
    Rows {
        expr: Expr,
        required: Vec<OperandId>,
    },
}

/// A value per span, computed span by span.
#[derive(Debug, Clone)]
pub(crate) enum Expr {
    Const(Static),
    Operand(OperandId),
    Negate {
        operand: Box<Expr>,
        text: Arc<str>,
    },
    Not {
        operand: Box<Expr>,
        text: Arc<str>,
    },
    Exists(Box<Expr>),
    Missing(Box<Expr>),
    Arithmetic {
        op: ArithmeticOp,
        lhs: Box<Expr>,
        rhs: Box<Expr>,
    },
    Compare {
        op: ComparisonOp,
        lhs: Box<Expr>,
        rhs: Box<Expr>,
    },
    Matches {
        negated: bool,
        lhs: Box<Expr>,
        pattern: Arc<TextPattern>,
    },
    Test {
        operand: OperandId,
        test: Box<Test>,
    },
    All(Vec<Expr>),
    Any(Vec<Expr>),
}

/// A comparison of numbers per spanset.
#[derive(Debug, Clone)]
pub(crate) struct ScalarTest {
    pub(crate) op: ComparisonOp,
    pub(crate) lhs: ScalarNode,
    pub(crate) rhs: ScalarNode,
}

/// A number per spanset.
#[derive(Debug, Clone)]
pub(crate) enum ScalarNode {
    Const(Static),
    Aggregate {
        function: Function,
        operand: Option<Expr>,
        /// Its text, under which results show it.
        label: Arc<str>,
    },
    Operation {
        op: ArithmeticOp,
        lhs: Box<ScalarNode>,
        rhs: Box<ScalarNode>,
    },
}

/// What an aggregate computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Count,
    Min,
    Max,
    Sum,
    Avg,
}

/// An attribute that the query has loaded, and which of its values.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) operand: OperandId,
    /// Every value.
    pub(crate) all: bool,
    /// Values that pass one of these.
    pub(crate) tests: Vec<Test>,
    /// The absence of a value.
    pub(crate) missing: bool,
    /// Whether a spanset filter asks for it, other than `select()`, `by()` and aggregates.
    pub(crate) condition: bool,
}

impl Plan {
    /// Whether no table can hold a match, so that none needs to be read.
    pub fn matches_nothing(&self) -> bool {
        matches!(self.stages.first(), Some(Stage::Spans(expr)) if expr.matches_nothing())
    }
}

impl SpanExpr {
    fn matches_nothing(&self) -> bool {
        match self {
            Self::Filter(filter) => matches!(filter, Filter::Const(false)),
            Self::Operation { op, lhs, rhs } => {
                let (lhs, rhs) = (lhs.matches_nothing(), rhs.matches_nothing());
                match op {
                    SpansetOp::Or => lhs && rhs,
                    SpansetOp::Structural(StructuralOp {
                        form: StructuralForm::Negated,
                        ..
                    }) => rhs,
                    SpansetOp::And | SpansetOp::Structural(_) => lhs || rhs,
                }
            }
            Self::Pipeline(stages) => {
                matches!(stages.first(), Some(Stage::Spans(expr)) if expr.matches_nothing())
            }
        }
    }
}

impl Loaded {
    /// Whether the attribute is not shown among a span's attributes, because answers have it
    /// elsewhere.
    pub(crate) fn is_shown_elsewhere(&self, operands: &[Operand]) -> bool {
        matches!(
            operands[self.operand].attribute,
            Attribute::Intrinsic(
                Intrinsic::Name
                    | Intrinsic::Duration
                    | Intrinsic::TraceDuration
                    | Intrinsic::TraceRootName
                    | Intrinsic::TraceRootService
                    | Intrinsic::TraceId
                    | Intrinsic::SpanId
            )
        )
    }
}
