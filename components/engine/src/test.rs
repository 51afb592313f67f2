//! What a comparison with constants demands of a value.
//!
//! Owns the rules of TraceQL's comparisons once one side is a constant: numbers compare by value
//! whatever their type, other types only with themselves, `nil` with nothing; of an array one
//! element must pass, or all of them when the comparison denies (`!=`, `!~`, `NOT IN`).

use std::sync::Arc;

use hashbrown::HashSet;
use tempo_table::ArrayValue;
use tempo_traceql::{
    Static,
    ast::{ComparisonOp, Kind, ListOp, Status},
};

use crate::{
    error::PlanError,
    operand::Reading,
    pattern::{Patterns, TextPattern},
    value::{HexId, ValueRef, kind_number, status_code},
};

/// The demands on values of each type.
#[derive(Debug, Clone)]
pub(crate) struct Test {
    pub(crate) texts: TextTest,
    /// Integers, or the numbers of status and kind.
    pub(crate) ints: IntTest,
    pub(crate) floats: FloatTest,
    /// Whether `false` and `true` pass.
    pub(crate) bools: [bool; 2],
    /// Of an array all elements must pass, not one.
    every_element: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum TextTest {
    Never,
    Compare(ComparisonOp, Box<[u8]>),
    OneOf(HashSet<Box<[u8]>, foldhash::fast::RandomState>),
    NoneOf(HashSet<Box<[u8]>, foldhash::fast::RandomState>),
    MatchesAny(Vec<Arc<TextPattern>>),
    MatchesNone(Vec<Arc<TextPattern>>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum IntTest {
    Never,
    /// Inclusive.
    Range(i64, i64),
    /// Sorted.
    OneOf(Vec<i64>),
    /// Sorted.
    NoneOf(Vec<i64>),
    Float(ComparisonOp, f64),
    AnyFloat(Vec<f64>),
    NoFloat(Vec<f64>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FloatTest {
    Never,
    Compare(ComparisonOp, f64),
    OneOf(Vec<f64>),
    NoneOf(Vec<f64>),
}

impl Test {
    const NEVER: Self = Self {
        texts: TextTest::Never,
        ints: IntTest::Never,
        floats: FloatTest::Never,
        bools: [false; 2],
        every_element: false,
    };

    /// `value` itself is the truth that is asked for.
    pub(crate) fn is_bool(value: bool) -> Self {
        Self {
            bools: [!value, value],
            ..Self::NEVER
        }
    }

    /// `attribute op constant`
    pub(crate) fn compare(
        reading: Reading,
        op: ComparisonOp,
        constant: &Static,
        patterns: &mut Patterns,
    ) -> Result<Self, PlanError> {
        let mut test = Self {
            every_element: matches!(op, ComparisonOp::NotEqual | ComparisonOp::NotRegex),
            ..Self::NEVER
        };
        match (reading, constant) {
            (Reading::Status, Static::Status(status)) => {
                test.ints = status_test(op, *status);
            }
            (Reading::Kind, Static::Kind(kind)) => test.ints = kind_test(op, *kind),
            (Reading::Status | Reading::Kind, _) => {}
            (_, Static::Int(value)) => {
                test.ints = int_test(op, *value);
                test.floats = FloatTest::Compare(op, *value as f64);
            }
            (_, Static::Float(value)) => {
                test.ints = IntTest::Float(op, *value);
                test.floats = FloatTest::Compare(op, *value);
            }
            (Reading::Duration | Reading::Int, Static::Duration(nanos)) => {
                test.ints = int_test(op, *nanos);
            }
            (_, Static::String(text)) => {
                test.texts = match op {
                    ComparisonOp::Regex => TextTest::MatchesAny(vec![patterns.get(text)?]),
                    ComparisonOp::NotRegex => TextTest::MatchesNone(vec![patterns.get(text)?]),
                    op => TextTest::Compare(op, text.as_bytes().into()),
                };
            }
            (_, Static::Bool(value)) => {
                test.bools = [false, true].map(|bool| match op {
                    ComparisonOp::Equal => bool == *value,
                    ComparisonOp::NotEqual => bool != *value,
                    _ => false,
                });
            }
            // Attributes have no such types, so Tempo looks at none of their values.
            (_, Static::Duration(_) | Static::Status(_) | Static::Kind(_) | Static::Nil) => {
                return Ok(Self::NEVER);
            }
        }
        Ok(test)
    }

    /// `attribute IN [constants]` and its like; the constants are of one type.
    pub(crate) fn list(
        op: ListOp,
        constants: &[Static],
        patterns: &mut Patterns,
    ) -> Result<Self, PlanError> {
        let negative = matches!(op, ListOp::NotIn | ListOp::MatchNone);
        let mut test = Self {
            every_element: negative,
            ..Self::NEVER
        };
        let texts = constants.iter().filter_map(|constant| match constant {
            Static::String(text) => Some(&**text),
            _ => None,
        });
        match (op, constants.first()) {
            (ListOp::MatchAny | ListOp::MatchNone, _) => {
                let patterns = texts
                    .map(|text| patterns.get(text))
                    .collect::<Result<Vec<_>, _>>()?;
                test.texts = match negative {
                    false => TextTest::MatchesAny(patterns),
                    true => TextTest::MatchesNone(patterns),
                };
            }
            (ListOp::In | ListOp::NotIn, Some(Static::String(_))) => {
                let set = texts.map(|text| text.as_bytes().into()).collect();
                test.texts = match negative {
                    false => TextTest::OneOf(set),
                    true => TextTest::NoneOf(set),
                };
            }
            (ListOp::In | ListOp::NotIn, Some(Static::Int(_))) => {
                let mut ints: Vec<i64> = constants.iter().filter_map(as_int).collect();
                ints.sort_unstable();
                let floats = ints.iter().map(|&int| int as f64).collect();
                (test.ints, test.floats) = match negative {
                    false => (IntTest::OneOf(ints), FloatTest::OneOf(floats)),
                    true => (IntTest::NoneOf(ints), FloatTest::NoneOf(floats)),
                };
            }
            (ListOp::In | ListOp::NotIn, Some(Static::Float(_))) => {
                let floats: Vec<f64> = constants.iter().map(Static::as_f64).collect();
                (test.ints, test.floats) = match negative {
                    false => (IntTest::AnyFloat(floats.clone()), FloatTest::OneOf(floats)),
                    true => (IntTest::NoFloat(floats.clone()), FloatTest::NoneOf(floats)),
                };
            }
            (ListOp::In | ListOp::NotIn, Some(Static::Bool(_))) => {
                test.bools =
                    [false, true].map(|bool| constants.contains(&Static::Bool(bool)) != negative);
            }
            (ListOp::In | ListOp::NotIn, _) => return Ok(Self::NEVER),
        }
        Ok(test)
    }

    /// Whether only text can pass, alone or in an array.
    pub(crate) fn wants_text_only(&self) -> bool {
        !matches!(self.texts, TextTest::Never)
            && self.ints == IntTest::Never
            && self.floats == FloatTest::Never
            && self.bools == [false; 2]
            // An empty array passes then, and who knows of those.
            && !self.every_element
    }

    /// Whether regular expressions are to be matched.
    pub(crate) fn is_pattern(&self) -> bool {
        matches!(
            self.texts,
            TextTest::MatchesAny(_) | TextTest::MatchesNone(_)
        )
    }

    /// Whether a value passes.
    pub(crate) fn passes(&self, value: ValueRef<'_>) -> bool {
        match value {
            ValueRef::Nil | ValueRef::Opaque => false,
            ValueRef::Text(text) => self.texts.passes(text),
            ValueRef::Id { bytes, short } => self.texts.passes(HexId::new(bytes, short).as_bytes()),
            ValueRef::Int(value) | ValueRef::Duration(value) => self.ints.passes(value),
            ValueRef::Float(value) => self.floats.passes(value),
            ValueRef::Bool(value) => self.bools[usize::from(value)],
            ValueRef::Status(status) => self.ints.passes(status_code(status)),
            ValueRef::Kind(kind) => self.ints.passes(kind_number(kind)),
            ValueRef::Array(array) => self.array_passes(array),
        }
    }

    pub(crate) fn array_passes(&self, array: &ArrayValue) -> bool {
        let mut elements = elements(array);
        if self.every_element {
            elements.all(|element| self.passes(element))
        } else {
            elements.any(|element| self.passes(element))
        }
    }
}

/// The elements of an array, one by one.
pub(crate) fn elements(array: &ArrayValue) -> impl Iterator<Item = ValueRef<'_>> {
    let len = match array {
        ArrayValue::Empty => 0,
        ArrayValue::Strings(items) => items.len(),
        ArrayValue::Ints(items) => items.len(),
        ArrayValue::Floats(items) => items.len(),
        ArrayValue::Bools(items) => items.len(),
    };
    (0..len).map(move |at| match array {
        ArrayValue::Empty => ValueRef::Nil,
        ArrayValue::Strings(items) => ValueRef::Text(items[at].as_bytes()),
        ArrayValue::Ints(items) => ValueRef::Int(items[at]),
        ArrayValue::Floats(items) => ValueRef::Float(items[at]),
        ArrayValue::Bools(items) => ValueRef::Bool(items[at]),
    })
}

fn as_int(constant: &Static) -> Option<i64> {
    match constant {
        Static::Int(value) => Some(*value),
        _ => None,
    }
}

fn int_test(op: ComparisonOp, value: i64) -> IntTest {
    match op {
        ComparisonOp::Equal => IntTest::Range(value, value),
        ComparisonOp::NotEqual => IntTest::NoneOf(vec![value]),
        ComparisonOp::Less => match value.checked_sub(1) {
            Some(max) => IntTest::Range(i64::MIN, max),
            None => IntTest::Never,
        },
        ComparisonOp::LessEqual => IntTest::Range(i64::MIN, value),
        ComparisonOp::Greater => match value.checked_add(1) {
            Some(min) => IntTest::Range(min, i64::MAX),
            None => IntTest::Never,
        },
        ComparisonOp::GreaterEqual => IntTest::Range(value, i64::MAX),
        ComparisonOp::Regex | ComparisonOp::NotRegex => IntTest::Never,
    }
}

/// Codes that OTLP does not know count as unset.
fn status_test(op: ComparisonOp, status: Status) -> IntTest {
    named_test(op, status_code(status), &[1, 2])
}

/// Numbers that OTLP does not know count as unspecified.
fn kind_test(op: ComparisonOp, kind: Kind) -> IntTest {
    named_test(op, kind_number(kind), &[1, 2, 3, 4, 5])
}

fn named_test(op: ComparisonOp, code: i64, named: &[i64]) -> IntTest {
    match (op, code) {
        (ComparisonOp::Equal, 0) => IntTest::NoneOf(named.to_vec()),
        (ComparisonOp::NotEqual, 0) => IntTest::OneOf(named.to_vec()),
        (ComparisonOp::Equal, code) => IntTest::Range(code, code),
        (ComparisonOp::NotEqual, code) => IntTest::NoneOf(vec![code]),
        _ => IntTest::Never,
    }
}

impl TextTest {
    pub(crate) fn passes(&self, text: &[u8]) -> bool {
        match self {
            Self::Never => false,
            Self::Compare(ComparisonOp::Equal, constant) => *text == **constant,
            Self::Compare(ComparisonOp::NotEqual, constant) => *text != **constant,
            Self::Compare(op, constant) => {
                let order = text.cmp(constant);
                match op {
                    ComparisonOp::Less => order.is_lt(),
                    ComparisonOp::LessEqual => order.is_le(),
                    ComparisonOp::Greater => order.is_gt(),
                    ComparisonOp::GreaterEqual => order.is_ge(),
                    _ => false,
                }
            }
            Self::OneOf(set) => set.contains(text),
            Self::NoneOf(set) => !set.contains(text),
            Self::MatchesAny(patterns) => any_matches(patterns, text),
            Self::MatchesNone(patterns) => !any_matches(patterns, text),
        }
    }

    /// The texts that pass, when they are few and known, for lookups; the flag says that they are
    /// those that do not pass instead.
    pub(crate) fn known(&self) -> Option<(Vec<&[u8]>, bool)> {
        match self {
            Self::Compare(ComparisonOp::Equal, text) => Some((vec![text], false)),
            Self::Compare(ComparisonOp::NotEqual, text) => Some((vec![text], true)),
            Self::OneOf(set) => Some((set.iter().map(|text| &**text).collect(), false)),
            Self::NoneOf(set) => Some((set.iter().map(|text| &**text).collect(), true)),
            _ => None,
        }
    }
}

fn any_matches(patterns: &[Arc<TextPattern>], text: &[u8]) -> bool {
    patterns.iter().any(|pattern| pattern.is_match(text))
}

impl IntTest {
    #[inline]
    pub(crate) fn passes(&self, value: i64) -> bool {
        match self {
            Self::Never => false,
            Self::Range(min, max) => *min <= value && value <= *max,
            Self::OneOf(list) => list.contains(&value),
            Self::NoneOf(list) => !list.contains(&value),
            Self::Float(op, constant) => float_compare(*op, value as f64, *constant),
            Self::AnyFloat(list) => list.contains(&(value as f64)),
            Self::NoFloat(list) => !list.contains(&(value as f64)),
        }
    }

    /// What is certain about all values within inclusive bounds: all pass, none does.
    pub(crate) fn verdict(&self, (low, high): (i64, i64)) -> Option<bool> {
        match self {
            Self::Never => Some(false),
            Self::Range(min, max) if *min <= low && high <= *max => Some(true),
            Self::Range(min, max) if high < *min || *max < low => Some(false),
            Self::OneOf(list) if list.iter().all(|&v| v < low || high < v) => Some(false),
            Self::NoneOf(list) if list.iter().all(|&v| v < low || high < v) => Some(true),
            _ if low == high => Some(self.passes(low)),
            _ => None,
        }
    }
}

impl FloatTest {
    #[inline]
    pub(crate) fn passes(&self, value: f64) -> bool {
        match self {
            Self::Never => false,
            Self::Compare(op, constant) => float_compare(*op, value, *constant),
            Self::OneOf(list) => list.contains(&value),
            Self::NoneOf(list) => !list.contains(&value),
        }
    }
}

#[inline]
fn float_compare(op: ComparisonOp, lhs: f64, rhs: f64) -> bool {
    match op {
        ComparisonOp::Equal => lhs == rhs,
        ComparisonOp::NotEqual => lhs != rhs,
        ComparisonOp::Less => lhs < rhs,
        ComparisonOp::LessEqual => lhs <= rhs,
        ComparisonOp::Greater => lhs > rhs,
        ComparisonOp::GreaterEqual => lhs >= rhs,
        ComparisonOp::Regex | ComparisonOp::NotRegex => false,
    }
}
