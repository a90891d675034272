//! Tokens of the text form, one at a time: nothing is allocated for a text but its strings.

use super::error::{ParseError, Problem};

/// Bytes of a string: far beyond any name, and small enough to show in an error.
pub(super) const MAX_STRING: usize = 4096;

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// `%12`, without the sign.
    Value(&'a str),
    /// `matmul`, `n`, `gate.0`.
    Word(&'a str),
    /// `12`.
    Int(u64),
    /// `1e-5`, `-inf`.
    Real(f64),
    /// `"embed.weight"`, unescaped.
    Text(String),
    /// One of `{}[]<>=,:@`, or `<=`.
    Sign(&'a str),
    /// The end of the text.
    End,
}

impl Token<'_> {
    /// What it is, for "… expected, not …".
    pub(super) fn describe(&self) -> String {
        match self {
            Token::Value(name) => format!("`%{name}`"),
            Token::Word(word) => format!("`{word}`"),
            Token::Int(int) => format!("`{int}`"),
            Token::Real(real) => format!("`{real:?}`"),
            Token::Text(text) => format!("{text:?}"),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::End => "the end of the text".to_owned(),
        }
    }
}

/// A place in a text, with what is needed to say its line and column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    /// Bytes before it.
    pub(super) offset: usize,
    /// Its line, from 1.
    pub(super) line: u32,
    /// Bytes before its line.
    pub(super) line_start: usize,
}

/// Reads tokens from a text.
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: At,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Lexer<'a> {
        Lexer { text, at: At { offset: 0, line: 1, line_start: 0 } }
    }

    /// An error at a place.
    pub(super) fn error(&self, at: At, problem: Problem) -> ParseError {
        let before = self.text.get(at.line_start..at.offset).unwrap_or_default();
        let column = u32::try_from(before.chars().count()).unwrap_or(u32::MAX).saturating_add(1);
        ParseError { line: at.line, column, offset: at.offset, problem }
    }

    /// Behind the last token.
    pub(super) fn here(&self) -> At {
        self.at
    }

    /// Goes on behind the line of `at`.
    pub(super) fn skip_line(&mut self, at: At) {
        self.at = at;
        let rest = self.rest();
        self.at.offset += rest.find('\n').unwrap_or(rest.len());
    }

    /// Goes on at `at`.
    pub(super) fn go_to(&mut self, at: At) {
        self.at = at;
    }

    /// The next token and its place.
    pub(super) fn next(&mut self) -> Result<(Token<'a>, At), ParseError> {
        self.skip_blank();
        let (at, rest) = (self.at, self.rest());
        let Some(first) = rest.chars().next() else { return Ok((Token::End, at)) };
        let token = match first {
            '%' => {
                self.at.offset += 1;
                let name = self.take_while(|char| char.is_ascii_alphanumeric() || char == '_');
                if name.is_empty() {
                    return Err(self.error(at, Problem::Sign('%')));
                }
                Token::Value(name)
            }
            'a'..='z' | 'A'..='Z' | '_' => Token::Word(
                self.take_while(|char| char.is_ascii_alphanumeric() || char == '_' || char == '.'),
            ),
            '0'..='9' | '-' => self.number(at)?,
            '"' => Token::Text(self.string(at)?),
            '<' if rest.starts_with("<=") => Token::Sign(self.take(2)),
            '{' | '}' | '[' | ']' | '<' | '>' | '=' | ',' | ':' | '@' => Token::Sign(self.take(1)),
            other => return Err(self.error(at, Problem::Sign(other))),
        };
        Ok((token, at))
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at.offset..).unwrap_or_default()
    }

    /// The next `len` bytes, which are ASCII.
    fn take(&mut self, len: usize) -> &'a str {
        let taken = self.rest().get(..len).unwrap_or_default();
        self.at.offset += taken.len();
        taken
    }

    fn take_while(&mut self, mut wanted: impl FnMut(char) -> bool) -> &'a str {
        let rest = self.rest();
        self.take(rest.find(|char| !wanted(char)).unwrap_or(rest.len()))
    }

    /// Passes white space, line ends and comments.
    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            match rest.bytes().next() {
                Some(b'\n') => {
                    self.at.offset += 1;
                    self.at =
                        At { line: self.at.line.saturating_add(1), line_start: self.at.offset, ..self.at };
                }
                Some(b' ' | b'\t' | b'\r') => self.at.offset += 1,
                Some(b'/') if rest.starts_with("//") => {
                    self.at.offset += rest.find('\n').unwrap_or(rest.len())
                }
                _ => return,
            }
        }
    }

    fn number(&mut self, at: At) -> Result<Token<'a>, ParseError> {
        let mut before = ' ';
        let digits = self.take_while(|char| {
            let exponent_sign = matches!(before, 'e' | 'E' | ' ') && matches!(char, '-' | '+');
            before = char;
            exponent_sign || char.is_ascii_alphanumeric() || char == '.'
        });
        let is_real = digits == "-inf" || digits.contains(['.', 'e', 'E']);
        let token =
            if is_real { digits.parse().ok().map(Token::Real) } else { digits.parse().ok().map(Token::Int) };
        token.ok_or_else(|| self.error(at, Problem::Number(shorten(digits))))
    }

    fn string(&mut self, at: At) -> Result<String, ParseError> {
        let mut chars = self.rest().char_indices().skip(1);
        let mut string = String::new();
        while let Some((idx, char)) = chars.next() {
            let unescaped = match char {
                '"' => {
                    self.at.offset += idx + 1;
                    return Ok(string);
                }
                '\n' => break,
                '\\' => match chars.next().map(|(_, char)| char) {
                    Some('n') => Some('\n'),
                    Some('r') => Some('\r'),
                    Some('t') => Some('\t'),
                    Some('0') => Some('\0'),
                    Some(same @ ('"' | '\\' | '\'')) => Some(same),
                    Some('u') => unicode(&mut chars),
                    _ => None,
                },
                plain => Some(plain),
            };
            string.push(unescaped.ok_or_else(|| self.error(at, Problem::Escape))?);
            if string.len() > MAX_STRING {
                let problem = Problem::Limit { what: "bytes in a string", limit: MAX_STRING };
                return Err(self.error(at, problem));
            }
        }
        Err(self.error(at, Problem::Unterminated))
    }
}

/// The rest of `\u{1f600}`.
fn unicode(chars: &mut impl Iterator<Item = (usize, char)>) -> Option<char> {
    let mut chars = chars.map(|(_, char)| char);
    if chars.next() != Some('{') {
        return None;
    }
    let mut code = 0u32;
    // Six digits are the most that a character has; the seventh place is for the brace.
    for char in chars.take(7) {
        if char == '}' {
            return char::from_u32(code);
        }
        code = code.checked_mul(16)?.checked_add(char.to_digit(16)?)?;
    }
    None
}

/// The start of a text from outside, short enough for an error.
pub(super) fn shorten(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
