//! What instructions do: one file a family, each with its table of forms.

mod approximate;
mod async_copy;
mod barrier;
mod bulk;
mod compare;
mod convert;
mod float;
mod flow;
mod integer;
mod lanes;
mod logic;
mod matrix;
mod mbarrier;
mod memory;
mod movement;
#[cfg(test)]
mod trial;
mod warp;
mod wgmma;

use std::sync::LazyLock;

use crate::machine::Run;
use crate::machine::decode::{DecodeError, Decoder, Form, Table};
use crate::syntax::Instruction;

/// See [`Form::decode`].
type Decode = fn(&mut Decoder<'_>, &Instruction) -> Result<Run, DecodeError>;

/// The families that work on registers alone.
const REGISTER_FAMILIES: [&[Form]; 8] = [
    integer::FORMS,
    float::FORMS,
    approximate::FORMS,
    compare::FORMS,
    logic::FORMS,
    movement::FORMS,
    convert::FORMS,
    warp::FORMS,
];

/// The families that work on memory, barriers and other warps.
const MACHINE_FAMILIES: [&[Form]; 8] = [
    flow::FORMS,
    memory::FORMS,
    barrier::FORMS,
    async_copy::FORMS,
    mbarrier::FORMS,
    bulk::FORMS,
    matrix::FORMS,
    wgmma::FORMS,
];

/// A row for each form that the machine knows.
pub fn forms() -> impl Iterator<Item = &'static Form> {
    REGISTER_FAMILIES.into_iter().chain(MACHINE_FAMILIES).flatten()
}

/// The table of all forms, which is made when it is first asked for.
pub(crate) fn table() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(forms()));
    &TABLE
}

#[cfg(test)]
mod tests {
    use super::trial::{Trial, Value};
    use super::*;
    use crate::machine::decode::expand;
    use crate::syntax::{Operand, RegisterClass};

    /// Names of the families that work on registers alone.
    fn names() -> impl Iterator<Item = String> {
        REGISTER_FAMILIES.into_iter().flatten().flat_map(|form| expand(form.syntax))
    }

    /// Operands by their letters, results first: `h`, `w`, `d` and `p` are registers of 16, 32 and 64 bits
    /// and predicates, `c` is a constant.
    fn shaped(letters: &str) -> Trial {
        let class = match &letters[..1] {
            "h" => RegisterClass::B16,
            "w" => RegisterClass::B32,
            "d" => RegisterClass::B64,
            _ => RegisterClass::Predicate,
        };
        let value = |letter| match letter {
            'h' => Value::B16(1),
            'w' => Value::B32(1),
            'd' => Value::B64(1),
            'p' => Value::Predicate(true),
            _ => Value::Integer(1),
        };
        Trial::new().results(&[class]).sources(&letters[1..].chars().map(value).collect::<Vec<_>>())
    }

    /// What operands the forms have.
    const SHAPES: &str = "w wc pp hh hw hd wh ww wd dh dw dd ppp hhh www ddd whh dww hhw ddw phh pww pdd ppc \
                          wpc wwc wdc pppp hhhh wwww dddd whhw dwwd hhhp wwwp dddp phhp pwwp pddp dddw dwww \
                          ddww wwwww dddww wwwwc";

    /// The shapes that a name takes.
    fn shapes_of(table: &Table, name: &str) -> Vec<&'static str> {
        SHAPES.split(' ').filter(|shape| shaped(shape).decode(table, name).is_ok()).collect()
    }

    #[test]
    fn no_name_is_in_two_rows() {
        let mut names: Vec<String> = forms().flat_map(|form| expand(form.syntax)).collect();
        let n = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n);
    }

    #[test]
    fn every_name_decodes_with_some_operands() {
        let table = table();
        for name in names() {
            assert!(!shapes_of(table, &name).is_empty(), "`{name}` decodes with no operands");
        }
    }

    /// `cvt` is left out: it takes registers that are wider than its types.
    #[test]
    fn one_register_of_another_class_is_refused_by_name() {
        let table = table();
        for name in names().filter(|name| !name.starts_with("cvt.")) {
            for shape in shapes_of(table, &name) {
                for (at, letter) in
                    "hwdp".chars().flat_map(|letter| (0..shape.len()).map(move |at| (at, letter)))
                {
                    let old = shape[at..].chars().next();
                    if old == Some(letter) || old == Some('c') {
                        continue;
                    }
                    let wrong = format!("{}{letter}{}", &shape[..at], &shape[at + 1..]);
                    match shaped(&wrong).decode(table, &name) {
                        Err(DecodeError::Operands { opcode, .. }) => assert_eq!(opcode, name),
                        Err(other) => panic!("{other}"),
                        Ok(_) => panic!("`{name}` takes {shape} and {wrong}"),
                    }
                }
            }
        }
    }

    #[test]
    fn every_name_refuses_labels_by_name() {
        let table = table();
        for name in names() {
            for n in 0..6 {
                let trial = (0..n).fold(Trial::new(), |trial, _| trial.with(Operand::Label(0)));
                match trial.decode(table, &name) {
                    Err(DecodeError::Operands { opcode, .. }) => assert_eq!(opcode, name),
                    Err(other) => panic!("{other}"),
                    Ok(_) => panic!("`{name}` takes {n} labels"),
                }
            }
        }
    }

    #[test]
    fn sections_have_numbers() {
        for form in forms() {
            assert!(
                form.section
                    .split(['.', ',', ' '])
                    .filter(|part| !part.is_empty())
                    .all(|part| part.parse::<u32>().is_ok()),
                "{}",
                form.section
            );
        }
    }
}
