//! Parsing. The parser reads statement by statement and never recurses; after an error it goes on with the next line.

use indexmap::IndexMap;
use smallvec::SmallVec;

use super::error::{ParseError, Problem, nearest_op};
use super::lex::{At, Lexer, Token, shorten};
use crate::attr::Literal;
use crate::graph::{Graph, Origin, Value};
use crate::ops::{AttrError, Op};
use crate::port::{self, Direction, Role, RoleText};
use crate::ty::{Dim, Elem, SetSym, Type};

/// Bytes that a text may have: 256 for each of the nodes it may have.
pub const MAX_TEXT: usize = MAX_NODES * 256;

/// Nodes that a text may have: a hundred times those of the largest models.
pub const MAX_NODES: usize = 1 << 20;

/// Results that a text may have: `logits` and a gate for each router.
pub const MAX_RESULTS: usize = 1 << 16;

/// Errors after which the parser gives up.
const MAX_ERRORS: usize = 20;

/// Operands, attributes or sizes that one node may have; every op takes fewer.
const MAX_LIST: usize = 16;

/// Reads a graph from its text form. Types may be left out; where they stand they are checked.
///
/// ```
/// let graph = skipc_ir::text::parse("graph \"g\" {\n  %ids = input {port=tokens}\n  return result \"ids\" = %ids\n}").unwrap();
/// assert_eq!(graph.len(), 1);
/// ```
///
/// # Errors
/// Up to 20 errors, in the order of the text. A line that uses the value of a wrong line is not reported.
pub fn parse(text: &str) -> Result<Graph, Vec<ParseError>> {
    if text.len() > MAX_TEXT {
        let problem = Problem::Limit { what: "bytes in a text", limit: MAX_TEXT };
        return Err(vec![ParseError { line: 1, column: 1, offset: 0, problem }]);
    }
    let mut parser = Parser {
        lexer: Lexer::new(text),
        graph: Graph::default(),
        values: IndexMap::default(),
        origins: IndexMap::default(),
        errors: Vec::new(),
    };
    match parser.graph() {
        Ok(()) => {}
        Err(error) => parser.errors.push(error),
    }
    if parser.errors.is_empty() { Ok(parser.graph) } else { Err(parser.errors) }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    graph: Graph,
    /// Values by name; `None` if the line that defines it is wrong.
    values: IndexMap<&'a str, Option<Value>>,
    /// Origins so far, so that equal ones share their text.
    origins: IndexMap<String, Origin>,
    errors: Vec<ParseError>,
}

/// A line of a node as it stands.
struct Line<'a> {
    op_at: At,
    op: &'a str,
    operands: SmallVec<[(At, &'a str); 8]>,
    attrs: Vec<(String, Literal)>,
    ty: Option<(At, Type)>,
    origin: Origin,
}

impl<'a> Parser<'a> {
    fn graph(&mut self) -> Result<(), ParseError> {
        self.expect_word("graph")?;
        let (name, _) = self.text("the graph's name in quotes")?;
        self.graph = Graph::new(name);
        self.sign("{")?;
        loop {
            let (token, at) = match self.lexer.next() {
                Ok(next) => next,
                Err(error) => {
                    self.report(error)?;
                    self.lexer.skip_line(self.lexer.here());
                    continue;
                }
            };
            match token {
                Token::Value(name) => {
                    let value = self.recover(at, |parser| parser.node(name, at))?;
                    self.values.entry(name).or_insert(value.flatten());
                }
                Token::Word("return") => {
                    self.recover(at, Parser::results)?;
                    self.sign("}")?;
                    break;
                }
                Token::Sign("}") => break,
                Token::End => return Err(self.expected(at, "`}`", &token)),
                _ => {
                    let error = self.expected(at, "a line `%… = …` or `return …`", &token);
                    self.report(error)?;
                    self.lexer.skip_line(at);
                }
            }
        }
        match self.lexer.next()? {
            (Token::End, _) => Ok(()),
            (token, at) => Err(self.expected(at, "the end of the text", &token)),
        }
    }

    /// Runs the parser of one statement; on an error, reports it and goes on with the line behind.
    fn recover<T>(
        &mut self,
        start: At,
        statement: impl FnOnce(&mut Self) -> Result<T, ParseError>,
    ) -> Result<Option<T>, ParseError> {
        match statement(self) {
            Ok(done) => Ok(Some(done)),
            Err(error) => {
                // What was missing at the end of the line is only noticed in the next one, which may be right.
                self.lexer.skip_line(start);
                self.report(error)?;
                Ok(None)
            }
        }
    }

    /// Keeps an error, unless it is one too many.
    fn report(&mut self, error: ParseError) -> Result<(), ParseError> {
        let fatal = matches!(error.problem, Problem::Limit { .. }) || self.errors.len() + 1 >= MAX_ERRORS;
        if fatal {
            return Err(error);
        }
        self.errors.push(error);
        Ok(())
    }

    /// `= op operands {attributes} : type @"origin"`; `None` if an operand's own line is wrong.
    fn node(&mut self, name: &'a str, at: At) -> Result<Option<Value>, ParseError> {
        self.sign("=")?;
        let (op, op_at) = self.word("the name of an op")?;
        let mut line = Line {
            op_at,
            op,
            operands: SmallVec::new(),
            attrs: Vec::new(),
            ty: None,
            origin: Origin::default(),
        };
        self.line(&mut line)?;
        if self.values.contains_key(name) {
            return Err(self.lexer.error(at, Problem::Twice { what: "the value", name: format!("%{name}") }));
        }
        if self.values.len() >= MAX_NODES {
            return Err(self.lexer.error(at, Problem::Limit { what: "nodes", limit: MAX_NODES }));
        }
        self.build(&line)
    }

    /// All of a line behind the op's name.
    fn line(&mut self, line: &mut Line<'a>) -> Result<(), ParseError> {
        let end = loop {
            let before = self.lexer.here();
            let (token, at) = match self.lexer.next() {
                Err(error) if line.op_at.line < error.line => break before,
                next => next?,
            };
            match token {
                Token::Word("return") | Token::Sign("}") => break at,
                // A line ends with its line unless a sign goes on with it; a value here is the next line's.
                Token::Value(_)
                | Token::Word(_)
                | Token::Int(_)
                | Token::Real(_)
                | Token::Text(_)
                | Token::End
                    if line.op_at.line < at.line =>
                {
                    break at;
                }
                Token::Value(operand) if line.operands.is_empty() => line.operands.push((at, operand)),
                Token::Sign(",")
                    if !line.operands.is_empty() && line.attrs.is_empty() && line.ty.is_none() =>
                {
                    let (operand, operand_at) = self.value()?;
                    line.operands.push((operand_at, operand));
                    self.limit(at, line.operands.len(), "operands")?;
                }
                Token::Sign("{") if line.attrs.is_empty() && line.ty.is_none() => {
                    line.attrs = self.attrs()?
                }
                Token::Sign(":") if line.ty.is_none() => line.ty = Some((at, self.ty()?)),
                Token::Sign("@") => {
                    let (text, _) = self.text("the origin in quotes")?;
                    line.origin =
                        self.origins.entry(text).or_insert_with_key(|text| text.as_str().into()).clone();
                    return Ok(());
                }
                other => return Err(self.expected(at, "the rest of the line", &other)),
            }
        };
        self.lexer.go_to(end);
        Ok(())
    }

    /// Makes the node.
    fn build(&mut self, line: &Line<'a>) -> Result<Option<Value>, ParseError> {
        let mut op = Op::read(line.op, &line.attrs).map_err(|error| {
            let problem = match error {
                AttrError::UnknownOp(_) => {
                    Problem::UnknownOp { name: shorten(line.op), nearest: nearest_op(line.op) }
                }
                other => Problem::Attr(other),
            };
            self.lexer.error(line.op_at, problem)
        })?;
        if let (Op::Input { port }, Some((_, written))) = (&mut op, &line.ty)
            && port.has_own_type()
        {
            port.ty = written.clone();
        }
        let mut operands: SmallVec<[Value; 8]> = SmallVec::new();
        for (at, name) in &line.operands {
            match self.values.get(name) {
                Some(Some(value)) => operands.push(*value),
                Some(None) => return Ok(None),
                None => return Err(self.lexer.error(*at, Problem::Undefined(shorten(name)))),
            }
        }
        let added = self.graph.add(op, &operands, &line.origin);
        let value = added.map_err(|error| self.lexer.error(line.op_at, error.into()))?;
        match &line.ty {
            Some((at, written)) if written != self.graph.ty(value) => {
                let inferred = self.graph.ty(value).clone();
                Err(self.lexer.error(*at, Problem::OtherType { written: written.clone(), inferred }))
            }
            _ => Ok(Some(value)),
        }
    }

    /// `role = %value, …`, as far as it goes.
    fn results(&mut self) -> Result<(), ParseError> {
        loop {
            let (word, at) = self.word("the role of a result")?;
            let role = self.role_behind(word)?.or_else(|| port::role(word));
            let is_result = |role: &Role| matches!(role.direction(), Direction::Out | Direction::Kept);
            let Some(role) = role.filter(is_result) else {
                return Err(self.lexer.error(at, Problem::Role(shorten(word))));
            };
            self.sign("=")?;
            let (value, value_at) = self.value()?;
            let Some(value) = self.values.get(value).copied() else {
                return Err(self.lexer.error(value_at, Problem::Undefined(shorten(value))));
            };
            if self.graph.result(&role).is_some() {
                let name = RoleText(&role).to_string();
                return Err(self.lexer.error(at, Problem::Twice { what: "the role", name: shorten(&name) }));
            }
            if self.graph.n_results() >= MAX_RESULTS {
                return Err(self.lexer.error(at, Problem::Limit { what: "results", limit: MAX_RESULTS }));
            }
            if let Some(value) = value {
                self.graph.set_result(role, value);
            }
            match self.lexer.next()? {
                (Token::Sign(","), _) => {}
                (_, at) => {
                    self.lexer.go_to(at);
                    return Ok(());
                }
            }
        }
    }

    /// How many choices `of` says that there are; `None` if it does not come next.
    fn choices_behind(&mut self) -> Result<Option<u64>, ParseError> {
        let before = self.lexer.here();
        if !matches!(self.lexer.next()?, (Token::Word("of"), _)) {
            self.lexer.go_to(before);
            return Ok(None);
        }
        match self.lexer.next()? {
            (Token::Int(of), _) => Ok(Some(of)),
            (got, at) => Err(self.expected(at, "how many choices there are", &got)),
        }
    }

    /// The role of a word that a name, the number of a router, or that of a layer and its choices stands behind; `None` if nothing
    /// of the kind does.
    fn role_behind(&mut self, word: &str) -> Result<Option<Role>, ParseError> {
        let before = self.lexer.here();
        let (role, at, got) = match self.lexer.next()? {
            (Token::Text(name), at) => (port::role_named(word, &name), at, Token::Text(name)),
            (Token::Int(int), at) => {
                let number = |int: u64| u32::try_from(int).ok();
                let role = match self.choices_behind()? {
                    None => number(int).and_then(|router| port::role_of_router(word, router)),
                    Some(of) => number(int)
                        .zip(number(of))
                        .and_then(|(layer, of)| port::role_of_layer(word, layer, of)),
                };
                (role, at, Token::Int(int))
            }
            _ => {
                self.lexer.go_to(before);
                return Ok(None);
            }
        };
        match role {
            Some(role) => Ok(Some(role)),
            None => Err(self.expected(at, &format!("something else behind `{}`", shorten(word)), &got)),
        }
    }

    /// `name=literal, …}`.
    fn attrs(&mut self) -> Result<Vec<(String, Literal)>, ParseError> {
        let mut attrs: Vec<(String, Literal)> = Vec::new();
        loop {
            let (name, at) = self.word("an attribute's name")?;
            if attrs.iter().any(|(known, _)| known == name) {
                return Err(self.lexer.error(at, Problem::AttrTwice(shorten(name))));
            }
            self.sign("=")?;
            let literal = self.literal()?;
            attrs.push((name.to_owned(), literal));
            self.limit(at, attrs.len(), "attributes")?;
            if self.comma_or("}")? {
                return Ok(attrs);
            }
        }
    }

    fn literal(&mut self) -> Result<Literal, ParseError> {
        let (token, at) = self.lexer.next()?;
        Ok(match token {
            Token::Int(int) => Literal::Int(int),
            Token::Real(real) => Literal::Real(real),
            Token::Text(text) => Literal::Text(text),
            Token::Word("inf") => Literal::Real(f64::INFINITY),
            Token::Word("NaN") => Literal::Real(f64::NAN),
            Token::Word(word) => match self.role_behind(word)? {
                Some(role) => Literal::Role(role),
                None => Literal::Word(word.to_owned()),
            },
            Token::Sign("[") => Literal::List(self.list()?),
            other => return Err(self.expected(at, "an attribute's value", &other)),
        })
    }

    /// `12, 34]`.
    fn list(&mut self) -> Result<Vec<u64>, ParseError> {
        let mut list = Vec::new();
        loop {
            match self.lexer.next()? {
                (Token::Int(int), at) => {
                    list.push(int);
                    self.limit(at, list.len(), "numbers in a list")?;
                }
                (other, at) => return Err(self.expected(at, "an integer", &other)),
            }
            if self.comma_or("]")? {
                return Ok(list);
            }
        }
    }

    /// `<c0 <= n`: the symbol of a set, and what it selects from.
    fn set(&mut self) -> Result<(SetSym, Dim), ParseError> {
        self.sign("<")?;
        let (dim, at) = self.dim()?;
        let Dim::Count(sym) = dim else {
            return Err(self.expected(at, "a set symbol `c…`", &Token::Word(&dim.to_string())));
        };
        self.sign("<=")?;
        let (of, _) = self.dim()?;
        Ok((sym, of))
    }

    /// `real[n, 128]`, `tokens<c0 <= n>` or `state<int[4]>`.
    fn ty(&mut self) -> Result<Type, ParseError> {
        let (word, at) = self.word("a type")?;
        if word == "tokens" {
            let (sym, of) = self.set()?;
            self.sign(">")?;
            return Ok(Type::Set { sym, of });
        }
        if word == "parts" {
            let (sym, of) = self.set()?;
            self.sign(",")?;
            let (dim, at) = self.dim()?;
            let Dim::Fixed(parts) = dim else {
                return Err(self.expected(at, "a number of segments", &Token::Word(&dim.to_string())));
            };
            self.sign(">")?;
            return Ok(Type::Partition { sym, of, parts });
        }
        if word == "state" {
            self.sign("<")?;
            let (word, at) = self.word("the type of the state's elements")?;
            let (elem, dims) = self.tensor(word, at)?;
            self.sign(">")?;
            return Ok(Type::State { elem, dims });
        }
        let (elem, dims) = self.tensor(word, at)?;
        Ok(Type::Tensor { elem, dims })
    }

    /// `real` and behind it `[n, 128]`.
    fn tensor(&mut self, word: &str, at: At) -> Result<(Elem, SmallVec<[Dim; 2]>), ParseError> {
        let Some((elem, _)) = Elem::ALL.iter().find(|(_, known)| *known == word) else {
            return Err(self.expected(
                at,
                "a type (real, f32, int, mask, tokens, parts or state)",
                &Token::Word(word),
            ));
        };
        self.sign("[")?;
        let mut dims: SmallVec<[Dim; 2]> = SmallVec::new();
        loop {
            let (dim, at) = self.dim()?;
            dims.push(dim);
            self.limit(at, dims.len(), "dimensions")?;
            if self.comma_or("]")? {
                return Ok((*elem, dims));
            }
        }
    }

    fn dim(&mut self) -> Result<(Dim, At), ParseError> {
        let (token, at) = self.lexer.next()?;
        let dim = match &token {
            Token::Int(int) => u32::try_from(*int).ok().map(Dim::Fixed),
            Token::Word("n") => Some(Dim::Tokens),
            Token::Word("m") => Some(Dim::Cached),
            Token::Word(word) => {
                word.strip_prefix('c').and_then(|sym| sym.parse().ok()).map(|sym| Dim::Count(SetSym(sym)))
            }
            _ => None,
        };
        dim.map(|dim| (dim, at))
            .ok_or_else(|| self.expected(at, "a size (`n`, `c…`, `m` or a number)", &token))
    }

    /// Whether `end` stands here rather than a comma.
    fn comma_or(&mut self, end: &'static str) -> Result<bool, ParseError> {
        match self.lexer.next()? {
            (Token::Sign(","), _) => Ok(false),
            (Token::Sign(sign), _) if sign == end => Ok(true),
            (other, at) => Err(self.expected(at, &format!("`,` or `{end}`"), &other)),
        }
    }

    fn sign(&mut self, wanted: &'static str) -> Result<(), ParseError> {
        match self.lexer.next()? {
            (Token::Sign(sign), _) if sign == wanted => Ok(()),
            (other, at) => Err(self.expected(at, &format!("`{wanted}`"), &other)),
        }
    }

    fn expect_word(&mut self, wanted: &'static str) -> Result<(), ParseError> {
        match self.lexer.next()? {
            (Token::Word(word), _) if word == wanted => Ok(()),
            (other, at) => Err(self.expected(at, &format!("`{wanted}`"), &other)),
        }
    }

    fn word(&mut self, wanted: &'static str) -> Result<(&'a str, At), ParseError> {
        match self.lexer.next()? {
            (Token::Word(word), at) => Ok((word, at)),
            (other, at) => Err(self.expected(at, wanted, &other)),
        }
    }

    fn value(&mut self) -> Result<(&'a str, At), ParseError> {
        match self.lexer.next()? {
            (Token::Value(name), at) => Ok((name, at)),
            (other, at) => Err(self.expected(at, "a value `%…`", &other)),
        }
    }

    fn text(&mut self, wanted: &'static str) -> Result<(String, At), ParseError> {
        match self.lexer.next()? {
            (Token::Text(text), at) => Ok((text, at)),
            (other, at) => Err(self.expected(at, wanted, &other)),
        }
    }

    fn limit(&self, at: At, got: usize, what: &'static str) -> Result<(), ParseError> {
        if got <= MAX_LIST {
            return Ok(());
        }
        Err(self.lexer.error(at, Problem::Limit { what, limit: MAX_LIST }))
    }

    fn expected(&self, at: At, wanted: &str, got: &Token<'_>) -> ParseError {
        let (wanted, got) = (wanted.to_owned(), shorten(&got.describe()));
        self.lexer.error(at, Problem::Expected { wanted, got })
    }
}
