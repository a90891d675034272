//! How good a model is on what was held out.

use serde::Serialize;
use skipc_ir::interp::Number;

use super::{Data, Engine};
use crate::error::Error;

/// Windows that run together. No number depends on it.
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
    /// Of a model as it is now; nothing if no window is held out.
    ///
    /// # Errors
    /// None that is not a fault of skipc.
    pub fn of<N: Number>(engine: &mut Engine<N>, data: &Data) -> Result<Option<Evaluation>, Error> {
        let (mut nats, mut tokens, mut bytes) = (0.0, 0, Some(0));
        let mut executed: Vec<usize> = Vec::new();
        for part in data.held_out(AT_ONCE) {
            let (of_part, of_routers) = engine.score(&part)?;
            nats += of_part;
            tokens += part.n_live();
            bytes = bytes.zip(data.bytes(&part.targets)).map(|(sum, of_part)| sum + of_part);
            executed.resize(of_routers.len(), 0);
            executed.iter_mut().zip(of_routers).for_each(|(sum, of_part)| *sum += of_part);
        }
        if tokens == 0 {
            return Ok(None);
        }
        let loss = nats / tokens as f64;
        Ok(Some(Evaluation {
            loss,
            perplexity: loss.exp(),
            bits_per_byte: bytes.map(|bytes| nats / std::f64::consts::LN_2 / bytes as f64),
            tokens,
            executed: executed.into_iter().map(|count| count as f64 / tokens as f64).collect(),
        }))
    }
}
