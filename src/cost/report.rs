//! The cost of a model's blocks and of all of it, over densities.

use indexmap::IndexMap;
use serde::Serialize;
use skipc_passes::rewrite::cost::Poly;

use super::{Even, Machine, PlanCost, StepCost, break_even};

/// What a model costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Tokens of the step.
    pub tokens: f64,
    /// Each block of the model, and what is before and after them, in order.
    pub layers: Vec<Layer>,
    /// All together.
    pub total: Layer,
}

/// What a part of the model costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Layer {
    /// Such as `blocks.3`.
    pub name: String,
    /// Kernel runs.
    pub kernels: usize,
    /// Multiply-adds, as a polynomial in the tokens `n` and the executed counts.
    pub macs: String,
    /// Bytes read and written, likewise.
    pub bytes: String,
    /// Nanoseconds of the kernels' work, likewise, without starts and floors. On a GPU it is no polynomial: whole tiles
    /// count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<String>,
    /// From which density on the masked form is no slower; `None` if it is slower up to 1.
    pub break_even: Option<f64>,
    /// The figures at each density.
    pub at: Vec<AtDensity>,
}

/// Figures at one density.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AtDensity {
    /// Share of the tokens that every router executes.
    pub density: f64,
    /// Multiply-adds.
    pub macs: f64,
    /// Bytes read and written.
    pub bytes: f64,
    /// Predicted nanoseconds.
    pub time_ns: f64,
    /// The same for the masked form.
    pub masked_ns: f64,
}

/// The part of a model that an origin such as `blocks.3.layers.0` belongs to.
pub fn part(origin: &str) -> String {
    match origin.split('.').collect::<Vec<_>>().as_slice() {
        ["blocks", block, ..] => format!("blocks.{block}"),
        ["" | "embed", ..] => "embedding".to_owned(),
        [first, ..] => (*first).to_owned(),
        [] => String::new(),
    }
}

/// Reports the cost of a plan, beside that of the model's masked form.
pub fn report(own: &PlanCost, masked: &PlanCost, tokens: f64, densities: &[f64]) -> Report {
    let (parts, masked_parts) = (split(own), split(masked));
    let layer = |(name, part): (&String, &PlanCost)| {
        let masked = masked_parts.get(name).unwrap_or(part);
        layer(name, (part, masked), tokens, densities)
    };
    Report {
        tokens,
        layers: parts.iter().map(layer).collect(),
        total: self::layer("total", (own, masked), tokens, densities),
    }
}

/// The steps of each part of the model.
fn split(cost: &PlanCost) -> IndexMap<String, PlanCost> {
    let mut parts: IndexMap<String, PlanCost> = IndexMap::new();
    for (origin, step) in &cost.steps {
        let empty = || PlanCost { steps: Vec::new(), machine: cost.machine };
        parts.entry(part(origin)).or_insert_with(empty).steps.push((origin.clone(), step.clone()));
    }
    parts
}

fn layer(name: &str, (own, masked): (&PlanCost, &PlanCost), tokens: f64, densities: &[f64]) -> Layer {
    let sum = |figure: fn(&StepCost) -> &Poly| PlanCost::sum(own.steps.iter().map(|(_, step)| step), figure);
    let (macs, bytes, work) = (sum(|step| &step.macs), sum(|step| &step.bytes), sum(|step| &step.work));
    let at = |density: &f64| {
        let counts = Even { tokens, density: *density };
        AtDensity {
            density: *density,
            macs: macs.at(&counts),
            bytes: bytes.at(&counts),
            time_ns: own.time(&counts),
            masked_ns: masked.time(&counts),
        }
    };
    Layer {
        name: name.to_owned(),
        kernels: own.steps.len(),
        break_even: break_even(own, masked, tokens),
        at: densities.iter().map(at).collect(),
        macs: macs.to_string(),
        bytes: bytes.to_string(),
        work: matches!(own.machine, Machine::Host(_)).then(|| work.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_belong_to_blocks() {
        assert_eq!(part("blocks.11.layers.0"), "blocks.11");
        assert_eq!(part("blocks.3.router"), "blocks.3");
        assert_eq!(part("embed"), "embedding");
        assert_eq!(part("head"), "head");
    }
}
