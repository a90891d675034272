//! Text to tokens: words, directives, numbers and signs, each with its line.
//!
//! White space and comments are left out, so that what follows need not care how a statement is spread over lines.

use winnow::ascii::multispace1;
use winnow::combinator::{alt, opt, preceded, repeat};
use winnow::error::EmptyError;
use winnow::prelude::*;
use winnow::token::{any, one_of, take_till, take_until, take_while};

use super::SyntaxError;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A name or an opcode with its modifiers, such as `%r1`, `%tid.x`, `ld.shared::cluster.b32`.
    Word,
    /// A word behind a dot, such as `.reg`.
    Directive,
    /// Begins with a digit; what it says is found out by who needs it.
    Number,
    /// Text between double quotes, which are left on.
    Quoted,
    /// A single character.
    Sign,
}

/// A piece of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'t> {
    /// What it is.
    pub(super) kind: TokenKind,
    /// As it is written.
    pub(super) text: &'t str,
    /// Line, from 1.
    pub(super) line: u32,
}

type Scanned<'t> = winnow::Result<&'t str, EmptyError>;

/// The tokens of a text.
pub(super) fn lex(text: &str) -> Result<Vec<Token<'_>>, SyntaxError> {
    let (mut rest, mut line, mut tokens) = (text, 1, Vec::new());
    loop {
        let skipped = blank(&mut rest).unwrap_or_default();
        line += skipped.bytes().filter(|&byte| byte == b'\n').count() as u32;
        if rest.is_empty() {
            return Ok(tokens);
        }
        let (kind, text) = token(&mut rest).map_err(|_| unknown(rest, line))?;
        tokens.push(Token { kind, text, line });
    }
}

fn unknown(rest: &str, line: u32) -> SyntaxError {
    let what = if rest.starts_with("/*") {
        "the comment that begins with `/*` here has no `*/`".to_owned()
    } else if rest.starts_with('"') {
        "the text that begins with `\"` here does not end in this line; put a `\"` behind it".to_owned()
    } else {
        let sign = rest.chars().next().unwrap_or_default();
        format!("{sign:?} is not a sign of PTX; take it away")
    };
    SyntaxError { line, what }
}

/// White space and comments.
fn blank<'t>(input: &mut &'t str) -> Scanned<'t> {
    let line_comment = preceded("//", take_till(0.., '\n'));
    let block_comment = ("/*", take_until(0.., "*/"), "*/").take();
    repeat::<_, _, (), _, _>(0.., alt((multispace1, line_comment, block_comment))).take().parse_next(input)
}

fn token<'t>(input: &mut &'t str) -> winnow::Result<(TokenKind, &'t str), EmptyError> {
    alt((
        word.map(|text| (TokenKind::Word, text)),
        directive.map(|text| (TokenKind::Directive, text)),
        number.map(|text| (TokenKind::Number, text)),
        quoted.map(|text| (TokenKind::Quoted, text)),
        sign.map(|text| (TokenKind::Sign, text)),
    ))
    .parse_next(input)
}

fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$'
}

fn parts<'t>(input: &mut &'t str) -> Scanned<'t> {
    take_while(1.., is_part).parse_next(input)
}

fn word<'t>(input: &mut &'t str) -> Scanned<'t> {
    let start = one_of(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '$' | '%'));
    let modifiers = repeat::<_, _, (), _, _>(0.., (alt(("::", ".")), parts));
    (start, take_while(0.., is_part), modifiers).take().parse_next(input)
}

fn directive<'t>(input: &mut &'t str) -> Scanned<'t> {
    (".", parts, repeat::<_, _, (), _, _>(0.., ("::", parts))).take().parse_next(input)
}

/// With one dot, for `.version 9.0`.
fn number<'t>(input: &mut &'t str) -> Scanned<'t> {
    (one_of('0'..='9'), take_while(0.., is_part), opt((".", parts))).take().parse_next(input)
}

fn quoted<'t>(input: &mut &'t str) -> Scanned<'t> {
    ('"', take_till(0.., ['"', '\n']), '"').take().parse_next(input)
}

fn sign<'t>(input: &mut &'t str) -> Scanned<'t> {
    any.verify(|c| ",;:{}[]()<>|!@=+-".contains(*c)).take().parse_next(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        lex(text).expect("a text of tokens").iter().map(|token| token.text).collect()
    }

    #[test]
    fn a_name_keeps_its_modifiers_and_a_label_its_colon_apart() {
        assert_eq!(texts("LAB:ld.shared::cta.b32 %r1"), ["LAB", ":", "ld.shared::cta.b32", "%r1"]);
        assert_eq!(texts(".reg .b32 %r<8>;"), [".reg", ".b32", "%r", "<", "8", ">", ";"]);
        assert_eq!(
            texts("[%rd1+-8],0fBF800000,9.0"),
            ["[", "%rd1", "+", "-", "8", "]", ",", "0fBF800000", ",", "9.0"]
        );
    }

    #[test]
    fn lines_are_counted_through_comments() {
        let tokens = lex("a // b\n/* c\n d */ e\n\tf").expect("a text of tokens");
        let lines: Vec<(&str, u32)> = tokens.iter().map(|token| (token.text, token.line)).collect();
        assert_eq!(lines, [("a", 1), ("e", 3), ("f", 4)]);
    }

    #[test]
    fn what_is_no_token_is_named() {
        let message = |text| lex(text).expect_err("no tokens").to_string();
        assert_eq!(message("a\n/* b"), "line 2: the comment that begins with `/*` here has no `*/`");
        assert_eq!(message("a ?"), "line 1: '?' is not a sign of PTX; take it away");
        assert_eq!(message("é"), "line 1: 'é' is not a sign of PTX; take it away");
        assert!(message(".pragma \"x\n\";").contains("does not end in this line"));
    }
}
