//! The text of `nvdisasm -hex`: functions, labels, and instructions with their 128 bits.

use std::collections::BTreeMap;

use crate::Error;
use crate::control::Control;

/// One function of a cubin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its symbol.
    pub name: String,
    /// In the order in which they lie in memory, 16 bytes each.
    pub instructions: Vec<Instruction>,
    /// The instruction, by its index, that each label stands before.
    pub labels: BTreeMap<String, usize>,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Bytes from the function's beginning.
    pub address: u32,
    /// The predicate without which it does nothing, such as `!P0`.
    pub guard: Option<String>,
    /// Name with all its parts, such as `LDG.E.64`.
    pub opcode: String,
    /// As they are printed.
    pub operands: Vec<String>,
    /// When it may issue.
    pub control: Control,
}

impl Instruction {
    /// The name without its parts: `LDG` of `LDG.E.64`.
    pub fn name(&self) -> &str {
        self.opcode.split('.').next().unwrap_or_default()
    }

    /// Whether the name has this part: `LDG.E.64` has `64`.
    pub fn has(&self, part: &str) -> bool {
        self.opcode.split('.').skip(1).any(|found| found == part)
    }

    /// Whether it never does anything: its guard is the predicate that is always true, negated.
    pub fn is_idle(&self) -> bool {
        self.guard.as_deref() == Some("!PT")
    }

    /// The label that it jumps to, if it does.
    pub fn target(&self) -> Option<&str> {
        if !matches!(self.name(), "BRA" | "CALL" | "BRX" | "JMP") {
            return None;
        }
        self.operands.iter().find_map(|operand| operand.strip_prefix("`(")?.strip_suffix(')'))
    }
}

/// The function of this name.
///
/// # Errors
/// [`Error::NoKernel`] if there is none.
pub fn find<'f>(functions: &'f [Function], name: &str) -> Result<&'f Function, Error> {
    let found = functions.iter().find(|function| function.name == name);
    found.ok_or_else(|| Error::NoKernel(name.to_owned()))
}

/// The functions of a listing, in its order.
///
/// # Errors
/// [`Error::Listing`] with the line that is not as `nvdisasm -hex` prints it.
pub fn read(listing: &str) -> Result<Vec<Function>, Error> {
    let mut functions: Vec<Function> = Vec::new();
    let mut is_inside = false;
    let mut open: Option<(u32, &str)> = None;
    for (idx, line) in listing.lines().enumerate() {
        let wrong = |what: &str| Error::Listing { line: idx + 1, what: what.to_owned() };
        if let Some(name) = line.strip_prefix(".text.").and_then(|rest| rest.strip_suffix(':')) {
            functions.push(Function {
                name: name.to_owned(),
                instructions: Vec::new(),
                labels: BTreeMap::new(),
            });
            is_inside = true;
            continue;
        }
        if line.starts_with("//-----") {
            is_inside = false;
        }
        let Some(function) = functions.last_mut().filter(|_| is_inside) else { continue };
        if let Some(label) = line.strip_suffix(':').filter(|label| label.starts_with('.')) {
            function.labels.insert(label.to_owned(), function.instructions.len());
            continue;
        }
        let Some((before, bits)) = encoded(line) else { continue };
        match (open.take(), before) {
            (None, Some((address, text))) => open = Some((address, text)),
            (Some((address, text)), None) => {
                function.instructions.push(instruction(address, text, Control::of(bits)));
            }
            (None, None) => return Err(wrong("the upper half of an instruction without its lower one")),
            (Some(_), Some(_)) => {
                return Err(wrong("an instruction begins where the upper half of the last one should be"));
            }
        }
    }
    match functions.iter().all(|function| function.instructions.is_empty()) {
        true => Err(Error::Listing { line: 1, what: "there are no instructions".to_owned() }),
        false => Ok(functions),
    }
}

/// The 64 bits at the end of a line, and before them, in the first of an instruction's two lines, its address and text.
fn encoded(line: &str) -> Option<(Option<(u32, &str)>, u64)> {
    let (before, bits) = line.trim_end().strip_suffix("*/")?.rsplit_once("/*")?;
    let bits = u64::from_str_radix(bits.trim().strip_prefix("0x")?, 16).ok()?;
    let before = before.trim();
    if before.is_empty() {
        return Some((None, bits));
    }
    let (address, text) = before.strip_prefix("/*")?.split_once("*/")?;
    let address = u32::from_str_radix(address, 16).ok()?;
    Some((Some((address, text.trim().trim_end_matches(';').trim_end())), bits))
}

fn instruction(address: u32, text: &str, control: Control) -> Instruction {
    let (guard, text) = match text.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
        Some((guard, rest)) => (Some(guard.to_owned()), rest.trim_start()),
        None => (None, text),
    };
    let (opcode, operands) = text.split_once(' ').unwrap_or((text, ""));
    Instruction { address, guard, opcode: opcode.to_owned(), operands: split(operands), control }
}

/// Operands, between which stand commas; those within brackets and parentheses are one.
fn split(text: &str) -> Vec<String> {
    let (mut found, mut depth, mut begin) = (Vec::new(), 0_u32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                found.push(text[begin..at].trim().to_owned());
                begin = at + 1;
            }
            _ => {}
        }
    }
    let last = text[begin..].trim();
    if !last.is_empty() {
        found.push(last.to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
//--------------------- .text.twice               --------------------------
\t.section\t.text.twice,\"ax\",@progbits
twice:
.text.twice:
        /*0000*/                   LDG.E R0, desc[UR16][R2.64+0x10] ;       /* 0x0000001002007981 */
                                                                            /* 0x002ea2000c1e1900 */
.L_x_1:
        /*0010*/              @!P0 BRA `(.L_x_1) ;                          /* 0xfffffffc00008947 */
                                                                            /* 0x000fea000383ffff */
//--------------------- .nv.shared.twice          --------------------------
        /*0020*/                   NOP ;                                    /* 0x0000000000007918 */
";

    #[test]
    fn functions_labels_and_operands_are_read() {
        let functions = read(LISTING).expect("a listing");
        let [Function { name, instructions, labels }] = functions.as_slice() else { panic!("{functions:?}") };
        assert_eq!((name.as_str(), labels[".L_x_1"]), ("twice", 1));
        let [load, branch] = instructions.as_slice() else { panic!("{instructions:?}") };
        assert_eq!(load.operands, ["R0", "desc[UR16][R2.64+0x10]"]);
        assert_eq!((load.name(), load.has("E"), load.control.waits), ("LDG", true, 0b10));
        assert_eq!((branch.guard.as_deref(), branch.target()), (Some("!P0"), Some(".L_x_1")));
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        assert!(matches!(read("what is this"), Err(Error::Listing { line: 1, .. })));
        let halves: String =
            LISTING.lines().filter(|line| !line.contains("0x002ea2")).collect::<Vec<_>>().join("\n");
        assert!(matches!(read(&halves), Err(Error::Listing { line: 7, .. })), "{:?}", read(&halves));
    }
}
