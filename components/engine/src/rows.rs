//! Values span by span, for what columns as a whole cannot decide.

use std::cmp::Ordering;

use tempo_table::{Bitmap, Column, Level};
use tempo_traceql::{
    ast::{ArithmeticOp, ComparisonOp},
    constant,
};

use crate::{
    error::{EngineError, RowError},
    operand::{Operand, Reading, Source},
    plan::{Expr, OperandId, Plan},
    scan,
    session::Session,
    test::elements,
    value::{Number, ValueRef},
};

/// Reads the operands of expressions for some spans.
pub(crate) struct RowReader<'a> {
    session: &'a Session<'a>,
    /// By operand; `None` for those that were not asked for.
    operands: Vec<Option<OperandRows>>,
}

enum OperandRows {
    One(ColumnRows),
    SpanThenResource(Box<[ColumnRows; 2]>),
}

/// A column, whole or only in some rows.
struct ColumnRows {
    level: Level,
    reading: Reading,
    column: Column,
    /// The rows of the level that the column holds, ascending; all when `None`.
    rows: Option<Vec<u32>>,
}

impl ColumnRows {
    #[inline]
    fn at(&self, row: usize) -> ValueRef<'_> {
        let at = match &self.rows {
            None => row,
            Some(rows) => match rows.binary_search(&(row as u32)) {
                Ok(at) => at,
                Err(_) => return ValueRef::Nil,
            },
        };
        scan::value(&self.column, self.reading, at)
    }
}

impl<'a> RowReader<'a> {
    /// A reader of what `expr` needs for `spans`.
    pub(crate) fn for_expr(
        session: &'a Session<'a>,
        plan: &Plan,
        expr: &Expr,
        spans: &Bitmap,
    ) -> Result<Self, EngineError> {
        let mut wanted = Vec::new();
        expr.operands(&mut wanted);
        Self::for_operands(session, plan, &wanted, spans)
    }

    /// A reader of `wanted` for `spans`.
    pub(crate) fn for_operands(
        session: &'a Session<'a>,
        plan: &Plan,
        wanted: &[OperandId],
        spans: &Bitmap,
    ) -> Result<Self, EngineError> {
        let sparse = session.is_sparse(spans);
        let mut operands = Vec::new();
        operands.resize_with(plan.operands.len(), || None);
        for &id in wanted {
            if operands[id].is_none() {
                let spans = sparse.then_some(spans);
                operands[id] = Some(load(session, &plan.operands[id], spans)?);
            }
        }
        Ok(Self { session, operands })
    }

    /// The value of an operand: of several events or links the first that has one and counts.
    pub(crate) fn value(&self, operand: OperandId, span: usize) -> ValueRef<'_> {
        match self.operands.get(operand).and_then(Option::as_ref) {
            None => ValueRef::Nil,
            Some(OperandRows::One(column)) => match column.level {
                Level::Event | Level::Link => self
                    .values(operand, span)
                    .find(|value| !value.is_nil())
                    .unwrap_or(ValueRef::Nil),
                level => column.at(self.session.row_of(level, span)),
            },
            Some(OperandRows::SpanThenResource(columns)) => {
                let [of_span, of_resource] = &**columns;
                match of_span.at(span) {
                    ValueRef::Nil => of_resource.at(self.session.row_of(Level::Resource, span)),
                    value => value,
                }
            }
        }
    }

    /// The values that an operand has for a span, nil ones included: one per event or link that
    /// counts; the span's and the resource's for unscoped attributes; one for all others.
    pub(crate) fn values(
        &self,
        operand: OperandId,
        span: usize,
    ) -> impl Iterator<Item = ValueRef<'_>> {
        let (first, second) = match self.operands.get(operand).and_then(Option::as_ref) {
            None => (None, None),
            Some(OperandRows::One(column)) => (Some(column), None),
            Some(OperandRows::SpanThenResource(columns)) => {
                let [of_span, of_resource] = &**columns;
                (Some(of_span), Some(of_resource))
            }
        };
        [first, second]
            .into_iter()
            .flatten()
            .flat_map(move |column| {
                let range = match column.level {
                    Level::Event => offsets(self.session.event_offsets().ok(), span),
                    Level::Link => offsets(self.session.link_offsets().ok(), span),
                    level => {
                        let row = self.session.row_of(level, span);
                        row..row + 1
                    }
                };
                let mask = self.session.mask(column.level);
                range
                    .filter(move |&row| mask.is_none_or(|mask| mask.contains(row)))
                    .map(|row| column.at(row))
            })
    }

    /// Whether the expression is the boolean true.
    pub(crate) fn is_true(&self, expr: &Expr, span: usize) -> Result<bool, RowError> {
        Ok(matches!(self.evaluate(expr, span)?, ValueRef::Bool(true)))
    }

    /// The lane of an operand that every span has as an integer and nothing else.
    pub(crate) fn plain_ints(&self, operand: OperandId) -> Option<(&[i64], Reading)> {
        let Some(OperandRows::One(ColumnRows {
            level: Level::Span,
            reading,
            column,
            rows: None,
        })) = self.operands.get(operand).and_then(Option::as_ref)
        else {
            return None;
        };
        match &column.ints {
            Some(lane) if lane.present.is_none() => Some((&lane.values, *reading)),
            _ => None,
        }
    }

    /// The value of an expression.
    pub(crate) fn evaluate<'e>(
        &'e self,
        expr: &'e Expr,
        span: usize,
    ) -> Result<ValueRef<'e>, RowError> {
        Ok(match expr {
            Expr::Const(constant) => ValueRef::of_static(constant),
            Expr::Operand(operand) => self.value(*operand, span),
            Expr::Negate { operand, text } => match self.evaluate(operand, span)? {
                ValueRef::Nil => ValueRef::Nil,
                ValueRef::Int(value) => ValueRef::Int(value.wrapping_neg()),
                ValueRef::Duration(nanos) => ValueRef::Duration(nanos.wrapping_neg()),
                ValueRef::Float(value) => ValueRef::Float(-value),
                other => return Err(wrong_type(text, "numeric", other)),
            },
            Expr::Not { operand, text } => match self.evaluate(operand, span)? {
                ValueRef::Nil => ValueRef::Nil,
                ValueRef::Bool(value) => ValueRef::Bool(!value),
                other => return Err(wrong_type(text, "boolean", other)),
            },
            Expr::Exists(operand) => ValueRef::Bool(!self.evaluate(operand, span)?.is_nil()),
            Expr::Missing(operand) => ValueRef::Bool(self.evaluate(operand, span)?.is_nil()),
            Expr::Arithmetic { op, lhs, rhs } => {
                arithmetic(*op, self.evaluate(lhs, span)?, self.evaluate(rhs, span)?)?
            }
            Expr::Compare { op, lhs, rhs } => ValueRef::Bool(compare(
                *op,
                self.evaluate(lhs, span)?,
                self.evaluate(rhs, span)?,
            )?),
            Expr::Matches {
                negated,
                lhs,
                pattern,
            } => {
                let passes = |value: ValueRef<'_>| {
                    value.with_text(|text| pattern.is_match(text) != *negated) == Some(true)
                };
                ValueRef::Bool(match self.evaluate(lhs, span)? {
                    ValueRef::Array(array) if *negated => elements(array).all(passes),
                    ValueRef::Array(array) => elements(array).any(passes),
                    value => passes(value),
                })
            }
            Expr::Test { operand, test } => {
                let passes = match self.operands.get(*operand).and_then(Option::as_ref) {
                    // Any event or link will do.
                    Some(OperandRows::One(column))
                        if matches!(column.level, Level::Event | Level::Link) =>
                    {
                        self.values(*operand, span).any(|value| test.passes(value))
                    }
                    _ => test.passes(self.value(*operand, span)),
                };
                ValueRef::Bool(passes)
            }
            Expr::All(operands) => {
                for operand in operands {
                    if !self.is_true(operand, span)? {
                        return Ok(ValueRef::Bool(false));
                    }
                }
                ValueRef::Bool(true)
            }
            Expr::Any(operands) => {
                for operand in operands {
                    if self.is_true(operand, span)? {
                        return Ok(ValueRef::Bool(true));
                    }
                }
                ValueRef::Bool(false)
            }
        })
    }
}

impl Expr {
    /// Adds the operands that the expression reads.
    pub(crate) fn operands(&self, into: &mut Vec<OperandId>) {
        match self {
            Self::Const(_) => {}
            Self::Operand(operand) | Self::Test { operand, .. } => into.push(*operand),
            Self::Negate { operand, .. }
            | Self::Not { operand, .. }
            | Self::Exists(operand)
            | Self::Missing(operand)
            | Self::Matches { lhs: operand, .. } => operand.operands(into),
            Self::Arithmetic { lhs, rhs, .. } | Self::Compare { lhs, rhs, .. } => {
                lhs.operands(into);
                rhs.operands(into);
            }
            Self::All(operands) | Self::Any(operands) => {
                operands.iter().for_each(|operand| operand.operands(into));
            }
        }
    }
}

fn offsets(offsets: Option<&std::sync::Arc<[u32]>>, span: usize) -> std::ops::Range<usize> {
    match offsets {
        Some(offsets) => offsets[span] as usize..offsets[span + 1] as usize,
        None => 0..0,
    }
}

fn load(
    session: &Session<'_>,
    operand: &Operand,
    spans: Option<&Bitmap>,
) -> Result<OperandRows, EngineError> {
    let column_rows = |key: &tempo_table::ColumnKey, reading: Reading| {
        let level = key.level();
        // So that errors of the offsets show here and not span by span.
        match level {
            Level::Event => drop(session.event_offsets()?),
            Level::Link => drop(session.link_offsets()?),
            _ => {}
        }
        let (column, rows) = match spans {
            Some(spans) if !session.is_held(key) => {
                let rows = session.rows_of(level, spans.iter())?;
                (session.gather(key, &rows)?, Some(rows))
            }
            _ => (session.column(key)?, None),
        };
        Ok::<_, EngineError>(ColumnRows {
            level,
            reading,
            column,
            rows,
        })
    };
    Ok(match &operand.source {
        Source::Column { key, reading } => OperandRows::One(column_rows(key, *reading)?),
        Source::SpanThenResource { span, resource } => OperandRows::SpanThenResource(Box::new([
            column_rows(span, Reading::Plain)?,
            column_rows(resource, Reading::Plain)?,
        ])),
    })
}

fn wrong_type(text: &str, expected: &str, got: ValueRef<'_>) -> RowError {
    let got = got.type_name();
    RowError(format!("expression ({text}) expected a {expected}, but got {got}").into())
}

/// `lhs op rhs` for numbers; false for anything else, as every operation between types that do not
/// fit.
fn arithmetic<'a>(
    op: ArithmeticOp,
    lhs: ValueRef<'a>,
    rhs: ValueRef<'a>,
) -> Result<ValueRef<'a>, RowError> {
    if matches!(lhs, ValueRef::Array(_)) || matches!(rhs, ValueRef::Array(_)) {
        return Err(RowError("unsupported operation".into()));
    }
    let (Some(lhs), Some(rhs)) = (lhs.to_number(), rhs.to_number()) else {
        return Ok(ValueRef::Bool(false));
    };
    if let (Number::Int(lhs), Number::Int(rhs)) = (lhs, rhs) {
        return match constant::int_arithmetic(op, lhs, rhs) {
            Ok(value) => Ok(ValueRef::Int(value)),
            Err(error) => Err(RowError(error.to_string().into())),
        };
    }
    let (lhs, rhs) = (lhs.as_f64(), rhs.as_f64());
    Ok(ValueRef::Float(match op {
        ArithmeticOp::Add => lhs + rhs,
        ArithmeticOp::Sub => lhs - rhs,
        ArithmeticOp::Mul => lhs * rhs,
        ArithmeticOp::Div => lhs / rhs,
        ArithmeticOp::Mod => lhs % rhs,
        ArithmeticOp::Pow => lhs.powf(rhs),
    }))
}

/// `lhs op rhs`; regular expressions are not for here. Of an array one element must do, or all
/// for `!=`.
fn compare(op: ComparisonOp, lhs: ValueRef<'_>, rhs: ValueRef<'_>) -> Result<bool, RowError> {
    let every = op == ComparisonOp::NotEqual;
    Ok(match (lhs, rhs) {
        (ValueRef::Array(_), ValueRef::Array(_)) => {
            let reason = "array operators must consist of a scalar and an array operand";
            return Err(RowError(reason.into()));
        }
        (ValueRef::Array(array), scalar) => {
            let passes = |element| compare_scalars(op, element, scalar);
            !scalar.is_nil() && quantified(every, elements(array).map(passes))
        }
        (scalar, ValueRef::Array(array)) => {
            let passes = |element| compare_scalars(op, scalar, element);
            !scalar.is_nil() && quantified(every, elements(array).map(passes))
        }
        (lhs, rhs) => compare_scalars(op, lhs, rhs),
    })
}

fn quantified(every: bool, mut verdicts: impl Iterator<Item = bool>) -> bool {
    if every {
        verdicts.all(|verdict| verdict)
    } else {
        verdicts.any(|verdict| verdict)
    }
}

fn compare_scalars(op: ComparisonOp, lhs: ValueRef<'_>, rhs: ValueRef<'_>) -> bool {
    match (lhs, rhs) {
        (ValueRef::Bool(lhs), ValueRef::Bool(rhs)) => equality(op, lhs == rhs),
        (ValueRef::Status(lhs), ValueRef::Status(rhs)) => equality(op, lhs == rhs),
        (ValueRef::Kind(lhs), ValueRef::Kind(rhs)) => equality(op, lhs == rhs),
        _ => match (lhs.to_number(), rhs.to_number()) {
            (Some(lhs), Some(rhs)) => ordered(op, compare_numbers(lhs, rhs)),
            _ => {
                let order = lhs.with_text(|lhs| rhs.with_text(|rhs| lhs.cmp(rhs)));
                order
                    .flatten()
                    .is_some_and(|order| ordered(op, Some(order)))
            }
        },
    }
}

/// Numbers compare by value, whatever their type; durations are nanoseconds.
pub(crate) fn compare_numbers(lhs: Number, rhs: Number) -> Option<Ordering> {
    match (lhs, rhs) {
        (Number::Int(lhs) | Number::Duration(lhs), Number::Int(rhs) | Number::Duration(rhs)) => {
            Some(lhs.cmp(&rhs))
        }
        (lhs, rhs) => lhs.as_f64().partial_cmp(&rhs.as_f64()),
    }
}

fn ordered(op: ComparisonOp, order: Option<Ordering>) -> bool {
    match op {
        ComparisonOp::Equal => order == Some(Ordering::Equal),
        ComparisonOp::NotEqual => order != Some(Ordering::Equal),
        ComparisonOp::Less => order.is_some_and(Ordering::is_lt),
        ComparisonOp::LessEqual => order.is_some_and(Ordering::is_le),
        ComparisonOp::Greater => order.is_some_and(Ordering::is_gt),
        ComparisonOp::GreaterEqual => order.is_some_and(Ordering::is_ge),
        ComparisonOp::Regex | ComparisonOp::NotRegex => false,
    }
}

fn equality(op: ComparisonOp, equal: bool) -> bool {
    match op {
        ComparisonOp::Equal => equal,
        ComparisonOp::NotEqual => !equal,
        _ => false,
    }
}
