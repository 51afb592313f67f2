//! Pipelines: sets of spans in, sets of spans out, one trace at a time.

use std::collections::BTreeSet;

use tempo_traceql::{
    Attribute, FieldExpr, Query, Static,
    ast::{
        Aggregate, ArithmeticOp, ComparisonOp, LogicalOp, Pipeline, PipelineElement, Relation,
        ScalarExpr, ScalarFilter, SpansetExpr, SpansetOp, StructuralForm, StructuralOp,
    },
};

use super::{
    Failure, Spans, TraceData, Value,
    filter::{Looked, Many, attribute_and_constant, is_unscoped, many},
    value::{arithmetic, compare},
};

/// Some spans of a trace, and what was computed of them.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanSet {
    /// Which spans.
    pub spans: Spans,
    /// Values of `by(…)` and of aggregates, by their texts.
    pub labels: Vec<(String, Value)>,
}

impl SpanSet {
    fn label(&mut self, text: String, value: Value) {
        self.labels.retain(|(known, _)| *known != text);
        self.labels.push((text, value));
    }
}

/// What holds for a whole query: whether conditions on events must all be met by one event, and
/// which conditions those are.
pub(super) struct Rules<'a> {
    /// Conditions on events and links; nothing when they need not hold together.
    joint: Vec<Demand<'a>>,
}

/// What a filter wants of one event or link.
enum Demand<'a> {
    Meets(&'a Attribute, ComparisonOp, &'a Static),
    Exists(&'a Attribute),
    Missing(&'a Attribute),
}

impl<'a> Rules<'a> {
    pub(super) fn new(pipeline: &'a Pipeline) -> Self {
        let mut gathered = Gathered::default();
        gathered.pipeline(pipeline, false);
        if gathered.has_alternatives || gathered.has_unscoped {
            gathered.demands.clear();
        }
        Self {
            joint: gathered.demands,
        }
    }

    /// Whether an event or link of a span counts.
    pub(super) fn counts(&self, trace: &TraceData, span: usize, of: Many, at: usize) -> bool {
        let demands: Vec<&Demand<'_>> = self
            .joint
            .iter()
            .filter(|demand| many(demand.attribute()) == Some(of))
            .collect();
        let attributes: BTreeSet<&Attribute> =
            demands.iter().map(|demand| demand.attribute()).collect();
        let tests = demands
            .iter()
            .filter(|demand| matches!(demand, Demand::Meets(..)));
        // One condition is met by whichever event meets it. That a value is used in some way is
        // none beside another of the same attribute.
        (attributes.len() < 2 && tests.count() < 2)
            || demands.iter().all(|demand| {
                let values = trace.values(span, demand.attribute());
                let value = values.get(at).unwrap_or(&Value::Nil);
                match demand {
                    Demand::Exists(_) => !value.is_nil(),
                    Demand::Missing(_) => value.is_nil(),
                    Demand::Meets(_, op, constant) => {
                        compare(*op, value, &Value::of_static(constant)).unwrap_or(false)
                    }
                }
            })
    }
}

impl<'a> Demand<'a> {
    fn attribute(&self) -> &'a Attribute {
        match self {
            Self::Meets(attribute, ..) | Self::Exists(attribute) | Self::Missing(attribute) => {
                attribute
            }
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exists(one), Self::Exists(other))
            | (Self::Missing(one), Self::Missing(other)) => one == other,
            _ => false,
        }
    }
}

#[derive(Default)]
struct Gathered<'a> {
    demands: Vec<Demand<'a>>,
    has_alternatives: bool,
    has_unscoped: bool,
}

impl<'a> Gathered<'a> {
    fn demand(&mut self, demand: Demand<'a>) {
        self.has_unscoped |= is_unscoped(demand.attribute());
        if !self.demands.iter().any(|known| known.is_same(&demand)) {
            self.demands.push(demand);
        }
    }

    /// `is_later`: after a `select()`, where attributes are only shown.
    fn pipeline(&mut self, pipeline: &'a Pipeline, mut is_later: bool) {
        for element in &pipeline.elements {
            match element {
                PipelineElement::Spanset(expr) => self.spanset(expr, is_later),
                PipelineElement::ScalarFilter(_) | PipelineElement::GroupBy(_) => {
                    self.has_alternatives = true;
                }
                PipelineElement::Select(_) => is_later = true,
                PipelineElement::Coalesce => {}
            }
        }
    }

    fn spanset(&mut self, expr: &'a SpansetExpr, is_later: bool) {
        match expr {
            SpansetExpr::Filter(expr) if !is_later => self.filter(expr, false),
            SpansetExpr::Filter(_) => {}
            SpansetExpr::Operation { lhs, rhs, .. } => {
                self.has_alternatives = true;
                self.spanset(lhs, is_later);
                self.spanset(rhs, is_later);
            }
            SpansetExpr::Pipeline(pipeline) => self.pipeline(pipeline, is_later),
        }
    }

    /// `whole`: the value is wanted whether it meets a condition or not.
    fn filter(&mut self, expr: &'a FieldExpr, whole: bool) {
        match expr {
            FieldExpr::Static(_) => {}
            FieldExpr::Attribute(attribute) => self.demand(Demand::Exists(attribute)),
            FieldExpr::Negate(operand) | FieldExpr::Not(operand) | FieldExpr::Exists(operand) => {
                self.filter(operand, true);
            }
            FieldExpr::NotExists(operand) => match &**operand {
                FieldExpr::Attribute(attribute) if !whole => {
                    self.demand(Demand::Missing(attribute));
                }
                operand => self.filter(operand, true),
            },
            FieldExpr::Arithmetic { lhs, rhs, .. } => {
                self.filter(lhs, true);
                self.filter(rhs, true);
            }
            FieldExpr::Comparison { op, lhs, rhs } => match attribute_and_constant(*op, lhs, rhs) {
                Some((attribute, op, constant)) if !whole => {
                    self.demand(Demand::Meets(attribute, op, constant));
                }
                _ => {
                    self.filter(lhs, true);
                    self.filter(rhs, true);
                }
            },
            FieldExpr::Logical { op, operands } => {
                self.has_alternatives |= *op == LogicalOp::Or;
                operands
                    .iter()
                    .for_each(|operand| self.filter(operand, whole));
            }
            FieldExpr::List { .. } => panic!("the query is parsed without rewrites"),
        }
    }
}

/// The sets that a search finds in a trace; none when it is no result.
///
/// # Errors
/// When the query fails on some span, whether or not a cleverer evaluation would look at that span.
pub fn search(query: &Query, trace: &TraceData) -> Result<Vec<SpanSet>, Failure> {
    let pipeline = query.single_pipeline().expect("a search");
    run(pipeline, trace)
}

/// The sets that a whole pipeline finds in a trace.
pub(super) fn run(pipeline: &Pipeline, trace: &TraceData) -> Result<Vec<SpanSet>, Failure> {
    let rules = Rules::new(pipeline);
    let evaluation = Evaluation {
        trace,
        rules: &rules,
    };
    let all = SpanSet {
        spans: trace.all(),
        labels: Vec::new(),
    };
    evaluation.pipeline(pipeline, vec![all])
}

struct Evaluation<'a> {
    trace: &'a TraceData,
    rules: &'a Rules<'a>,
}

impl Evaluation<'_> {
    fn look(&self, span: usize) -> Looked<'_> {
        Looked {
            trace: self.trace,
            span,
            rules: self.rules,
            is_negated: false,
        }
    }

    fn pipeline(
        &self,
        pipeline: &Pipeline,
        mut sets: Vec<SpanSet>,
    ) -> Result<Vec<SpanSet>, Failure> {
        for element in &pipeline.elements {
            let mut next = Vec::new();
            for set in sets {
                match element {
                    PipelineElement::Spanset(expr) => next.push(SpanSet {
                        spans: self.spanset(expr, &set.spans)?,
                        labels: set.labels,
                    }),
                    PipelineElement::ScalarFilter(filter) => {
                        next.extend(self.scalar_filter(filter, set)?);
                    }
                    PipelineElement::GroupBy(expr) => {
                        next.extend(self.groups(expr, &element.to_string(), &set)?);
                    }
                    PipelineElement::Select(_) | PipelineElement::Coalesce => next.push(set),
                }
            }
            if *element == PipelineElement::Coalesce {
                let spans: BTreeSet<usize> = next.into_iter().flat_map(|set| set.spans).collect();
                next = vec![SpanSet {
                    spans: spans.into_iter().collect(),
                    labels: Vec::new(),
                }];
            }
            next.retain(|set| !set.spans.is_empty());
            sets = next;
        }
        Ok(sets)
    }

    fn spanset(&self, expr: &SpansetExpr, input: &Spans) -> Result<Spans, Failure> {
        match expr {
            SpansetExpr::Filter(expr) => {
                let mut kept = Spans::new();
                for &span in input {
                    if self.look(span).holds(expr)? {
                        kept.push(span);
                    }
                }
                Ok(kept)
            }
            SpansetExpr::Pipeline(pipeline) => {
                let input = SpanSet {
                    spans: input.clone(),
                    labels: Vec::new(),
                };
                let mut sets = self.pipeline(pipeline, vec![input])?;
                match sets.len() {
                    0 | 1 => Ok(sets.pop().map(|set| set.spans).unwrap_or_default()),
                    _ => Err(Failure::of("several sets are no operand")),
                }
            }
            SpansetExpr::Operation { op, lhs, rhs } => {
                let is_whole = matches!(
                    &**rhs,
                    SpansetExpr::Filter(FieldExpr::Static(Static::Bool(true)))
                );
                let (lhs, rhs) = (self.spanset(lhs, input)?, self.spanset(rhs, input)?);
                Ok(match op {
                    SpansetOp::And if lhs.is_empty() || rhs.is_empty() => Spans::new(),
                    SpansetOp::And | SpansetOp::Or => {
                        let both: BTreeSet<usize> = lhs.into_iter().chain(rhs).collect();
                        both.into_iter().collect()
                    }
                    SpansetOp::Structural(op) => self.structural(*op, &lhs, &rhs, is_whole),
                })
            }
        }
    }

    fn structural(&self, op: StructuralOp, lhs: &Spans, rhs: &Spans, is_whole: bool) -> Spans {
        let trace = self.trace;
        let related = |left: usize, right: usize| match op.relation {
            Relation::Child => trace.is_child(right, left),
            Relation::Parent => trace.is_child(left, right),
            Relation::Descendant => trace.is_descendant(right, left),
            Relation::Ancestor => trace.is_descendant(left, right),
            Relation::Sibling => trace.are_siblings(left, right),
        };
        let has_left = |right: usize| lhs.iter().any(|&left| related(left, right));
        let has_right = |left: usize| rhs.iter().any(|&right| related(left, right));
        match op.form {
            StructuralForm::Matching => rhs
                .iter()
                .copied()
                .filter(|&right| has_left(right))
                .collect(),
            StructuralForm::Negated => rhs
                .iter()
                .copied()
                .filter(|&right| !has_left(right))
                // Spans to which no root leads are not seen by a filter that takes all.
                .filter(|&right| !is_whole || trace.is_connected(right))
                .collect(),
            StructuralForm::Union => {
                let right = rhs.iter().copied().filter(|&right| has_left(right));
                let left = lhs.iter().copied().filter(|&left| has_right(left));
                let both: BTreeSet<usize> = right.chain(left).collect();
                both.into_iter().collect()
            }
        }
    }

    fn groups(&self, expr: &FieldExpr, text: &str, set: &SpanSet) -> Result<Vec<SpanSet>, Failure> {
        let mut groups: Vec<(String, SpanSet)> = Vec::new();
        for &span in &set.spans {
            let value = self.look(span).evaluate(expr)?;
            let printed = value.print();
            match groups.iter_mut().find(|(known, _)| *known == printed) {
                Some((_, group)) => group.spans.push(span),
                None => {
                    let mut group = SpanSet {
                        spans: vec![span],
                        labels: set.labels.clone(),
                    };
                    group.label(text.to_owned(), value);
                    groups.push((printed, group));
                }
            }
        }
        Ok(groups.into_iter().map(|(_, group)| group).collect())
    }

    fn scalar_filter(
        &self,
        filter: &ScalarFilter,
        mut set: SpanSet,
    ) -> Result<Option<SpanSet>, Failure> {
        let lhs = self.scalar(&filter.lhs, &mut set)?;
        let rhs = self.scalar(&filter.rhs, &mut set)?;
        Ok(compare(filter.op, &lhs, &rhs)?.then_some(set))
    }

    fn scalar(&self, expr: &ScalarExpr, set: &mut SpanSet) -> Result<Value, Failure> {
        Ok(match expr {
            ScalarExpr::Static(constant) => Value::of_static(constant),
            ScalarExpr::Aggregate(aggregate) => {
                let value = self.aggregate(aggregate, &set.spans)?;
                set.label(aggregate.to_string(), value.clone());
                value
            }
            ScalarExpr::Operation { op, lhs, rhs } => {
                match (self.scalar(lhs, set)?, self.scalar(rhs, set)?) {
                    // Without a number there is no result.
                    (Value::Nil, _) | (_, Value::Nil) => Value::Nil,
                    (lhs, rhs) => arithmetic(*op, &lhs, &rhs)?,
                }
            }
            ScalarExpr::Pipeline { .. } => panic!("never validates"),
        })
    }

    /// Of the numbers that spans have; of none there is no aggregate.
    fn aggregate(&self, aggregate: &Aggregate, spans: &Spans) -> Result<Value, Failure> {
        let Some(operand) = aggregate.operand() else {
            return Ok(Value::Int(spans.len() as i64));
        };
        let mut numbers = Vec::new();
        for &span in spans {
            let value = self.look(span).evaluate(operand)?;
            if value.number().is_some() {
                numbers.push(value);
            }
        }
        let Some(first) = numbers.first().cloned() else {
            return Ok(Value::Nil);
        };
        let extreme = |op: ComparisonOp| -> Result<Value, Failure> {
            let mut best = first.clone();
            for number in &numbers {
                if compare(op, number, &best)? {
                    best = number.clone();
                }
            }
            Ok(best)
        };
        // The first one decides the type; others do not count.
        let alike = || {
            numbers
                .iter()
                .filter(|number| std::mem::discriminant(*number) == std::mem::discriminant(&first))
        };
        let sum = || -> Result<Value, Failure> {
            let mut sum: Option<Value> = None;
            for number in alike() {
                sum = Some(match (sum, number) {
                    (None, number) => number.clone(),
                    (Some(Value::Duration(sum)), Value::Duration(nanos)) => {
                        Value::Duration(sum.wrapping_add(*nanos))
                    }
                    (Some(sum), number) => arithmetic(ArithmeticOp::Add, &sum, number)?,
                });
            }
            Ok(sum.unwrap_or(Value::Nil))
        };
        Ok(match aggregate {
            Aggregate::Count => panic!("has no operand"),
            Aggregate::Min(_) => extreme(ComparisonOp::Less)?,
            Aggregate::Max(_) => extreme(ComparisonOp::Greater)?,
            Aggregate::Sum(_) => sum()?,
            Aggregate::Avg(_) => match sum()? {
                Value::Duration(nanos) => Value::Duration(nanos / alike().count() as i64),
                sum => {
                    let sum = sum.number().expect("a number");
                    Value::Float(sum / alike().count() as f64)
                }
            },
        })
    }
}
