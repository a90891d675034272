//! Where paths meet: shapes that a compiler writes, and random graphs against the definition.

use proptest::prelude::*;

use skipc_ptx::flow::analyse;
use skipc_ptx::syntax::{Guard, Instruction, Kernel, Operand, RegisterId, parse};

/// Joins of a body's guarded branches, in order, as the label that stands there or `end`.
///
/// Labels are single letters, each before an instruction of its own.
fn joins(body: &str) -> Vec<String> {
    let head = ".version 8.6\n.target sm_90a\n.entry k() { .reg .pred p;\n";
    let kernel = parse(&format!("{head}{body}\n}}")).expect("a right text").kernels.remove(0);
    let statements = body.split_inclusive([';', ':']).map(str::trim);
    let (mut labels, mut waiting) = (Vec::new(), "");
    for statement in statements.filter(|statement| !statement.is_empty()) {
        match statement.strip_suffix(':') {
            Some(label) => waiting = label,
            None => labels.push(std::mem::take(&mut waiting)),
        }
    }
    let flow = analyse(&kernel);
    let guarded = |idx: &usize| kernel.instructions[*idx].guard.is_some();
    let branches = (0..kernel.instructions.len()).filter(guarded);
    let name = |join: usize| labels.get(join).map_or("end", |label| label).to_owned();
    branches.filter(|&idx| kernel.instructions[idx].opcode == "bra").map(|idx| name(flow.join[idx])).collect()
}

#[test]
fn a_diamond_meets_below() {
    assert_eq!(joins("@p bra T; bar.sync 0; bra J; T: bar.sync 1; J: ret;"), ["J"]);
    assert_eq!(joins("@p bra J; bar.sync 0; J: ret;"), ["J"]);
    assert_eq!(joins("@p bra J; J: ret;"), ["J"]);
}

#[test]
fn nested_branches_meet_inside_out() {
    let inner = "@p bra U; bar.sync 0; bra I; U: bar.sync 1; I: bar.sync 2;";
    assert_eq!(joins(&format!("@p bra T; {inner} bra J; T: bar.sync 3; J: ret;")), ["J", "I"]);
}

#[test]
fn a_loop_meets_behind_it() {
    assert_eq!(joins("L: bar.sync 0; @p bra L; J: ret;"), ["J"]);
    // A way out in the middle goes to the same place.
    assert_eq!(joins("L: bar.sync 0; @p bra J; bar.sync 1; @p bra L; J: ret;"), ["J", "J"]);
    // One that does more first: it meets the other way out behind that.
    assert_eq!(joins("L: @p bra X; @p bra L; bra J; X: bar.sync 0; J: ret;"), ["J", "J"]);
    // `continue`.
    assert_eq!(joins("L: @p bra C; bar.sync 0; C: bar.sync 1; @p bra L; J: ret;"), ["C", "J"]);
}

#[test]
fn an_early_end_meets_at_the_end() {
    assert_eq!(joins("@p bra T; ret; T: ret;"), ["end"]);
    assert_eq!(joins("@p bra T; exit; T: trap;"), ["end"]);
    // Where a lane may end, the paths of the branch above it only meet at the end.
    assert_eq!(joins("@p bra J; @p ret; J: bar.sync 0; ret;"), ["end"]);
    assert_eq!(joins("@p bra J; bar.sync 0; J: bar.sync 1; @p ret; ret;"), ["J"]);
    assert_eq!(joins("@p bra E; bar.sync 0; E:"), ["end"]);
}

#[test]
fn flow_with_two_ways_into_a_loop_has_its_meeting_places() {
    assert_eq!(joins("@p bra B; A: bar.sync 0; B: bar.sync 1; @p bra A; J: ret;"), ["B", "J"]);
    assert_eq!(joins("@p bra B; A: @p bra J; B: bar.sync 1; @p bra A; J: ret;"), ["J", "J", "J"]);
}

#[test]
fn loops_without_an_end_meet_nowhere() {
    assert_eq!(joins("L: bar.sync 0; @p bra L; bra L;"), ["end"]);
    // The only path that ends goes by J.
    assert_eq!(joins("@p bra J; L: bra L; J: ret;"), ["J"]);
    assert_eq!(joins("@p bra L; L: bra L;"), ["end"]);
}

#[test]
fn a_kernel_without_instructions_has_no_flow() {
    assert_eq!(joins(""), [""; 0]);
}

fn instruction(opcode: &str, guarded: bool, to: Option<usize>) -> Instruction {
    Instruction {
        line: 1,
        guard: guarded.then_some(Guard { register: RegisterId(0), negated: false }),
        opcode: opcode.to_owned(),
        operands: to.map(Operand::Label).into_iter().collect(),
        text: opcode.to_owned(),
    }
}

fn kernel(instructions: Vec<Instruction>) -> Kernel {
    Kernel {
        name: "k".to_owned(),
        params: Vec::new(),
        threads: None,
        cluster: None,
        registers: Vec::new(),
        variables: Vec::new(),
        instructions,
    }
}

#[test]
fn a_hundred_thousand_instructions_are_quick() {
    // Branches over each other's ends, all the way: 50,000 blocks inside each other.
    let n = 100_000;
    let nested = (0..n).map(|idx| match idx < n / 2 {
        true => instruction("bra", true, Some(n - 1 - idx)),
        false => instruction("bar.sync", false, None),
    });
    let flow = analyse(&kernel(nested.collect()));
    assert!((0..n / 2).all(|idx| flow.join[idx] == n - 1 - idx));
    // Loops with many ways back, one behind the other.
    let back = (0..n).map(|idx| instruction("bra", true, Some(idx - idx % 100)));
    let flow = analyse(&kernel(back.collect()));
    assert!((0..n).all(|idx| flow.join[idx] == idx + 1));
}

/// What may come after an instruction, `len` for the end.
fn next(instructions: &[Instruction], idx: usize) -> Vec<usize> {
    let Instruction { guard, opcode, operands, .. } = &instructions[idx];
    let jump = match (opcode.as_str(), operands.first()) {
        ("bra", Some(Operand::Label(to))) => Some(*to),
        ("ret", _) => Some(instructions.len()),
        _ => None,
    };
    let falls = (guard.is_some() || jump.is_none()).then_some(idx + 1);
    jump.into_iter().chain(falls).collect()
}

/// Whether a path leads from `from` to the end, without `avoid`.
fn ends(instructions: &[Instruction], from: usize, avoid: Option<usize>) -> bool {
    let mut seen = vec![false; instructions.len() + 1];
    let mut rest = vec![from];
    while let Some(idx) = rest.pop() {
        if Some(idx) == avoid || std::mem::replace(&mut seen[idx], true) {
            continue;
        }
        if idx == instructions.len() {
            return true;
        }
        rest.extend(next(instructions, idx));
    }
    false
}

/// The meeting place by its definition: of the instructions on all paths to the end, the one that all the others are
/// behind.
fn join_by_definition(instructions: &[Instruction], branch: usize) -> usize {
    let n = instructions.len();
    if !ends(instructions, branch, None) {
        return n;
    }
    let on_all_paths = |from: usize, at: usize| !ends(instructions, from, Some(at));
    let meeting: Vec<usize> = (0..n).filter(|&at| at != branch && on_all_paths(branch, at)).collect();
    let nearest = |&&at: &&usize| meeting.iter().all(|&other| other == at || on_all_paths(at, other));
    meeting.iter().find(nearest).copied().unwrap_or(n)
}

/// An instruction among `n`.
fn any_instruction(n: usize) -> impl Strategy<Value = Instruction> {
    let branch = (any::<bool>(), 0..=n).prop_map(|(guarded, to)| instruction("bra", guarded, Some(to)));
    let guarded_branch = (0..=n).prop_map(|to| instruction("bra", true, Some(to)));
    let end = any::<bool>().prop_map(|guarded| instruction("ret", guarded, None));
    let plain = Just(instruction("bar.sync", false, None));
    prop_oneof![2 => branch, 3 => guarded_branch, 1 => end, 3 => plain]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn joins_are_what_post_domination_means(
        instructions in (1..14_usize).prop_flat_map(|n| proptest::collection::vec(any_instruction(n), n))
    ) {
        let flow = analyse(&kernel(instructions.clone()));
        for (idx, instruction) in instructions.iter().enumerate() {
            let is_branch = instruction.guard.is_some() && instruction.opcode == "bra";
            let expected = if is_branch { join_by_definition(&instructions, idx) } else { instructions.len() };
            prop_assert_eq!(flow.join[idx], expected, "instruction {}", idx);
        }
    }
}
