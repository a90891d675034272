//! Tensors of a checkpoint under our names: renamed, cut out of fused matrices and turned when they are read.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::aliases::TENSORS;
use super::names::{Names, PATCHES, Place, SINGLE};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::frontend::language::words::quoted;
use crate::frontend::spec::model::Model;
use crate::frontend::spec::tensors::{TensorSpec, tensors};
use crate::frontend::weights::{Tensor, TensorInfo, TensorSource, check, no_tensor};

/// What a checkpoint calls its tensors.
pub(super) struct Naming {
    pub(super) names: &'static Names,
    /// The model is the part of a larger one that reads text.
    pub(super) is_part: bool,
    /// Rows of routers are swapped.
    pub(super) swaps_rows: bool,
    /// Channels, rows and columns of a patch, of a model that takes these.
    pub(super) patch: Option<[usize; 3]>,
}

impl Naming {
    /// A name of the tables as files have it.
    pub(super) fn written(&self, bare: &str) -> String {
        if self.is_part { format!("language_model.{bare}") } else { format!("{}{bare}", self.names.prefix) }
    }

    /// The shape of their tensor that is a matrix of ours: of a projection of patches, and of one with a 1 in front.
    fn written_shape(&self, theirs: &str, matrix: Vec<usize>) -> Vec<usize> {
        match (self.patch, matrix.as_slice()) {
            (Some(patch), [d, _]) if theirs == PATCHES => [&[*d][..], &patch].concat(),
            (Some(_), shape) if SINGLE.contains(&theirs) => [&[1][..], shape].concat(),
            _ => matrix,
        }
    }

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
    transposed: bool,
    swapped: bool,
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
        let (there, infos) = collect(name, &sources, naming)?;
        let ours = tensors(model);
        let placed = places(name, &ours, naming.names)?;
        let wanted = whole(&ours, &placed, naming);
        let is_tied_head = |tensor: &str| tensor == "lm_head.weight" && model.stream.tie_embeddings;
        let infos = infos
            .into_iter()
            .filter(|(tensor, _)| !naming.names.is_no_weight(tensor) && !is_tied_head(tensor))
            .collect();
        check::names_and_shapes(name, &infos, &wanted, model)?;
        let mut renamed =
            Renamed { name: name.to_owned(), sources, infos: BTreeMap::new(), views: BTreeMap::new() };
        for (tensor, place) in ours.iter().zip(&placed) {
            let Some((source, theirs)) = there.get(&place.theirs).cloned() else { continue };
            let Some(info) = infos.get(&place.theirs) else { continue };
            let before = place.parts.iter().take_while(|part| **part != tensor.name);
            let begin = before.map(|part| rows_of(&ours, part)).sum();
            let swapped = place.is_router && naming.swaps_rows;
            let view = View { source, theirs, begin, transposed: place.transposed, swapped };
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

fn places(name: &str, ours: &[TensorSpec], names: &Names) -> Result<Vec<Place>, Diagnostics> {
    let mut found = Diagnostics::default();
    let mut places = Vec::new();
    for tensor in ours {
        match names.place(&tensor.name) {
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
fn whole(ours: &[TensorSpec], placed: &[Place], naming: &Naming) -> Vec<TensorSpec> {
    let mut seen = BTreeSet::new();
    let mut wanted = Vec::new();
    for (tensor, place) in ours.iter().zip(placed).filter(|(_, place)| seen.insert(&place.theirs)) {
        let mut shape = tensor.shape.clone();
        shape[0] = place.parts.iter().map(|part| rows_of(ours, part)).sum();
        if place.transposed {
            shape.reverse();
        }
        let shape = naming.written_shape(&place.theirs, shape);
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
            bytes if view.transposed => {
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
        let bytes = if view.swapped { Cow::Owned(swapped(&bytes, row_bytes)) } else { bytes };
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
    }
}
