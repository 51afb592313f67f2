//! The numbers that are measured of spans.
//!
//! `duration` is measured in seconds, every other attribute in its own unit, which for the other
//! intrinsic durations are nanoseconds. What has no number is left out.

use std::sync::Arc;

use tempo_table::{Column, Level};
use tempo_traceql::{Attribute, Intrinsic};

use super::{
    encode::{Encoded, FirstValue, Values, first_value, is_below_spans, surviving},
    selected::Selected,
};
use crate::{
    error::EngineError,
    operand::{Reading, Source},
    plan::{OperandId, Plan},
    rows::RowReader,
    scan,
    value::{Value, ValueRef},
};

const NANOS_PER_SECOND: f64 = 1e9;

/// A number as it is stored.
#[derive(Clone, Copy)]
enum Number {
    Int(i64),
    Float(f64),
}

fn number_of(value: ValueRef<'_>) -> Option<Number> {
    match value {
        ValueRef::Int(value) | ValueRef::Duration(value) => Some(Number::Int(value)),
        ValueRef::Float(value) => Some(Number::Float(value)),
        _ => None,
    }
}

/// By what a value is divided to be in the unit in which it is shown.
pub(crate) fn unit(plan: &Plan, operand: OperandId) -> f64 {
    match plan.operands[operand].attribute {
        Attribute::Intrinsic(Intrinsic::Duration) => NANOS_PER_SECOND,
        _ => 1.0,
    }
}

/// By what the end of a bucket is divided to be in the unit in which it is shown: seconds for every
/// duration.
pub(crate) fn bucket_unit(plan: &Plan, operand: OperandId) -> f64 {
    match plan.operands[operand].reading() {
        Reading::Duration => NANOS_PER_SECOND,
        _ => 1.0,
    }
}

/// The number of every span, NaN where there is none.
pub(crate) fn numbers(
    selected: &Selected<'_>,
    plan: &Plan,
    operand: OperandId,
) -> Result<Vec<f64>, EngineError> {
    let mut numbers = Vec::with_capacity(selected.len());
    let unit = unit(plan, operand);
    visit(selected, plan, operand, |number| {
        numbers.push(match number {
            Some(Number::Int(value)) => value as f64 / unit,
            Some(Number::Float(value)) => value / unit,
            None => f64::NAN,
        });
    })?;
    Ok(numbers)
}

/// The smallest power of two that is not below the value of each span. Values below 2 have none,
/// nor have floats.
pub(crate) fn buckets(
    selected: &Selected<'_>,
    plan: &Plan,
    operand: OperandId,
) -> Result<Encoded, EngineError> {
    let mut codes = Vec::with_capacity(selected.len());
    visit(selected, plan, operand, |number| {
        codes.push(match number {
            Some(Number::Int(value)) => power(value),
            Some(Number::Float(_)) | None => tempo_table::ABSENT,
        });
    })?;
    Ok(Encoded {
        level: None,
        codes: Arc::from(codes),
        // Only the number is of interest.
        values: Values::Listed(vec![Value::Nil; 64]),
    })
}

fn power(value: i64) -> u32 {
    if value < 2 {
        return tempo_table::ABSENT;
    }
    i64::BITS - (value - 1).leading_zeros()
}

/// Hands out the number of every selected span, in order.
fn visit(
    selected: &Selected<'_>,
    plan: &Plan,
    operand: OperandId,
    mut take: impl FnMut(Option<Number>),
) -> Result<(), EngineError> {
    let surviving = surviving(plan, operand);
    match &plan.operands[operand].source {
        Source::Column { key, reading } if !is_below_spans(key.level()) => {
            let column = selected.column(key)?;
            if surviving.is_none() || column.arrays.is_none() {
                let places = selected.places(key.level())?;
                visit_column(&column, *reading, places, take);
                return Ok(());
            }
        }
        Source::SpanThenResource { span, resource } => {
            let of_spans = selected.column(span)?;
            let of_resources = selected.column(resource)?;
            let span_places = selected.places(Level::Span)?;
            let resource_places = selected.places(Level::Resource)?;
            for number in 0..selected.len() {
                let place = |places: Option<&[u32]>| match places {
                    None => number,
                    Some(places) => places[number] as usize,
                };
                let value = match scan::value(&of_spans, Reading::Plain, place(span_places)) {
                    ValueRef::Nil => {
                        scan::value(&of_resources, Reading::Plain, place(resource_places))
                    }
                    value => value,
                };
                take(number_of(value));
            }
            return Ok(());
        }
        Source::Column { .. } => {}
    }
    let reader = RowReader::for_operands(selected.session, plan, &[operand], &selected.spans)?;
    for number in 0..selected.len() {
        take(
            match first_value(&reader, operand, surviving, selected.row(number)) {
                FirstValue::AsItIs(value) => number_of(value),
                FirstValue::Reduced(value) => number_of(value.borrowed()),
            },
        );
    }
    Ok(())
}

fn visit_column(
    column: &Column,
    reading: Reading,
    places: Option<&[u32]>,
    mut take: impl FnMut(Option<Number>),
) {
    // Status and kind are no numbers, though they are stored as such.
    let is_number = !matches!(reading, Reading::Status | Reading::Kind);
    match (&column.ints, &column.floats) {
        (Some(ints), None) if is_number && ints.present.is_none() => match places {
            None => ints
                .values
                .iter()
                .for_each(|&value| take(Some(Number::Int(value)))),
            Some(places) => places
                .iter()
                .for_each(|&place| take(Some(Number::Int(ints.values[place as usize])))),
        },
        _ => {
            let len = places.map_or(column.len, <[u32]>::len);
            for number in 0..len {
                let place = places.map_or(number, |places| places[number] as usize);
                take(number_of(scan::value(column, reading, place)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_to_the_next_power_of_two() {
        let bucket = |value| match power(value) {
            tempo_table::ABSENT => -1,
            power => 1_i64 << power,
        };
        for (value, want) in [
            (-5, -1),
            (0, -1),
            (1, -1),
            (2, 2),
            (3, 4),
            (4, 4),
            (5, 8),
            (1023, 1024),
            (1024, 1024),
            (1025, 2048),
        ] {
            assert_eq!(bucket(value), want, "{value}");
        }
        assert_eq!(power(i64::MAX), 63);
    }
}
