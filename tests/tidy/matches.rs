//! Matches over ops of the IR, those of training, and what ops are to the planner. One with an arm for all the rest takes an op that was forgotten for one that is known;
//! without it the compiler asks. To pick out one op, `if let`, `let … else` and `matches!` say that this is all.

use super::rust_text::code_only;

/// Matches with an arm for an op and one for all the rest.
pub(crate) fn open_matches(path: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let found = code.match_indices("match ").filter(|(at, _)| is_open(&code, *at));
    let line = |at: usize| code[..at].matches('\n').count() + 1;
    found.map(|(at, _)| format!("{}:{}: a match over ops names every op: no `_`", path, line(at))).collect()
}

/// Whether the match that begins at `at` has both kinds of arms.
fn is_open(code: &str, at: usize) -> bool {
    if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
        return false;
    }
    let Some(begin) = code[at..].find('{') else { return false };
    let patterns = patterns(&code[at + begin + 1..]);
    let is_rest = |pattern: &String| pattern.split("if ").next().is_some_and(|rest| rest.trim() == "_");
    patterns.iter().any(|pattern| names_op(pattern)) && patterns.iter().any(is_rest)
}

/// The enums that are ops.
const OPS: [&str; 3] = ["Op::", "Training::", "OpKind::"];

/// Whether a pattern is an op, and not that of another enum of such a name.
fn names_op(pattern: &str) -> bool {
    let mut ops = OPS.iter().flat_map(|name| pattern.match_indices(name));
    ops.any(|(at, _)| {
        let before = pattern[..at].trim_end_matches("skipc_ir::").trim_end_matches("ir::");
        !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

/// The patterns of the arms in a body, which ends with its closing brace: what stands before each `=>` that is not inside of
/// an arm, fields in braces left out.
fn patterns(body: &str) -> Vec<String> {
    let (mut found, mut depth, mut pattern) = (Vec::new(), 0, String::new());
    let mut chars = body.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' if depth == 0 => break,
            '}' | ')' | ']' => depth -= 1,
            '=' if depth == 0 && chars.peek() == Some(&'>') => {
                chars.next();
                found.push(std::mem::take(&mut pattern));
                skip_arm(&mut chars);
            }
            c if depth == 0 => pattern.push(c),
            _ => {}
        }
    }
    found
}

/// Goes behind the value of an arm: a block, or all up to the comma behind it.
fn skip_arm(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while chars.peek().is_some_and(|c| c.is_whitespace()) {
        chars.next();
    }
    let is_block = chars.peek() == Some(&'{');
    let mut depth = 0;
    while let Some(c) = chars.peek().copied() {
        match c {
            '{' | '(' | '[' => depth += 1,
            // The end of the match.
            '}' | ')' | ']' if depth == 0 => return,
            '}' | ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                chars.next();
                return;
            }
            _ => {}
        }
        chars.next();
        if is_block && depth == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::open_matches;

    #[test]
    fn an_arm_for_all_the_rest_beside_one_for_an_op() {
        for open in [
            "match op { Op::Add {} => 1, _ => 2 }",
            "let x = match graph.op(value) {\n    Op::Weight { name, .. } if name == \"a\" => { f(Some(1)) }\n    _ => None,\n};",
            "match op { Op::Input { port } => match port { _ => 1 }, _ if late => 2, Op::Add {} => 3 }",
            "match op { _ => 2, skipc_ir::Op::Add {} | Op::Sub {} => f(|x| x) }",
            "match op { Training::Clear {} => 1, _ => 2 }",
            "match OpKind::of(op) { OpKind::Rope(rope) => f(rope), _ => 2 }",
        ] {
            assert_eq!(open_matches("a.rs", open).len(), 1, "{open}");
        }
        for closed in [
            "match op { Op::Add {} => 1, Op::Sub {} => 2 }",
            "match x { Some(y) => Op::Add {}, _ => Op::Sub {} }",
            "match op { Op::Input { port } => match port.role { Role::State { .. } => 1, _ => 2 }, Op::Add {} => 3 }",
            "match kind { AtomOp::Add => 1, _ => 2 }",
            "match single { Single::Training(op) => OpKind::Scatter, _ => 2 }",
            "if let Op::Add {} = op { 1 } else { match x { 1 => 2, _ => 3 } }",
            "// match op { Op::Add {} => 1, _ => 2 }",
        ] {
            assert_eq!(open_matches("a.rs", closed), Vec::<String>::new(), "{closed}");
        }
        assert!(open_matches("a.rs", "\n\nmatch op { Op::A => 1, _ => 2 }")[0].starts_with("a.rs:3: "));
    }
}
