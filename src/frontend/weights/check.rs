//! A source held against a model.

use std::collections::BTreeMap;

use skipc_artifact::section::ContentHash;

use super::{TensorInfo, TensorSource};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::frontend::language::words::{nearest, quoted};
use crate::frontend::spec::model::Model;
use crate::frontend::spec::tensors::TensorSpec;

/// Names and shapes. Missing and mismatched tensors come in the order in which they are wanted, then those that no layer of
/// the model reads, by name.
pub(in crate::frontend) fn names_and_shapes(
    name: &str,
    there: &BTreeMap<String, TensorInfo>,
    wanted: &[TensorSpec],
    model: &Model,
) -> Result<(), Diagnostics> {
    let known: BTreeMap<&str, &TensorSpec> =
        wanted.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let extra: Vec<&str> =
        there.keys().map(String::as_str).filter(|name| !known.contains_key(name)).collect();
    let mut found = Diagnostics::default();
    for tensor in wanted {
        match there.get(&tensor.name) {
            None => found.push(missing(name, &tensor.name, &extra, found.is_full())),
            Some(info) => check_tensor(name, tensor, info, &mut found),
        }
    }
    for tensor in &extra {
        let absent =
            wanted.iter().map(|wanted| wanted.name.as_str()).filter(|name| !there.contains_key(*name));
        found.push(surplus(name, tensor, absent, model, found.is_full()));
    }
    found.or(())
}

/// Reads a tensor whole: the hash of its elements, all of which have to be finite.
pub(super) fn read_whole(
    name: &str,
    source: &dyn TensorSource,
    tensor: &str,
) -> Result<ContentHash, Diagnostic> {
    let read = source.read(tensor)?;
    if let Some((idx, value)) = read.first_not_finite() {
        let message = format!("`{tensor}` in {name} holds {value} (element {idx}, counted from 0)");
        return Err(Diagnostic::new("weights::non_finite", message)
            .help("no output would be a number; check the training run or the conversion"));
    }
    Ok(ContentHash::of(&read.bytes))
}

fn missing(file: &str, tensor: &str, extra: &[&str], only_counted: bool) -> Diagnostic {
    let near = if only_counted { None } else { nearest(tensor, extra.iter().copied()) };
    let help = match near {
        Some(near) => format!("the file has {}, which the model does not; is it this one?", quoted(near)),
        None if tensor.contains("skip_router") => {
            "routers may be in a file of their own: `--router-weights FILE`; `skipc init DIR` makes one"
                .to_owned()
        }
        None => "check that spec and weights are of one model; names are those of the reference's state dict"
            .to_owned(),
    };
    Diagnostic::new("weights::missing", format!("`{tensor}` is missing from {file}")).help(help)
}

fn surplus<'a>(
    file: &str,
    tensor: &str,
    absent: impl Iterator<Item = &'a str>,
    model: &Model,
    only_counted: bool,
) -> Diagnostic {
    let near = if only_counted { None } else { nearest(tensor, absent) };
    let help = match near {
        Some(near) => format!("the model wants `{near}`, which is missing; is it this one?"),
        None if tensor == "lm_head.weight" && model.stream.tie_embeddings => {
            "the spec shares the embedding with the head; write `tie_embeddings = false` to use this tensor"
                .to_owned()
        }
        None if tensor.contains("skip_router") => {
            "write in `skip_config`, or in the overlay of `--skip`, which layers have routers".to_owned()
        }
        None => "remove it from the file, or add to the spec what reads it".to_owned(),
    };
    Diagnostic::new("weights::extra", format!("{file} has {}, which no layer reads", quoted(tensor)))
        .help(help)
}

fn check_tensor(file: &str, wanted: &TensorSpec, info: &TensorInfo, found: &mut Diagnostics) {
    let name = &wanted.name;
    if info.shape != wanted.shape {
        let message = format!("`{name}` in {file} is {:?}; the spec makes it {:?}", info.shape, wanted.shape);
        let transposed = info.shape.iter().rev().eq(&wanted.shape);
        let help = if transposed {
            "transpose it: weights of projections are [out, in]"
        } else {
            "check the sizes in the spec, or whether the weights are of another model"
        };
        found.push(Diagnostic::new("weights::shape", message).help(help));
    } else if let Err(stored) = &info.dtype {
        let message = format!("`{name}` in {file} is stored as {stored}");
        found.push(Diagnostic::new("weights::dtype", message).help("store it as F32, BF16 or F16"));
    }
}
