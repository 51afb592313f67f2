//! The first and second stage of metrics, and the second stage's constants.

use super::field::comparison;
use super::item::{Allowed, Item};
use super::{Parser, Result};
use crate::ast::{
    Attribute, Compare, FieldExpr, MetricsAggregate, SecondStage, SeriesFunction, Static,
};
use crate::token::{Symbol, Token};

const NANOS_PER_SECOND: f64 = 1e9;

impl Parser<'_> {
    /// `rate() by(…)` and its kin, if the next token starts one.
    pub(super) fn maybe_metrics_aggregate(&mut self) -> Result<Option<MetricsAggregate>> {
        let Some(symbol) = self.peek_symbol()? else {
            return Ok(None);
        };
        let function = match symbol {
            Symbol::Rate | Symbol::CountOverTime => {
                self.take()?;
                self.expect(Symbol::OpenParens)?;
                self.expect(Symbol::CloseParens)?;
                if symbol == Symbol::Rate {
                    SeriesFunction::Rate
                } else {
                    SeriesFunction::CountOverTime
                }
            }
            Symbol::MinOverTime => SeriesFunction::MinOverTime(self.measured()?),
            Symbol::MaxOverTime => SeriesFunction::MaxOverTime(self.measured()?),
            Symbol::SumOverTime => SeriesFunction::SumOverTime(self.measured()?),
            Symbol::AvgOverTime => SeriesFunction::AvgOverTime(self.measured()?),
            Symbol::HistogramOverTime => SeriesFunction::HistogramOverTime(self.measured()?),
            Symbol::QuantileOverTime => {
                self.take()?;
                self.expect(Symbol::OpenParens)?;
                let attribute = self.attribute()?;
                self.expect(Symbol::Comma)?;
                let mut quantiles = vec![self.quantile()?];
                while self.list_continues()? {
                    quantiles.push(self.quantile()?);
                }
                SeriesFunction::QuantileOverTime(attribute, quantiles)
            }
            Symbol::Compare => {
                self.take()?;
                return self.compare().map(Some);
            }
            _ => return Ok(None),
        };
        let mut by = Vec::new();
        if self.take_if(Symbol::By)? {
            self.expect(Symbol::OpenParens)?;
            by = self.attribute_list()?;
        }
        Ok(Some(MetricsAggregate::Series { function, by }))
    }

    /// `…_over_time(attribute)`
    fn measured(&mut self) -> Result<Attribute> {
        self.take()?;
        self.expect(Symbol::OpenParens)?;
        let attribute = self.attribute()?;
        self.expect(Symbol::CloseParens)?;
        Ok(attribute)
    }

    fn quantile(&mut self) -> Result<f64> {
        let value = match self.peek()? {
            Token::Float(value) => *value,
            Token::Integer(value) => *value as f64,
            _ => return Err(self.unexpected(&["INTEGER", "FLOAT"])),
        };
        self.take()?;
        Ok(value)
    }

    fn integer(&mut self) -> Result<i64> {
        let value = match self.peek()? {
            Token::Integer(value) => *value,
            _ => return Err(self.unexpected(&["INTEGER"])),
        };
        self.take()?;
        Ok(value)
    }

    fn compare(&mut self) -> Result<MetricsAggregate> {
        self.expect(Symbol::OpenParens)?;
        if self.peek_symbol()? != Some(Symbol::OpenBrace) {
            return Err(self.unexpected(&["{"]));
        }
        let (selection, _) = self.filter()?;
        let mut compare = Compare {
            selection,
            top: Compare::DEFAULT_TOP,
            start_nanos: 0,
            end_nanos: 0,
        };
        if self.list_continues()? {
            compare.top = self.integer()?;
            if self.list_continues()? {
                compare.start_nanos = self.integer()?;
                self.expect(Symbol::Comma)?;
                compare.end_nanos = self.integer()?;
                self.expect(Symbol::CloseParens)?;
            }
        }
        Ok(MetricsAggregate::Compare(compare))
    }

    /// `{ expression }` and its height.
    pub(super) fn filter(&mut self) -> Result<(FieldExpr, usize)> {
        self.expect(Symbol::OpenBrace)?;
        if self.take_if(Symbol::CloseBrace)? {
            // As deep as its canonical text, `{ true }`.
            return self.nested(|_| Ok((FieldExpr::TRUE, 1)));
        }
        let (condition, height) = self.field()?;
        if !self.take_if(Symbol::CloseBrace)? {
            return Err(self.unexpected(&[]));
        }
        Ok((condition, height))
    }

    /// Second stages, as many as come next.
    pub(super) fn second_stages(&mut self, stages: &mut Vec<SecondStage>) -> Result<()> {
        while let Some(symbol) = self.peek_symbol()? {
            if symbol == Symbol::Pipe {
                self.take()?;
                let is_top = match self.peek_symbol()? {
                    Some(Symbol::TopK) => true,
                    Some(Symbol::BottomK) => false,
                    _ => return Err(self.unexpected(&["topk", "bottomk"])),
                };
                self.take()?;
                self.expect(Symbol::OpenParens)?;
                let limit = self.integer()?;
                self.expect(Symbol::CloseParens)?;
                stages.push(if is_top {
                    SecondStage::TopK(limit)
                } else {
                    SecondStage::BottomK(limit)
                });
            } else if let Some(op) = comparison(symbol) {
                self.take()?;
                let (item, _) = self.expression(Allowed::CONSTANT)?;
                let Item::Constant(value) = item else {
                    return Err(self.unexpected(&[]));
                };
                let threshold = match value {
                    Static::Duration(nanos) => nanos as f64 / NANOS_PER_SECOND,
                    value => value.as_f64(),
                };
                stages.push(SecondStage::Filter { op, threshold });
            } else {
                break;
            }
        }
        Ok(())
    }
}
