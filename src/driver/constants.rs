//! The bytes of a program's constants: weights in the type and layout that kernels want, and tables made at compile time.
//!
//! They are made from the tensors of the model and written as they come, a group at a time: what is held is bounded by
//! the largest tensor and the size of a group, not by the model.

use std::cell::RefCell;
use std::io::{self, Write};

use half::bf16;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use skipc_artifact::program::Constant;
use skipc_artifact::target::DType;
use skipc_artifact::writer::Content;
use skipc_ir::Frequencies;
use skipc_plan::{ConstantSource, PlanConstant, recipe};

use crate::driver::trace::Progress;
use crate::error::Error;
use crate::frontend::weights::Weights;

/// Bytes of constants that are made side by side, or one constant that has more. While a group is written, the next one
/// is made. Enough that all threads have work, and little beside what a large tensor takes anyway.
const GROUP: u64 = 64 << 20;

/// Elements that are brought into their type at a time while they are written; they stay in the cache of a core.
const PIECE: usize = 1 << 16;

/// All constants, each at its offset, made when they are written. The gaps are zero. `progress` hears how many bytes there
/// are so far.
pub fn content(constants: Vec<PlanConstant>, weights: &Weights, progress: Progress) -> Content<'_> {
    let length = size(&constants);
    let make = move |out: &mut dyn Write| {
        write(&constants, weights, out, &mut |done| {
            const MB: u64 = 1_000_000;
            progress(Some(&format!("constants: {} of {} MB", done / MB, length.div_ceil(MB))));
        })
    };
    Content::Made { length, make: Box::new(make) }
}

/// All constants in memory.
///
/// # Errors
/// `weights::read` if a tensor cannot be read; `constants::size` for a constant whose source does not give as many elements
/// as the plan wants: a fault of the compiler, since the weights were held against the model.
pub fn lay_out(constants: &[PlanConstant], weights: &Weights) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(usize::try_from(size(constants)).unwrap_or(0));
    let ours = |error: io::Error| {
        error.downcast::<Error>().unwrap_or_else(|error| Error::internal("constants::size", &error))
    };
    write(constants, weights, &mut bytes, &mut |_| ()).map_err(ours)?;
    Ok(bytes)
}

fn size(constants: &[PlanConstant]) -> u64 {
    constants.iter().map(|constant| end(&constant.constant)).max().unwrap_or(0)
}

fn end(constant: &Constant) -> u64 {
    constant.offset.saturating_add(constant.bytes())
}

/// Constants with their elements, or why there are none.
type Group<'c> = Vec<(&'c Constant, Result<Vec<f32>, Error>)>;

fn write(
    constants: &[PlanConstant],
    weights: &Weights,
    out: &mut dyn Write,
    tick: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let make = |group: &'_ [PlanConstant]| -> Vec<Result<Vec<f32>, Error>> {
        group.par_iter().map(|constant| elements(constant, weights)).collect()
    };
    let (first, mut rest) = constants.split_at(group_len(constants));
    let (mut group, mut made, mut at) = (first, make(first), 0);
    while !group.is_empty() {
        let (next, after) = rest.split_at(group_len(rest));
        let (mut next_made, mut written) = (Vec::new(), Ok(()));
        rayon::in_place_scope(|scope| {
            scope.spawn(|_| next_made = make(next));
            let of_group = group.iter().map(|constant| &constant.constant).zip(std::mem::take(&mut made));
            written = write_group(of_group.collect(), &mut at, out);
        });
        written?;
        tick(at);
        (group, made, rest) = (next, next_made, after);
    }
    Ok(())
}

/// How many of the first constants are a group; none only if there is no constant.
fn group_len(constants: &[PlanConstant]) -> usize {
    let sums = constants.iter().scan(0u64, |sum, constant| {
        *sum = sum.saturating_add(constant.constant.bytes());
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= GROUP).count().max(1).min(constants.len())
}

/// Writes constants behind the first `at` bytes, which move on.
fn write_group(group: Group<'_>, at: &mut u64, out: &mut dyn Write) -> io::Result<()> {
    let mut bytes = Vec::new();
    for (constant, values) in group {
        let values = values.map_err(io::Error::other)?;
        io::copy(&mut io::Read::take(io::repeat(0), constant.offset.saturating_sub(*at)), out)?;
        for piece in values.chunks(PIECE) {
            store(piece, constant.dtype, &mut bytes);
            out.write_all(&bytes)?;
        }
        *at = end(constant);
    }
    Ok(())
}

fn elements(PlanConstant { source, constant }: &PlanConstant, weights: &Weights) -> Result<Vec<f32>, Error> {
    let wrong_size = || Error::internal("constants::size", &format!("constant `{}`", constant.name));
    let n = constant.rows as usize * constant.cols as usize;
    let values = match source {
        ConstantSource::Zero => vec![0.0; n],
        ConstantSource::Weight { name } => weights.tensor(name)?.to_f32(),
        ConstantSource::Recipe { steps } => {
            let unreadable = RefCell::new(None);
            let tensor = |name: &str| match weights.tensor(name) {
                Ok(tensor) => Some(tensor.to_f32()),
                Err(diagnostic) => {
                    unreadable.replace(Some(diagnostic));
                    None
                }
            };
            let made = recipe::elements(steps, tensor);
            made.ok_or_else(|| unreadable.take().map_or_else(wrong_size, Error::from))?
        }
        ConstantSource::RopeCos { frequencies, half, .. } => rope(constant, *frequencies, *half, libm::cos),
        ConstantSource::Forced { first, .. } => {
            let forced = |position: usize| if position < *first as usize { f32::INFINITY } else { 0.0 };
            (0..n).map(forced).collect()
        }
        ConstantSource::HashChoice { experts, seed, block, n_ids } => {
            let expert = |id: u32| skipc_ir::hash_expert(*seed, *block, id.into(), *experts);
            (0..*n_ids).flat_map(|id| [1.0, expert(id) as f32]).collect()
        }
        ConstantSource::Beginning { .. } => {
            (0..n).map(|position| f32::from(u8::from(position == 0))).collect()
        }
        ConstantSource::RopeSin { frequencies, half, .. } => rope(constant, *frequencies, *half, libm::sin),
    };
    if values.len() == n { Ok(values) } else { Err(wrong_size()) }
}

fn rope(constant: &Constant, frequencies: Frequencies, half: u32, function: fn(f64) -> f64) -> Vec<f32> {
    let half = half as usize;
    let angles = (0..i64::from(constant.rows))
        .flat_map(|position| (0..half).map(move |pair| frequencies.angle(position, pair, half)));
    angles.map(|angle| function(f64::from(angle)) as f32).collect()
}

/// Replaces `bytes` by the values in their type.
fn store(values: &[f32], dtype: DType, bytes: &mut Vec<u8>) {
    bytes.clear();
    match dtype {
        DType::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        DType::Bf16 => bytes.extend(values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes())),
        DType::U32 => bytes.extend(values.iter().flat_map(|value| (*value as u32).to_le_bytes())),
        DType::U8 => bytes.extend(values.iter().map(|value| *value as u8)),
        DType::I8 => bytes.extend(values.iter().map(|value| (*value as i8).cast_unsigned())),
    }
}
