//! A machine that runs PTX on the host: slow, exact about memory, and strict.
//!
//! It knows the instructions that our kernels use and refuses others by name. It is an error to touch
//! memory outside an operand, to read shared memory that another thread wrote without a barrier
//! between (or to overwrite what another still reads), to use what `cp.async` brings before it was
//! waited for (it stays poison), and to leave threads waiting at different places.
//!
//! Not checked: anything about time, and blocks that depend on each other (they run in order).

mod block;
mod instruction;
mod memory;
mod parse;
mod warp;

pub(crate) use parse::Module;

/// How a kernel is started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    pub(crate) x: u32,
    pub(crate) y: u32,
    pub(crate) threads: u32,
    pub(crate) shared_bytes: u32,
}

/// Runs an entry over one byte buffer for each parameter.
///
/// # Errors
/// What is wrong, with block and thread.
pub(crate) fn run(module: &Module, entry: &str, grid: Grid, operands: &mut [Vec<u8>]) -> Result<(), String> {
    let kernel = module.entry(entry)?;
    let mut global = memory::Global { operands };
    for y in 0..grid.y {
        for x in 0..grid.x {
            let mut block = block::Block::new(kernel, grid, (x, y));
            block.run(&mut global).map_err(|error| format!("block ({x}, {y}): {error}"))?;
        }
    }
    Ok(())
}
