//! How good a model is on what was held out.

use serde::Serialize;
use skipc_ir::interp::Number;

use super::ranks::Ranks;
use super::{Data, Engine};
use crate::error::Error;

/// Windows that run together at most, and no more than rows of a step. No number depends on it.
const AT_ONCE: usize = 16;

/// A model on all held-out windows, in inference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Mean negative log probability of a token, in nats.
    pub loss: f64,
    /// `e^loss`.
    pub perplexity: f64,
    /// Where it is known how many bytes a token stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_byte: Option<f64>,
    /// Targets.
    pub tokens: usize,
    /// Executed share of each router.
    pub executed: Vec<f64>,
}

impl Evaluation {
    /// Of a model as it is now; nothing if no window is held out. Each rank scores its share of the windows, as many together as
    /// it has rows at once, and all get what they find together: the same numbers for any number of ranks.
    ///
    /// # Errors
    /// None that is not a fault of skipc.
    pub fn of<N: Number>(
        engine: &mut Engine<N>,
        data: &Data,
        (ranks, at_once): (&dyn Ranks, usize),
    ) -> Result<Option<Evaluation>, Error> {
        let windows = ranks.share(data.n_held_out());
        let (mut nats, mut tokens, mut bytes) = (Vec::new(), 0, data.bytes(&[]));
        let mut executed = vec![0; engine.n_routers()];
        for part in data.held_out(windows, at_once.min(AT_ONCE)) {
            let (of_windows, of_routers) = engine.score(&part)?;
            nats.extend(of_windows.into_iter().flat_map(f64::to_le_bytes));
            tokens += part.n_live() as u64;
            for row in &part.rows {
                bytes = bytes.zip(data.bytes(&part.targets[row.clone()])).map(|(sum, of_row)| sum + of_row);
            }
            executed.iter_mut().zip(of_routers).for_each(|(sum, of_part)| *sum += of_part);
        }
        let mut counts = [vec![tokens, bytes.unwrap_or_default()], executed].concat();
        ranks.sum_counts(&mut counts);
        let (tokens, bytes, executed) = (counts[0], bytes.map(|_| counts[1]), &counts[2..]);
        if tokens == 0 {
            return Ok(None);
        }
        let nats = ranks.gather(&nats).concat();
        let nats: f64 = nats.as_chunks().0.iter().map(|word| f64::from_le_bytes(*word)).sum();
        let loss = nats / tokens as f64;
        Ok(Some(Evaluation {
            loss,
            perplexity: loss.exp(),
            bits_per_byte: bytes.map(|bytes| nats / std::f64::consts::LN_2 / bytes as f64),
            tokens: tokens as usize,
            executed: executed.iter().map(|count| *count as f64 / tokens as f64).collect(),
        }))
    }
}
