//! Whether a span meets the conditions of a filter.

use tempo_traceql::{
    Attribute, FieldExpr, Intrinsic, Scope, Static,
    ast::{ComparisonOp, LogicalOp},
};

use super::{
    Failure, TraceData, Value,
    pipeline::Rules,
    value::{arithmetic, compare},
};

/// Where values come in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Many {
    Events,
    Links,
}

pub(super) fn many(attribute: &Attribute) -> Option<Many> {
    match attribute {
        Attribute::Named {
            scope: Some(Scope::Event),
            ..
        }
        | Attribute::Intrinsic(Intrinsic::EventName | Intrinsic::EventTimeSinceStart) => {
            Some(Many::Events)
        }
        Attribute::Named {
            scope: Some(Scope::Link),
            ..
        }
        | Attribute::Intrinsic(Intrinsic::LinkTraceId | Intrinsic::LinkSpanId) => Some(Many::Links),
        _ => None,
    }
}

pub(super) fn is_unscoped(attribute: &Attribute) -> bool {
    matches!(attribute, Attribute::Named { scope: None, .. })
}

/// A span, under the rules of its query.
#[derive(Clone, Copy)]
pub(super) struct Looked<'a> {
    pub(super) trace: &'a TraceData,
    pub(super) span: usize,
    pub(super) rules: &'a Rules<'a>,
    /// Below a `!`.
    pub(super) is_negated: bool,
}

impl Looked<'_> {
    /// The values of an attribute; of events and links only those that count.
    fn values(self, attribute: &Attribute) -> Vec<Value> {
        let values = self.trace.values(self.span, attribute);
        let Some(many) = many(attribute) else {
            return values;
        };
        let counts = |at: &usize| self.rules.counts(self.trace, self.span, many, *at);
        let kept = (0..values.len()).filter(counts);
        kept.map(|at| values[at].clone()).collect()
    }

    /// The value: of several the first that there is, so that a span hides its resource.
    fn value(self, attribute: &Attribute) -> Value {
        let mut values = self.values(attribute).into_iter();
        values.find(|value| !value.is_nil()).unwrap_or(Value::Nil)
    }

    /// Whether an expression is true. An attribute alone asks whether it is: any event will do.
    pub(super) fn holds(self, expr: &FieldExpr) -> Result<bool, Failure> {
        match expr {
            FieldExpr::Attribute(attribute) if many(attribute).is_some() => {
                Ok(self.values(attribute).iter().any(Value::is_true))
            }
            expr => Ok(self.evaluate(expr)?.is_true()),
        }
    }

    pub(super) fn evaluate(self, expr: &FieldExpr) -> Result<Value, Failure> {
        Ok(match expr {
            FieldExpr::Static(constant) => Value::of_static(constant),
            FieldExpr::Attribute(attribute) => self.value(attribute),
            FieldExpr::Negate(operand) => match self.evaluate(operand)? {
                Value::Nil => Value::Nil,
                Value::Int(value) => Value::Int(value.wrapping_neg()),
                Value::Float(value) => Value::Float(-value),
                Value::Duration(nanos) => Value::Duration(-nanos),
                _ => return Err(Failure::of("expected a numeric")),
            },
            FieldExpr::Not(operand) => match self.negated().evaluate(operand)? {
                Value::Nil => Value::Nil,
                Value::Bool(value) => Value::Bool(!value),
                _ => return Err(Failure::of("expected a boolean")),
            },
            FieldExpr::Exists(operand) => Value::Bool(match &**operand {
                FieldExpr::Attribute(attribute) => {
                    self.values(attribute).iter().any(|value| !value.is_nil())
                }
                operand => !self.evaluate(operand)?.is_nil(),
            }),
            // One of several that is missing will do: `.a = nil` where either the span or the
            // resource lacks it.
            FieldExpr::NotExists(operand) => Value::Bool(match &**operand {
                FieldExpr::Attribute(attribute) => self.values(attribute).iter().any(Value::is_nil),
                operand => self.evaluate(operand)?.is_nil(),
            }),
            FieldExpr::Arithmetic { op, lhs, rhs } => {
                arithmetic(*op, &self.evaluate(lhs)?, &self.evaluate(rhs)?)?
            }
            FieldExpr::Comparison { op, lhs, rhs } => {
                Value::Bool(match attribute_and_constant(*op, lhs, rhs) {
                    Some((attribute, op, constant)) => self.meets(attribute, op, constant)?,
                    None => compare(*op, &self.evaluate(lhs)?, &self.evaluate(rhs)?)?,
                })
            }
            FieldExpr::Logical { op, operands } => {
                let verdicts = chains(*op, operands)
                    .into_iter()
                    .map(|chain| match chain {
                        [single] => self.holds(single),
                        chain if self.is_negated => {
                            let verdicts = chain.iter().map(|operand| self.holds(operand));
                            let verdicts: Vec<bool> = verdicts.collect::<Result<_, _>>()?;
                            Ok(verdicts.into_iter().all(|verdict| verdict))
                        }
                        chain => self.meets_all(chain),
                    })
                    .collect::<Result<Vec<bool>, Failure>>()?;
                Value::Bool(match op {
                    LogicalOp::And => verdicts.iter().all(|&verdict| verdict),
                    LogicalOp::Or => verdicts.iter().any(|&verdict| verdict),
                })
            }
            FieldExpr::List { .. } => panic!("the query is parsed without rewrites"),
        })
    }

    fn negated(self) -> Self {
        Self {
            is_negated: true,
            ..self
        }
    }

    /// A chain of denials of one attribute, which is one condition: of events and links one has to
    /// meet all of it.
    fn meets_all(self, chain: &[FieldExpr]) -> Result<bool, Failure> {
        let Some((attribute, _, _)) = chain.first().and_then(denial) else {
            panic!("chains are of denials");
        };
        if many(attribute).is_none() {
            let verdicts = chain.iter().map(|operand| self.holds(operand));
            let verdicts: Vec<bool> = verdicts.collect::<Result<_, _>>()?;
            return Ok(verdicts.into_iter().all(|verdict| verdict));
        }
        for value in self.values(attribute) {
            let mut meets = true;
            for (_, op, constant) in chain.iter().filter_map(denial) {
                meets &= compare(op, &value, &Value::of_static(constant))?;
            }
            if meets {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `attribute op constant`: of events and links any will do.
    fn meets(
        self,
        attribute: &Attribute,
        op: ComparisonOp,
        constant: &Static,
    ) -> Result<bool, Failure> {
        // Values that are set have no such types, and none is looked at.
        let is_named = matches!(attribute, Attribute::Named { .. });
        if is_named
            && matches!(
                constant,
                Static::Duration(_) | Static::Status(_) | Static::Kind(_)
            )
        {
            return Ok(false);
        }
        let constant = Value::of_static(constant);
        if many(attribute).is_none() {
            return compare(op, &self.value(attribute), &constant);
        }
        for value in self.values(attribute) {
            if compare(op, &value, &constant)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A comparison of an attribute with a constant, the attribute on the left.
pub(super) fn attribute_and_constant<'a>(
    op: ComparisonOp,
    lhs: &'a FieldExpr,
    rhs: &'a FieldExpr,
) -> Option<(&'a Attribute, ComparisonOp, &'a Static)> {
    let exchanged = match op {
        ComparisonOp::Less => ComparisonOp::Greater,
        ComparisonOp::LessEqual => ComparisonOp::GreaterEqual,
        ComparisonOp::Greater => ComparisonOp::Less,
        ComparisonOp::GreaterEqual => ComparisonOp::LessEqual,
        other => other,
    };
    match (lhs, rhs) {
        (FieldExpr::Attribute(attribute), FieldExpr::Static(constant)) => {
            Some((attribute, op, constant))
        }
        (FieldExpr::Static(constant), FieldExpr::Attribute(attribute)) => {
            Some((attribute, exchanged, constant))
        }
        _ => None,
    }
}

/// A comparison that denies, with a constant of which lists can be made.
fn denial(expr: &FieldExpr) -> Option<(&Attribute, ComparisonOp, &Static)> {
    let FieldExpr::Comparison { op, lhs, rhs } = expr else {
        return None;
    };
    let found = attribute_and_constant(*op, lhs, rhs)?;
    let is_listed = matches!(
        found.2,
        Static::String(_) | Static::Int(_) | Static::Float(_) | Static::Bool(_)
    );
    (is_listed && matches!(op, ComparisonOp::NotEqual | ComparisonOp::NotRegex)).then_some(found)
}

/// Neighbours that Tempo takes together: `a != x && a != y` with constants of one type.
fn chains(op: LogicalOp, operands: &[FieldExpr]) -> Vec<&[FieldExpr]> {
    let belong = |one: &FieldExpr, other: &FieldExpr| match (denial(one), denial(other)) {
        (Some(one), Some(other)) => {
            one.0 == other.0
                && one.1 == other.1
                && std::mem::discriminant(one.2) == std::mem::discriminant(other.2)
        }
        _ => false,
    };
    match op {
        LogicalOp::And => operands.chunk_by(belong).collect(),
        LogicalOp::Or => operands.chunks(1).collect(),
    }
}
