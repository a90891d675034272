//! What a model is predicted to cost on a target, beside its masked form.

use skipc_artifact::target::{DType, Target};

use crate::cost::bucketing::machine::Machine;
use crate::cost::{self, PlanCost, Report};
use crate::driver::pipeline::{self, Request, Variant};
use crate::error::Error;
use crate::frontend::spec::model::Model;

/// Tokens of the step that is priced, if the model takes so many and nobody asks for others.
pub const STEP_TOKENS: u32 = 512;

/// Prices each block of a model and all of it, at these densities of all routers.
///
/// # Errors
/// What the target cannot do. On a GPU the tiles of kernels count, which only their code shows.
pub fn report(
    model: &Model,
    (target, dtype): (&Target, DType),
    step_tokens: u32,
    densities: &[f64],
) -> Result<Report, Error> {
    let tokens = step_tokens.min(u32::try_from(model.stream.max_positions).unwrap_or(u32::MAX));
    let of = |form| plan_cost(model, (target, dtype), form);
    Ok(cost::report(&of(Variant::Fused)?, &of(Variant::Masked)?, f64::from(tokens), densities))
}

fn plan_cost(model: &Model, (target, dtype): (&Target, DType), form: Variant) -> Result<PlanCost, Error> {
    let request = Request { variant: form, targets: vec![(target.clone(), dtype)], ..Request::host() };
    let plan = pipeline::planned(model, (target, dtype), &request)?;
    Ok(match Machine::of(target) {
        Machine::Host(host) => PlanCost::of(&plan, &host),
        Machine::Gpu(gpu) => PlanCost::on_gpu(&plan, &gpu, &pipeline::launches(&plan, target, &request)?),
    })
}
