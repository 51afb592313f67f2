//! How much a job counts when tenants take turns: a tenant with heavy jobs gets fewer of them done
//! than one with light ones.

use tempo_traceql::{
    Query,
    ast::{
        ComparisonOp, FieldExpr, ListOp, LogicalOp, MetricsAggregate, Pipeline, PipelineElement,
        QueryBody, ScalarExpr, SpansetExpr, SpansetOp,
    },
};

use crate::config::WeightsConfig;

/// Of a job for tag names or values.
const TAGS: u32 = 1;
/// Of a job for a trace by id.
const TRACE_BY_ID: u32 = 2;
/// However heavy a query is, its jobs have their turn.
const MAX_WEIGHT: u32 = 16;

/// What kinds of jobs weigh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weighed<'a> {
    Tags,
    TraceById,
    Query(&'a QueryShape),
}

/// What of a query makes it heavy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct QueryShape {
    conditions: u32,
    regex_conditions: u32,
    has_or: bool,
    reads_all_attributes: bool,
    sub_queries: u32,
    sub_queries_of_whole_traces: u32,
}

/// The weight of every job of a request; at least 1.
pub(crate) fn weight(of: Weighed<'_>, config: &WeightsConfig) -> u32 {
    if !config.request_with_weights {
        return 1;
    }
    let shape = match of {
        Weighed::Tags => return TAGS,
        Weighed::TraceById => return TRACE_BY_ID,
        Weighed::Query(shape) => shape,
    };
    let is_complex = shape.regex_conditions >= config.max_regex_conditions
        || shape.conditions >= config.max_traceql_conditions;
    let weight = 1
        + u32::from(is_complex)
        + u32::from(shape.has_or)
        + u32::from(shape.reads_all_attributes)
        + shape.sub_queries.saturating_sub(1)
        + shape.sub_queries_of_whole_traces;
    weight.min(MAX_WEIGHT)
}

impl QueryShape {
    pub(crate) fn of(query: &Query) -> Self {
        let mut shape = Self::default();
        match &query.body {
            QueryBody::Search(pipeline) => {
                shape.sub_queries = 1;
                let whole = shape.pipeline(pipeline);
                shape.sub_queries_of_whole_traces = u32::from(whole);
            }
            QueryBody::Metrics(metrics) => {
                for leaf in metrics.leaves() {
                    let mut whole = shape.pipeline(&leaf.pipeline);
                    if let MetricsAggregate::Compare(compare) = &leaf.aggregate {
                        shape.field(&compare.selection);
                        shape.reads_all_attributes = true;
                        whole = true;
                    }
                    shape.sub_queries += 1;
                    shape.sub_queries_of_whole_traces += u32::from(whole);
                }
            }
            // Never runs.
            QueryBody::ScalarPipelines(_) => {}
        }
        shape
    }

    /// True if spans cannot be looked at one by one.
    fn pipeline(&mut self, pipeline: &Pipeline) -> bool {
        let mut whole = false;
        for element in &pipeline.elements {
            match element {
                PipelineElement::Spanset(spanset) => whole |= self.spanset(spanset),
                PipelineElement::ScalarFilter(filter) => {
                    self.scalar(&filter.lhs);
                    self.scalar(&filter.rhs);
                    self.conditions += 1;
                    whole = true;
                }
                PipelineElement::GroupBy(field) => self.field(field),
                PipelineElement::Coalesce | PipelineElement::Select(_) => {}
            }
        }
        whole
    }

    fn spanset(&mut self, spanset: &SpansetExpr) -> bool {
        match spanset {
            SpansetExpr::Filter(field) => {
                self.field(field);
                false
            }
            SpansetExpr::Operation { op, lhs, rhs } => {
                let lhs = self.spanset(lhs);
                let rhs = self.spanset(rhs);
                self.has_or |= *op == SpansetOp::Or;
                lhs || rhs || matches!(op, SpansetOp::Structural(_))
            }
            SpansetExpr::Pipeline(pipeline) => self.pipeline(pipeline),
        }
    }

    fn scalar(&mut self, scalar: &ScalarExpr) {
        match scalar {
            ScalarExpr::Static(_) => {}
            ScalarExpr::Aggregate(aggregate) => {
                if let Some(operand) = aggregate.operand() {
                    self.field(operand);
                }
            }
            ScalarExpr::Operation { lhs, rhs, .. } => {
                self.scalar(lhs);
                self.scalar(rhs);
            }
            ScalarExpr::Pipeline { pipeline, .. } => {
                self.pipeline(pipeline);
            }
        }
    }

    fn field(&mut self, field: &FieldExpr) {
        match field {
            FieldExpr::Static(_) | FieldExpr::Attribute(_) => {}
            FieldExpr::Negate(operand) | FieldExpr::Not(operand) => self.field(operand),
            FieldExpr::Exists(operand) | FieldExpr::NotExists(operand) => {
                self.conditions += 1;
                self.field(operand);
            }
            FieldExpr::Arithmetic { lhs, rhs, .. } => {
                self.field(lhs);
                self.field(rhs);
            }
            FieldExpr::Comparison { op, lhs, rhs } => {
                self.conditions += 1;
                let is_regex = matches!(op, ComparisonOp::Regex | ComparisonOp::NotRegex);
                self.regex_conditions += u32::from(is_regex);
                self.field(lhs);
                self.field(rhs);
            }
            FieldExpr::Logical { op, operands } => {
                self.has_or |= *op == LogicalOp::Or;
                operands.iter().for_each(|operand| self.field(operand));
            }
            FieldExpr::List { op, .. } => {
                self.conditions += 1;
                let is_regex = matches!(op, ListOp::MatchAny | ListOp::MatchNone);
                self.regex_conditions += u32::from(is_regex);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> u32 {
        let query = tempo_traceql::parse_without_rewrites(text).unwrap();
        let shape = QueryShape::of(&query);
        weight(Weighed::Query(&shape), &WeightsConfig::default())
    }

    #[test]
    fn what_takes_more_work_weighs_more() {
        for (text, want) in [
            ("{ }", 1),
            ("{ .a = 1 && .b = 2 && .c = 3 }", 1),
            ("{ .a = 1 && .b = 2 && .c = 3 && .d = 4 }", 2),
            ("{ .a =~ `x.*` }", 2),
            ("{ .a =~ `x.*` && .b = 2 && .c = 3 && .d = 4 }", 2),
            ("{ .a = 1 || .b = 2 }", 2),
            ("{ .a = 1 } || { .b = 2 }", 2),
            ("{ .a = 1 } && { .b = 2 }", 1),
            ("{ .a = 1 } >> { .b = 2 }", 2),
            ("{ .a = 1 } | count() > 2", 2),
            ("{ .a =~ `x` || .b = 2 } >> { }", 4),
            ("{ } | rate() by (name)", 1),
            ("{ } | compare({ status = error })", 3),
            ("({ } | rate()) / ({ .a = 1 } | rate())", 2),
            ("({ } >> { } | rate()) / ({ .a !~ `x` } | rate())", 4),
        ] {
            assert_eq!(of(text), want, "{text}");
        }
    }

    #[test]
    fn other_jobs_have_fixed_weights_and_all_weigh_the_same_when_that_is_set() {
        let config = WeightsConfig::default();
        assert_eq!(weight(Weighed::Tags, &config), 1);
        assert_eq!(weight(Weighed::TraceById, &config), 2);
        let alike = WeightsConfig {
            request_with_weights: false,
            ..config
        };
        let heavy = QueryShape {
            sub_queries: 1_000,
            ..QueryShape::default()
        };
        assert_eq!(weight(Weighed::TraceById, &alike), 1);
        assert_eq!(weight(Weighed::Query(&heavy), &alike), 1);
        assert_eq!(weight(Weighed::Query(&heavy), &config), MAX_WEIGHT);
    }
}
