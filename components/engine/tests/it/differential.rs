//! Filters on columns against filters on one span after the other.

use std::collections::BTreeMap;

use tempo_model::TraceId;
use tempo_proto::opentelemetry::proto::{common::v1::KeyValue, trace::v1::Span};
use tempo_table::MemoryTable;

use crate::support::{array, bool, float, int, resource, run, span, table, text};
use tempo_proto::opentelemetry::proto::common::v1::any_value::Value as Wire;

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Int(i64),
    Float(f64),
    Text(&'static str),
    Bool(bool),
    Ints(Vec<i64>),
}

type Attributes = BTreeMap<&'static str, Value>;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 33) % limit as u64) as usize
    }

    fn of<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    fn value(&mut self) -> Value {
        match self.below(12) {
            0..4 => Value::Int(self.below(4) as i64),
            4..6 => Value::Float(self.of(&[0.5, 1.0, 2.5, 3.0])),
            6..9 => Value::Text(self.of(&["x", "y", "xy", ""])),
            9..11 => Value::Bool(self.below(2) == 0),
            _ => Value::Ints((0..self.below(3) as i64).collect()),
        }
    }

    fn attributes(&mut self, names: &[&'static str]) -> Attributes {
        let mut attributes = Attributes::new();
        for name in names {
            if self.below(3) > 0 {
                attributes.insert(name, self.value());
            }
        }
        // Nearly always the same, so that a test for it leaves few or many.
        attributes.insert(
            "common",
            Value::Text(if self.below(40) == 0 { "rare" } else { "usual" }),
        );
        attributes
    }
}

fn wire(attributes: &Attributes) -> Vec<KeyValue> {
    let of = |(name, value): (&&'static str, &Value)| match value {
        Value::Int(value) => int(name, *value),
        Value::Float(value) => float(name, *value),
        Value::Text(value) => text(name, value),
        Value::Bool(value) => bool(name, *value),
        Value::Ints(items) => array(
            name,
            items.iter().map(|&item| Wire::IntValue(item)).collect(),
        ),
    };
    attributes.iter().map(of).collect()
}

struct Row {
    of_span: Attributes,
    of_resource: Attributes,
}

fn data(random: &mut Random) -> (MemoryTable, Vec<Row>) {
    let mut rows: Vec<Row> = Vec::new();
    let mut traces = Vec::new();
    for trace in 0..60_u8 {
        let mut resources = Vec::new();
        for number in 0..1 + random.below(3) {
            let mut of_resource = random.attributes(&["a", "c"]);
            of_resource.insert("number", Value::Int(number as i64));
            let spans = (0..1 + random.below(5))
                .map(|_| {
                    let of_span = random.attributes(&["a", "b"]);
                    let id = (rows.len() as u64 + 1).to_be_bytes();
                    let wire = wire(&of_span);
                    rows.push(Row {
                        of_span,
                        of_resource: of_resource.clone(),
                    });
                    Span {
                        attributes: wire,
                        ..span(&id, &[], "n")
                    }
                })
                .collect();
            resources.push(resource(wire(&of_resource), Default::default(), spans));
        }
        traces.push((TraceId::from_padded(&[trace + 1]), resources));
    }
    (table(traces), rows)
}

#[derive(Debug, Clone)]
enum Expr {
    Compare(&'static str, &'static str, Value),
    Truth(&'static str),
    Nil(&'static str, bool),
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    /// Two attributes, so that no constant decides.
    Pair(&'static str, &'static str, &'static str),
}

const NAMES: [&str; 7] = [
    "span.a",
    "resource.a",
    ".a",
    ".b",
    ".c",
    "span.dne",
    ".common",
];

fn expr(random: &mut Random, depth: usize) -> Expr {
    match random.below(if depth == 0 { 6 } else { 10 }) {
        0..3 => {
            let value = loop {
                match random.value() {
                    Value::Ints(_) => {}
                    value => break value,
                }
            };
            let ops: &[&str] = match value {
                Value::Bool(_) => &["=", "!="],
                Value::Text(_) => &["=", "!=", "<", ">=", "=~", "!~"],
                _ => &["=", "!=", "<", "<=", ">", ">="],
            };
            Expr::Compare(random.of(&NAMES), random.of(ops), value)
        }
        3 => Expr::Nil(random.of(&NAMES), random.below(2) == 0),
        4 => Expr::Pair(
            random.of(&NAMES),
            random.of(&["=", "!=", "<", ">="]),
            random.of(&NAMES),
        ),
        5 if random.below(2) == 0 => {
            Expr::Compare(".common", "=", Value::Text(random.of(&["usual", "rare"])))
        }
        5 => Expr::Truth(random.of(&NAMES)),
        6 => match expr(random, depth - 1) {
            // On a bare attribute `!` fails unless it is a boolean.
            Expr::Truth(name) => Expr::Truth(name),
            inner => Expr::Not(Box::new(inner)),
        },
        7..9 => Expr::And(
            (0..2 + random.below(2))
                .map(|_| expr(random, depth - 1))
                .collect(),
        ),
        _ => Expr::Or(
            (0..2 + random.below(2))
                .map(|_| expr(random, depth - 1))
                .collect(),
        ),
    }
}

fn print(expr: &Expr) -> String {
    let chain = |operands: &[Expr], op: &str| {
        let operands: Vec<String> = operands.iter().map(|e| format!("({})", print(e))).collect();
        operands.join(op)
    };
    match expr {
        Expr::Compare(name, op, value) => match value {
            Value::Int(value) => format!("{name} {op} {value}"),
            Value::Float(value) => format!("{name} {op} {value:?}"),
            Value::Text(value) => format!("{name} {op} \"{value}\""),
            Value::Bool(value) => format!("{name} {op} {value}"),
            Value::Ints(_) => unreachable!("no constant"),
        },
        Expr::Truth(name) => (*name).to_owned(),
        Expr::Nil(name, true) => format!("{name} = nil"),
        Expr::Nil(name, false) => format!("{name} != nil"),
        Expr::Not(inner) => format!("!({})", print(inner)),
        Expr::And(operands) => chain(operands, " && "),
        Expr::Or(operands) => chain(operands, " || "),
        Expr::Pair(lhs, op, rhs) => format!("{lhs} {op} {rhs}"),
    }
}

fn value<'a>(row: &'a Row, name: &str) -> Option<&'a Value> {
    if let Some(name) = name.strip_prefix("span.") {
        row.of_span.get(name)
    } else if let Some(name) = name.strip_prefix("resource.") {
        row.of_resource.get(name)
    } else {
        let name = name.strip_prefix('.').unwrap();
        row.of_span.get(name).or_else(|| row.of_resource.get(name))
    }
}

fn compare(op: &str, lhs: &Value, rhs: &Value) -> Result<bool, ()> {
    let every = matches!(op, "!=" | "!~");
    let quantified = |mut verdicts: Box<dyn Iterator<Item = bool>>| {
        if every {
            verdicts.all(|v| v)
        } else {
            verdicts.any(|v| v)
        }
    };
    let ordered = |order: Option<std::cmp::Ordering>| match op {
        "=" => order == Some(std::cmp::Ordering::Equal),
        "!=" => order != Some(std::cmp::Ordering::Equal),
        "<" => order.is_some_and(|o| o.is_lt()),
        "<=" => order.is_some_and(|o| o.is_le()),
        ">" => order.is_some_and(|o| o.is_gt()),
        ">=" => order.is_some_and(|o| o.is_ge()),
        _ => false,
    };
    let number = |value: &Value| match value {
        Value::Int(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        _ => None,
    };
    Ok(match (lhs, rhs) {
        (Value::Ints(_), Value::Ints(_)) => return Err(()),
        (Value::Ints(items), rhs) => {
            let (items, rhs, op) = (items.clone(), rhs.clone(), op.to_owned());
            quantified(Box::new(
                items
                    .into_iter()
                    .map(move |item| compare(&op, &Value::Int(item), &rhs).unwrap()),
            ))
        }
        (lhs, Value::Ints(items)) => {
            let (items, lhs, op) = (items.clone(), lhs.clone(), op.to_owned());
            quantified(Box::new(
                items
                    .into_iter()
                    .map(move |item| compare(&op, &lhs, &Value::Int(item)).unwrap()),
            ))
        }
        // The patterns are plain texts, and match as a whole.
        (Value::Text(lhs), Value::Text(rhs)) if op == "=~" => lhs == rhs,
        (Value::Text(lhs), Value::Text(rhs)) if op == "!~" => lhs != rhs,
        (Value::Text(lhs), Value::Text(rhs)) => ordered(Some(lhs.cmp(rhs))),
        (Value::Bool(lhs), Value::Bool(rhs)) => match op {
            "=" => lhs == rhs,
            "!=" => lhs != rhs,
            _ => false,
        },
        _ => match (number(lhs), number(rhs)) {
            (Some(lhs), Some(rhs)) => ordered(lhs.partial_cmp(&rhs)),
            _ => false,
        },
    })
}

/// An error stands for queries that fail.
fn holds(row: &Row, expr: &Expr) -> Result<bool, ()> {
    Ok(match expr {
        Expr::Compare(name, op, constant) => match value(row, name) {
            Some(value) => compare(op, value, constant)?,
            None => false,
        },
        Expr::Truth(name) => value(row, name) == Some(&Value::Bool(true)),
        Expr::Nil(name, wanted) => {
            let missing = |scope: &str| value(row, &name.replacen('.', scope, 1)).is_none();
            match (name.starts_with('.'), wanted) {
                (true, true) => missing("span.") || missing("resource."),
                (true, false) => !missing("span.") || !missing("resource."),
                (false, wanted) => value(row, name).is_none() == *wanted,
            }
        }
        Expr::Not(inner) => !holds(row, inner)?,
        Expr::And(operands) => {
            let mut all = true;
            for operand in operands {
                all &= holds(row, operand)?;
            }
            all
        }
        Expr::Or(operands) => {
            let mut any = false;
            for operand in operands {
                any |= holds(row, operand)?;
            }
            any
        }
        Expr::Pair(lhs, op, rhs) => match (value(row, lhs), value(row, rhs)) {
            (Some(lhs), Some(rhs)) => compare(op, lhs, rhs)?,
            _ => false,
        },
    })
}

#[test]
fn columns_and_single_spans_agree() {
    let mut random = Random(42);
    let mut compared = 0;
    for _ in 0..8 {
        let (table, rows) = data(&mut random);
        for _ in 0..250 {
            let expr = expr(&mut random, 3);
            let query = format!("{{ {} }}", print(&expr));
            let want: Result<Vec<u64>, ()> = (1..)
                .zip(&rows)
                .map(|(id, row)| Ok((id, holds(row, &expr)?)))
                .filter_map(|verdict| match verdict {
                    Ok((id, true)) => Some(Ok(id)),
                    Ok((_, false)) => None,
                    Err(error) => Some(Err(error)),
                })
                .collect();
            // Whether a span that fails is looked at at all depends on the other conditions.
            let Ok(want) = want else { continue };
            let output = run(&table, &query).unwrap_or_else(|error| panic!("{query}: {error}"));
            let sets = output.traces.iter().flat_map(|trace| &trace.span_sets);
            let got: Vec<u64> = sets
                .flat_map(|set| &set.spans)
                .map(|span| u64::from_be_bytes(span.span_id))
                .collect();
            assert_eq!(got, want, "{query}");
            compared += 1;
        }
    }
    assert!(compared > 1000, "{compared}");
}
