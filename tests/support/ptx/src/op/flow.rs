//! Branches and ends (PTX ISA section 9.7.12).

use crate::machine::Outcome;
use crate::machine::Run;
use crate::machine::decode::{DecodeError, Decoder, Form, Kind};
use crate::syntax::{Instruction, Operand};

pub(crate) const FORMS: &[Form] = &[
    Form { syntax: "bra.{uni,}", section: "9.7.12.3", kind: Kind::Flow, decode: branch },
    Form { syntax: "{ret,exit}", section: "9.7.12.6, 9.7.12.7", kind: Kind::Flow, decode: exit },
    Form {
        syntax: "griddepcontrol.{wait,launch_dependents}",
        section: "9.7.13.13",
        kind: Kind::Sync,
        decode: grid_dependency,
    },
];

fn branch(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 1)?;
    match &instruction.operands[0] {
        Operand::Label(target) => Ok(Run::Branch(*target)),
        other => Err(decoder.error(format!("{other:?} is not a label"))),
    }
}

fn exit(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 0)?;
    Ok(Run::Exit)
}

/// A launch begins when those before it are over, so there is nothing to wait for and nobody to let go.
fn grid_dependency(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 0)?;
    Ok(Run::Turn(Box::new(|_| Ok(Outcome::Next))))
}
