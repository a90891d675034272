//! A place in the list of tokens, and the errors that name it.

use super::SyntaxError;
use super::lex::{Token, TokenKind, lex};
use super::number::{Literal, literal};

/// A place in the list of tokens.
pub(super) struct Cursor<'t> {
    tokens: Vec<Token<'t>>,
    at: usize,
    /// For errors about an end that comes too early.
    last_line: u32,
}

impl<'t> Cursor<'t> {
    pub(super) fn new(text: &'t str) -> Result<Self, SyntaxError> {
        let tokens = lex(text)?;
        let last_line = text.lines().count().max(1) as u32;
        Ok(Self { tokens, at: 0, last_line })
    }

    /// The next token, `None` at the end.
    pub(super) fn peek(&self) -> Option<Token<'t>> {
        self.tokens.get(self.at).copied()
    }

    /// Text of the token `n` places ahead; empty beyond the end.
    pub(super) fn text_at(&self, n: usize) -> &'t str {
        self.tokens.get(self.at + n).map_or("", |token| token.text)
    }

    pub(super) fn next(&mut self) -> Option<Token<'t>> {
        let token = self.peek()?;
        self.at += 1;
        Some(token)
    }

    /// A place to come back to with [`Self::since`].
    pub(super) fn mark(&self) -> usize {
        self.at
    }

    /// The tokens from a mark up to here.
    pub(super) fn since(&self, mark: usize) -> &[Token<'t>] {
        &self.tokens[mark..self.at]
    }

    /// Line of the next token.
    pub(super) fn line(&self) -> u32 {
        self.peek().map_or(self.last_line, |token| token.line)
    }

    /// An error at the next token.
    pub(super) fn error(&self, what: impl Into<String>) -> SyntaxError {
        SyntaxError { line: self.line(), what: what.into() }
    }

    /// An error that says what should stand here instead of the next token.
    pub(super) fn wanted(&self, what: &str) -> SyntaxError {
        match self.peek() {
            Some(token) => self.error(format!("`{}` is unexpected: {what} is wanted", token.text)),
            None => self.error(format!("the text ends too early: {what} is wanted")),
        }
    }

    /// Steps over the next token if it is this one.
    pub(super) fn eat(&mut self, text: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.text == text);
        self.at += usize::from(found);
        found
    }

    /// Steps over a token that must stand here.
    pub(super) fn expect(&mut self, text: &str) -> Result<(), SyntaxError> {
        if self.eat(text) { Ok(()) } else { Err(self.wanted(&format!("`{text}`"))) }
    }

    /// Steps over the `;` of a statement. If it is missing, the error is at the end of the statement, not in the next
    /// line; otherwise it says what is wanted.
    pub(super) fn expect_end(&mut self, wanted: &str) -> Result<(), SyntaxError> {
        let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at).copied());
        match (before, self.peek()) {
            (_, Some(token)) if token.text == ";" => {
                self.at += 1;
                Ok(())
            }
            (Some(before), next) if next.is_none_or(|next| next.line > before.line) => {
                let what = format!("put a `;` behind `{}`, where the statement ends", before.text);
                Err(SyntaxError { line: before.line, what })
            }
            _ => Err(self.wanted(wanted)),
        }
    }

    /// A name without modifiers.
    pub(super) fn name(&mut self, what: &str) -> Result<&'t str, SyntaxError> {
        match self.peek() {
            Some(Token { kind: TokenKind::Word, text, .. })
                if text != "_" && text != "%" && !text.contains(['.', ':']) =>
            {
                self.at += 1;
                Ok(text)
            }
            _ => Err(self.wanted(what)),
        }
    }

    /// Steps over a directive.
    pub(super) fn directive(&mut self, what: &str) -> Result<&'t str, SyntaxError> {
        match self.peek() {
            Some(Token { kind: TokenKind::Directive, text, .. }) => {
                self.at += 1;
                Ok(text)
            }
            _ => Err(self.wanted(what)),
        }
    }

    /// Whether an integer or a float comes next, with a sign perhaps.
    pub(super) fn at_number(&self) -> bool {
        self.peek().is_some_and(|token| {
            token.kind == TokenKind::Number
                || (token.kind == TokenKind::Sign && matches!(token.text, "-" | "+"))
        })
    }

    /// A number, with a sign perhaps.
    pub(super) fn number(&mut self) -> Result<Literal, SyntaxError> {
        let negative = self.peek().is_some_and(|token| token.text == "-");
        if negative || self.peek().is_some_and(|token| token.text == "+") {
            self.at += 1;
        }
        let Some(Token { kind: TokenKind::Number, text, .. }) = self.peek() else {
            return Err(self.wanted("a number"));
        };
        let value = literal(text).and_then(|value| if negative { value.negate() } else { Ok(value) });
        let value = value.map_err(|what| self.error(what))?;
        self.at += 1;
        Ok(value)
    }

    /// A number of things: an integer without a sign.
    pub(super) fn count(&mut self, what: &str) -> Result<u64, SyntaxError> {
        match self.peek() {
            Some(Token { kind: TokenKind::Number, .. }) => match self.number()? {
                Literal::Integer(value) => Ok(value),
                Literal::Float32(_) | Literal::Float64(_) => {
                    self.at -= 1;
                    Err(self.wanted(what))
                }
            },
            _ => Err(self.wanted(what)),
        }
    }

    /// A count of at most 32 bits.
    pub(super) fn count32(&mut self, what: &str) -> Result<u32, SyntaxError> {
        let line = self.line();
        let value = self.count(what)?;
        let too_large = |_| SyntaxError { line, what: format!("{value} is too large for {what}") };
        u32::try_from(value).map_err(too_large)
    }

    /// Steps over the rest of a statement that ends with its line, such as `.loc`.
    pub(super) fn skip_line(&mut self) {
        let line = self.line();
        while self.peek().is_some_and(|token| token.line == line) {
            self.at += 1;
        }
    }

    /// Steps over `{ … }` whatever is inside.
    pub(super) fn skip_braces(&mut self) -> Result<(), SyntaxError> {
        let opened = self.line();
        self.expect("{")?;
        while let Some(token) = self.next() {
            if token.text == "}" {
                return Ok(());
            }
        }
        Err(SyntaxError { line: opened, what: "this `{` has no `}`".to_owned() })
    }
}
