//! The kinds of operand between which operators may stand, and where each kind is allowed.

use crate::ast::{
    ArithmeticOp, MetricsExpr, Relation, ScalarExpr, SpansetExpr, SpansetOp, Static,
    StructuralForm, StructuralOp,
};
use crate::token::Symbol;

// How tightly operators bind, from loose to tight. All are left-associative but `^`.
pub(super) const LOOSEST: u8 = 0;
pub(super) const LOGIC: u8 = 1;
pub(super) const STRUCTURE: u8 = 2;
pub(super) const SUM: u8 = 3;
pub(super) const PRODUCT: u8 = 4;
pub(super) const POWER: u8 = 5;

/// An operand, by kind.
pub(super) enum Item {
    /// `{ … } >> { … }`
    Spanset(SpansetExpr),
    /// `({ … } | …) >> ({ … })`
    PipelineExpr(SpansetExpr),
    /// `count() + 1`
    Scalar(ScalarExpr),
    /// `1 + 1`
    Constant(Static),
    /// `({ … } | count()) + ({ … } | count())`
    ScalarPipeline(ScalarExpr),
    /// `({ … } | rate()) + 1`
    Metrics(MetricsExpr),
}

/// An operand and its height.
pub(super) type Node = (Item, usize);

/// The kinds of operand that can be used.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Allowed {
    pub(super) spanset: bool,
    pub(super) pipeline_expr: bool,
    pub(super) scalar: bool,
    pub(super) constant: bool,
    pub(super) scalar_pipeline: bool,
    pub(super) metrics: bool,
}

impl Allowed {
    pub(super) const CONSTANT: Self = Self {
        constant: true,
        ..Self::NONE
    };
    const NONE: Self = Self {
        spanset: false,
        pipeline_expr: false,
        scalar: false,
        constant: false,
        scalar_pipeline: false,
        metrics: false,
    };
    pub(super) const ROOT: Self = Self {
        spanset: true,
        pipeline_expr: true,
        scalar: true,
        constant: true,
        scalar_pipeline: true,
        metrics: true,
    };
    pub(super) const SPANSET: Self = Self {
        spanset: true,
        ..Self::NONE
    };
    pub(super) const PIPELINE_EXPR: Self = Self {
        pipeline_expr: true,
        ..Self::NONE
    };
    pub(super) const SCALAR: Self = Self {
        scalar: true,
        constant: true,
        ..Self::NONE
    };
    pub(super) const SCALAR_PIPELINE: Self = Self {
        scalar_pipeline: true,
        ..Self::NONE
    };
    pub(super) const METRICS: Self = Self {
        metrics: true,
        constant: true,
        ..Self::NONE
    };
    /// What may follow a `|`.
    pub(super) const ELEMENT: Self = Self {
        spanset: true,
        scalar: true,
        constant: true,
        ..Self::NONE
    };

    /// Whether a pipeline may stand in parentheses here.
    pub(super) fn wrapped_pipeline(self) -> bool {
        self.pipeline_expr || self.scalar_pipeline || self.metrics
    }

    /// What may come first within parentheses here.
    pub(super) fn within_parentheses(self) -> Self {
        let wrapped = self.wrapped_pipeline();
        Self {
            spanset: self.spanset || wrapped,
            scalar: self.scalar || wrapped,
            constant: self.constant || wrapped,
            ..self
        }
    }
}

/// An operator that may follow an item.
#[derive(Clone, Copy)]
pub(super) enum Op {
    Spanset(SpansetOp),
    Arithmetic(ArithmeticOp),
}

impl Op {
    /// Whether constants have the operator only together with a scalar. So behind two constants
    /// the right side must go on, however loosely: `2 % 3 + count()` is `2 % (3 + count())`.
    pub(super) fn needs_scalar(self) -> bool {
        matches!(
            self,
            Self::Arithmetic(ArithmeticOp::Mod | ArithmeticOp::Pow)
        )
    }
}

/// The tightest operator that may follow the item.
pub(super) fn tightest(item: &Item, allowed: Allowed) -> u8 {
    match item {
        Item::Spanset(_) | Item::PipelineExpr(_) => STRUCTURE,
        Item::Scalar(_) | Item::ScalarPipeline(_) => POWER,
        Item::Constant(_) if allowed.scalar => POWER,
        Item::Constant(_) | Item::Metrics(_) => PRODUCT,
    }
}

/// What may stand to the right of `lhs op`.
pub(super) fn allowed_right(lhs: &Item, op: Op, allowed: Allowed) -> Allowed {
    match lhs {
        Item::Spanset(_) => Allowed::SPANSET,
        Item::PipelineExpr(_) => Allowed::PIPELINE_EXPR,
        Item::ScalarPipeline(_) => Allowed::SCALAR_PIPELINE,
        Item::Scalar(_) => Allowed::SCALAR,
        Item::Metrics(_) => Allowed::METRICS,
        Item::Constant(_) => match op {
            Op::Arithmetic(ArithmeticOp::Mod | ArithmeticOp::Pow) => Allowed::SCALAR,
            _ => Allowed {
                scalar: allowed.scalar,
                metrics: allowed.metrics,
                ..Allowed::CONSTANT
            },
        },
    }
}

pub(super) fn spanset_operation(op: SpansetOp, lhs: SpansetExpr, rhs: SpansetExpr) -> SpansetExpr {
    SpansetExpr::Operation {
        op,
        lhs: Box::new(lhs),
        rhs: Box::new(rhs),
    }
}

pub(super) fn scalar_operation(op: ArithmeticOp, lhs: ScalarExpr, rhs: ScalarExpr) -> ScalarExpr {
    ScalarExpr::Operation {
        op,
        lhs: Box::new(lhs),
        rhs: Box::new(rhs),
    }
}

pub(super) fn spanset_operator(symbol: Symbol) -> Option<SpansetOp> {
    use Relation::{Ancestor, Child, Descendant, Parent, Sibling};
    use StructuralForm::{Matching, Negated, Union};
    let (relation, form) = match symbol {
        Symbol::And => return Some(SpansetOp::And),
        Symbol::Or => return Some(SpansetOp::Or),
        Symbol::Greater => (Child, Matching),
        Symbol::Less => (Parent, Matching),
        Symbol::Descendant => (Descendant, Matching),
        Symbol::Ancestor => (Ancestor, Matching),
        Symbol::Sibling => (Sibling, Matching),
        Symbol::NotChild => (Child, Negated),
        Symbol::NotParent => (Parent, Negated),
        Symbol::NotDescendant => (Descendant, Negated),
        Symbol::NotAncestor => (Ancestor, Negated),
        Symbol::NotRegex => (Sibling, Negated),
        Symbol::UnionChild => (Child, Union),
        Symbol::UnionParent => (Parent, Union),
        Symbol::UnionDescendant => (Descendant, Union),
        Symbol::UnionAncestor => (Ancestor, Union),
        Symbol::UnionSibling => (Sibling, Union),
        _ => return None,
    };
    Some(SpansetOp::Structural(StructuralOp { relation, form }))
}
