//! What a model is compiled for, in the words of users.

use skipc_artifact::target::{DType, Target};

use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};

/// Targets, each with the precision of its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// In the order in which they were named, each once.
    pub list: Vec<(Target, DType)>,
    /// Whether weights of matmuls for the host are kept in 8 bits.
    pub in_8_bits: bool,
}

impl Targets {
    /// Reads names of targets, such as `cpu` or `cuda:sm_90a`, and precisions of kinds of targets, such as `cpu=bf16`; kinds
    /// without one compute in f32 on the host and in bf16 on a GPU.
    ///
    /// # Errors
    /// A word that is none of these.
    pub fn parse(targets: &[String], dtypes: &[String]) -> Result<Targets, Error> {
        let usage = |message: String, help: &str| {
            Error::new(ErrorKind::Request, Diagnostic::new("usage::compile", message).help(help))
        };
        let (mut cpu, mut cuda, mut in_8_bits) = (DType::F32, DType::Bf16, false);
        for choice in dtypes {
            let (kind, dtype) = match choice.split_once('=') {
                Some((kind @ ("cpu" | "cuda"), "f32")) => (kind, DType::F32),
                Some((kind @ ("cpu" | "cuda"), "bf16")) => (kind, DType::Bf16),
                Some((kind @ "cpu", "q8")) => {
                    in_8_bits = true;
                    (kind, DType::Bf16)
                }
                _ => {
                    return Err(usage(
                        format!("--dtype: `{choice}`"),
                        "write `cpu=f32`, `cpu=bf16`, `cpu=q8`, `cuda=bf16` or `cuda=f32`",
                    ));
                }
            };
            *(if kind == "cpu" { &mut cpu } else { &mut cuda }) = dtype;
        }
        let mut list: Vec<(Target, DType)> = Vec::new();
        for text in targets {
            let target: Target =
                text.parse().map_err(|error| usage(format!("--target: {error}"), "see `skipc targets`"))?;
            let dtype = if target == Target::Cpu { cpu } else { cuda };
            if !list.iter().any(|(known, _)| *known == target) {
                list.push((target, dtype));
            }
        }
        Ok(Targets { list, in_8_bits })
    }
}
