//! Field expressions: what stands between braces, in `by(…)` and in aggregates.

use super::{MAX_PATTERNS_PER_QUERY, Parser, Result};
use crate::ast::{ArithmeticOp, ComparisonOp, FieldExpr, LogicalOp, Static};
use crate::build::{self, FieldOp};
use crate::token::{Symbol, Token};

// How tightly operators bind, from loose to tight. All are left-associative but `^`. A prefix
// minus binds like a binary one, so `-a * b` is `-(a * b)`; `!` binds tighter than both.
const LOGIC: u8 = 1;
const COMPARISON: u8 = 2;
const SUM: u8 = 3;
const NOT: u8 = 4;
const PRODUCT: u8 = 5;
const POWER: u8 = 6;

/// An expression and its height.
type Node = (FieldExpr, usize);

impl Parser<'_> {
    /// A whole field expression, up to a token that can't continue it.
    pub(super) fn field(&mut self) -> Result<Node> {
        self.field_above(LOGIC)
    }

    /// An expression whose operators bind at least as tightly as `loosest`.
    fn field_above(&mut self, loosest: u8) -> Result<Node> {
        self.nested(|parser| {
            let operand = parser.field_operand()?;
            parser.field_continued(operand, loosest)
        })
    }

    /// The expression that the operand starts.
    fn field_continued(&mut self, operand: Node, loosest: u8) -> Result<Node> {
        let mut lhs = operand;
        while let Some((op, tightness)) = self.field_operator()? {
            if tightness < loosest {
                break;
            }
            self.take()?;
            if let FieldOp::Comparison(ComparisonOp::Regex | ComparisonOp::NotRegex) = op {
                self.count_pattern()?;
            }
            if let FieldOp::Comparison(op @ (ComparisonOp::Equal | ComparisonOp::NotEqual)) = op
                && self.take_if(Symbol::Nil)?
            {
                lhs = self.presence(op, lhs)?;
                continue;
            }
            let loosest_right = tightness + u8::from(tightness != POWER);
            let rhs = self.field_above(loosest_right)?;
            lhs = self.field_binary(op, lhs, rhs)?;
        }
        Ok(lhs)
    }

    /// Before it is compiled.
    fn count_pattern(&mut self) -> Result<()> {
        self.patterns += 1;
        if self.patterns > MAX_PATTERNS_PER_QUERY {
            return Err(self.lexer.error(format!(
                "query has more than {MAX_PATTERNS_PER_QUERY} regular expressions; unite some as \
                 alternatives of one: `a|b`"
            )));
        }
        Ok(())
    }

    fn field_operator(&mut self) -> Result<Option<(FieldOp, u8)>> {
        let Some(symbol) = self.peek_symbol()? else {
            return Ok(None);
        };
        Ok(Some(match symbol {
            Symbol::And => (FieldOp::Logical(LogicalOp::And), LOGIC),
            Symbol::Or => (FieldOp::Logical(LogicalOp::Or), LOGIC),
            Symbol::Regex => (FieldOp::Comparison(ComparisonOp::Regex), COMPARISON),
            Symbol::NotRegex => (FieldOp::Comparison(ComparisonOp::NotRegex), COMPARISON),
            symbol => {
                if let Some(op) = comparison(symbol) {
                    (FieldOp::Comparison(op), COMPARISON)
                } else if let Some(op) = arithmetic(symbol) {
                    let tightness = match op {
                        ArithmeticOp::Add | ArithmeticOp::Sub => SUM,
                        ArithmeticOp::Mul | ArithmeticOp::Div | ArithmeticOp::Mod => PRODUCT,
                        ArithmeticOp::Pow => POWER,
                    };
                    (FieldOp::Arithmetic(op), tightness)
                } else {
                    return Ok(None);
                }
            }
        }))
    }

    /// An operand, with the parentheses around it.
    fn field_operand(&mut self) -> Result<Node> {
        let mut open: usize = 0;
        while self.take_if(Symbol::OpenParens)? {
            open += 1;
        }
        let mut operand = self.bare_field_operand()?;
        for _ in 0..open {
            operand = self.field_continued(operand, LOGIC)?;
            if !self.take_if(Symbol::CloseParens)? {
                return Err(self.unexpected(&[]));
            }
        }
        Ok(operand)
    }

    fn bare_field_operand(&mut self) -> Result<Node> {
        if let Some(value) = self.static_value()? {
            return Ok((FieldExpr::Static(value), 1));
        }
        if let Some(attribute) = self.maybe_attribute()? {
            return Ok((FieldExpr::Attribute(attribute), 1));
        }
        match self.peek()? {
            Token::Symbol(Symbol::Sub) => {
                self.take()?;
                let (operand, height) = self.field_above(SUM + 1)?;
                self.field_node(build::negate(operand), [height])
            }
            Token::Symbol(Symbol::Not) => {
                self.take()?;
                let (operand, height) = self.field_above(NOT + 1)?;
                self.field_node(build::not(operand), [height])
            }
            Token::Symbol(Symbol::Nil) => {
                self.take()?;
                self.reversed_presence()
            }
            _ => Err(self.unexpected(&[])),
        }
    }

    /// What follows a leading `nil`.
    fn reversed_presence(&mut self) -> Result<Node> {
        let op = match self.peek_symbol()? {
            Some(Symbol::Equal) => ComparisonOp::Equal,
            Some(Symbol::NotEqual) => ComparisonOp::NotEqual,
            _ => return Err(self.unexpected(&["=", "!="])),
        };
        self.take()?;
        if self.take_if(Symbol::Nil)? {
            return Ok((FieldExpr::Static(Static::Bool(false)), 1));
        }
        let operand = self.field_above(COMPARISON + 1)?;
        self.presence(op, operand)
    }

    /// `operand = nil`, `operand != nil`
    fn presence(&mut self, op: ComparisonOp, (operand, height): Node) -> Result<Node> {
        let expr = match op {
            ComparisonOp::NotEqual => build::exists(operand),
            _ => build::not_exists(operand),
        };
        self.field_node(expr, [height])
    }

    fn field_binary(&mut self, op: FieldOp, lhs: Node, rhs: Node) -> Result<Node> {
        let continues_chain = matches!(
            (op, &lhs.0),
            (FieldOp::Logical(op), FieldExpr::Logical { op: chain, .. }) if op == *chain
        );
        let expr = build::binary(op, lhs.0, rhs.0);
        if continues_chain {
            let (expr, height) = self.field_node(expr, [rhs.1])?;
            return Ok((expr, height.max(lhs.1)));
        }
        self.field_node(expr, [lhs.1, rhs.1])
    }

    /// A node that was built of operands of these heights; it may have been folded.
    fn field_node<const N: usize>(&self, expr: FieldExpr, operands: [usize; N]) -> Result<Node> {
        let height = match expr {
            FieldExpr::Static(_) => 1,
            _ => self.above(operands)?,
        };
        Ok((expr, height))
    }
}

/// `= != < <= > >=`
pub(super) fn comparison(symbol: Symbol) -> Option<ComparisonOp> {
    Some(match symbol {
        Symbol::Equal => ComparisonOp::Equal,
        Symbol::NotEqual => ComparisonOp::NotEqual,
        Symbol::Less => ComparisonOp::Less,
        Symbol::LessEqual => ComparisonOp::LessEqual,
        Symbol::Greater => ComparisonOp::Greater,
        Symbol::GreaterEqual => ComparisonOp::GreaterEqual,
        _ => return None,
    })
}

/// `+ - * / % ^`
pub(super) fn arithmetic(symbol: Symbol) -> Option<ArithmeticOp> {
    Some(match symbol {
        Symbol::Add => ArithmeticOp::Add,
        Symbol::Sub => ArithmeticOp::Sub,
        Symbol::Mul => ArithmeticOp::Mul,
        Symbol::Div => ArithmeticOp::Div,
        Symbol::Mod => ArithmeticOp::Mod,
        Symbol::Pow => ArithmeticOp::Pow,
        _ => return None,
    })
}
