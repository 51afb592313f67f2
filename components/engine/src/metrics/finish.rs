//! From partial series to those of an answer.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    comparison::{BASELINE, Comparison, SELECTION},
    exemplar::Exemplar,
    histogram::quantile,
    label::{BUCKET, Label, META_TYPE, NAME, QUANTILE, answer_key, series_key},
    measure,
    partial::{MetricsPartial, Part, SeriesTable},
    plan::{Finish, Fragment, MetricsPlan, SeriesExpr, SeriesSource, What},
    second_stage, series_math,
    window::Grid,
};
use crate::value::Value;

/// A series of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What tells it apart, each name once.
    pub labels: Vec<Label>,
    /// One value per interval; NaN where the series has no point.
    pub values: Vec<f64>,
    /// In the order of time; the value of each is a number.
    pub exemplars: Vec<Exemplar>,
}

impl Series {
    fn new(labels: Vec<Label>, values: Vec<f64>) -> Self {
        Self {
            labels,
            values,
            exemplars: Vec::new(),
        }
    }

    pub(crate) fn has_points(&self) -> bool {
        self.values.iter().any(|value| !value.is_nan())
    }
}

/// The answer to a query over time.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsAnswer {
    /// The intervals of all series.
    pub grid: Grid,
    /// Those that have points, in the order in which answers show them.
    pub series: Vec<Series>,
    /// There may be more series than are shown.
    pub is_truncated: bool,
}

impl MetricsPartial {
    /// The answer, if nothing is left to be merged.
    pub fn finish(&self, plan: &MetricsPlan) -> MetricsAnswer {
        let finishing = Finishing {
            plan,
            partial: self,
        };
        let mut series = finishing.expr(&plan.series);
        for one in &mut series {
            self.settle_exemplars(one);
        }
        series.retain(Series::has_points);
        series.sort_by_cached_key(|series| answer_key(&series.labels));
        let is_truncated = self.is_full(plan);
        if is_truncated {
            series.truncate(plan.max_series);
        }
        MetricsAnswer {
            grid: self.grid,
            series,
            is_truncated,
        }
    }

    /// Exemplars of counts have the value of their interval's point, and none stands where there is
    /// no point.
    fn settle_exemplars(&self, series: &mut Series) {
        let Series {
            values, exemplars, ..
        } = series;
        exemplars.retain_mut(|exemplar| {
            let interval = self.grid.interval_of_ms(exemplar.timestamp_ms);
            let Some(value) = interval
                .and_then(|interval| values.get(interval))
                .filter(|value| !value.is_nan())
            else {
                return false;
            };
            if exemplar.value.is_nan() {
                exemplar.value = *value;
            }
            true
        });
        exemplars.sort_by_key(|exemplar| exemplar.timestamp_ms);
    }
}

struct Finishing<'a> {
    plan: &'a MetricsPlan,
    partial: &'a MetricsPartial,
}

impl Finishing<'_> {
    fn grid(&self) -> &Grid {
        &self.partial.grid
    }

    fn expr(&self, expr: &SeriesExpr) -> Vec<Series> {
        let mut series = match &expr.source {
            SeriesSource::Fragment(number, finish) => self.fragment(*number, finish),
            SeriesSource::Binary { op, lhs, rhs } => {
                series_math::join(*op, self.expr(lhs), self.expr(rhs))
            }
        };
        for stage in &expr.stages {
            series = second_stage::apply(stage, series, self.grid());
        }
        series
    }

    fn fragment(&self, number: usize, finish: &Finish) -> Vec<Series> {
        let (Some(fragment), Some(part)) = (
            self.plan.fragments.get(number),
            self.partial.parts.get(number),
        ) else {
            return Vec::new();
        };
        match part {
            Part::Comparison(comparison) => self.comparison(comparison),
            Part::Series(table) => match finish {
                Finish::Buckets => self.buckets(fragment, table),
                Finish::Quantiles(quantiles) => self.quantiles(fragment, table, quantiles),
                finish => self.plain(fragment, table, finish),
            },
        }
    }

    fn plain(&self, fragment: &Fragment, table: &SeriesTable, finish: &Finish) -> Vec<Series> {
        let seconds = self.grid().step_seconds();
        let mut series: Vec<Series> = table
            .heads()
            .iter()
            .enumerate()
            .map(|(row, head)| {
                let values = table.values(row);
                let values = match (finish, table.weights(row)) {
                    (Finish::PerSecond, _) => values.iter().map(|count| count / seconds).collect(),
                    (Finish::Mean, Some(weights)) => values
                        .iter()
                        .zip(weights)
                        .map(|(sum, weight)| sum / weight)
                        .collect(),
                    _ => values.to_vec(),
                };
                Series::new(head.labels.to_vec(), values)
            })
            .collect();
        // Spans that are only counted are counted even where there are none.
        if series.is_empty() && fragment.by.is_empty() && matches!(fragment.what, What::Count) {
            let labels = vec![Label::text(NAME, fragment.function)];
            series.push(Series::new(labels, vec![0.0; self.grid().len()]));
        }
        for (row, exemplar) in &table.exemplars {
            series[*row].exemplars.push(exemplar.clone());
        }
        series
    }

    // -----------------------------------------------------------------------------------------
    // Histograms
    // -----------------------------------------------------------------------------------------

    /// The upper end of a bucket, in the unit in which it is shown: seconds for all durations.
    fn bucket_end(&self, fragment: &Fragment, bucket: Option<u8>) -> f64 {
        let unit = fragment
            .measured
            .map_or(1.0, |operand| measure::bucket_unit(&fragment.plan, operand));
        f64::from(bucket.unwrap_or_default()).exp2() / unit
    }

    fn buckets(&self, fragment: &Fragment, table: &SeriesTable) -> Vec<Series> {
        let mut series: Vec<Series> = table
            .heads()
            .iter()
            .enumerate()
            .map(|(row, head)| {
                let mut labels = head.labels.to_vec();
                let end = self.bucket_end(fragment, head.bucket);
                labels.push(Label::new(BUCKET, Value::Float(end)));
                Series::new(labels, table.values(row).to_vec())
            })
            .collect();
        for (row, exemplar) in &table.exemplars {
            series[*row].exemplars.push(exemplar.clone());
        }
        series
    }

    fn quantiles(
        &self,
        fragment: &Fragment,
        table: &SeriesTable,
        quantiles: &[f64],
    ) -> Vec<Series> {
        // The rows of each group, by bucket.
        let mut groups: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
        for (row, head) in table.heads().iter().enumerate() {
            groups
                .entry(series_key(&head.labels))
                .or_default()
                .push(row);
        }
        let mut all = Vec::with_capacity(groups.len() * quantiles.len());
        for mut rows in groups.into_values() {
            rows.sort_unstable_by_key(|&row| table.heads()[row].bucket);
            let buckets: Vec<(f64, &[f64])> = rows
                .iter()
                .map(|&row| {
                    let end = self.bucket_end(fragment, table.heads()[row].bucket);
                    (end, table.values(row))
                })
                .collect();
            let first = all.len();
            let mut overall = Vec::with_capacity(quantiles.len());
            for &wanted in quantiles {
                let in_interval = |interval: usize| {
                    let counts = buckets
                        .iter()
                        .map(|&(end, counts)| (end, counts[interval] as u64));
                    quantile(wanted, counts)
                };
                let mut labels = table.heads()[rows[0]].labels.to_vec();
                labels.push(Label::new(QUANTILE, Value::Float(wanted)));
                let values = (0..self.grid().len()).map(in_interval).collect();
                all.push(Series::new(labels, values));
                let sums = buckets
                    .iter()
                    .map(|&(end, counts)| (end, counts.iter().map(|&count| count as u64).sum()));
                overall.push(quantile(wanted, sums));
            }
            // An exemplar stands beside the quantile that its bucket is nearest to.
            for (row, exemplar) in &table.exemplars {
                if !rows.contains(row) {
                    continue;
                }
                let end = self.bucket_end(fragment, table.heads()[*row].bucket);
                let value = if exemplar.value.is_nan() {
                    end
                } else {
                    exemplar.value
                };
                let distance = |at: &usize| (overall[*at] - value).abs();
                let nearest = (0..overall.len())
                    .min_by(|a, b| distance(a).total_cmp(&distance(b)))
                    .unwrap_or(0);
                all[first + nearest].exemplars.push(exemplar.clone());
            }
        }
        all
    }

    // -----------------------------------------------------------------------------------------
    // compare()
    // -----------------------------------------------------------------------------------------

    fn comparison(&self, comparison: &Comparison) -> Vec<Series> {
        let mut all = Vec::new();
        let width = self.grid().len();
        let kinds = [
            (BASELINE, "baseline", "baseline_total"),
            (SELECTION, "selection", "selection_total"),
        ];
        for (name, counted) in comparison.attributes() {
            for (side, of_values, of_totals) in kinds {
                let totals = &counted.totals[side];
                if totals.iter().all(|&total| total == 0.0) {
                    continue;
                }
                let labels = |kind: &str, value: &Value| {
                    vec![
                        Label::text(META_TYPE, kind),
                        Label::new(Arc::clone(name), value.clone()),
                    ]
                };
                for top in counted.top(side, comparison.top()) {
                    let mut values = vec![0.0; width];
                    for &(interval, count) in top.cells {
                        values[interval as usize] = count;
                    }
                    all.push(Series::new(labels(of_values, top.value), values));
                }
                let mut series = Series::new(labels(of_totals, &Value::Nil), totals.clone());
                series.exemplars = comparison
                    .exemplars()
                    .iter()
                    .filter(|span| span.side == side && span.attributes.contains(name))
                    .map(|span| span.exemplar.clone())
                    .collect();
                all.push(series);
            }
        }
        all
    }
}
