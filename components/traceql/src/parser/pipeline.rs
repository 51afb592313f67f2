//! Pipelines, and the expressions between spansets, scalars and series.
//!
//! These all look alike until a deciding token comes: `(` may open a spanset, a pipeline, a
//! scalar, a constant or a metrics query. One precedence climber ([`Parser::expression`]) reads
//! them all; each operand has a kind ([`Item`]), the kind says which operators may follow, and
//! [`Allowed`] says which kinds the surroundings can use.

use super::field::{arithmetic, comparison};
use super::item::{
    Allowed, Item, LOGIC, LOOSEST, Node, Op, POWER, PRODUCT, STRUCTURE, SUM, allowed_right,
    scalar_operation, spanset_operation, spanset_operator, tightest,
};
use super::{Parser, Result};
use crate::ast::{
    Aggregate, ArithmeticOp, ComparisonOp, MetricsAggregate, MetricsExpr, MetricsLeaf,
    MetricsSource, Pipeline, PipelineElement, QueryBody, ScalarExpr, ScalarFilter, SecondStage,
    SpansetExpr, SpansetOp, Static,
};
use crate::constant;
use crate::token::{Symbol, Token};

impl Parser<'_> {
    /// The whole query but its hints.
    pub(super) fn root(&mut self) -> Result<QueryBody> {
        if matches!(self.peek_symbol()?, Some(Symbol::By | Symbol::Select)) {
            let element = self.element()?;
            return self.root_pipeline(element);
        }
        let (item, height) = self.expression(Allowed::ROOT)?;
        match item {
            Item::Spanset(expr) => self.root_pipeline((PipelineElement::Spanset(expr), height)),
            Item::Scalar(_) | Item::Constant(_) => {
                let filter = self.scalar_filter((item, height))?;
                self.root_pipeline(filter)
            }
            Item::PipelineExpr(SpansetExpr::Pipeline(pipeline)) => Ok(QueryBody::Search(pipeline)),
            Item::PipelineExpr(expr) => Ok(QueryBody::Search(Pipeline {
                elements: vec![PipelineElement::Spanset(expr)],
            })),
            Item::ScalarPipeline(lhs) => {
                let op = self.scalar_comparison()?;
                let (rhs, _) = self.expression(Allowed {
                    constant: true,
                    ..Allowed::SCALAR_PIPELINE
                })?;
                let rhs = match rhs {
                    Item::ScalarPipeline(rhs) => rhs,
                    Item::Constant(value) => ScalarExpr::Static(value),
                    _ => return Err(self.unexpected(&[])),
                };
                Ok(QueryBody::ScalarPipelines(ScalarFilter { op, lhs, rhs }))
            }
            Item::Metrics(mut metrics) => {
                self.second_stages(&mut metrics.stages)?;
                Ok(QueryBody::Metrics(metrics))
            }
        }
    }

    /// What follows the first element of an unparenthesised pipeline.
    fn root_pipeline(&mut self, first: (PipelineElement, usize)) -> Result<QueryBody> {
        let mut elements = vec![first.0];
        while self.take_if(Symbol::Pipe)? {
            if let Some(aggregate) = self.maybe_metrics_aggregate()? {
                let pipeline = Pipeline { elements };
                let metrics = self.metrics_leaf(pipeline, aggregate)?;
                return Ok(QueryBody::Metrics(metrics));
            }
            elements.push(self.element()?.0);
        }
        Ok(QueryBody::Search(Pipeline { elements }))
    }

    fn metrics_leaf(
        &mut self,
        pipeline: Pipeline,
        aggregate: MetricsAggregate,
    ) -> Result<MetricsExpr> {
        let mut stages = Vec::new();
        self.second_stages(&mut stages)?;
        Ok(MetricsExpr {
            source: MetricsSource::Leaf(MetricsLeaf {
                pipeline,
                aggregate,
            }),
            stages,
        })
    }

    /// An element of a pipeline, metrics aside.
    fn element(&mut self) -> Result<(PipelineElement, usize)> {
        match self.peek_symbol()? {
            Some(Symbol::By) => {
                self.take()?;
                self.expect(Symbol::OpenParens)?;
                let (expr, height) = self.field()?;
                if !self.take_if(Symbol::CloseParens)? {
                    return Err(self.unexpected(&[]));
                }
                Ok((PipelineElement::GroupBy(expr), height))
            }
            Some(Symbol::Select) => {
                self.take()?;
                self.expect(Symbol::OpenParens)?;
                let attributes = self.attribute_list()?;
                Ok((PipelineElement::Select(attributes), 1))
            }
            Some(Symbol::Coalesce) => {
                self.take()?;
                self.expect(Symbol::OpenParens)?;
                self.expect(Symbol::CloseParens)?;
                Ok((PipelineElement::Coalesce, 1))
            }
            _ => {
                let (item, height) = self.expression(Allowed::ELEMENT)?;
                self.element_of(item, height)
            }
        }
    }

    fn element_of(&mut self, item: Item, height: usize) -> Result<(PipelineElement, usize)> {
        match item {
            Item::Spanset(expr) => Ok((PipelineElement::Spanset(expr), height)),
            item => self.scalar_filter((item, height)),
        }
    }

    fn scalar_comparison(&mut self) -> Result<ComparisonOp> {
        match self.peek_symbol()?.and_then(comparison) {
            Some(op) => {
                self.take()?;
                Ok(op)
            }
            None => Err(self.unexpected(&[])),
        }
    }

    /// `lhs > …`, with an aggregate on either side.
    fn scalar_filter(&mut self, (lhs, lhs_height): Node) -> Result<(PipelineElement, usize)> {
        let op = self.scalar_comparison()?;
        let (rhs, rhs_height) = self.expression(Allowed::SCALAR)?;
        let (lhs, rhs) = match (lhs, rhs) {
            (Item::Scalar(lhs), Item::Scalar(rhs)) => (lhs, rhs),
            (Item::Scalar(lhs), Item::Constant(rhs)) => (lhs, ScalarExpr::Static(rhs)),
            (Item::Constant(lhs), Item::Scalar(rhs)) => (ScalarExpr::Static(lhs), rhs),
            _ => return Err(self.unexpected(&[])),
        };
        let height = self.above([lhs_height, rhs_height])?;
        Ok((
            PipelineElement::ScalarFilter(ScalarFilter { op, lhs, rhs }),
            height,
        ))
    }

    /// An expression of one of the allowed kinds.
    pub(super) fn expression(&mut self, allowed: Allowed) -> Result<Node> {
        self.expression_above(LOOSEST, allowed)
    }

    /// An expression whose operators bind at least as tightly as `loosest`.
    fn expression_above(&mut self, loosest: u8, allowed: Allowed) -> Result<Node> {
        self.nested(|parser| {
            let operand = parser.operand(allowed)?;
            parser.continued(operand, loosest, allowed)
        })
    }

    /// The expression that the operand starts.
    fn continued(&mut self, operand: Node, loosest: u8, allowed: Allowed) -> Result<Node> {
        let mut lhs = operand;
        // The next token is read only if it could continue the expression.
        while loosest <= tightest(&lhs.0, allowed) {
            let Some((op, tightness)) = self.operator_after(&lhs.0, allowed)? else {
                break;
            };
            if tightness < loosest {
                break;
            }
            self.take()?;
            let right = allowed_right(&lhs.0, op, allowed);
            let loosest_right = tightness + u8::from(tightness != POWER);
            let mut rhs = self.expression_above(loosest_right, right)?;
            if op.needs_scalar()
                && matches!((&lhs.0, &rhs.0), (Item::Constant(_), Item::Constant(_)))
            {
                rhs = self.continued(rhs, LOOSEST, right)?;
            }
            lhs = self.combine(op, lhs, rhs)?;
        }
        Ok(lhs)
    }

    /// An operand, with the parentheses around it.
    fn operand(&mut self, allowed: Allowed) -> Result<Node> {
        let within = allowed.within_parentheses();
        let allowed_at = |depth: usize| if depth == 0 { allowed } else { within };
        let mut open: usize = 0;
        while self.take_if(Symbol::OpenParens)? {
            open += 1;
        }
        let starts_pipeline = open > 0
            && within.wrapped_pipeline()
            && matches!(self.peek_symbol()?, Some(Symbol::By | Symbol::Select));
        let mut operand = if starts_pipeline {
            let (element, height) = self.element()?;
            open -= 1;
            self.wrapped_pipeline(element, height, allowed_at(open))?
        } else {
            self.bare_operand(allowed_at(open))?
        };
        while open > 0 {
            operand = self.continued(operand, LOOSEST, within)?;
            open -= 1;
            operand = self.closed(operand, allowed_at(open))?;
        }
        Ok(operand)
    }

    fn bare_operand(&mut self, allowed: Allowed) -> Result<Node> {
        let token = self.peek()?.clone();
        match token {
            Token::Symbol(Symbol::OpenBrace) if allowed.spanset => {
                let (condition, height) = self.filter()?;
                Ok((Item::Spanset(SpansetExpr::Filter(condition)), height))
            }
            Token::Symbol(
                symbol @ (Symbol::Count | Symbol::Avg | Symbol::Max | Symbol::Min | Symbol::Sum),
            ) if allowed.scalar => {
                self.take()?;
                let (aggregate, height) = self.aggregate(symbol)?;
                Ok((Item::Scalar(ScalarExpr::Aggregate(aggregate)), height))
            }
            Token::Symbol(Symbol::Sub) if allowed.constant => {
                self.take()?;
                let (operand, _) = self.nested(|parser| parser.operand(Allowed::CONSTANT))?;
                match operand {
                    Item::Constant(value) => match constant::negate(&value) {
                        Some(value) => Ok((Item::Constant(value), 1)),
                        None => Err(self.unexpected(&[])),
                    },
                    _ => Err(self.unexpected(&[])),
                }
            }
            Token::Integer(value) if allowed.constant => {
                self.take()?;
                Ok((Item::Constant(Static::Int(value)), 1))
            }
            Token::Float(value) if allowed.constant => {
                self.take()?;
                Ok((Item::Constant(Static::Float(value)), 1))
            }
            Token::Duration(nanos) if allowed.constant => {
                self.take()?;
                Ok((Item::Constant(Static::Duration(nanos)), 1))
            }
            _ => Err(self.unexpected(match allowed {
                Allowed {
                    scalar: false,
                    constant: false,
                    metrics: false,
                    spanset,
                    ..
                } => {
                    if spanset {
                        &["{", "("]
                    } else {
                        &["("]
                    }
                }
                _ => &[],
            })),
        }
    }

    /// The body of an aggregate whose word has been taken.
    fn aggregate(&mut self, symbol: Symbol) -> Result<(Aggregate, usize)> {
        self.expect(Symbol::OpenParens)?;
        if symbol == Symbol::Count {
            self.expect(Symbol::CloseParens)?;
            return Ok((Aggregate::Count, 1));
        }
        let (operand, height) = self.field()?;
        if !self.take_if(Symbol::CloseParens)? {
            return Err(self.unexpected(&[]));
        }
        let aggregate = match symbol {
            Symbol::Avg => Aggregate::Avg(operand),
            Symbol::Max => Aggregate::Max(operand),
            Symbol::Min => Aggregate::Min(operand),
            _ => Aggregate::Sum(operand),
        };
        Ok((aggregate, self.above([height])?))
    }

    /// What follows an item that an opening parenthesis stands before, up to and including `)`.
    /// `allowed` is what the surroundings of the parentheses can use.
    fn closed(&mut self, (item, height): Node, allowed: Allowed) -> Result<Node> {
        match item {
            Item::Spanset(expr) => {
                // In doubt it is a spanset: that is how `({ … }) && { … }` works, and why
                // `({ … }) && ({ … } | …)` does not.
                if allowed.spanset && self.take_if(Symbol::CloseParens)? {
                    return Ok((Item::Spanset(expr), height));
                }
                if !allowed.wrapped_pipeline() {
                    return Err(self.unexpected(&[]));
                }
                self.wrapped_pipeline(PipelineElement::Spanset(expr), height, allowed)
            }
            Item::Scalar(_) | Item::Constant(_) => {
                let is_usable = match item {
                    Item::Scalar(_) => allowed.scalar,
                    _ => allowed.constant,
                };
                if is_usable && self.take_if(Symbol::CloseParens)? {
                    return Ok((item, height));
                }
                if !allowed.wrapped_pipeline() {
                    return Err(self.unexpected(&[]));
                }
                let (filter, height) = self.scalar_filter((item, height))?;
                self.wrapped_pipeline(filter, height, allowed)
            }
            Item::PipelineExpr(_) | Item::ScalarPipeline(_) | Item::Metrics(_) => {
                if self.take_if(Symbol::CloseParens)? {
                    Ok((item, height))
                } else {
                    Err(self.unexpected(&[]))
                }
            }
        }
    }

    /// The rest of a pipeline in parentheses, behind its first element, up to and including `)`.
    fn wrapped_pipeline(
        &mut self,
        first: PipelineElement,
        mut height: usize,
        allowed: Allowed,
    ) -> Result<Node> {
        let mut elements = vec![first];
        while self.take_if(Symbol::Pipe)? {
            if allowed.metrics
                && let Some(aggregate) = self.maybe_metrics_aggregate()?
            {
                let metrics = self.metrics_leaf(Pipeline { elements }, aggregate)?;
                if !self.take_if(Symbol::CloseParens)? {
                    return Err(self.unexpected(&[]));
                }
                return Ok((Item::Metrics(metrics), self.above([height])?));
            }
            let is_bare_aggregate = matches!(
                self.peek_symbol()?,
                Some(Symbol::Count | Symbol::Avg | Symbol::Max | Symbol::Min | Symbol::Sum)
            );
            if is_bare_aggregate && allowed.scalar_pipeline {
                let (item, item_height) = self.expression(Allowed::SCALAR)?;
                if let Item::Scalar(ScalarExpr::Aggregate(_)) = item
                    && self.take_if(Symbol::CloseParens)?
                {
                    let Item::Scalar(ScalarExpr::Aggregate(aggregate)) = item else {
                        return Err(self.unexpected(&[]));
                    };
                    let height = self.above([height, item_height])?;
                    let pipeline = Pipeline { elements };
                    return Ok((
                        Item::ScalarPipeline(ScalarExpr::Pipeline {
                            pipeline,
                            aggregate,
                        }),
                        height,
                    ));
                }
                let (filter, filter_height) = self.scalar_filter((item, item_height))?;
                height = height.max(filter_height);
                elements.push(filter);
                continue;
            }
            let (element, element_height) = self.element()?;
            height = height.max(element_height);
            elements.push(element);
        }
        if !allowed.pipeline_expr {
            return Err(self.unexpected(&["|"]));
        }
        if !self.take_if(Symbol::CloseParens)? {
            return Err(self.unexpected(&[")", "|"]));
        }
        let expr = SpansetExpr::Pipeline(Pipeline { elements });
        Ok((Item::PipelineExpr(expr), self.above([height])?))
    }

    /// The operator that comes next and may follow the item, and how tightly it binds.
    fn operator_after(&mut self, item: &Item, allowed: Allowed) -> Result<Option<(Op, u8)>> {
        let Some(symbol) = self.peek_symbol()? else {
            return Ok(None);
        };
        if let Item::Spanset(_) | Item::PipelineExpr(_) = item {
            return Ok(spanset_operator(symbol).map(|op| {
                let tightness = match op {
                    SpansetOp::And | SpansetOp::Or => LOGIC,
                    SpansetOp::Structural(_) => STRUCTURE,
                };
                (Op::Spanset(op), tightness)
            }));
        }
        let Some(op) = arithmetic(symbol) else {
            return Ok(None);
        };
        let is_extended = Op::Arithmetic(op).needs_scalar();
        let is_defined = match item {
            Item::Metrics(_) => !is_extended,
            Item::Constant(_) => !is_extended || allowed.scalar,
            _ => true,
        };
        if !is_defined {
            return Ok(None);
        }
        let tightness = match op {
            ArithmeticOp::Add | ArithmeticOp::Sub => SUM,
            ArithmeticOp::Mul | ArithmeticOp::Div | ArithmeticOp::Mod => PRODUCT,
            ArithmeticOp::Pow => POWER,
        };
        Ok(Some((Op::Arithmetic(op), tightness)))
    }

    fn combine(&mut self, op: Op, (lhs, lhs_height): Node, rhs: Node) -> Result<Node> {
        let (rhs, rhs_height) = rhs;
        if let (Op::Arithmetic(op), Item::Constant(lhs), Item::Constant(rhs)) = (op, &lhs, &rhs) {
            return Ok((Item::Constant(self.fold_constants(op, lhs, rhs)?), 1));
        }
        let height = match (&lhs, &rhs) {
            // A stage more, not a level.
            (Item::Metrics(_), Item::Constant(_)) => lhs_height,
            (Item::Constant(_), Item::Metrics(_)) => rhs_height,
            _ => self.above([lhs_height, rhs_height])?,
        };
        let item = match (op, lhs, rhs) {
            (Op::Spanset(op), Item::Spanset(lhs), Item::Spanset(rhs)) => {
                Item::Spanset(spanset_operation(op, lhs, rhs))
            }
            (Op::Spanset(op), Item::PipelineExpr(lhs), Item::PipelineExpr(rhs)) => {
                Item::PipelineExpr(spanset_operation(op, lhs, rhs))
            }
            (Op::Arithmetic(op), Item::ScalarPipeline(lhs), Item::ScalarPipeline(rhs)) => {
                Item::ScalarPipeline(scalar_operation(op, lhs, rhs))
            }
            (Op::Arithmetic(op), Item::Scalar(lhs), Item::Scalar(rhs)) => {
                Item::Scalar(scalar_operation(op, lhs, rhs))
            }
            (Op::Arithmetic(op), Item::Scalar(lhs), Item::Constant(rhs)) => {
                Item::Scalar(scalar_operation(op, lhs, ScalarExpr::Static(rhs)))
            }
            (Op::Arithmetic(op), Item::Constant(lhs), Item::Scalar(rhs)) => {
                Item::Scalar(scalar_operation(op, ScalarExpr::Static(lhs), rhs))
            }
            (Op::Arithmetic(op), Item::Metrics(lhs), Item::Metrics(rhs)) => {
                Item::Metrics(MetricsExpr {
                    source: MetricsSource::Binary {
                        op,
                        lhs: Box::new(lhs),
                        rhs: Box::new(rhs),
                    },
                    stages: Vec::new(),
                })
            }
            (Op::Arithmetic(op), Item::Metrics(mut metrics), Item::Constant(value)) => {
                metrics.stages.push(SecondStage::Scalar {
                    op,
                    value: self.metrics_scalar(&value)?,
                    value_on_left: false,
                });
                Item::Metrics(metrics)
            }
            (Op::Arithmetic(op), Item::Constant(value), Item::Metrics(mut metrics)) => {
                metrics.stages.push(SecondStage::Scalar {
                    op,
                    value: self.metrics_scalar(&value)?,
                    value_on_left: true,
                });
                Item::Metrics(metrics)
            }
            _ => return Err(self.unexpected(&[])),
        };
        Ok((item, height))
    }

    fn fold_constants(&mut self, op: ArithmeticOp, lhs: &Static, rhs: &Static) -> Result<Static> {
        if Op::Arithmetic(op).needs_scalar() {
            // Only a scalar can follow, and what came is none.
            return Err(self.unexpected(&[]));
        }
        if matches!(lhs, Static::Duration(_)) || matches!(rhs, Static::Duration(_)) {
            return Err(self
                .lexer
                .error("duration cannot be used in scalar arithmetic"));
        }
        constant::arithmetic(op, lhs, rhs).map_err(|error| self.lexer.error(error.to_string()))
    }

    fn metrics_scalar(&self, value: &Static) -> Result<f64> {
        if let Static::Duration(_) = value {
            return Err(self
                .lexer
                .error("duration cannot be used as a scalar operand in metric arithmetic"));
        }
        Ok(value.as_f64())
    }
}
