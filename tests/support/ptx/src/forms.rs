#![doc = include_str!("../FORMS.md")]

use std::fmt::Write;

use crate::machine::decode::Form;

/// Titles of the groups of instructions in the PTX ISA 9.0, by the number that their sections begin with.
const GROUPS: [(&str, &str); 15] = [
    ("9.7.1", "Integer arithmetic"),
    ("9.7.2", "Extended-precision integer arithmetic"),
    ("9.7.3", "Floating point"),
    ("9.7.4", "Half-precision floating point"),
    ("9.7.5", "Mixed-precision floating point"),
    ("9.7.6", "Comparison and selection"),
    ("9.7.7", "Half-precision comparison"),
    ("9.7.8", "Logic and shift"),
    ("9.7.9", "Data movement and conversion"),
    ("9.7.12", "Control flow"),
    ("9.7.13", "Parallel synchronisation and communication"),
    ("9.7.14", "Matrices of warps"),
    ("9.7.15", "Matrices of warp groups, asynchronous"),
    ("9.7.18", "Stack manipulation"),
    ("9.7.19", "Miscellaneous"),
];

/// Instructions that sections of the PTX ISA 9.0 describe.
const SECTIONS: &[(&str, &str)] = &[
    ("9.7.1.1", "add"),
    ("9.7.1.2", "sub"),
    ("9.7.1.3", "mul"),
    ("9.7.1.4", "mad"),
    ("9.7.1.5", "mul24"),
    ("9.7.1.6", "mad24"),
    ("9.7.1.7", "sad"),
    ("9.7.1.8", "div"),
    ("9.7.1.9", "rem"),
    ("9.7.1.10", "abs"),
    ("9.7.1.11", "neg"),
    ("9.7.1.12", "min"),
    ("9.7.1.13", "max"),
    ("9.7.1.14", "popc"),
    ("9.7.1.15", "clz"),
    ("9.7.1.16", "bfind"),
    ("9.7.1.17", "fns"),
    ("9.7.1.18", "brev"),
    ("9.7.1.19", "bfe"),
    ("9.7.1.20", "bfi"),
    ("9.7.1.21", "szext"),
    ("9.7.1.22", "bmsk"),
    ("9.7.1.23", "dp4a"),
    ("9.7.1.24", "dp2a"),
    ("9.7.2.1", "add.cc"),
    ("9.7.2.2", "addc"),
    ("9.7.2.3", "sub.cc"),
    ("9.7.2.4", "subc"),
    ("9.7.2.5", "mad.cc"),
    ("9.7.2.6", "madc"),
    ("9.7.3.1", "testp"),
    ("9.7.3.2", "copysign"),
    ("9.7.3.3", "add"),
    ("9.7.3.4", "sub"),
    ("9.7.3.5", "mul"),
    ("9.7.3.6", "fma"),
    ("9.7.3.7", "mad"),
    ("9.7.3.8", "div"),
    ("9.7.3.9", "abs"),
    ("9.7.3.10", "neg"),
    ("9.7.3.11", "min"),
    ("9.7.3.12", "max"),
    ("9.7.3.13", "rcp"),
    ("9.7.3.14", "rcp.approx.ftz.f64"),
    ("9.7.3.15", "sqrt"),
    ("9.7.3.16", "rsqrt"),
    ("9.7.3.17", "rsqrt.approx.ftz.f64"),
    ("9.7.3.18", "sin"),
    ("9.7.3.19", "cos"),
    ("9.7.3.20", "lg2"),
    ("9.7.3.21", "ex2"),
    ("9.7.3.22", "tanh"),
    ("9.7.4.1", "add"),
    ("9.7.4.2", "sub"),
    ("9.7.4.3", "mul"),
    ("9.7.4.4", "fma"),
    ("9.7.4.5", "neg"),
    ("9.7.4.6", "abs"),
    ("9.7.4.7", "min"),
    ("9.7.4.8", "max"),
    ("9.7.4.9", "tanh"),
    ("9.7.4.10", "ex2"),
    ("9.7.5.1", "add"),
    ("9.7.5.2", "sub"),
    ("9.7.5.3", "fma"),
    ("9.7.6.1", "set"),
    ("9.7.6.2", "setp"),
    ("9.7.6.3", "selp"),
    ("9.7.6.4", "slct"),
    ("9.7.7.1", "set"),
    ("9.7.7.2", "setp"),
    ("9.7.8.1", "and"),
    ("9.7.8.2", "or"),
    ("9.7.8.3", "xor"),
    ("9.7.8.4", "not"),
    ("9.7.8.5", "cnot"),
    ("9.7.8.6", "lop3"),
    ("9.7.8.7", "shf"),
    ("9.7.8.8", "shl"),
    ("9.7.8.9", "shr"),
    ("9.7.9.3", "mov"),
    ("9.7.9.4", "mov"),
    ("9.7.9.6", "shfl.sync"),
    ("9.7.9.7", "prmt"),
    ("9.7.9.8", "ld"),
    ("9.7.9.9", "ld.global.nc"),
    ("9.7.9.11", "st"),
    ("9.7.9.15", "prefetch"),
    ("9.7.9.18", "createpolicy"),
    ("9.7.9.19", "isspacep"),
    ("9.7.9.20", "cvta"),
    ("9.7.9.21", "cvt"),
    ("9.7.9.22", "cvt.pack"),
    ("9.7.9.23", "mapa"),
    ("9.7.9.24", "getctarank"),
    ("9.7.9.25.3.1", "cp.async"),
    ("9.7.9.25.3.2", "cp.async.commit_group"),
    ("9.7.9.25.3.3", "cp.async.wait_group / cp.async.wait_all"),
    ("9.7.9.25.4.1", "cp.async.bulk"),
    ("9.7.9.27.1.2", "cp.async.bulk.tensor"),
    ("9.7.9.27.2.1", "cp.async.bulk.commit_group"),
    ("9.7.9.27.2.2", "cp.async.bulk.wait_group"),
    ("9.7.12.3", "bra"),
    ("9.7.12.6", "ret"),
    ("9.7.12.7", "exit"),
    ("9.7.13.1", "bar / barrier"),
    ("9.7.13.2", "bar.warp.sync"),
    ("9.7.13.3", "barrier.cluster"),
    ("9.7.13.4", "membar / fence"),
    ("9.7.13.5", "atom"),
    ("9.7.13.6", "red"),
    ("9.7.13.9", "vote.sync"),
    ("9.7.13.10", "match"),
    ("9.7.13.11", "activemask"),
    ("9.7.13.12", "redux.sync"),
    ("9.7.13.13", "griddepcontrol"),
    ("9.7.13.14", "elect.sync"),
    ("9.7.13.15.9", "mbarrier.init"),
    ("9.7.13.15.10", "mbarrier.inval"),
    ("9.7.13.15.11", "mbarrier.expect_tx"),
    ("9.7.13.15.12", "mbarrier.complete_tx"),
    ("9.7.13.15.13", "mbarrier.arrive"),
    ("9.7.13.15.14", "mbarrier.arrive_drop"),
    ("9.7.13.15.15", "cp.async.mbarrier.arrive"),
    ("9.7.13.15.16", "mbarrier.test_wait / mbarrier.try_wait"),
    ("9.7.13.15.17", "mbarrier.pending_count"),
    ("9.7.14.5.14", "mma"),
    ("9.7.14.5.15", "ldmatrix"),
    ("9.7.14.5.16", "stmatrix"),
    ("9.7.14.5.17", "movmatrix"),
    ("9.7.15.5.2", "wgmma.mma_async"),
    ("9.7.15.7.1", "wgmma.fence"),
    ("9.7.15.7.2", "wgmma.commit_group"),
    ("9.7.15.7.3", "wgmma.wait_group"),
    ("9.7.19.1", "brkpt"),
    ("9.7.19.2", "nanosleep"),
    ("9.7.19.3", "pmevent"),
    ("9.7.19.4", "trap"),
    ("9.7.19.5", "setmaxnreg"),
];

/// Alternatives in braces that are all shown; of more, the first two and the last.
const SHOWN: usize = 14;

/// What stands before the tables.
const HEAD: &str = "\
Instructions that the machine knows, by section of the PTX ISA 9.0.

Made of the tables in `src/op/` by `BLESS=1 cargo test -p skipc-ptx --test forms`; do not edit by hand.
Braces hold alternatives, and an empty one leaves its dot out: `bra.{uni,}` is `bra.uni` and `bra`.
What is not here is an error when a kernel is loaded.
";

/// The instruction that a section describes, or several with ` / ` between; `None` if the number is not known here.
pub fn title(section: &str) -> Option<&'static str> {
    SECTIONS.iter().find(|(number, _)| *number == section).map(|(_, title)| *title)
}

/// The list of forms in Markdown, made of [`crate::op::forms`].
pub fn list() -> String {
    let mut forms: Vec<&Form> = crate::op::forms().collect();
    // The tables are in the order of families; within a section their order stays.
    forms.sort_by_key(|form| numbers(first(form.section)));
    let mut out = HEAD.to_owned();
    for (number, title) in GROUPS {
        let inside = |form: &&&Form| numbers(first(form.section)).starts_with(&numbers(number));
        let mut rows = forms.iter().filter(inside).peekable();
        if rows.peek().is_none() {
            continue;
        }
        let _ =
            writeln!(out, "\n## {number} {title}\n\n| section | form | counted as |\n| --- | --- | --- |");
        for form in rows {
            let _ = writeln!(out, "| {} | `{}` | {} |", form.section, shorten(form.syntax), form.kind.name());
        }
    }
    out
}

/// The first of the sections that a form names.
fn first(section: &str) -> &str {
    section.split(',').next().unwrap_or_default().trim()
}

fn numbers(section: &str) -> Vec<u32> {
    section.split('.').map(|part| part.parse().unwrap_or_default()).collect()
}

/// Leaves out the middle of long lists of alternatives.
fn shorten(syntax: &str) -> String {
    let mut out = String::new();
    for part in syntax.split_inclusive('}') {
        let (before, inside) = part.split_once('{').unwrap_or((part, ""));
        out.push_str(before);
        let choices: Vec<&str> = inside.trim_end_matches('}').split(',').collect();
        match choices[..] {
            _ if inside.is_empty() => {}
            [one, two, .., last] if choices.len() > SHOWN => {
                let _ = write!(out, "{{{one},{two},…,{last}}}");
            }
            _ => {
                let _ = write!(out, "{{{inside}");
            }
        }
    }
    out
}
