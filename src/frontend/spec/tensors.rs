//! Which tensors a model needs, by the names of the reference's state dict.

use std::collections::BTreeSet;
use std::convert::Infallible;

use skipc_ir::{Op, SetSym, stacked_name};

use super::model::Model;
use super::node::{Block, Part};
use super::skip::{Combine, Generate, Skip};
pub use crate::frontend::build::TensorRole;
use crate::frontend::build::{self, Build, Heads, LayerInput, TokenRows};
use crate::frontend::stream::Stream;

/// A tensor that a model needs.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Its name in the file.
    pub name: String,
    /// What it is for.
    pub role: TensorRole,
    /// Its extents, outermost first; weights of projections are `[out, in]`.
    pub shape: Vec<usize>,
}

/// The tensors that a model needs, each once, in the order in which they are used.
pub fn tensors(model: &Model) -> Vec<TensorSpec> {
    let mut recorder = Recorder { model, tensors: Vec::new(), names: BTreeSet::new() };
    let Ok(()) = recorder.record();
    recorder.tensors
}

/// Builds a model without its values: what is left are the parameters.
struct Recorder<'m> {
    model: &'m Model,
    tensors: Vec<TensorSpec>,
    names: BTreeSet<String>,
}

impl Recorder<'_> {
    fn record(&mut self) -> Result<(), Infallible> {
        build::embedding(self, (), ())?;
        for repetition in self.model.repetitions() {
            if let Some(skip) = repetition.skip {
                self.router(skip, &repetition.router())?;
            }
            for (place, block) in repetition.blocks {
                self.block(block, place.weights)?;
            }
        }
        build::head(self, (), ())
    }

    /// A block with weights of this index; what is shared is recorded once.
    fn block(&mut self, block: &Block, idx: usize) -> Result<(), Infallible> {
        for part in block.parts() {
            match part {
                Part::Route(unit, skip) => self.router(skip, &unit.router(idx))?,
                Part::Layer(layers, layer_idx, layer) => {
                    let rows = TokenRows { stream: (), positions: (), sequences: None, set: None };
                    let input = LayerInput { rows, seen: rows, executed: None, block: idx };
                    layer.build(self, (layers, idx, layer_idx), input)?;
                }
            }
        }
        Ok(())
    }

    fn router(&mut self, skip: &Skip, name: &str) -> Result<(), Infallible> {
        if let Combine::Highway(highway) = &skip.combine {
            return build::highway(self, (skip, highway), name, ()).map(|_| ());
        }
        let Some(scorer) = skip.scorer() else { return Ok(()) };
        build::router(self, skip, scorer, name, ())?;
        match skip.top_k() {
            Some(Generate::Predictor { steps, .. }) => build::predictor(self, &steps, name, ()),
            _ => Ok(()),
        }
    }
}

impl Build for Recorder<'_> {
    type Value = ();
    type Error = Infallible;

    fn stream(&self) -> Stream {
        self.model.stream
    }

    fn parameter(&mut self, name: &str, role: TensorRole, shape: &[usize]) -> Result<(), Infallible> {
        if self.names.insert(name.to_owned()) {
            self.tensors.push(TensorSpec { name: name.to_owned(), role, shape: shape.to_vec() });
        }
        Ok(())
    }

    fn stack(
        &mut self,
        name: &str,
        role: TensorRole,
        count: usize,
        shape: &[usize],
    ) -> Result<(), Infallible> {
        (0..count as u32).try_for_each(|number| self.parameter(&stacked_name(name, number), role, shape))
    }

    fn fresh_set(&mut self) -> SetSym {
        SetSym(0)
    }

    fn all_places(&self) -> [(); 2] {
        [(), ()]
    }

    fn ids(&mut self, _: Option<()>) -> Result<(), Infallible> {
        Ok(())
    }

    fn add(&mut self, _: impl Into<Op>, _: &[()]) -> Result<(), Infallible> {
        Ok(())
    }

    fn sequence_mean(&mut self, (): ()) -> Result<(), Infallible> {
        Ok(())
    }

    fn kept(&self, _: &str) -> Option<[(); 2]> {
        None
    }

    fn choices_so_far(&mut self, (): (), _: Option<()>) -> Result<Option<Vec<()>>, Infallible> {
        Ok(None)
    }

    fn replayed_choices(&mut self, _: usize, _: usize, _: Option<()>) -> Result<(), Infallible> {
        Ok(())
    }

    fn report_choices(&mut self, _: usize, _: ((), u32, u32), _: LayerInput<()>) -> Result<(), Infallible> {
        Ok(())
    }

    fn convolve(&mut self, _: [(); 2], _: LayerInput<()>) -> Result<(), Infallible> {
        Ok(())
    }

    fn attend(&mut self, _: &str, _: Heads, _: [(); 3], _: LayerInput<()>) -> Result<(), Infallible> {
        Ok(())
    }
}
