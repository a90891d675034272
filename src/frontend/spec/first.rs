//! The weights with which a training run begins where no file gives them: matrices drawn with one deviation, gains 1, biases
//! 0. Unlike the random weights of `skipc init`, they know nothing of densities: with noise, rates begin near a half.

use skipc_ir::draws;

use super::model::Model;
use super::random::normal;
use super::tensors::{TensorRole, TensorSpec};

/// All elements of a tensor, row by row. `std` is the deviation of matrices; those whose result is added to the stream have
/// less in models of many blocks, so that the stream keeps its size (Radford et al. 2019).
pub fn weights(model: &Model, tensor: &TensorSpec, seed: u64, std: f64) -> Vec<f32> {
    let count: usize = tensor.shape.iter().product();
    let constant = match tensor.role {
        TensorRole::Gain { offset } => Some(1.0 - offset),
        TensorRole::Shift | TensorRole::RouterBias => Some(0.0),
        // Its bias.
        TensorRole::ToStream if tensor.shape.len() == 1 => Some(0.0),
        TensorRole::Embedding
        | TensorRole::Positions
        | TensorRole::Router(_)
        | TensorRole::ToStream
        | TensorRole::Projection => None,
    };
    if let Some(constant) = constant {
        return vec![constant as f32; count];
    }
    let deviation = match tensor.role {
        TensorRole::ToStream => std / (2.0 * model.blocks.len() as f64).sqrt(),
        _ => std,
    };
    let element = |k: usize| (deviation * normal(draws::word(seed, &tensor.name, k as u64))) as f32;
    (0..count).map(element).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_weights_are_those_of_the_definition() {
        let text = "[model]\nname = \"m\"\nvocab_size = 8\nd_model = 64\nmax_positions = 8\nnorm = \"rmsnorm\"\npositions = \"none\"\ntie_embeddings = true\n[block.a]\nlayers = [{ kind = \"ffn\", d_ff = 128 }]\n[[stack]]\nblocks = [\"a\"]\n";
        let model = crate::frontend::spec::model("m.toml", text).unwrap();
        let all = crate::frontend::spec::tensors::tensors(&model);
        let of = |name: &str| {
            let tensor = all.iter().find(|tensor| tensor.name.ends_with(name)).unwrap();
            weights(&model, tensor, 7, 0.02)
        };
        let embedding = of("embed.weight");
        assert!((embedding[0] + 0.005_192_240_7).abs() < 1e-9, "{}", embedding[0]);
        assert!((embedding[1] + 0.003_806_304_3).abs() < 1e-9, "{}", embedding[1]);
        assert_eq!(of("norm.weight"), [1.0; 64]);
        let size = |values: &[f32]| (values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32).sqrt();
        let ratio = size(&of("down_proj.weight")) / size(&of("up_proj.weight"));
        assert!((ratio - 0.5f32.sqrt()).abs() < 0.02, "{ratio}");
    }
}
