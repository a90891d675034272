//! The source of a statement on one line, for messages.

use super::lex::{Token, TokenKind};

/// Elements of a list from which on only the first and the count are shown: the accumulators of a `wgmma` would fill a
/// screen.
const LONG_LIST: usize = 9;

/// Joins tokens as LLVM spaces them, and shortens long lists.
pub(super) fn one_line(tokens: &[Token<'_>]) -> String {
    let (mut line, mut depth, mut at) = (String::new(), 0_u32, 0);
    while let Some(token) = tokens.get(at) {
        if needs_space(at.checked_sub(1).map(|before| tokens[before]), *token, depth) {
            line.push(' ');
        }
        line.push_str(token.text);
        at += 1;
        match token.text {
            "[" => depth += 1,
            "]" | "}" => depth = depth.saturating_sub(1),
            "{" => {
                depth += 1;
                at += shorten(&tokens[at..], &mut line);
            }
            _ => {}
        }
    }
    line
}

/// After a comma, and after the words before the operands.
fn needs_space(before: Option<Token<'_>>, token: Token<'_>, depth: u32) -> bool {
    before.is_some_and(|before| {
        let word = before.kind == TokenKind::Word && depth == 0 && !matches!(token.text, "," | "|");
        before.text == "," || word
    })
}

/// Writes a long list without its end, and tells how many tokens that stands for.
fn shorten(list: &[Token<'_>], line: &mut String) -> usize {
    let Some(end) = list.iter().position(|token| token.text == "}") else { return 0 };
    let n_elements = 1 + list[..end].iter().filter(|token| token.text == ",").count();
    if n_elements < LONG_LIST {
        return 0;
    }
    let first: String = list[..end].iter().map(|token| token.text).take_while(|text| *text != ",").collect();
    line.push_str(&format!("{first}, … {n_elements} registers"));
    end
}

#[cfg(test)]
mod tests {
    use super::super::lex::lex;
    use super::*;

    fn normal(text: &str) -> String {
        one_line(&lex(text).expect("a text of tokens"))
    }

    #[test]
    fn spaces_and_lines_are_evened_out() {
        for (text, line) in [
            ("@!%p1  bra\t$L__BB0_2", "@!%p1 bra $L__BB0_2"),
            ("ld.global.v2.b32 \t{%r1,%r2},[ %rd1 + -8 ]", "ld.global.v2.b32 {%r1, %r2}, [%rd1+-8]"),
            ("elect.sync %r2 | %p1, -1", "elect.sync %r2|%p1, -1"),
            ("mma.x\n\t{%r1},\n\t{-1}", "mma.x {%r1}, {-1}"),
            (
                "cp.y [%rd8], [%rd1, {%r4, %r1}], [smem+65536], %rs1",
                "cp.y [%rd8], [%rd1, {%r4, %r1}], [smem+65536], %rs1",
            ),
            ("st.z -1, !p, 0f00000000", "st.z -1, !p, 0f00000000"),
            ("ret", "ret"),
        ] {
            assert_eq!(normal(text), line);
        }
    }

    #[test]
    fn a_long_list_shows_its_length() {
        let list: Vec<String> = (0..64).map(|idx| format!("%r{idx}")).collect();
        let line = normal(&format!("wgmma.w {{{}}}, %rd1, p", list.join(",")));
        assert_eq!(line, "wgmma.w {%r0, … 64 registers}, %rd1, p");
    }
}
