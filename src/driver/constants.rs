//! The bytes of a plan's constants: weights in the type that kernels want, and tables made at compile time.

use half::bf16;
use skipc_artifact::program::Constant;
use skipc_artifact::target::DType;
use skipc_ir::rope_angle;
use skipc_plan::{ConstantSource, PlanConstant, recipe};

use crate::frontend::weights::Weights;

/// Lays all constants out at their offsets; the gaps are zero.
///
/// # Errors
/// The name of a constant whose source does not give as many elements as the plan wants: a fault of the compiler,
/// since the weights were checked against the model.
pub fn lay_out(constants: &[PlanConstant], weights: &Weights) -> Result<Vec<u8>, String> {
    let size = constants.iter().map(|constant| end(&constant.constant)).max().unwrap_or(0);
    let mut bytes = vec![0; usize::try_from(size).map_err(|_| "all constants together".to_owned())?];
    for PlanConstant { source, constant } in constants {
        let values = elements(source, constant, weights).ok_or_else(|| constant.name.clone())?;
        let place = &mut bytes[constant.offset as usize..end(constant) as usize];
        if values.len() * constant.dtype.size() as usize != place.len() {
            return Err(constant.name.clone());
        }
        store(&values, constant.dtype, place);
    }
    Ok(bytes)
}

fn end(constant: &Constant) -> u64 {
    constant.offset.saturating_add(constant.bytes())
}

fn elements(source: &ConstantSource, constant: &Constant, weights: &Weights) -> Option<Vec<f32>> {
    let table = |theta: f64, half: u32, function: fn(f64) -> f64| {
        let angles = (0..i64::from(constant.rows)).flat_map(|position| {
            (0..half as usize).map(move |pair| rope_angle(position, pair, half as usize, theta))
        });
        angles.map(|angle| function(f64::from(angle)) as f32).collect()
    };
    match source {
        ConstantSource::Zero => Some(vec![0.0; constant.rows as usize * constant.cols as usize]),
        ConstantSource::Weight { name } => weights.tensor(name).ok().map(|tensor| tensor.to_f32()),
        ConstantSource::Recipe { steps } => {
            recipe::elements(steps, |name| weights.tensor(name).ok().map(|tensor| tensor.to_f32()))
        }
        ConstantSource::RopeCos { theta, half, .. } => Some(table(theta.0, *half, libm::cos)),
        ConstantSource::RopeSin { theta, half, .. } => Some(table(theta.0, *half, libm::sin)),
    }
}

fn store(values: &[f32], dtype: DType, place: &mut [u8]) {
    match dtype {
        DType::F32 => {
            place
                .chunks_exact_mut(4)
                .zip(values)
                .for_each(|(place, value)| place.copy_from_slice(&value.to_le_bytes()));
        }
        DType::Bf16 => place
            .chunks_exact_mut(2)
            .zip(values)
            .for_each(|(place, value)| place.copy_from_slice(&bf16::from_f32(*value).to_le_bytes())),
        DType::U32 => {
            place.chunks_exact_mut(4).zip(values).for_each(|(place, value)| {
                place.copy_from_slice(&(*value as u32).to_le_bytes());
            });
        }
        DType::U8 => place.iter_mut().zip(values).for_each(|(place, value)| *place = *value as u8),
    }
}
