//! Which registers an instruction reads and writes, as far as its operands say: the first ones are results, unless its name says
//! that it has none. Wide operands are told from the name's parts and from `.64`.

use crate::listing::Instruction;

/// A register of a warp: a vector one, a uniform one, or a predicate of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Register {
    kind: Kind,
    number: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Vector,
    Uniform,
    Predicate,
    UniformPredicate,
}

/// Names of instructions without a result in a register.
const NO_RESULT: [&str; 31] = [
    "BAR",
    "BRA",
    "BRX",
    "BSSY",
    "BSYNC",
    "CALL",
    "CCTL",
    "DEPBAR",
    "ERRBAR",
    "EXIT",
    "FENCE",
    "HGMMA",
    "JMP",
    "LDGDEPBAR",
    "LDGSTS",
    "MEMBAR",
    "NANOSLEEP",
    "NOP",
    "RED",
    "REDG",
    "RET",
    "ST",
    "STG",
    "STL",
    "STS",
    "STSM",
    "UBLKCP",
    "UTMALDG",
    "UTMASTG",
    "WARPGROUP",
    "WARPSYNC",
];

/// The registers that it writes.
pub(crate) fn written(instruction: &Instruction) -> Vec<Register> {
    if NO_RESULT.contains(&instruction.name()) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for operand in instruction.operands.iter().take(results(instruction)) {
        found.extend(in_operand(operand, width(instruction)));
    }
    found
}

/// The registers that it reads, those that address memory and the guard among them.
pub(crate) fn read(instruction: &Instruction) -> Vec<Register> {
    let results = if NO_RESULT.contains(&instruction.name()) { 0 } else { results(instruction) };
    let mut found: Vec<Register> = instruction.guard.iter().flat_map(|guard| in_operand(guard, 1)).collect();
    for operand in instruction.operands.iter().skip(results) {
        // What is stored is as wide as the store; a wide multiply-add adds a pair.
        let is_address = operand.contains('[');
        found.extend(in_operand(operand, if is_address { 1 } else { width(instruction) }));
    }
    found
}

/// How many of the operands are results: comparisons have two, others one, and a predicate before it where a carry is made.
fn results(instruction: &Instruction) -> usize {
    let name = instruction.name();
    if name.ends_with("SETP") || name == "PLOP3" || name == "UPLOP3" || name == "R2P" {
        return 2;
    }
    let is_predicate = |operand: &String| operand.trim_start_matches('U').starts_with('P');
    let has_carry = instruction.operands.get(1).is_some_and(is_predicate);
    if has_carry { 2 } else { 1 }
}

/// Registers of a wide value.
fn width(instruction: &Instruction) -> u16 {
    if instruction.has("128") {
        4
    } else if instruction.has("64") || instruction.has("WIDE") {
        2
    } else {
        1
    }
}

/// The registers that an operand names: `desc[UR16][R2.64+0x10]` has `UR16`, `UR17`, `R2` and `R3`.
fn in_operand(operand: &str, width: u16) -> Vec<Register> {
    let mut found = Vec::new();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
    for word in operand.split(|c| !is_word(c)) {
        let mut parts = word.split('.');
        let Some(register) = parts.next().and_then(register) else { continue };
        let is_pair =
            parts.any(|part| part == "64") || operand.starts_with("desc[") && register.kind == Kind::Uniform;
        let is_wide = matches!(register.kind, Kind::Vector | Kind::Uniform);
        let width = if !is_wide {
            1
        } else if is_pair {
            2
        } else {
            width
        };
        found.extend((0..width).map(|idx| Register { number: register.number + idx, ..register }));
    }
    found
}

/// One register; none for those that always hold the same.
fn register(word: &str) -> Option<Register> {
    let kinds =
        [("UR", Kind::Uniform), ("UP", Kind::UniformPredicate), ("R", Kind::Vector), ("P", Kind::Predicate)];
    let (number, kind) = kinds.iter().find_map(|(prefix, kind)| Some((word.strip_prefix(prefix)?, *kind)))?;
    Some(Register { kind, number: number.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Control;

    fn instruction(guard: Option<&str>, opcode: &str, operands: &[&str]) -> Instruction {
        Instruction {
            address: 0,
            guard: guard.map(str::to_owned),
            opcode: opcode.to_owned(),
            operands: operands.iter().map(|operand| (*operand).to_owned()).collect(),
            control: Control::of(0),
        }
    }

    fn names(registers: &[Register]) -> Vec<String> {
        let prefix = |kind| match kind {
            Kind::Vector => "R",
            Kind::Uniform => "UR",
            Kind::Predicate => "P",
            Kind::UniformPredicate => "UP",
        };
        registers.iter().map(|found| format!("{}{}", prefix(found.kind), found.number)).collect()
    }

    #[test]
    fn results_and_operands_are_told_apart() {
        let load = instruction(Some("!P3"), "LDG.E.64", &["R4", "desc[UR16][R2.64+0x10]"]);
        assert_eq!(names(&written(&load)), ["R4", "R5"]);
        assert_eq!(names(&read(&load)), ["P3", "UR16", "UR17", "R2", "R3"]);
        let compare = instruction(None, "ISETP.NE.U32.AND", &["P0", "PT", "R21", "RZ", "PT"]);
        assert_eq!(
            (names(&written(&compare)), names(&read(&compare))),
            (vec!["P0".to_owned()], vec!["R21".to_owned()])
        );
        let store = instruction(None, "STS.128", &["[R7+0x20]", "R8"]);
        assert_eq!(names(&written(&store)), Vec::<String>::new());
        assert_eq!(names(&read(&store)), ["R7", "R8", "R9", "R10", "R11"]);
        let wide = instruction(None, "IMAD.WIDE.U32", &["R2", "R6", "0x4", "R8"]);
        assert_eq!(names(&written(&wide)), ["R2", "R3"]);
        let add = instruction(None, "IADD3", &["R2", "P1", "R4", "UR4", "RZ"]);
        assert_eq!(
            (names(&written(&add)), names(&read(&add))),
            (vec!["R2".to_owned(), "P1".to_owned()], vec!["R4".to_owned(), "UR4".to_owned()])
        );
    }
}
