//! What is done to finished series, one after the other.

use std::cmp::Ordering;

use tempo_traceql::{
    Static,
    ast::{ComparisonOp, SecondStage},
    constant,
};

use super::{finish::Series, label::tie_order, series_math::arithmetic, window::Grid};

/// Applies one stage.
pub(crate) fn apply(stage: &SecondStage, series: Vec<Series>, grid: &Grid) -> Vec<Series> {
    match stage {
        SecondStage::TopK(limit) => keep(*limit, series, grid, |a, b| {
            by_value(b.0, a.0).then_with(|| tie_order(&a.1.labels, &b.1.labels))
        }),
        SecondStage::BottomK(limit) => keep(*limit, series, grid, |a, b| {
            by_value(a.0, b.0).then_with(|| tie_order(&b.1.labels, &a.1.labels))
        }),
        SecondStage::Filter { op, threshold } => filter(*op, *threshold, series, grid),
        SecondStage::Scalar {
            op,
            value,
            value_on_left,
        } => {
            let compute = |point: f64| match value_on_left {
                true => arithmetic(*op, *value, point),
                false => arithmetic(*op, point, *value),
            };
            let mut series = series;
            for series in &mut series {
                let exemplars = series.exemplars.iter_mut().map(|one| &mut one.value);
                for point in series.values.iter_mut().chain(exemplars) {
                    if !point.is_nan() {
                        *point = compute(*point);
                    }
                }
            }
            series
        }
    }
}

/// Neither is NaN.
fn by_value(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or(Ordering::Equal)
}

/// Of every interval the points that go first.
fn keep(
    limit: i64,
    mut series: Vec<Series>,
    grid: &Grid,
    order: impl Fn((f64, &Series), (f64, &Series)) -> Ordering,
) -> Vec<Series> {
    let limit = usize::try_from(limit).unwrap_or(0);
    if series.len() <= limit {
        return series;
    }
    // By interval, the numbers of the series whose points go first, in order.
    let mut first: Vec<Vec<usize>> = vec![Vec::new(); grid.len()];
    for (number, candidate) in series.iter().enumerate() {
        for (interval, &value) in candidate.values.iter().enumerate() {
            let kept = &mut first[interval];
            let goes_after = |&other: &usize| {
                let other = (series[other].values[interval], &series[other]);
                order(other, (value, candidate)).is_lt()
            };
            let is_full = kept.len() >= limit;
            if value.is_nan() || (is_full && kept.last().is_none_or(goes_after)) {
                continue;
            }
            let at = kept.partition_point(goes_after);
            kept.insert(at, number);
            kept.truncate(limit);
        }
    }
    let mut kept: Vec<Vec<f64>> = vec![Vec::new(); series.len()];
    for (interval, numbers) in first.into_iter().enumerate() {
        for number in numbers {
            let values = &mut kept[number];
            if values.is_empty() {
                *values = vec![f64::NAN; grid.len()];
            }
            values[interval] = series[number].values[interval];
        }
    }
    for (series, values) in series.iter_mut().zip(kept) {
        series.values = values;
    }
    with_points(series, grid)
}

fn filter(op: ComparisonOp, threshold: f64, mut series: Vec<Series>, grid: &Grid) -> Vec<Series> {
    let threshold = Static::Float(threshold);
    for series in &mut series {
        for point in &mut series.values {
            if !constant::compare(op, &Static::Float(*point), &threshold) {
                *point = f64::NAN;
            }
        }
    }
    with_points(series, grid)
}

/// Series without points go, and exemplars without a point.
fn with_points(mut series: Vec<Series>, grid: &Grid) -> Vec<Series> {
    series.retain(Series::has_points);
    for series in &mut series {
        let values = &series.values;
        series.exemplars.retain(|exemplar| {
            grid.interval_of_ms(exemplar.timestamp_ms)
                .and_then(|interval| values.get(interval))
                .is_some_and(|value| !value.is_nan())
        });
    }
    series
}

#[cfg(test)]
mod tests {
    use tempo_traceql::ast::ArithmeticOp;

    use super::*;
    use crate::{
        metrics::{Exemplar, Window, label::Label},
        value::Value,
    };

    const NO: f64 = f64::NAN;

    fn grid(len: u64) -> Grid {
        let window = Window {
            start_nano: 0,
            end_nano: len * 1_000_000_000,
            step_nano: 1_000_000_000,
            is_instant: false,
        };
        window.grid()
    }

    fn series(labels: Vec<Label>, values: &[f64]) -> Series {
        let exemplar = |(at, &value): (usize, &f64)| Exemplar {
            timestamp_ms: at as i64 * 1000 + 500,
            value,
            labels: [].into(),
        };
        Series {
            labels,
            values: values.to_vec(),
            exemplars: values.iter().enumerate().map(exemplar).collect(),
        }
    }

    fn four() -> Vec<Series> {
        [
            ("a", [1.0, 5.0, 3.0]),
            ("b", [2.0, 6.0, 2.0]),
            ("c", [3.0, 1.0, 1.0]),
            ("d", [4.0, 2.0, 4.0]),
        ]
        .map(|(name, values)| series(vec![Label::text("x", name)], &values))
        .into()
    }

    /// Exemplars stand where points do.
    fn points(stage: &SecondStage, series: Vec<Series>) -> Vec<Vec<f64>> {
        let applied = apply(stage, series, &grid(3));
        for series in &applied {
            let points = series.values.iter().filter(|value| !value.is_nan());
            let exemplars = series.exemplars.iter().map(|exemplar| &exemplar.value);
            assert!(points.eq(exemplars), "{series:?}");
        }
        applied.into_iter().map(|series| series.values).collect()
    }

    fn assert_points(got: &[Vec<f64>], want: &[&[f64]]) {
        // NaN prints as itself, which is all that is asked of it.
        assert_eq!(format!("{got:?}"), format!("{want:?}"));
    }

    #[test]
    fn of_every_interval_the_largest_or_the_smallest_are_kept() {
        assert_points(
            &points(&SecondStage::TopK(2), four()),
            &[
                &[NO, 5.0, 3.0],
                &[NO, 6.0, NO],
                &[3.0, NO, NO],
                &[4.0, NO, 4.0],
            ],
        );
        assert_points(
            &points(&SecondStage::BottomK(2), four()),
            &[
                &[1.0, NO, NO],
                &[2.0, NO, 2.0],
                &[NO, 1.0, 1.0],
                &[NO, 2.0, NO],
            ],
        );
        let unchanged = points(&SecondStage::TopK(10), four());
        assert_eq!(unchanged.len(), 4);
        assert_points(&points(&SecondStage::TopK(0), four()), &[]);
    }

    #[test]
    fn ties_go_by_the_alphabet_and_other_values_from_the_highest_down() {
        let kept = |stage: SecondStage, values: &[Value]| -> Vec<Value> {
            let all = values
                .iter()
                .map(|value| series(vec![Label::new("x", value.clone())], &[1.0]))
                .collect();
            apply(&stage, all, &grid(1))
                .into_iter()
                .map(|series| series.labels[0].value.clone())
                .collect()
        };
        let texts = ["b", "a", "c"].map(|text| Value::String(text.into()));
        assert_eq!(kept(SecondStage::TopK(1), &texts), [texts[1].clone()]);
        assert_eq!(kept(SecondStage::BottomK(1), &texts), [texts[2].clone()]);
        let ints = [2, 3, 1].map(Value::Int);
        assert_eq!(kept(SecondStage::TopK(1), &ints), [Value::Int(3)]);
        assert_eq!(kept(SecondStage::BottomK(1), &ints), [Value::Int(1)]);
        let mixed = [Value::Int(2), Value::Bool(true)];
        assert_eq!(kept(SecondStage::TopK(1), &mixed), [Value::Bool(true)]);
    }

    #[test]
    fn numbers_are_applied_to_every_point_and_zero_divides_nothing() {
        let scalar = |op, value, value_on_left| SecondStage::Scalar {
            op,
            value,
            value_on_left,
        };
        let one = || vec![series(vec![], &[0.0, 2.0, NO])];
        let values = |stage: &SecondStage| apply(stage, one(), &grid(3)).remove(0).values;
        let print = |values: Vec<f64>| format!("{values:?}");
        let times = scalar(ArithmeticOp::Mul, 3.0, false);
        assert_eq!(print(values(&times)), "[0.0, 6.0, NaN]");
        let under = scalar(ArithmeticOp::Div, 3.0, true);
        assert_eq!(print(values(&under)), "[NaN, 1.5, NaN]");
        let by_zero = scalar(ArithmeticOp::Div, 0.0, false);
        assert_eq!(print(values(&by_zero)), "[NaN, NaN, NaN]");
        let applied = apply(&times, one(), &grid(3));
        assert_eq!(applied[0].exemplars[1].value, 6.0);
    }

    #[test]
    fn a_filter_keeps_points_and_what_has_some() {
        let filter = |op, threshold| SecondStage::Filter { op, threshold };
        assert_points(
            &points(&filter(ComparisonOp::Greater, 4.0), four()),
            &[&[NO, 5.0, NO], &[NO, 6.0, NO]],
        );
        assert_points(
            &points(&filter(ComparisonOp::Equal, 6.0), four()),
            &[&[NO, 6.0, NO]],
        );
        let all = points(&filter(ComparisonOp::NotEqual, 6.0), four());
        assert_eq!(all.len(), 4);
        assert!(all[1][1].is_nan());
    }
}
