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
    order: impl Fn(&(f64, &Series), &(f64, &Series)) -> Ordering,
) -> Vec<Series> {
    let limit = usize::try_from(limit).unwrap_or(0);
    if series.len() <= limit {
        return series;
    }
    for interval in 0..grid.len() {
        let mut points: Vec<(usize, f64)> = series
            .iter()
            .map(|series| series.values[interval])
            .enumerate()
            .filter(|(_, value)| !value.is_nan())
            .collect();
        if points.len() <= limit {
            continue;
        }
        let by_order =
            |a: &(usize, f64), b: &(usize, f64)| order(&(a.1, &series[a.0]), &(b.1, &series[b.0]));
        if limit > 0 {
            points.select_nth_unstable_by(limit - 1, by_order);
        }
        let dropped: Vec<usize> = points[limit..].iter().map(|&(at, _)| at).collect();
        for at in dropped {
            series[at].values[interval] = f64::NAN;
        }
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
