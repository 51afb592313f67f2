//! Series over time, counted span by span.

use std::collections::{BTreeMap, BTreeSet};

use tempo_traceql::{
    Attribute, Intrinsic, Query,
    ast::{
        ArithmeticOp, ComparisonOp, MetricsAggregate, MetricsExpr, MetricsLeaf, MetricsSource,
        QueryBody, SecondStage, SeriesFunction,
    },
};

use super::{
    Failure, TraceData, Value,
    filter::Looked,
    pipeline::{Rules, run},
};

const NANOS_PER_SECOND: f64 = 1e9;

/// The intervals of a query: each holds what starts after its beginning and up to its end.
#[derive(Debug, Clone, Copy)]
pub struct Buckets {
    /// Spans that start later count, in nanoseconds since the epoch.
    pub start_nano: u64,
    /// Spans that start up to here count.
    pub end_nano: u64,
    /// Width of an interval; intervals end at its multiples.
    pub step_nano: u64,
    /// One interval, the whole time.
    pub is_instant: bool,
}

impl Buckets {
    fn len(&self) -> usize {
        if self.is_instant {
            return 1;
        }
        let first = self.start_nano / self.step_nano;
        let last = self.end_nano.div_ceil(self.step_nano);
        (last - first) as usize
    }

    fn of(&self, start: u64) -> Option<usize> {
        if start <= self.start_nano || start > self.end_nano {
            return None;
        }
        if self.is_instant {
            return Some(0);
        }
        let first = self.start_nano / self.step_nano;
        Some((start.div_ceil(self.step_nano) - first - 1) as usize)
    }
}

/// Names and printed values of a series; `__name__` without its value.
pub type NaiveSeries = Vec<(String, String)>;

/// Points by series, one per interval; `None` where there is no point.
pub type Answer = BTreeMap<NaiveSeries, Vec<Option<f64>>>;

const NAME: &str = "__name__";

/// The series that a query counts, but for `topk`, `bottomk` and `compare`.
///
/// # Errors
/// When its pipeline fails on some span.
pub fn evaluate(query: &Query, traces: &[TraceData], buckets: Buckets) -> Result<Answer, Failure> {
    let QueryBody::Metrics(expr) = &query.body else {
        panic!("no query over time");
    };
    let mut answer = expr_series(expr, traces, buckets)?;
    answer.retain(|_, points| points.iter().any(Option::is_some));
    Ok(answer)
}

fn expr_series(
    expr: &MetricsExpr,
    traces: &[TraceData],
    buckets: Buckets,
) -> Result<Answer, Failure> {
    let mut series = match &expr.source {
        MetricsSource::Leaf(leaf) => leaf_series(leaf, traces, buckets)?,
        MetricsSource::Binary { op, lhs, rhs } => {
            let lhs = expr_series(lhs, traces, buckets)?;
            let rhs = expr_series(rhs, traces, buckets)?;
            joined(*op, &lhs, &rhs)
        }
    };
    for stage in &expr.stages {
        match stage {
            SecondStage::Filter { op, threshold } => {
                each_point(&mut series, |point| {
                    let keeps = match op {
                        ComparisonOp::Equal => point == *threshold,
                        ComparisonOp::NotEqual => point != *threshold,
                        ComparisonOp::Less => point < *threshold,
                        ComparisonOp::LessEqual => point <= *threshold,
                        ComparisonOp::Greater => point > *threshold,
                        ComparisonOp::GreaterEqual => point >= *threshold,
                        ComparisonOp::Regex | ComparisonOp::NotRegex => {
                            panic!("no operator for numbers")
                        }
                    };
                    keeps.then_some(point)
                });
                series.retain(|_, points| points.iter().any(Option::is_some));
            }
            SecondStage::Scalar {
                op,
                value,
                value_on_left,
            } => each_point(&mut series, |point| {
                if *value_on_left {
                    math(*op, *value, point)
                } else {
                    math(*op, point, *value)
                }
            }),
            SecondStage::TopK(_) | SecondStage::BottomK(_) => {
                panic!("which of equal series is kept is for others to check")
            }
        }
    }
    Ok(series)
}

fn each_point(series: &mut Answer, change: impl Fn(f64) -> Option<f64>) {
    for point in series.values_mut().flatten() {
        *point = point.and_then(&change);
    }
}

/// Whatever is divided by zero has no value.
fn math(op: ArithmeticOp, lhs: f64, rhs: f64) -> Option<f64> {
    let value = match op {
        ArithmeticOp::Add => lhs + rhs,
        ArithmeticOp::Sub => lhs - rhs,
        ArithmeticOp::Mul => lhs * rhs,
        ArithmeticOp::Div if rhs == 0.0 => return None,
        ArithmeticOp::Div => lhs / rhs,
        ArithmeticOp::Mod | ArithmeticOp::Pow => panic!("no arithmetic of series"),
    };
    (!value.is_nan()).then_some(value)
}

/// Series with the same labels, and one without labels with all of the other side.
fn joined(op: ArithmeticOp, lhs: &Answer, rhs: &Answer) -> Answer {
    let bare = |labels: &NaiveSeries| -> NaiveSeries {
        let named = labels.iter().filter(|(name, _)| name != NAME);
        named.cloned().collect()
    };
    let mut answer = Answer::new();
    for (left, left_points) in lhs {
        for (right, right_points) in rhs {
            let (left_bare, right_bare) = (bare(left), bare(right));
            let mut labels = match (left_bare.is_empty(), right_bare.is_empty()) {
                _ if left_bare == right_bare => left_bare,
                (true, false) => right_bare,
                (false, true) => left_bare,
                _ => continue,
            };
            if [left, right]
                .iter()
                .all(|labels| labels.iter().any(|(name, _)| name == NAME))
            {
                labels.insert(0, (NAME.to_owned(), String::new()));
            }
            let points = left_points.iter().zip(right_points);
            let points = points.map(|(left, right)| math(op, (*left)?, (*right)?));
            answer.insert(labels, points.collect());
        }
    }
    answer
}

/// What is counted of one span.
struct Counted {
    interval: usize,
    measured: Vec<Value>,
    groups: Vec<(String, Value)>,
}

fn leaf_series(
    leaf: &MetricsLeaf,
    traces: &[TraceData],
    buckets: Buckets,
) -> Result<Answer, Failure> {
    let MetricsAggregate::Series { function, by } = &leaf.aggregate else {
        panic!("comparisons are for others to check");
    };
    let rules = Rules::new(&leaf.pipeline);
    let mut counted = Vec::new();
    for trace in traces {
        let sets = run(&leaf.pipeline, trace)?;
        let spans: BTreeSet<usize> = sets.into_iter().flat_map(|set| set.spans).collect();
        for span in spans {
            let Some(interval) = buckets.of(trace.start(span)) else {
                continue;
            };
            let looked = Looked {
                trace,
                span,
                rules: &rules,
                is_negated: false,
            };
            let value = |attribute: &Attribute| {
                looked.evaluate(&tempo_traceql::FieldExpr::Attribute(attribute.clone()))
            };
            counted.push(Counted {
                interval,
                measured: function
                    .attribute()
                    .map(value)
                    .transpose()?
                    .into_iter()
                    .collect(),
                groups: by
                    .iter()
                    .map(|attribute| Ok((attribute.to_string(), value(attribute)?)))
                    .collect::<Result<_, Failure>>()?,
            });
        }
    }
    let is_histogram = matches!(
        function,
        SeriesFunction::HistogramOverTime(_) | SeriesFunction::QuantileOverTime(..)
    );
    let mut groups: BTreeMap<NaiveSeries, Vec<&Counted>> = BTreeMap::new();
    if by.is_empty() && !is_histogram {
        groups.insert(vec![(NAME.to_owned(), String::new())], Vec::new());
    }
    for one in &counted {
        groups
            .entry(labels(one, is_histogram))
            .or_default()
            .push(one);
    }
    let mut answer = Answer::new();
    for (labels, counted) in groups {
        let intervals: Vec<Vec<&Counted>> = (0..buckets.len())
            .map(|interval| {
                let here = counted.iter().filter(|one| one.interval == interval);
                here.copied().collect()
            })
            .collect();
        series_of(function, labels, &intervals, buckets, &mut answer);
    }
    Ok(answer)
}

/// Groups without any value have the first name alone.
fn labels(counted: &Counted, is_histogram: bool) -> NaiveSeries {
    let shown = |value: &Value| match value {
        Value::Status(status) => format!("text {:?}", format!("{status:?}").to_lowercase()),
        Value::Kind(kind) => format!("text {:?}", format!("{kind:?}").to_lowercase()),
        value => value.print(),
    };
    let mut labels: NaiveSeries = counted
        .groups
        .iter()
        .filter(|(_, value)| !matches!(value, Value::Nil | Value::Opaque))
        .map(|(name, value)| (name.clone(), shown(value)))
        .collect();
    if labels.is_empty() && !is_histogram {
        labels.push(match counted.groups.first() {
            Some((name, _)) => (name.clone(), "nil".to_owned()),
            None => (NAME.to_owned(), String::new()),
        });
    }
    labels
}

fn series_of(
    function: &SeriesFunction,
    labels: NaiveSeries,
    intervals: &[Vec<&Counted>],
    buckets: Buckets,
    answer: &mut Answer,
) {
    let seconds = if buckets.is_instant {
        (buckets.end_nano - buckets.start_nano) as f64 / NANOS_PER_SECOND
    } else {
        buckets.step_nano as f64 / NANOS_PER_SECOND
    };
    let is_duration = function.attribute() == Some(&Attribute::Intrinsic(Intrinsic::Duration));
    // Durations of spans in seconds, all else as it is.
    let number = |one: &&Counted| {
        let number = one.measured.first()?.number()?;
        Some(if is_duration {
            number / NANOS_PER_SECOND
        } else {
            number
        })
    };
    let folded = |fold: &dyn Fn(&[f64]) -> f64| -> Vec<Option<f64>> {
        let fold = |spans: &Vec<&Counted>| {
            let numbers: Vec<f64> = spans.iter().filter_map(number).collect();
            (!numbers.is_empty()).then(|| fold(&numbers))
        };
        intervals.iter().map(fold).collect()
    };
    let counts = |per: f64| -> Vec<Option<f64>> {
        let count = |spans: &Vec<&Counted>| Some(spans.len() as f64 / per);
        intervals.iter().map(count).collect()
    };
    let sum = |numbers: &[f64]| numbers.iter().sum::<f64>();
    let points = match function {
        SeriesFunction::Rate => counts(seconds),
        SeriesFunction::CountOverTime => counts(1.0),
        SeriesFunction::MinOverTime(_) => {
            folded(&|n| n.iter().copied().fold(f64::INFINITY, f64::min))
        }
        SeriesFunction::MaxOverTime(_) => {
            folded(&|n| n.iter().copied().fold(f64::NEG_INFINITY, f64::max))
        }
        SeriesFunction::SumOverTime(_) => folded(&sum),
        SeriesFunction::AvgOverTime(_) => folded(&|n| sum(n) / n.len() as f64),
        SeriesFunction::HistogramOverTime(_) => {
            return histogram(&labels, intervals, None, answer);
        }
        SeriesFunction::QuantileOverTime(_, quantiles) => {
            return histogram(&labels, intervals, Some(quantiles), answer);
        }
    };
    answer.insert(labels, points);
}

/// The upper end of a value's bucket: the power of two at or above it.
fn bucket(one: &Counted) -> Option<f64> {
    let (value, unit) = match one.measured.first()? {
        Value::Int(value) => (*value, 1.0),
        Value::Duration(nanos) => (*nanos, NANOS_PER_SECOND),
        _ => return None,
    };
    let mut end = 2_u64;
    while value >= 2 && end < value as u64 {
        end *= 2;
    }
    (value >= 2).then_some(end as f64 / unit)
}

fn histogram(
    labels: &NaiveSeries,
    intervals: &[Vec<&Counted>],
    quantiles: Option<&Vec<f64>>,
    answer: &mut Answer,
) {
    let ends: Vec<Vec<f64>> = intervals
        .iter()
        .map(|spans| {
            let mut ends: Vec<f64> = spans.iter().filter_map(|one| bucket(one)).collect();
            ends.sort_by(f64::total_cmp);
            ends
        })
        .collect();
    let mut all: Vec<f64> = ends.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    let with = |name: &str, value: f64| {
        let mut labels = labels.clone();
        labels.push((name.to_owned(), Value::Float(value).print()));
        labels
    };
    match quantiles {
        None => {
            for end in all {
                let count = |ends: &Vec<f64>| ends.iter().filter(|&&other| other == end).count();
                let points = ends.iter().map(|ends| Some(count(ends) as f64));
                answer.insert(with("__bucket", end), points.collect());
            }
        }
        Some(_) if all.is_empty() => {}
        Some(quantiles) => {
            for &quantile in quantiles {
                let points = ends.iter().map(|ends| Some(quantile_of(quantile, ends)));
                answer.insert(with("p", quantile), points.collect());
            }
        }
    }
}

/// The value with that share at or below it, at its place within its bucket.
fn quantile_of(quantile: f64, ends: &[f64]) -> f64 {
    if ends.is_empty() {
        return 0.0;
    }
    let wanted = ((quantile * ends.len() as f64).ceil() as usize).max(1);
    let end = ends[wanted - 1];
    let below = ends.iter().filter(|&&other| other < end).count();
    let inside = ends.iter().filter(|&&other| other == end).count();
    if wanted == below + inside {
        return end;
    }
    let start = match below {
        0 => end / 2.0,
        below => ends[below - 1],
    };
    let share = (wanted - below) as f64 / inside as f64;
    start * (end / start).powf(share)
}
