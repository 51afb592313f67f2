//! From the syntax tree of a metrics query to what is done with columns, with partial series, and
//! with finished ones.

use std::sync::Arc;

use tempo_traceql::{
    Attribute, Query,
    ast::{
        ArithmeticOp, MetricsAggregate, MetricsExpr, MetricsLeaf, MetricsSource, Pipeline,
        PipelineElement, QueryBody, SecondStage, SeriesFunction, SpansetExpr,
    },
    hints::names,
};

use super::{exemplar::MAX_EXEMPLARS, label::label_name};
use crate::{
    error::PlanError,
    plan::{Filter, Loaded, OperandId, Plan},
};

/// What a request says of a metrics query, beside its text and its time.
#[derive(Debug, Clone, Copy, Default)]
pub struct MetricsOptions {
    /// Exemplars to return, all series together.
    pub max_exemplars: usize,
    /// Series that are kept while spans are counted; 0 means any number.
    pub max_series: usize,
    /// Whether hints that are not safe count.
    pub allow_unsafe_hints: bool,
}

/// A metrics query, ready to run on any table and to finish what was found.
#[derive(Debug, Clone)]
pub struct MetricsPlan {
    /// Sub-queries, each once however often the query has it.
    pub(crate) fragments: Vec<Fragment>,
    pub(crate) series: SeriesExpr,
    pub(crate) max_exemplars: usize,
    /// `usize::MAX` for any number.
    pub(crate) max_series: usize,
    /// Spans count for as many as their trace state says.
    pub(crate) extrapolate: bool,
    pub(crate) sampling: Option<Sampling>,
}

/// A sub-query: which spans, and what is counted of them.
#[derive(Debug, Clone)]
pub(crate) struct Fragment {
    /// Its only stages are filters, so spans can be looked at one by one.
    pub(crate) is_filter: bool,
    /// A sample of a trace's spans would not do.
    pub(crate) needs_whole_traces: bool,
    pub(crate) plan: Plan,
    pub(crate) by: Vec<OperandId>,
    pub(crate) by_names: Vec<Arc<str>>,
    /// Its name.
    /// What is measured; nothing where spans are counted.
    pub(crate) measured: Option<OperandId>,
    pub(crate) function: &'static str,
    pub(crate) what: What,
}

/// What is counted of the spans of a group and interval.
#[derive(Debug, Clone)]
pub(crate) enum What {
    Count,
    Min,
    Max,
    Sum,
    Mean,
    /// Spans per power of two that their value reaches.
    Histogram,
    Compare {
        selection: Filter,
        /// Events and links that the selection asks for.
        selection_loaded: Vec<Loaded>,
        top: usize,
        /// The selection's own time, exclusive start and inclusive end, nanoseconds since the epoch.
        time_nano: Option<(u64, u64)>,
    },
}

/// Finished series.
#[derive(Debug, Clone)]
pub(crate) struct SeriesExpr {
    pub(crate) source: SeriesSource,
    pub(crate) stages: Vec<SecondStage>,
}

#[derive(Debug, Clone)]
pub(crate) enum SeriesSource {
    Fragment(usize, Finish),
    Binary {
        op: ArithmeticOp,
        lhs: Box<SeriesExpr>,
        rhs: Box<SeriesExpr>,
    },
}

/// What becomes of a fragment's partial series.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Finish {
    /// They are what was asked for.
    AsTheyAre,
    /// Counts are divided by the seconds of an interval.
    PerSecond,
    /// Sums are divided by their weights.
    Mean,
    Buckets,
    Quantiles(Vec<f64>),
}

/// One of so many spans or traces is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sampling {
    pub(crate) one_in: usize,
    pub(crate) level: SamplingLevel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SamplingLevel {
    /// Spans, or traces where a fragment needs those whole.
    AsNeeded,
    Spans,
    Traces,
}

impl MetricsPlan {
    /// Plans a query.
    ///
    /// # Errors
    /// [`PlanError::NotSupported`] for a query that is no metrics query, and for what never
    /// validates.
    pub fn new(query: &Query, options: &MetricsOptions) -> Result<Self, PlanError> {
        let QueryBody::Metrics(metrics) = &query.body else {
            return Err(PlanError::NotAMetricsQuery);
        };
        let mut planner = Planner::default();
        let series = planner.expr(metrics)?;
        Ok(Self {
            fragments: planner.fragments,
            series,
            max_exemplars: options.max_exemplars.min(MAX_EXEMPLARS),
            max_series: match options.max_series {
                0 => usize::MAX,
                max_series => max_series,
            },
            extrapolate: query
                .hints
                .bool(names::EXTRAPOLATE, options.allow_unsafe_hints)
                .unwrap_or(false),
            sampling: sampling(query, options.allow_unsafe_hints),
        })
    }

    /// Whether no table can hold a match, so that none needs to be read.
    pub fn matches_nothing(&self) -> bool {
        self.fragments
            .iter()
            .all(|fragment| fragment.plan.matches_nothing())
    }

    /// Exemplars are shared evenly between sub-queries.
    pub(crate) fn exemplars_per_fragment(&self) -> usize {
        match self.max_exemplars {
            0 => 0,
            all => (all / self.fragments.len().max(1)).max(1),
        }
    }
}

/// The fixed share of spans or traces that the query's hints ask for. With `sample=true` Tempo looks
/// at as many as it thinks it needs; here everything is looked at.
fn sampling(query: &Query, allow_unsafe: bool) -> Option<Sampling> {
    let share = |name: &str| {
        query
            .hints
            .float(name, allow_unsafe)
            .filter(|share| *share > 0.0 && *share < 1.0)
    };
    let (share, level) = None
        .or_else(|| Some((share(names::SPAN_SAMPLE)?, SamplingLevel::Spans)))
        .or_else(|| Some((share(names::TRACE_SAMPLE)?, SamplingLevel::Traces)))
        .or_else(|| Some((share(names::SAMPLE)?, SamplingLevel::AsNeeded)))?;
    let one_in = (1.0 / share) as usize;
    (one_in > 1).then_some(Sampling { one_in, level })
}

#[derive(Default)]
struct Planner<'a> {
    leaves: Vec<&'a MetricsLeaf>,
    fragments: Vec<Fragment>,
}

impl<'a> Planner<'a> {
    fn expr(&mut self, expr: &'a MetricsExpr) -> Result<SeriesExpr, PlanError> {
        Ok(SeriesExpr {
            source: match &expr.source {
                MetricsSource::Leaf(leaf) => {
                    SeriesSource::Fragment(self.fragment(leaf)?, finish(&leaf.aggregate))
                }
                MetricsSource::Binary { op, lhs, rhs } => SeriesSource::Binary {
                    op: *op,
                    lhs: Box::new(self.expr(lhs)?),
                    rhs: Box::new(self.expr(rhs)?),
                },
            },
            stages: expr.stages.clone(),
        })
    }

    /// The number of a sub-query; of equal ones it is the same.
    fn fragment(&mut self, leaf: &'a MetricsLeaf) -> Result<usize, PlanError> {
        if let Some(known) = self.leaves.iter().position(|known| *known == leaf) {
            return Ok(known);
        }
        let fragment = fragment(leaf)?;
        self.leaves.push(leaf);
        self.fragments.push(fragment);
        Ok(self.fragments.len() - 1)
    }
}

fn fragment(leaf: &MetricsLeaf) -> Result<Fragment, PlanError> {
    let (measured, by, selection): (Option<&Attribute>, &[Attribute], _) = match &leaf.aggregate {
        MetricsAggregate::Series { function, by } => (function.attribute(), by, None),
        MetricsAggregate::Compare(compare) => (None, &[], Some(&compare.selection)),
    };
    let attributes: Vec<Attribute> = by.iter().chain(measured).cloned().collect();
    let planned = Plan::of_measured(&leaf.pipeline, &attributes, selection)?;
    let (by_operands, measured) = planned.attributes.split_at(by.len());
    let what = match &leaf.aggregate {
        MetricsAggregate::Series { function, .. } => what(function),
        MetricsAggregate::Compare(compare) => {
            let nanos = |nanos: i64| u64::try_from(nanos).unwrap_or(0);
            What::Compare {
                selection: planned.selection.unwrap_or(Filter::Const(true)),
                selection_loaded: planned.selection_loaded,
                top: usize::try_from(compare.top).unwrap_or(0),
                time_nano: ((compare.start_nanos, compare.end_nanos) != (0, 0))
                    .then(|| (nanos(compare.start_nanos), nanos(compare.end_nanos))),
            }
        }
    };
    Ok(Fragment {
        is_filter: is_filter(&leaf.pipeline),
        needs_whole_traces: needs_whole_traces(&leaf.pipeline),
        by: by_operands.to_vec(),
        by_names: by.iter().map(label_name).collect(),
        measured: measured.first().copied(),
        function: match &leaf.aggregate {
            MetricsAggregate::Series { function, .. } => function.name(),
            MetricsAggregate::Compare(_) => "compare",
        },
        plan: planned.plan,
        what,
    })
}

fn what(function: &SeriesFunction) -> What {
    match function {
        SeriesFunction::Rate | SeriesFunction::CountOverTime => What::Count,
        SeriesFunction::MinOverTime(_) => What::Min,
        SeriesFunction::MaxOverTime(_) => What::Max,
        SeriesFunction::SumOverTime(_) => What::Sum,
        SeriesFunction::AvgOverTime(_) => What::Mean,
        SeriesFunction::HistogramOverTime(_) | SeriesFunction::QuantileOverTime(..) => {
            What::Histogram
        }
    }
}

fn finish(aggregate: &MetricsAggregate) -> Finish {
    match aggregate {
        MetricsAggregate::Compare(_) => Finish::AsTheyAre,
        MetricsAggregate::Series { function, .. } => match function {
            SeriesFunction::Rate => Finish::PerSecond,
            SeriesFunction::AvgOverTime(_) => Finish::Mean,
            SeriesFunction::HistogramOverTime(_) => Finish::Buckets,
            SeriesFunction::QuantileOverTime(_, quantiles) => Finish::Quantiles(quantiles.clone()),
            SeriesFunction::CountOverTime
            | SeriesFunction::MinOverTime(_)
            | SeriesFunction::MaxOverTime(_)
            | SeriesFunction::SumOverTime(_) => Finish::AsTheyAre,
        },
    }
}

/// Whether spans can be looked at one by one.
fn is_filter(pipeline: &Pipeline) -> bool {
    pipeline.elements.iter().all(|element| {
        matches!(
            element,
            PipelineElement::Spanset(SpansetExpr::Filter(_)) | PipelineElement::Select(_)
        )
    })
}

/// Whether a sample of a trace's spans would not do.
fn needs_whole_traces(pipeline: &Pipeline) -> bool {
    pipeline.elements.iter().any(|element| match element {
        PipelineElement::Spanset(SpansetExpr::Filter(_)) => false,
        PipelineElement::Spanset(_) | PipelineElement::ScalarFilter(_) => true,
        PipelineElement::GroupBy(_) | PipelineElement::Coalesce | PipelineElement::Select(_) => {
            false
        }
    })
}
