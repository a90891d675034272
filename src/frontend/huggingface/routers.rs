//! Weights for the routers of a dense checkpoint, with which it stays what it is until they are trained.

use std::collections::BTreeMap;

use super::Directory;
use super::naming::RouterNames;
use crate::diagnostic::Diagnostic;
use crate::frontend::build::TensorRole;
use crate::frontend::spec::model::Model;
use crate::frontend::spec::skip::{BranchScale, Combine, Decider, Skip};
use crate::frontend::spec::tensors::tensors;
use crate::frontend::weights::TensorSource as _;
use crate::frontend::weights::drawn::{Drawn, RANDOM_SEED};

/// How far beyond its border a score is that decides alone: clear, and not so far that training could not bring it back.
const CLEAR: f64 = 4.0;

/// A score of which the probability is 1 in f32, for routers by which outputs are scaled.
const CERTAIN: f64 = 20.0;

/// A tensor under its name in a checkpoint.
pub struct RouterTensor {
    /// Its name.
    pub name: String,
    /// Its extents, outermost first.
    pub shape: Vec<usize>,
    /// Its elements, row by row.
    pub values: Vec<f32>,
}

impl Directory {
    /// Tensors of all routers of `model`, which is that of the directory: weights of 0 and biases for which every token
    /// executes its layers, so that the model is the dense one. Steps before a router's weight are drawn, and other branches
    /// begin with adding nothing.
    ///
    /// # Errors
    /// `usage::init` for routers that cannot be such, and where there are none.
    pub fn executing_routers(&self, model: &Model) -> Result<Vec<RouterTensor>, Diagnostic> {
        if !matches!(self.naming.routers, RouterNames::OfConfig) {
            let message = format!("{} has routers of its own", self.folder.display());
            let help = "name a checkpoint without any, or compile this one as it is";
            return Err(Diagnostic::new("usage::init", message).help(help));
        }
        let wanted = tensors(model);
        let module = |name: &str| name.rsplit_once('.').map_or("", |(module, _)| module).to_owned();
        let routers: BTreeMap<String, Skip> = wanted
            .iter()
            .filter_map(|tensor| match tensor.role {
                TensorRole::Router(skip) => Some((module(&tensor.name), skip)),
                _ => None,
            })
            .collect();
        let drawn = Drawn::new(model, RANDOM_SEED);
        let mut made = Vec::new();
        for tensor in &wanted {
            let n_values = tensor.shape.iter().product();
            let values = match (routers.get(&module(&tensor.name)), tensor.role) {
                (Some(skip), TensorRole::RouterBias) => {
                    let bias = bias(skip)?;
                    match (n_values, self.naming.swaps_rows) {
                        (2, false) => vec![0.0, bias],
                        (2, true) => vec![bias, 0.0],
                        _ => vec![bias; n_values],
                    }
                }
                (Some(skip), _) => {
                    bias(skip)?;
                    vec![0.0; n_values]
                }
                (None, role) if belongs_to_choice(&tensor.name) => match role {
                    TensorRole::Gain { offset } => vec![(1.0 - offset) as f32; n_values],
                    TensorRole::Projection => drawn.read(&tensor.name)?.to_f32(),
                    // What another branch adds begins with nothing.
                    _ => vec![0.0; n_values],
                },
                (None, _) => continue,
            };
            let place = self.naming.place(&tensor.name);
            let name = place.map(|place| self.naming.written(&place.theirs)).unwrap_or_default();
            made.push(RouterTensor { name, shape: tensor.shape.clone(), values });
        }
        if made.is_empty() {
            let message = "no layer has a router with weights";
            let help = "write an overlay with the keys of `skip_config`, and name it by `--skip`";
            return Err(Diagnostic::new("usage::init", message).help(help));
        }
        Ok(made)
    }
}

/// Whether a tensor is a decider's or of a branch that a dense checkpoint does not have.
fn belongs_to_choice(name: &str) -> bool {
    [".steps.", ".predictor.", ".otherwise.", ".carry."].iter().any(|part| name.contains(part))
}

/// The bias with which a router executes every token; 0 for one without a bias that does so by itself.
fn bias(skip: &Skip) -> Result<f32, Diagnostic> {
    let refused = |why: &str, help: &str| {
        let message = format!("no weights make every token execute: {why}");
        Err(Diagnostic::new("usage::init", message).help(help.to_owned()))
    };
    if skip.capacity().is_some() {
        return refused(
            "groups have a capacity",
            "leave out `group_size`, and set it when the routers are trained",
        );
    }
    let (border, is_certain) = match (skip.decider(), skip.combine) {
        (None, _) => (0.0, true),
        (Some(Decider::Sigmoid { threshold, .. }), Combine::Either(either)) => {
            ((threshold / (1.0 - threshold)).ln(), either.scale != BranchScale::One)
        }
        (Some(Decider::TopK { .. }), _) if skip.density < 1.0 => {
            return refused(
                "the highest scores of a sequence execute, however high all are",
                "write `density = 1.0` to begin with, or choose `type = \"sigmoid\"`",
            );
        }
        (_, Combine::Either(either)) => (0.0, either.scale != BranchScale::One),
        (Some(_), Combine::Highway(_)) => (0.0, true),
    };
    let has_bias = skip.scorer().is_some_and(|scorer| scorer.bias);
    match (has_bias, is_certain) {
        (true, true) => Ok((border.max(0.0) + CERTAIN) as f32),
        (true, false) => Ok((border + CLEAR) as f32),
        // A score of 0 executes.
        (false, false) if border <= 0.0 => Ok(0.0),
        (false, _) => refused("the router has no bias", "write `bias = true` under `router`"),
    }
}
