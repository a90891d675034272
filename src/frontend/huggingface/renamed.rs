//! Tensors of a checkpoint under our names: renamed, cut out of fused matrices and turned when they are read.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::aliases::TENSORS;
use super::names::{FUSED, FUSED_NAMES, RowKind};
use super::naming::{Naming, TensorPlace};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::frontend::language::words::quoted;
use crate::frontend::spec::model::Model;
use crate::frontend::spec::tensors::{TensorSpec, tensors};
use crate::frontend::weights::{Tensor, TensorInfo, TensorSource, check, no_tensor};

impl Naming {
    /// A name in a file as the tables have it; nothing for what belongs to another part of the model.
    fn bare(&self, name: &str) -> Option<String> {
        const OTHERS: [&str; 4] = [
            "vision_tower.",
            "multi_modal_projector.",
            "model.vision_tower.",
            "model.multi_modal_projector.",
        ];
        let name = match self.is_part {
            false => name.strip_prefix(self.names.prefix).unwrap_or(name).to_owned(),
            true if OTHERS.iter().any(|other| name.starts_with(other)) => return None,
            true => name.replacen("language_model.", "", 1),
        };
        Some(TENSORS.iter().fold(name, |name, (theirs, ours)| name.replacen(theirs, ours, 1)))
    }
}

/// Tensors under our names.
pub(super) struct Renamed {
    name: String,
    sources: Vec<Box<dyn TensorSource>>,
    infos: BTreeMap<String, TensorInfo>,
    views: BTreeMap<String, View>,
}

/// Where a tensor of ours is.
struct View {
    source: usize,
    /// Its name in the source.
    theirs: String,
    /// The first of its rows among those of the whole, which is turned first if it has to be.
    begin: usize,
    kind: RowKind,
    swapped: bool,
    /// Rows of a head, where neighbours turn together.
    head_dim: usize,
}

/// Tensors of one source after another, by the names of the tables, with their places.
type There = BTreeMap<String, (usize, String)>;

impl Renamed {
    /// Holds what the sources have against the model. `name` is what users call them.
    ///
    /// # Errors
    /// Every tensor that is missing, not of the model, or of another shape, under the name in the checkpoint.
    pub(super) fn new(
        name: &str,
        sources: Vec<Box<dyn TensorSource>>,
        model: &Model,
        naming: &Naming,
    ) -> Result<Renamed, Diagnostics> {
        let (mut there, mut infos) = collect(name, &sources, naming)?;
        refuse_lora(name, &infos)?;
        take_copies(name, &sources, naming, &mut there, &mut infos)?;
        let ours = tensors(model);
        let naming = &fused(naming, &infos, &ours);
        let placed = places(name, &ours, naming)?;
        let wanted = whole(&ours, &placed, naming);
        let is_tied_head = |tensor: &str| tensor == "lm_head.weight" && model.stream.tie_embeddings;
        infos.retain(|tensor, _| !naming.is_no_weight(tensor) && !is_tied_head(tensor));
        check::names_and_shapes(name, &infos, &wanted, model)?;
        let mut renamed =
            Renamed { name: name.to_owned(), sources, infos: BTreeMap::new(), views: BTreeMap::new() };
        for (tensor, place) in ours.iter().zip(&placed) {
            let Some((source, theirs)) = there.get(&place.theirs).cloned() else { continue };
            let Some(info) = infos.get(&place.theirs) else { continue };
            let before = place.parts.iter().take_while(|part| **part != tensor.name);
            let begin = before.map(|part| rows_of(&ours, part)).sum();
            let swapped = place.is_router && naming.swaps_rows;
            let (kind, head_dim) = (place.kind, naming.head_dim.unwrap_or(1));
            let view = View { source, theirs, begin, kind, swapped, head_dim };
            renamed
                .infos
                .insert(tensor.name.clone(), TensorInfo { shape: tensor.shape.clone(), ..info.clone() });
            renamed.views.insert(tensor.name.clone(), view);
        }
        Ok(renamed)
    }
}

/// What the sources have, by the names of the tables. A tensor that two of them have is an error.
fn collect(
    name: &str,
    sources: &[Box<dyn TensorSource>],
    naming: &Naming,
) -> Result<(There, BTreeMap<String, TensorInfo>), Diagnostics> {
    let (mut there, mut infos, mut found) = (There::new(), BTreeMap::new(), Diagnostics::default());
    for (idx, source) in sources.iter().enumerate() {
        for (theirs, info) in source.tensors() {
            let Some(bare) = naming.bare(theirs) else { continue };
            infos.insert(bare.clone(), info.clone());
            if let Some((_, before)) = there.insert(bare, (idx, theirs.clone())) {
                let message = format!("{name} has {} twice: also as {}", quoted(theirs), quoted(&before));
                let help = "either could be meant; remove one of them, or leave out `--router-weights`";
                found.push(Diagnostic::new("weights::twice", message).help(help));
            }
        }
    }
    found.or((there, infos))
}

/// Changes of low rank are no weights, and a model without them is another.
fn refuse_lora(name: &str, infos: &BTreeMap<String, TensorInfo>) -> Result<(), Diagnostic> {
    let Some(lora) = infos.keys().find(|tensor| tensor.contains("lora_")) else { return Ok(()) };
    let message = format!("{name} has {}, a change of a weight that is not in it", quoted(lora));
    let help = "add `B @ A` to each weight that has such a change, `lora_q` to `wq` and so on, and leave out the changes";
    Err(Diagnostic::new("weights::lora", message).help(help))
}

/// Of tensors that a checkpoint has once for each time in which blocks run, the first. The others have to be the same.
fn take_copies(
    name: &str,
    sources: &[Box<dyn TensorSource>],
    naming: &Naming,
    there: &mut There,
    infos: &mut BTreeMap<String, TensorInfo>,
) -> Result<(), Diagnostics> {
    let copies: Vec<(String, String)> =
        infos.keys().filter_map(|copy| Some((copy.clone(), naming.first_of_copies(copy)?))).collect();
    let mut found = Diagnostics::default();
    for (copy, first) in copies {
        let (Some(info), Some(at)) = (infos.remove(&copy), there.remove(&copy)) else { continue };
        let Some(at_first) = there.get(&first) else {
            infos.insert(first.clone(), info);
            there.insert(first, at);
            continue;
        };
        let read = |(source, theirs): &(usize, String)| sources[*source].read(theirs);
        let (one, other) = (read(at_first)?, read(&at)?);
        if one.dtype != other.dtype || one.shape != other.shape || one.bytes != other.bytes {
            let message =
                format!("{name} has {} and {}, which are not the same", quoted(&first), quoted(&copy));
            let help = "recursions share their weights; is the file of a model in which they do not?";
            found.push(Diagnostic::new("weights::shared", message).help(help));
        }
    }
    found.or(())
}

/// The names of a checkpoint that has the experts of a layer in one tensor.
fn fused(naming: &Naming, infos: &BTreeMap<String, TensorInfo>, ours: &[TensorSpec]) -> Naming {
    let number = |tensor: &TensorSpec| {
        let (_, rest) = tensor.name.split_once(".experts.")?;
        rest.split_once('.')?.0.parse::<usize>().ok()
    };
    match ours.iter().filter_map(number).max() {
        Some(last) if infos.keys().any(|name| name.ends_with(FUSED)) => {
            Naming { names: &FUSED_NAMES, n_fused: Some(last + 1), ..*naming }
        }
        _ => *naming,
    }
}

fn places(name: &str, ours: &[TensorSpec], naming: &Naming) -> Result<Vec<TensorPlace>, Diagnostics> {
    let mut found = Diagnostics::default();
    let mut places = Vec::new();
    for tensor in ours {
        match naming.place(&tensor.name) {
            Some(place) => places.push(place),
            None => {
                let message = format!("checkpoints such as {name} have no name for `{}`", tensor.name);
                let help = "give the weights under our own names, with the spec that `skipc check` prints";
                found.push(Diagnostic::new("weights::missing", message).help(help));
            }
        }
    }
    found.or(places)
}

/// Their tensors whole, each once, in the order of ours.
fn whole(ours: &[TensorSpec], placed: &[TensorPlace], naming: &Naming) -> Vec<TensorSpec> {
    let mut seen = BTreeSet::new();
    let mut wanted = Vec::new();
    for (tensor, place) in ours.iter().zip(placed).filter(|(_, place)| seen.insert(&place.theirs)) {
        let mut shape = tensor.shape.clone();
        shape[0] = place.parts.iter().map(|part| rows_of(ours, part)).sum();
        if place.kind == RowKind::Transposed {
            shape.reverse();
        }
        let shape = naming.written_shape(place, shape);
        wanted.push(TensorSpec { name: place.theirs.clone(), role: tensor.role, shape });
    }
    wanted
}

fn rows_of(ours: &[TensorSpec], name: &str) -> usize {
    ours.iter().find(|tensor| tensor.name == name).map_or(0, |tensor| tensor.shape[0])
}

impl TensorSource for Renamed {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<Tensor<'_>, Diagnostic> {
        let found = self.views.get(name).zip(self.infos.get(name));
        let (view, info) = found.ok_or_else(|| no_tensor(&self.name, name))?;
        let whole = self.sources[view.source].read(&view.theirs)?;
        let size = whole.dtype.size();
        let row_bytes = info.shape[1..].iter().product::<usize>() * size;
        let range = view.begin * row_bytes..(view.begin + info.shape[0]) * row_bytes;
        let bytes = match whole.bytes {
            bytes if view.kind == RowKind::Transposed => {
                Cow::Owned(columns(&bytes, whole.shape, view.begin..view.begin + info.shape[0], size))
            }
            bytes if range.len() == bytes.len() => bytes,
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[range]),
            Cow::Owned(mut bytes) => {
                bytes.truncate(range.end);
                bytes.drain(..range.start);
                Cow::Owned(bytes)
            }
        };
        let bytes = match view.kind {
            RowKind::Interleaved => Cow::Owned(half_split(&bytes, row_bytes, view.head_dim)),
            _ if view.swapped => Cow::Owned(swapped(&bytes, row_bytes)),
            _ => bytes,
        };
        Ok(Tensor { dtype: whole.dtype, shape: &info.shape, bytes })
    }
}

/// Columns of a matrix as rows.
fn columns(bytes: &[u8], shape: &[usize], range: std::ops::Range<usize>, size: usize) -> Vec<u8> {
    let [rows, width] = [shape[0], shape[1]];
    let mut out = Vec::with_capacity(rows * range.len() * size);
    for column in range {
        for row in 0..rows {
            let at = (row * width + column) * size;
            out.extend_from_slice(&bytes[at..at + size]);
        }
    }
    out
}

/// Rows of heads whose neighbours turn together as rows of heads whose halves do: first those with an even number.
fn half_split(bytes: &[u8], row_bytes: usize, head_dim: usize) -> Vec<u8> {
    let rows = bytes.chunks_exact(head_dim * row_bytes).flat_map(|head| {
        let of =
            |first: usize| (first..head_dim).step_by(2).map(move |row| &head[row * row_bytes..][..row_bytes]);
        of(0).chain(of(1))
    });
    rows.flatten().copied().collect()
}

/// Rows in the opposite order.
fn swapped(bytes: &[u8], row_bytes: usize) -> Vec<u8> {
    bytes.chunks_exact(row_bytes).rev().flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_and_rows_change_places() {
        let matrix: Vec<u8> = (0..12).collect();
        assert_eq!(columns(&matrix, &[2, 3], 1..3, 2), [2, 3, 8, 9, 4, 5, 10, 11]);
        assert_eq!(swapped(&matrix, 6), [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]);
        assert_eq!(half_split(&matrix, 1, 6), [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
        assert_eq!(half_split(&matrix, 3, 4), [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11]);
    }
}
