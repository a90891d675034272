//! What a bench of decoding found.

use serde::Serialize;

use super::forms::Form;
use super::stepper::Stepped;
use crate::bench::plot::{self, Chart, Curve};
use crate::bench::report::{Times, median, sorted};
use crate::error::Error;

/// A whole bench of decoding. The field names are the interface of `skipc bench --decode --json`.
#[derive(Clone, Debug, Serialize)]
pub struct DecodeReport {
    /// The model's name.
    pub model: String,
    /// What was given: the path of the artefact or the spec.
    pub source: String,
    /// The processor's name.
    pub processor: String,
    /// The kind of code.
    pub code: String,
    /// Precision of the layers.
    pub dtype: &'static str,
    /// Threads of the host.
    pub threads: usize,
    /// Routers that can be forced.
    pub routers: usize,
    /// Tokens of each slot before the first step that was timed.
    pub behind: u32,
    /// Steps that were timed.
    pub rounds: u32,
    /// Bytes a second that all threads together read from memory, in the same run.
    pub read_bandwidth: f64,
    /// Steps of one token of each slot.
    pub steps: Vec<Step>,
    /// Prompts.
    pub prefills: Vec<Prefill>,
    /// Steps near and far.
    pub far: Vec<Far>,
    /// Steps of the model, or of the dense sibling, compiled in other ways; [`run_pair`](super::run_pair) times them.
    pub forms: Vec<Form>,
}

/// Steps of one token of each of some slots.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// How many slots.
    pub slots: u32,
    /// Share of the routers that each token executes; nothing for the dense sibling.
    pub density: Option<f64>,
    /// Share of the decisions that executed, 1 for the dense sibling.
    pub executed: f64,
    /// How long a step takes.
    #[serde(flatten)]
    pub times: Times,
    /// Milliseconds of the median step over its tokens.
    pub ms_a_token: f64,
    /// Tokens of all slots a second.
    pub tokens_per_second: f64,
    /// Bytes of weights and tables that a step touches, over its tokens.
    pub weight_bytes_a_token: f64,
    /// Bytes of keys, values and what else caches hold, likewise.
    pub cache_bytes_a_token: f64,
    /// What both take at the read bandwidth, over the time of the step: the median of all rounds.
    pub bandwidth_share: f64,
    /// Time of the dense sibling's step over that of this one in the same round, the median: above 1, skipping is faster.
    pub speed_over_dense: f64,
    /// Bytes of the dense sibling's step over those of this one.
    pub bytes_under_dense: f64,
}

/// Weights and caches; what lives for one step only stays in the processor's caches.
fn bytes(stepped: &Stepped) -> f64 {
    (stepped.bytes.constants + stepped.bytes.states) as f64
}

/// The same of some steps, on average.
pub(super) fn mean_bytes(steps: &[Stepped]) -> f64 {
    mean(steps, bytes)
}

/// How long steps took.
pub(super) fn times(steps: &[Stepped]) -> Times {
    Times::of(&steps.iter().map(|step| step.time).collect::<Vec<_>>())
}

/// Time of another's step over that of one's own in the same round, the median.
pub(super) fn speed(own: &[Stepped], other: &[Stepped]) -> f64 {
    let rounds = own.iter().zip(other);
    let ratios = rounds.map(|(own, other)| other.time.as_secs_f64() / own.time.as_secs_f64().max(1e-9));
    median(&sorted(ratios.collect()))
}

fn mean(steps: &[Stepped], of: impl Fn(&Stepped) -> f64) -> f64 {
    steps.iter().map(of).sum::<f64>() / steps.len().max(1) as f64
}

impl Step {
    pub(super) fn new(
        slots: u32,
        density: Option<f64>,
        (own, dense): (&[Stepped], &[Stepped]),
        read_bandwidth: f64,
    ) -> Step {
        let times = times(own);
        let tokens = f64::from(slots);
        let share = |step: &Stepped| bytes(step) / read_bandwidth / step.time.as_secs_f64().max(1e-9);
        let decided: u64 = own.iter().map(|step| step.decided).sum();
        let executed: u64 = own.iter().map(|step| step.executed).sum();
        Step {
            slots,
            density,
            executed: if decided == 0 { 1.0 } else { executed as f64 / decided as f64 },
            times,
            ms_a_token: times.median_s * 1e3 / tokens,
            tokens_per_second: tokens / times.median_s.max(1e-9),
            weight_bytes_a_token: mean(own, |step| step.bytes.constants as f64) / tokens,
            cache_bytes_a_token: mean(own, |step| step.bytes.states as f64) / tokens,
            bandwidth_share: median(&sorted(own.iter().map(share).collect())),
            speed_over_dense: speed(own, dense),
            bytes_under_dense: mean_bytes(dense) / mean_bytes(own).max(1.0),
        }
    }
}

/// A prompt that runs in chunks against one that is scored whole.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Prefill {
    /// As in [`Step`].
    pub density: Option<f64>,
    /// Tokens of the prompt.
    pub tokens: u32,
    /// Tokens of a chunk.
    pub chunk: u32,
    /// Seconds of one run of the function that scores, logits of all tokens included.
    pub score_s: f64,
    /// Seconds of all chunks, logits of the last token included.
    pub chunks_s: f64,
    /// The first over the second, the median of all rounds.
    pub speed: f64,
}

/// Steps of one slot behind few tokens and behind many.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Far {
    /// As in [`Step`].
    pub density: Option<f64>,
    /// Tokens before the first of these steps.
    pub positions: [u32; 2],
    /// Seconds of a step, medians.
    pub times_s: [f64; 2],
    /// Bytes of weights and caches of a step.
    pub bytes: [f64; 2],
    /// Time of a far step over that of a near one in the same round, the median.
    pub time_ratio: f64,
    /// The same of bytes.
    pub bytes_ratio: f64,
}

impl Far {
    pub(super) fn new(density: Option<f64>, positions: [u32; 2], steps: [&[Stepped]; 2]) -> Far {
        let [near, far] = steps;
        let bytes = steps.map(mean_bytes);
        Far {
            density,
            positions,
            times_s: steps.map(|steps| times(steps).median_s),
            bytes,
            time_ratio: speed(near, far),
            bytes_ratio: bytes[1] / bytes[0].max(1.0),
        }
    }
}

/// Tokens a second over those of the dense sibling, against density, a curve for each number of slots.
///
/// # Errors
/// If the plot cannot be drawn: a fault of skipc.
pub fn svg(report: &DecodeReport) -> Result<String, Error> {
    let mut curves: Vec<Curve> = Vec::new();
    for step in &report.steps {
        let Some(density) = step.density else { continue };
        let name = format!("{} slot{}", step.slots, if step.slots == 1 { "" } else { "s" });
        let at = (density, step.speed_over_dense);
        match curves.iter_mut().find(|curve| curve.name == name) {
            Some(curve) => curve.points.push(at),
            None => curves.push(Curve { name, points: vec![at], band: Vec::new() }),
        }
    }
    plot::draw(&[Chart {
        title: format!("{}: decoding in {}, {} threads", report.model, report.dtype, report.threads),
        subtitle: report.processor.clone(),
        x: "density: share of the layers behind routers that a token executes",
        y: "tokens a second, over those of the same model without skips",
        curves,
    }])
}
