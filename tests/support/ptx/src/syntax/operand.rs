//! Operands of instructions.

use super::lex::TokenKind;
use super::number::Literal;
use super::parse::Reader;
use super::scope::Meaning;
use super::special::is_special;
use super::{Address, Base, Operand, SyntaxError};

/// Threads of a warp, which PTX calls `WARP_SZ`.
const WARP_SIZE: u64 = 32;

impl Reader<'_> {
    /// An operand, or two with `|` between them.
    pub(super) fn operand(&mut self) -> Result<Operand, SyntaxError> {
        let first = match self.cursor.text_at(0) {
            "{" => return self.list().map(Operand::List),
            "[" => return self.address().map(Operand::Address),
            _ => self.scalar()?,
        };
        if !self.cursor.eat("|") {
            return Ok(first);
        }
        let second = self.scalar()?;
        Ok(Operand::Pair(Box::new(first), Box::new(second)))
    }

    /// An operand without parts.
    fn scalar(&mut self) -> Result<Operand, SyntaxError> {
        if self.cursor.eat("_") {
            return Ok(Operand::Sink);
        }
        if self.cursor.eat("!") {
            return self.predicate().map(Operand::Not);
        }
        if self.cursor.at_number() {
            return Ok(match self.cursor.number()? {
                Literal::Integer(value) => Operand::Integer(value),
                Literal::Float32(bits) => Operand::Float32(bits),
                Literal::Float64(bits) => Operand::Float64(bits),
            });
        }
        let line = self.cursor.line();
        let name = match self.cursor.peek() {
            Some(token) if token.kind == TokenKind::Word => token.text,
            _ => return Err(self.cursor.wanted("an operand")),
        };
        let operand = match self.scopes.find(name) {
            Some(Meaning::Register(id, _)) => Operand::Register(id),
            Some(Meaning::Symbol) => Operand::Symbol(name.to_owned()),
            Some(Meaning::Label(_)) => {
                return Err(self.cursor.error(format!("the label `{name}` may only stand behind `bra`")));
            }
            None if name == "WARP_SZ" => Operand::Integer(WARP_SIZE),
            None if is_special(name) => Operand::Special(name.to_owned()),
            None => return Err(self.undeclared(name, line)),
        };
        self.cursor.next();
        if matches!(self.cursor.text_at(0), "+" | "-") {
            return Err(self.cursor.error("an operand is not a sum; add in an instruction before this one"));
        }
        Ok(operand)
    }

    /// The error for a name that stands for nothing here.
    pub(super) fn undeclared(&self, name: &str, line: u32) -> SyntaxError {
        let how =
            if name.starts_with('%') { "with `.reg`" } else { "with `.reg`, or as a variable or parameter," };
        SyntaxError { line, what: format!("`{name}` is not declared; declare it {how} before this line") }
    }

    /// `{a, b, …}`
    fn list(&mut self) -> Result<Vec<Operand>, SyntaxError> {
        self.cursor.expect("{")?;
        let mut operands = vec![self.scalar()?];
        while self.cursor.eat(",") {
            operands.push(self.scalar()?);
        }
        self.cursor.expect("}")?;
        Ok(operands)
    }

    /// `[base + offset]` or `[base, {c0, c1, …}]`
    fn address(&mut self) -> Result<Address, SyntaxError> {
        self.cursor.expect("[")?;
        let base = self.base()?;
        let mut offset = 0_i64;
        while matches!(self.cursor.text_at(0), "+" | "-") {
            offset = self.offset(offset)?;
        }
        let coordinates = if self.cursor.eat(",") { self.list()? } else { Vec::new() };
        self.cursor.expect("]")?;
        Ok(Address { base, offset, coordinates })
    }

    fn base(&mut self) -> Result<Base, SyntaxError> {
        let line = self.cursor.line();
        match self.scalar_of_address()? {
            Operand::Register(id) => Ok(Base::Register(id)),
            Operand::Symbol(name) => Ok(Base::Symbol(name)),
            Operand::Integer(value) => Ok(Base::Constant(value)),
            _ => {
                let what =
                    "an address begins with a register, a variable, a parameter or an integer".to_owned();
                Err(SyntaxError { line, what })
            }
        }
    }

    /// As [`Self::scalar`], but an offset may follow.
    fn scalar_of_address(&mut self) -> Result<Operand, SyntaxError> {
        let name = self.cursor.text_at(0);
        let found = match self.scopes.find(name) {
            Some(Meaning::Register(id, _)) => Operand::Register(id),
            Some(Meaning::Symbol) => Operand::Symbol(name.to_owned()),
            _ => return self.scalar(),
        };
        self.cursor.next();
        Ok(found)
    }

    /// Adds `+ n`, `+ -n` or `- n` to an offset.
    fn offset(&mut self, offset: i64) -> Result<i64, SyntaxError> {
        let line = self.cursor.line();
        let minus = self.cursor.text_at(0) == "-";
        self.cursor.next();
        let wrong = |what: &str| SyntaxError { line, what: what.to_owned() };
        let Literal::Integer(value) = self.cursor.number()? else {
            return Err(wrong("an offset is an integer"));
        };
        let sum = if minus { offset.checked_sub(value as i64) } else { offset.checked_add(value as i64) };
        sum.ok_or_else(|| wrong("this offset does not fit in 64 bits"))
    }
}
