//! Random weights, so that a model can be compiled, verified and measured before it is trained.
//!
//! Every tensor has a stream of numbers of its own, from the seed and its name, and every number comes from integers by
//! one division: the same spec and seed give the same bytes on every machine.
//!
//! Learned routers without steps meet their density to within a few hundredths, as trained ones would.
//! Weights alone cannot do that while everything around them has mean zero, so channel 0 of every embedding holds
//! the same constant, which survives the norms and is to the router what a bias would be. What layers add to the stream is
//! small beside the embedding, in deep models too, so the constant stays what it is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write};

use safetensors::tensor::{Dtype, Metadata, TensorInfo, View};
use skipc_ir::draws;

use super::model::Model;
use super::skip::{Combine, Decider, Generate, Input, Skip};
use super::tensors::{TensorSpec, tensors};
use crate::diagnostic::Diagnostic;
use crate::frontend::build::TensorRole;
use crate::frontend::weights::DType;

/// Deviation of the embedding. Logits of a tied head are then a few units, as trained ones are.
const EMBEDDING: f64 = 0.3;

/// The constant channel, in deviations of the embedding.
const CONSTANT: f64 = 4.0;

/// Deviation of router scores: some are near the threshold, most are clear of it.
const SCORES: f64 = 2.0;

/// Deviation of the sum of four uniform integers below 2^16, whose variance is (2^32 − 1)/3.
const FOUR_UNIFORM: f64 = 37_837.227_237;

/// Densities of 0 and 1 are met as nearly as this.
const RAREST: f64 = 1e-3;

/// A safetensors file with all tensors of a model, which are drawn while it is written.
pub struct WeightsFile {
    header: Vec<u8>,
    draws: BTreeMap<String, Draw>,
    length: u64,
}

impl WeightsFile {
    /// The file of a seed.
    ///
    /// # Errors
    /// `weights::header` if the tensors are too large for one file.
    pub fn new(model: &Model, seed: u64, dtype: DType) -> Result<WeightsFile, Diagnostic> {
        let too_large = |error: &dyn Display| {
            Diagnostic::new("weights::header", format!("these weights do not fit into one file: {error}"))
        };
        let draws: BTreeMap<String, Draw> = draws(model, seed, dtype).collect();
        let (mut rows, mut end) = (Vec::new(), 0usize);
        for (name, draw) in &draws {
            let (begin, shape) = (end, draw.shape().to_vec());
            end = begin.checked_add(draw.data_len()).ok_or_else(|| too_large(&"they have no length"))?;
            rows.push((name.clone(), TensorInfo { dtype: draw.dtype(), shape, data_offsets: (begin, end) }));
        }
        let header = Metadata::new(None, rows).map_err(|error| too_large(&error))?;
        let mut header = serde_json::to_vec(&header).map_err(|error| too_large(&error))?;
        // What the format asks for, so that a mapped file has its tensors aligned.
        header.resize(header.len().next_multiple_of(8), b' ');
        let length = (8 + header.len() + end) as u64;
        Ok(WeightsFile { header, draws, length })
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Writes it; no more than one tensor is held.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&(self.header.len() as u64).to_le_bytes())?;
        out.write_all(&self.header)?;
        self.draws.values().try_for_each(|draw| out.write_all(&draw.data()))
    }
}

/// All tensors of the model by name.
pub(crate) fn draws(model: &Model, seed: u64, dtype: DType) -> impl Iterator<Item = (String, Draw)> {
    let n_layers: usize = model.blocks.iter().map(|block| block.body.n_layers()).sum();
    let d_model = model.stream.d_model;
    tensors(model).into_iter().map(move |tensor| {
        let name = tensor.name.clone();
        (name, Draw { tensor, dtype, seed, n_layers, d_model })
    })
}

/// Rows `[n, columns]` for a model that takes these in place of token ids, as an embedding would give them.
pub fn rows(seed: u64, n: usize, columns: usize) -> Vec<f32> {
    let mut stream = Stream::new(seed, "rows");
    let mut rows: Vec<f32> = (0..n * columns).map(|_| (EMBEDDING * stream.normal()) as f32).collect();
    for row in rows.chunks_exact_mut(columns.max(1)) {
        row[0] = (CONSTANT * EMBEDDING) as f32;
    }
    rows
}

/// A tensor that is drawn when it is written or read, so that no more than one is held.
pub(crate) struct Draw {
    tensor: TensorSpec,
    dtype: DType,
    seed: u64,
    /// Sub-layers of the model.
    n_layers: usize,
    d_model: usize,
}

impl View for Draw {
    fn dtype(&self) -> Dtype {
        self.dtype.stored()
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.dtype.encode(&self.values()).into()
    }

    fn data_len(&self) -> usize {
        self.tensor.shape.iter().product::<usize>() * self.dtype.size()
    }
}

impl Draw {
    /// All elements, row by row.
    fn values(&self) -> Vec<f32> {
        let columns = self.tensor.shape.last().copied().unwrap_or(1).max(1);
        let fan_in = (columns as f64).sqrt().recip();
        let mut stream = Stream::new(self.seed, &self.tensor.name);
        let count = self.tensor.shape.iter().product::<usize>();
        let mut draw = |mean: f64, deviation: f64| -> Vec<f32> {
            (0..count).map(|_| (mean + deviation * stream.normal()) as f32).collect()
        };
        match &self.tensor.role {
            TensorRole::Embedding => {
                let mut values = draw(0.0, EMBEDDING);
                for row in values.chunks_exact_mut(columns) {
                    row[0] = (CONSTANT * EMBEDDING) as f32;
                }
                values
            }
            TensorRole::Positions => draw(0.0, EMBEDDING / 4.0),
            TensorRole::Gain { offset } => draw(1.0 - offset, 0.1),
            TensorRole::Shift => draw(0.0, 0.05),
            TensorRole::RouterBias => draw(0.0, 0.05),
            TensorRole::Projection => draw(0.0, fan_in),
            // All of them together stay below the embedding.
            TensorRole::ToStream => draw(0.0, fan_in * EMBEDDING / (self.n_layers as f64).sqrt()),
            TensorRole::Router(skip) => {
                let (constant, deviation) = self.router(skip);
                let has_channels = skip.has_channels();
                // The difference of two rows has the deviation that a single one would have.
                let n_compared = if has_channels { 1 } else { skip.n_logits(self.d_model) };
                let mut values = draw(0.0, deviation / (n_compared as f64).sqrt());
                let signs = if n_compared == 2 { &[-0.5, 0.5][..] } else { &[1.0][..] };
                // Steps leave nothing of the constant.
                if skip.scorer().is_none_or(|scorer| scorer.steps.is_empty()) {
                    for (row, sign) in values.chunks_exact_mut(columns).zip(signs) {
                        row[0] = (sign * constant) as f32;
                    }
                }
                if has_channels {
                    // Channels mostly agree, so that their mean is not the same for all tokens.
                    let (common, others) = values.split_at_mut(columns);
                    for row in others.chunks_exact_mut(columns) {
                        row.iter_mut().zip(&*common).for_each(|(own, common)| *own = common + *own / 4.0);
                    }
                }
                values
            }
        }
    }

    /// Weight of the constant channel, and deviation of the others, for scores around which the threshold lies so that
    /// the density comes out.
    fn router(&self, skip: &Skip) -> (f64, f64) {
        let others = self.d_model.saturating_sub(1).max(1) as f64;
        // What the router sees of a channel that has deviation `EMBEDDING`, and of the constant.
        let seen = match skip.scorer().map(|scorer| scorer.input) {
            Some(Input::Raw) => EMBEDDING,
            _ => ((others + CONSTANT * CONSTANT) / self.d_model as f64).sqrt().recip(),
        };
        let threshold = match skip.decider() {
            Some(
                Decider::Sigmoid { threshold, .. }
                | Decider::TopK {
                    generate: Generate::Threshold(threshold) | Generate::Predictor { threshold, .. },
                    ..
                },
            ) => (threshold / (1.0 - threshold)).ln(),
            _ => 0.0,
        };
        let above = match skip.combine {
            Combine::Highway(_) => 0.5,
            Combine::Either(_) => skip.density.clamp(RAREST, 1.0 - RAREST),
        };
        let mean = threshold - SCORES * upper_quantile(above);
        (mean / (CONSTANT * seen), SCORES / (seen * others.sqrt()))
    }
}

/// The point that a normal variable of deviation 1 exceeds with this probability.
fn upper_quantile(probability: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        let exceeds = 0.5 * libm::erfc(middle / std::f64::consts::SQRT_2);
        *(if exceeds > probability { &mut low } else { &mut high }) = middle;
    }
    low
}

/// The numbers of a tensor, one after the other.
struct Stream<'a> {
    seed: u64,
    name: &'a str,
    next: u64,
}

impl Stream<'_> {
    fn new(seed: u64, name: &str) -> Stream<'_> {
        Stream { seed, name, next: 0 }
    }

    fn normal(&mut self) -> f64 {
        let word = draws::word(self.seed, self.name, self.next);
        self.next += 1;
        normal(word)
    }
}

/// Near enough to a normal variable of mean 0 and deviation 1: the sum of four uniform ones, which are the parts of a word.
pub(super) fn normal(word: u64) -> f64 {
    let sum: u64 = (0..4).map(|part| (word >> (16 * part)) & 0xffff).sum();
    // The mean is 2·(2^16 − 1).
    (sum as f64 - 131_070.0) / FOUR_UNIFORM
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_mean_zero_and_deviation_one() {
        assert!(((((1u64 << 32) - 1) as f64 / 3.0).sqrt() - FOUR_UNIFORM).abs() < 1e-6);
        let mut stream = Stream::new(7, "embed.weight");
        let draws: Vec<f64> = (0..40_000).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|draw| draw * draw).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }

    #[test]
    fn quantiles_are_those_of_the_normal_law() {
        for (probability, point) in
            [(0.5, 0.0), (0.158_655_253_9, 1.0), (0.975, -1.959_963_984_5), (1e-3, 3.090_232_306)]
        {
            assert!((upper_quantile(probability) - point).abs() < 1e-8, "{probability}");
        }
    }
}
