//! From the syntax tree to a plan.

use hashbrown::HashMap;
use tempo_table::{ColumnKey, Intrinsic as Stored, Level};
use tempo_traceql::{
    Attribute, FieldExpr, Query, Static,
    ast::{
        Aggregate, ComparisonOp, LogicalOp, Pipeline, PipelineElement, QueryBody, ScalarExpr,
        SpansetExpr, SpansetOp,
    },
};

use crate::{
    error::PlanError,
    operand::Operand,
    pattern::Patterns,
    plan::{
        Expr, Filter, Function, Loaded, Measured, OperandId, Plan, ScalarNode, ScalarTest,
        SpanExpr, Stage,
    },
    test::Test,
};

impl Plan {
    /// Plans a search, or the spans of a metrics query without arithmetic between sub-queries.
    ///
    /// # Errors
    /// [`PlanError::NotSupported`] for several pipelines at once, and for what never validates.
    pub fn new(query: &Query) -> Result<Self, PlanError> {
        match query.single_pipeline() {
            Some(pipeline) => Self::of_pipeline(pipeline),
            None => Err(PlanError::NotSupported(match query.body {
                QueryBody::Metrics(_) => "math expressions",
                _ => "comparison of pipelines",
            })),
        }
    }

    /// Plans one pipeline.
    pub fn of_pipeline(pipeline: &Pipeline) -> Result<Self, PlanError> {
        let mut planner = Planner::default();
        let stages = planner.stages(pipeline)?;
        Ok(planner.finish(stages))
    }

    /// Plans a pipeline whose spans are measured by `attributes`, and told apart by `selection`.
    pub(crate) fn of_measured(
        pipeline: &Pipeline,
        attributes: &[Attribute],
        selection: Option<&FieldExpr>,
    ) -> Result<Measured, PlanError> {
        let mut planner = Planner::default();
        let stages = planner.stages(pipeline)?;
        planner.in_second_pass = true;
        let mut operands = Vec::with_capacity(attributes.len());
        for attribute in attributes {
            let operand = planner.operand(attribute)?;
            // What the conditions have loaded is not loaded again when all of them hold.
            if planner.has_alternatives || !planner.is_loaded(operand) {
                planner.load(operand, Condition::Any);
            }
            operands.push(operand);
        }
        let has_alternatives = planner.has_alternatives;
        let loaded = std::mem::take(&mut planner.loaded);
        let selection = match selection {
            Some(expr) => {
                planner.load_conditions(expr, false)?;
                Some(planner.filter(expr)?)
            }
            None => None,
        };
        let selection_loaded = std::mem::replace(&mut planner.loaded, loaded);
        planner.has_alternatives = has_alternatives;
        Ok(Measured {
            plan: planner.finish(stages),
            attributes: operands,
            selection,
            selection_loaded,
        })
    }

    /// Plans filters that stand side by side, for whoever evaluates them on his own.
    pub(crate) fn of_filters(exprs: &[FieldExpr]) -> Result<(Self, Vec<Filter>), PlanError> {
        let mut planner = Planner::default();
        let filters = exprs
            .iter()
            .map(|expr| planner.filter(expr))
            .collect::<Result<_, _>>()?;
        Ok((planner.finish(Vec::new()), filters))
    }
}

/// What a filter says of an attribute.
enum Condition {
    /// It is used in some way that needs every value.
    Any,
    Test(Test),
    Missing,
}

#[derive(Default)]
struct Planner {
    operands: Vec<Operand>,
    ids: HashMap<Attribute, OperandId, foldhash::fast::RandomState>,
    loaded: Vec<Loaded>,
    /// `||`, spanset operators, `by()` or aggregates: spans may fail some of the conditions.
    has_alternatives: bool,
    /// Structural operators, which read nested sets.
    has_structure: bool,
    /// Within elements that come after `select()`.
    in_second_pass: bool,
    patterns: Patterns,
}

impl Planner {
    fn finish(self, stages: Vec<Stage>) -> Plan {
        let mut first_pass: Vec<ColumnKey> = Vec::new();
        let mut same_event = !self.has_alternatives;
        for loaded in self.loaded.iter().filter(|loaded| loaded.condition) {
            let operand = &self.operands[loaded.operand];
            same_event &= !operand.is_unscoped();
            first_pass.extend(operand.keys().cloned());
        }
        if self.has_structure {
            first_pass.extend(
                [
                    Stored::NestedSetLeft,
                    Stored::NestedSetRight,
                    Stored::NestedSetParent,
                ]
                .map(ColumnKey::from),
            );
        }
        first_pass.sort();
        first_pass.dedup();
        Plan {
            operands: self.operands,
            stages,
            loaded: self.loaded,
            same_event,
            first_pass,
        }
    }

    fn operand(&mut self, attribute: &Attribute) -> Result<OperandId, PlanError> {
        if let Some(&id) = self.ids.get(attribute) {
            return Ok(id);
        }
        let id = self.operands.len();
        self.operands.push(Operand::new(attribute)?);
        self.ids.insert(attribute.clone(), id);
        Ok(id)
    }

    fn is_loaded(&self, operand: OperandId) -> bool {
        self.loaded.iter().any(|loaded| loaded.operand == operand)
    }

    fn load(&mut self, operand: OperandId, condition: Condition) {
        let first_pass = !self.in_second_pass;
        let loaded = match self.loaded.iter_mut().find(|l| l.operand == operand) {
            Some(loaded) => loaded,
            None => {
                self.loaded.push(Loaded {
                    operand,
                    all: false,
                    tests: Vec::new(),
                    missing: false,
                    condition: false,
                });
                let last = self.loaded.len() - 1;
                &mut self.loaded[last]
            }
        };
        loaded.condition |= first_pass;
        match condition {
            Condition::Any => loaded.all = true,
            Condition::Test(test) => loaded.tests.push(test),
            Condition::Missing => loaded.missing = true,
        }
    }

    fn stages(&mut self, pipeline: &Pipeline) -> Result<Vec<Stage>, PlanError> {
        let mut stages = Vec::with_capacity(pipeline.elements.len() + 1);
        // A pipeline may begin with something else than spans: those are all spans then.
        if !matches!(pipeline.elements.first(), Some(PipelineElement::Spanset(_))) {
            stages.push(Stage::Spans(SpanExpr::Filter(Filter::Const(true))));
        }
        for element in &pipeline.elements {
            stages.push(match element {
                PipelineElement::Spanset(expr) => Stage::Spans(self.span_expr(expr)?),
                PipelineElement::ScalarFilter(filter) => {
                    self.has_alternatives = true;
                    Stage::Scalar(ScalarTest {
                        op: filter.op,
                        lhs: self.scalar(&filter.lhs)?,
                        rhs: self.scalar(&filter.rhs)?,
                    })
                }
                PipelineElement::GroupBy(expr) => {
                    self.has_alternatives = true;
                    self.load_operands(expr)?;
                    Stage::GroupBy {
                        label: element.to_string().into(),
                        expr: self.expr(expr)?,
                    }
                }
                PipelineElement::Coalesce => Stage::Coalesce,
                PipelineElement::Select(attributes) => {
                    self.in_second_pass = true;
                    for attribute in attributes {
                        let operand = self.operand(attribute)?;
                        self.load(operand, Condition::Any);
                    }
                    continue;
                }
            });
        }
        Ok(stages)
    }

    fn span_expr(&mut self, expr: &SpansetExpr) -> Result<SpanExpr, PlanError> {
        Ok(match expr {
            SpansetExpr::Filter(expr) => {
                self.load_conditions(expr, false)?;
                SpanExpr::Filter(self.filter(expr)?)
            }
            SpansetExpr::Operation { op, lhs, rhs } => {
                self.has_alternatives = true;
                self.has_structure |= matches!(op, SpansetOp::Structural(_));
                SpanExpr::Operation {
                    op: *op,
                    lhs: Box::new(self.span_expr(lhs)?),
                    rhs: Box::new(self.span_expr(rhs)?),
                }
            }
            SpansetExpr::Pipeline(pipeline) => SpanExpr::Pipeline(self.stages(pipeline)?),
        })
    }

    fn scalar(&mut self, expr: &ScalarExpr) -> Result<ScalarNode, PlanError> {
        Ok(match expr {
            ScalarExpr::Static(constant) => ScalarNode::Const(constant.clone()),
            ScalarExpr::Aggregate(aggregate) => {
                let operand = match aggregate.operand() {
                    Some(operand) => {
                        self.load_operands(operand)?;
                        Some(self.expr(operand)?)
                    }
                    None => None,
                };
                ScalarNode::Aggregate {
                    function: match aggregate {
                        Aggregate::Count => Function::Count,
                        Aggregate::Min(_) => Function::Min,
                        Aggregate::Max(_) => Function::Max,
                        Aggregate::Sum(_) => Function::Sum,
                        Aggregate::Avg(_) => Function::Avg,
                    },
                    operand,
                    label: aggregate.to_string().into(),
                }
            }
            ScalarExpr::Operation { op, lhs, rhs } => ScalarNode::Operation {
                op: *op,
                lhs: Box::new(self.scalar(lhs)?),
                rhs: Box::new(self.scalar(rhs)?),
            },
            ScalarExpr::Pipeline { .. } => {
                return Err(PlanError::NotSupported("comparison of pipelines"));
            }
        })
    }

    // -----------------------------------------------------------------------------------------
    // What results will show
    // -----------------------------------------------------------------------------------------

    /// Every operand of an expression whose values are needed as they are.
    fn load_operands(&mut self, expr: &FieldExpr) -> Result<(), PlanError> {
        self.load_conditions(expr, true)
    }

    /// The conditions of a filter. `whole`: a value may be wanted although it fails its test.
    fn load_conditions(&mut self, expr: &FieldExpr, whole: bool) -> Result<(), PlanError> {
        match expr {
            FieldExpr::Static(_) => {}
            FieldExpr::Attribute(attribute) => {
                let operand = self.operand(attribute)?;
                self.load(operand, Condition::Any);
            }
            FieldExpr::Negate(operand) | FieldExpr::Not(operand) => {
                self.load_conditions(operand, true)?;
            }
            FieldExpr::Exists(operand) => self.load_conditions(operand, true)?,
            FieldExpr::NotExists(operand) => match &**operand {
                FieldExpr::Attribute(attribute) if !whole => {
                    let operand = self.operand(attribute)?;
                    self.load(operand, Condition::Missing);
                }
                operand => self.load_conditions(operand, true)?,
            },
            FieldExpr::Arithmetic { lhs, rhs, .. } => {
                self.load_conditions(lhs, true)?;
                self.load_conditions(rhs, true)?;
            }
            FieldExpr::Comparison { op, lhs, rhs } => match test_of(*op, lhs, rhs) {
                Some((attribute, op, constant)) if !whole => {
                    let operand = self.operand(attribute)?;
                    let reading = self.operands[operand].reading();
                    let test = Test::compare(reading, op, constant, &mut self.patterns)?;
                    self.load(operand, Condition::Test(test));
                }
                _ => {
                    self.load_conditions(lhs, true)?;
                    self.load_conditions(rhs, true)?;
                }
            },
            FieldExpr::Logical { op, operands } => {
                self.has_alternatives |= *op == LogicalOp::Or;
                for operand in operands {
                    self.load_conditions(operand, whole)?;
                }
            }
            FieldExpr::List {
                op,
                attribute,
                values,
            } => {
                let operand = self.operand(attribute)?;
                let condition = if whole {
                    Condition::Any
                } else {
                    Condition::Test(Test::list(*op, values, &mut self.patterns)?)
                };
                self.load(operand, condition);
            }
        }
        Ok(())
    }

    // -----------------------------------------------------------------------------------------
    // Filters
    // -----------------------------------------------------------------------------------------

    fn filter(&mut self, expr: &FieldExpr) -> Result<Filter, PlanError> {
        Ok(match expr {
            FieldExpr::Static(constant) => Filter::Const(*constant == Static::Bool(true)),
            FieldExpr::Attribute(attribute) => {
                Filter::Test(self.operand(attribute)?, Box::new(Test::is_bool(true)))
            }
            FieldExpr::Not(operand) if is_always_bool(operand) => match self.filter(operand)? {
                Filter::Const(value) => Filter::Const(!value),
                Filter::Not(operand) => *operand,
                operand => Filter::Not(Box::new(operand)),
            },
            FieldExpr::Exists(operand) => match &**operand {
                FieldExpr::Attribute(attribute) => Filter::Exists(self.operand(attribute)?),
                _ => self.row_filter(expr)?,
            },
            FieldExpr::NotExists(operand) => match &**operand {
                FieldExpr::Attribute(attribute) => Filter::Missing(self.operand(attribute)?),
                _ => self.row_filter(expr)?,
            },
            FieldExpr::Comparison { op, lhs, rhs } => match test_of(*op, lhs, rhs) {
                Some((attribute, op, constant)) => {
                    let operand = self.operand(attribute)?;
                    let reading = self.operands[operand].reading();
                    let test = Test::compare(reading, op, constant, &mut self.patterns)?;
                    Filter::Test(operand, Box::new(test))
                }
                None => self.row_filter(expr)?,
            },
            FieldExpr::Logical { op, operands } => {
                let mut filters = Vec::with_capacity(operands.len());
                for operand in operands {
                    match (op, self.filter(operand)?) {
                        (LogicalOp::And, Filter::Const(true))
                        | (LogicalOp::Or, Filter::Const(false)) => {}
                        (LogicalOp::And, Filter::All(more))
                        | (LogicalOp::Or, Filter::Any(more)) => {
                            filters.extend(more);
                        }
                        (_, filter) => filters.push(filter),
                    }
                }
                let decided = *op == LogicalOp::Or;
                if filters
                    .iter()
                    .any(|filter| matches!(filter, Filter::Const(value) if *value == decided))
                {
                    return Ok(Filter::Const(decided));
                }
                // Stable: what costs the same runs in the order in which it is written, and what
                // can fail runs last, on what the others left.
                filters.sort_by_key(|filter| self.cost(filter));
                match (op, filters.len()) {
                    (_, 0) => Filter::Const(!decided),
                    (_, 1) => filters.swap_remove(0),
                    (LogicalOp::And, _) => Filter::All(filters),
                    (LogicalOp::Or, _) => Filter::Any(filters),
                }
            }
            FieldExpr::List {
                op,
                attribute,
                values,
            } => Filter::Test(
                self.operand(attribute)?,
                Box::new(Test::list(*op, values, &mut self.patterns)?),
            ),
            FieldExpr::Not(_) | FieldExpr::Negate(_) | FieldExpr::Arithmetic { .. } => {
                self.row_filter(expr)?
            }
        })
    }

    /// How dear a filter is, in no unit: levels with few rows first, row by row last.
    fn cost(&self, filter: &Filter) -> u32 {
        let operand = |id: &OperandId| {
            let operand = &self.operands[*id];
            match operand.level() {
                _ if operand.is_unscoped() => 60,
                Level::Trace => 1,
                Level::Resource => 5,
                Level::Scope => 6,
                Level::Span if matches!(operand.attribute, Attribute::Intrinsic(_)) => 20,
                Level::Span => 40,
                Level::Event | Level::Link => 50,
            }
        };
        match filter {
            Filter::Const(_) => 0,
            Filter::Test(id, test) => operand(id) + u32::from(test.is_pattern()),
            Filter::Exists(id) | Filter::Missing(id) => operand(id),
            Filter::All(filters) | Filter::Any(filters) => {
                filters.iter().map(|filter| self.cost(filter)).sum()
            }
            Filter::Not(filter) => self.cost(filter),
            Filter::Rows { .. } => 1_000_000,
        }
    }

    fn row_filter(&mut self, expr: &FieldExpr) -> Result<Filter, PlanError> {
        let mut required = Vec::new();
        self.required(expr, &mut required)?;
        required.sort_unstable();
        required.dedup();
        Ok(Filter::Rows {
            expr: self.expr(expr)?,
            required,
        })
    }

    /// Operands without which the expression cannot be true.
    fn required(
        &mut self,
        expr: &FieldExpr,
        required: &mut Vec<OperandId>,
    ) -> Result<(), PlanError> {
        match expr {
            FieldExpr::Attribute(attribute) => required.push(self.operand(attribute)?),
            FieldExpr::Negate(operand) | FieldExpr::Not(operand) if !is_always_bool(operand) => {
                self.required(operand, required)?;
            }
            FieldExpr::Exists(operand) => self.required(operand, required)?,
            FieldExpr::Arithmetic { lhs, rhs, .. } | FieldExpr::Comparison { lhs, rhs, .. } => {
                for side in [lhs, rhs] {
                    if !is_always_bool(side) {
                        self.required(side, required)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    // -----------------------------------------------------------------------------------------
    // Row by row
    // -----------------------------------------------------------------------------------------

    fn expr(&mut self, expr: &FieldExpr) -> Result<Expr, PlanError> {
        Ok(match expr {
            FieldExpr::Static(constant) => Expr::Const(constant.clone()),
            FieldExpr::Attribute(attribute) => Expr::Operand(self.operand(attribute)?),
            FieldExpr::Negate(operand) => Expr::Negate {
                operand: Box::new(self.expr(operand)?),
                text: expr.to_string().into(),
            },
            FieldExpr::Not(operand) => Expr::Not {
                operand: Box::new(self.expr(operand)?),
                text: expr.to_string().into(),
            },
            FieldExpr::Exists(operand) => Expr::Exists(Box::new(self.expr(operand)?)),
            FieldExpr::NotExists(operand) => Expr::Missing(Box::new(self.expr(operand)?)),
            FieldExpr::Arithmetic { op, lhs, rhs } => Expr::Arithmetic {
                op: *op,
                lhs: Box::new(self.expr(lhs)?),
                rhs: Box::new(self.expr(rhs)?),
            },
            FieldExpr::Comparison { op, lhs, rhs } => match (op, &**rhs) {
                (
                    ComparisonOp::Regex | ComparisonOp::NotRegex,
                    FieldExpr::Static(Static::String(pattern)),
                ) => Expr::Matches {
                    negated: *op == ComparisonOp::NotRegex,
                    lhs: Box::new(self.expr(lhs)?),
                    pattern: self.patterns.get(pattern)?,
                },
                _ => match test_of(*op, lhs, rhs) {
                    Some((attribute, op, constant)) => {
                        let operand = self.operand(attribute)?;
                        let reading = self.operands[operand].reading();
                        Expr::Test {
                            operand,
                            test: Box::new(Test::compare(
                                reading,
                                op,
                                constant,
                                &mut self.patterns,
                            )?),
                        }
                    }
                    None => Expr::Compare {
                        op: *op,
                        lhs: Box::new(self.expr(lhs)?),
                        rhs: Box::new(self.expr(rhs)?),
                    },
                },
            },
            FieldExpr::Logical { op, operands } => {
                let operands = operands
                    .iter()
                    .map(|operand| self.expr(operand))
                    .collect::<Result<_, _>>()?;
                match op {
                    LogicalOp::And => Expr::All(operands),
                    LogicalOp::Or => Expr::Any(operands),
                }
            }
            FieldExpr::List {
                op,
                attribute,
                values,
            } => Expr::Test {
                operand: self.operand(attribute)?,
                test: Box::new(Test::list(*op, values, &mut self.patterns)?),
            },
        })
    }
}

/// The attribute, the operator and the constant of a comparison between the two, with the
/// attribute on the left.
fn test_of<'a>(
    op: ComparisonOp,
    lhs: &'a FieldExpr,
    rhs: &'a FieldExpr,
) -> Option<(&'a Attribute, ComparisonOp, &'a Static)> {
    match (lhs, rhs) {
        (FieldExpr::Attribute(attribute), FieldExpr::Static(constant)) => {
            Some((attribute, op, constant))
        }
        (FieldExpr::Static(constant), FieldExpr::Attribute(attribute)) => {
            Some((attribute, op.flipped()?, constant))
        }
        _ => None,
    }
}

/// Whether the expression is a boolean for every span; others may be nil or of another type.
fn is_always_bool(expr: &FieldExpr) -> bool {
    match expr {
        FieldExpr::Static(constant) => matches!(constant, Static::Bool(_)),
        FieldExpr::Exists(_)
        | FieldExpr::NotExists(_)
        | FieldExpr::Comparison { .. }
        | FieldExpr::Logical { .. }
        | FieldExpr::List { .. } => true,
        FieldExpr::Not(operand) => is_always_bool(operand),
        FieldExpr::Attribute(_) | FieldExpr::Negate(_) | FieldExpr::Arithmetic { .. } => false,
    }
}
