//! Weights of what is timed, where no file has them.

use skipc_ir::interp::Weights as _;

use crate::error::Error;
use crate::frontend::spec::model::Model;
use crate::frontend::spec::tensors::tensors;
use crate::frontend::weights::Weights;
use crate::verify::reference::Constants;

/// Seed of random weights. Decisions are forced, so times depend on weights as little as arithmetic does.
pub const RANDOM_SEED: u64 = 1;

/// The weights that an artefact was made of, from the constants of one of its programs. A tensor that no kernel reads
/// is not in it; zeros are as good.
///
/// # Errors
/// If the constants are not those of the model.
pub fn of_artifact(model: &Model, constants: &Constants<'_>) -> Result<Weights, Error> {
    let all = tensors(model).into_iter().map(|tensor| {
        let values: Option<Vec<f32>> = constants.weight(&tensor.name);
        let n: usize = tensor.shape.iter().product();
        (tensor.name, tensor.shape, values.unwrap_or_else(|| vec![0.0; n]))
    });
    Ok(Weights::from_tensors(all, model)?)
}
