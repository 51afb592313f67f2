//! What a filter demands of spans, as alternatives of conditions: for completion of tags.
//!
//! Each group is a conjunction, the groups are alternatives. Only plain tests of one attribute
//! count; whatever else a filter says is left out, which widens the answer but never narrows it
//! wrongly.

use crate::ast::{
    Attribute, ComparisonOp, FieldExpr, LogicalOp, PipelineElement, SpansetExpr, Static,
};
use crate::error::TooManyConditionGroups;
use crate::lenient::parse_lenient;

/// `max_condition_groups_per_tag_query` when it is not set.
pub const DEFAULT_MAX_CONDITION_GROUPS: usize = 100;
/// Conditions of one group.
const MAX_CONDITIONS_PER_GROUP: usize = 1000;
/// Conditions of all groups.
const MAX_CONDITIONS_PER_QUERY: usize = 100_000;

/// What a query for tags asks of spans.
#[derive(Debug, Clone, PartialEq)]
pub enum ConditionGroups {
    /// Nothing: also for texts that can't be read and queries that are more than a filter.
    MatchAll,
    /// All conditions of at least one group. Never empty, nor is any group.
    AnyOf(Vec<Vec<Condition>>),
}

/// A test of one attribute of a span.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// What is tested.
    pub attribute: Attribute,
    /// How.
    pub test: ConditionTest,
}

/// How an attribute is tested.
#[derive(Debug, Clone, PartialEq)]
pub enum ConditionTest {
    /// `attribute op value`
    Compare {
        /// The operator.
        op: ComparisonOp,
        /// The constant.
        value: Static,
    },
    /// `attribute != nil`
    Exists,
    /// `attribute = nil`
    NotExists,
}

/// The conditions of a possibly half-typed query. `max_groups` 0 means the default.
///
/// # Errors
/// The query has more alternatives than `max_groups`.
pub fn condition_groups(
    text: &str,
    max_groups: usize,
) -> Result<ConditionGroups, TooManyConditionGroups> {
    let max_groups = match max_groups {
        0 => DEFAULT_MAX_CONDITION_GROUPS,
        max_groups => max_groups,
    };
    let Ok(query) = parse_lenient(text.trim()) else {
        return Ok(ConditionGroups::MatchAll);
    };
    if query.validate().is_err() {
        return Ok(ConditionGroups::MatchAll);
    }
    let first = query
        .single_pipeline()
        .and_then(|pipeline| pipeline.elements.first());
    let Some(PipelineElement::Spanset(SpansetExpr::Filter(filter))) = first else {
        return Ok(ConditionGroups::MatchAll);
    };
    let alternatives = Alternatives::of(filter, max_groups);
    if alternatives.has_unconditional {
        Ok(ConditionGroups::MatchAll)
    } else if alternatives.too_many {
        Err(TooManyConditionGroups { max_groups })
    } else {
        Ok(ConditionGroups::AnyOf(alternatives.groups))
    }
}

/// Groups while they are collected.
struct Alternatives {
    /// Empty as soon as there are too many.
    groups: Vec<Vec<Condition>>,
    /// Whether a group has no condition, also among those that are too many.
    has_unconditional: bool,
    /// Whether there are more than allowed; they are not made then.
    too_many: bool,
}

impl Alternatives {
    fn of(expr: &FieldExpr, max_groups: usize) -> Self {
        let FieldExpr::Logical { op, operands } = expr else {
            let group: Vec<Condition> = condition(expr).into_iter().collect();
            return Self {
                has_unconditional: group.is_empty(),
                groups: vec![group],
                too_many: false,
            };
        };
        let mut operands = operands.iter().map(|operand| Self::of(operand, max_groups));
        let Some(first) = operands.next() else {
            return Self {
                groups: Vec::new(),
                has_unconditional: true,
                too_many: false,
            };
        };
        operands.fold(first, |before, operand| match op {
            LogicalOp::And => before.and(operand, max_groups),
            LogicalOp::Or => before.or(operand, max_groups),
        })
    }

    fn or(mut self, other: Self, max_groups: usize) -> Self {
        self.has_unconditional |= other.has_unconditional;
        if self.too_many || other.too_many {
            return self.give_up();
        }
        for group in other.groups {
            if self.groups.contains(&group) {
                continue;
            }
            if self.groups.len() == max_groups {
                return self.give_up();
            }
            self.groups.push(group);
        }
        self
    }

    fn and(mut self, other: Self, max_groups: usize) -> Self {
        self.has_unconditional &= other.has_unconditional;
        let (left, right) = (self.groups.len(), other.groups.len());
        let conditions = |groups: &[Vec<Condition>]| groups.iter().map(Vec::len).sum::<usize>();
        let longest = |groups: &[Vec<Condition>]| groups.iter().map(Vec::len).max().unwrap_or(0);
        let of_all = conditions(&self.groups)
            .saturating_mul(right)
            .saturating_add(conditions(&other.groups).saturating_mul(left));
        if self.too_many
            || other.too_many
            || left.saturating_mul(right) > max_groups
            || of_all > MAX_CONDITIONS_PER_QUERY
            || longest(&self.groups) + longest(&other.groups) > MAX_CONDITIONS_PER_GROUP
        {
            return self.give_up();
        }
        if let [right] = &*other.groups {
            // In place: a conjunction of many tests is added to test by test.
            for left in &mut self.groups {
                left.extend_from_slice(right);
            }
            return self;
        }
        // The right side varies slowest, as Tempo orders them.
        let pairs = other.groups.iter().flat_map(|right| {
            self.groups
                .iter()
                .map(move |left| [left.as_slice(), right].concat())
        });
        self.groups = pairs.collect();
        self
    }

    fn give_up(mut self) -> Self {
        self.groups = Vec::new();
        self.too_many = true;
        self
    }
}

/// The test that the expression is, if it is one.
fn condition(expr: &FieldExpr) -> Option<Condition> {
    let (attribute, test) = match expr {
        FieldExpr::Comparison { op, lhs, rhs } => match (&**lhs, &**rhs) {
            (FieldExpr::Attribute(attribute), FieldExpr::Static(value)) => (
                attribute,
                ConditionTest::Compare {
                    op: *op,
                    value: value.clone(),
                },
            ),
            (FieldExpr::Static(value), FieldExpr::Attribute(attribute)) => (
                attribute,
                ConditionTest::Compare {
                    op: op.flipped()?,
                    value: value.clone(),
                },
            ),
            _ => return None,
        },
        FieldExpr::Exists(operand) => match &**operand {
            FieldExpr::Attribute(attribute) => (attribute, ConditionTest::Exists),
            _ => return None,
        },
        FieldExpr::NotExists(operand) => match &**operand {
            FieldExpr::Attribute(attribute) => (attribute, ConditionTest::NotExists),
            _ => return None,
        },
        _ => return None,
    };
    Some(Condition {
        attribute: attribute.clone(),
        test,
    })
}
