//! A kernel on the PTX machine, over its operands.

use std::sync::Arc;

use skipc_artifact::program::Launch;
use skipc_plan::kernel::{Access, Kernel};
use skipc_ptx::machine::{self, Arg, Memory, Program};

/// Multiprocessors of the device: few, so that persistent blocks make several tiles each, and not the same number.
const PROCESSORS: u32 = 3;

/// A kernel that can be started.
pub(crate) type Loaded = (Arc<Program>, Launch);

/// The operands after the kernel, in one schedule.
pub(crate) fn run(
    (program, launch): &Loaded,
    kernel: &Kernel,
    operands: &[Vec<u8>],
    seed: u64,
) -> Result<Vec<Vec<u8>>, String> {
    let Launch::Cuda { threads, shared_bytes, .. } = *launch else {
        return Err("not a launch on CUDA".to_owned());
    };
    let rows = kernel.extent.at_most(u32::MAX);
    let Some([x, y]) = launch.grid(rows, PROCESSORS) else { return Ok(operands.to_vec()) };
    let mut memory = Memory::default();
    let mut args = Vec::new();
    for (param, operand) in kernel.params.iter().zip(operands) {
        let (name, bytes) = (param.name.clone(), operand.clone());
        let writable = param.access != Access::Read;
        args.push(Arg::U64(memory.add(machine::Buffer { name, bytes, writable })));
    }
    let launch = machine::Launch {
        dynamic_shared: shared_bytes,
        seed,
        ..machine::Launch::new([x, y, 1], threads, args)
    };
    machine::run(program, &launch, &mut memory).map_err(|fault| fault.to_string())?;
    Ok(memory.into_buffers().into_iter().map(|buffer| buffer.bytes).collect())
}
