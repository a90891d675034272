//! What must hold of a program before anything is allocated or run by its numbers.
//!
//! Checked: every index names something; every buffer lies in the arena under every bound up to the limit, at a
//! multiple of 4 bytes; every constant lies in the constants; every step passes as many pointers as its kernel
//! takes; the buffers that host and step share have the types and shapes that [`crate::program::Io`] says; counts
//! are `u32` parameters; launches fit the target.
//! Not checked: what kernels do with their pointers. Code is as trustworthy as whoever made the artefact.

use crate::error::Error;
use crate::image::HostTable;
use crate::program::{Arg, Buffer, Entry, Extent, Gate, Launch, Program, RowBound, RowTile, Step};
use crate::target::{DType, Target};

/// Most bytes an arena may have: 1 TiB, several times the memory of the largest machines this is for.
const MEMORY_LIMIT: u64 = 1 << 40;

/// Largest scratch memory of one call, in bytes: a tile of a few hundred rows of the widest layer.
const SCRATCH_LIMIT: u64 = 1 << 30;

/// Checks `program` against the size of its constants.
///
/// # Errors
///
/// [`Error::Program`] with the first thing that does not hold.
pub fn program(program: &Program, constant_bytes: u64) -> Result<(), Error> {
    if program.constant_bytes != constant_bytes {
        return refuse(format!(
            "{} bytes of constants, it expects {}",
            constant_bytes, program.constant_bytes
        ));
    }
    for constant in &program.constants {
        let bytes = matrix_bytes(constant.rows, constant.cols, constant.dtype);
        let end = bytes.and_then(|bytes| constant.offset.checked_add(bytes));
        if !constant.offset.is_multiple_of(256) || end.is_none_or(|end| end > constant_bytes) {
            return refuse(format!("constant `{}` does not lie in the constants", constant.name));
        }
    }
    let layout = &program.layout;
    let rows = u64::from(layout.max_tokens).next_multiple_of(u64::from(crate::program::BOUND_UNIT));
    let largest = layout.row_bytes.checked_mul(rows).and_then(|bytes| bytes.checked_add(layout.fixed_bytes));
    if layout.max_tokens > 1 << 30 || largest.is_none_or(|bytes| bytes > MEMORY_LIMIT) {
        return refuse(format!("an arena for {} tokens is too large", layout.max_tokens));
    }
    layout.buffers.iter().try_for_each(|buffer| check_buffer(program, buffer))?;
    program.entries.iter().try_for_each(|entry| check_entry(program, entry))?;
    layout.steps.iter().try_for_each(|step| check_step(program, step))?;
    check_io(program)
}

/// Checks that host code has every entry of `program`.
///
/// # Errors
///
/// [`Error::Program`] with the first entry that is missing.
pub fn has_entries(program: &Program, table: &HostTable) -> Result<(), Error> {
    let known = |symbol: &str| table.entries.iter().any(|entry| entry.name == symbol);
    match program.entries.iter().find(|entry| !known(&entry.symbol)) {
        Some(entry) => refuse(format!("its code has no entry `{}`", entry.symbol)),
        None => Ok(()),
    }
}

fn matrix_bytes(rows: u32, cols: u32, dtype: DType) -> Option<u64> {
    (u64::from(rows) * u64::from(cols)).checked_mul(u64::from(dtype.size()))
}

fn refuse<T>(reason: String) -> Result<T, Error> {
    Err(Error::Program { reason })
}

/// Offset and size are linear in the bound, so the two ends of its range stand for all of it.
fn check_buffer(program: &Program, buffer: &Buffer) -> Result<(), Error> {
    let layout = &program.layout;
    let unit = crate::program::BOUND_UNIT;
    for bound in [unit, layout.max_tokens.next_multiple_of(unit).max(unit)] {
        let rows = match buffer.rows {
            RowBound::Tokens => bound,
            RowBound::Fixed(rows) => rows,
        };
        let begin = buffer.place.row_offset.checked_mul(u64::from(bound));
        let begin = begin.and_then(|begin| begin.checked_add(buffer.place.fixed_offset));
        let bytes = matrix_bytes(rows, buffer.cols, buffer.dtype);
        let end = begin.zip(bytes).and_then(|(begin, bytes)| begin.checked_add(bytes));
        let arena = layout.row_bytes * u64::from(bound) + layout.fixed_bytes;
        if end.is_none_or(|end| end > arena) {
            return refuse(format!("buffer `{}` does not lie in the arena", buffer.name));
        }
    }
    if !buffer.place.fixed_offset.is_multiple_of(256) || !buffer.place.row_offset.is_multiple_of(4) {
        return refuse(format!("buffer `{}` is not aligned", buffer.name));
    }
    Ok(())
}

fn check_entry(program: &Program, entry: &Entry) -> Result<(), Error> {
    let symbol = &entry.symbol;
    match (&program.target, &entry.launch) {
        (Target::Cpu, Launch::Host { scratch_bytes, few_rows, .. })
            if *scratch_bytes <= SCRATCH_LIMIT && few_rows.is_none_or(|few| few.tiles > 0) => {}
        (Target::Cuda(_), Launch::Cuda { threads, .. }) if (1..=1024).contains(threads) => {}
        (target, launch) => return refuse(format!("`{symbol}` is started as {launch:?}, not on {target}")),
    }
    check_tiles(symbol, entry.launch.tiles())?;
    match entry.extent {
        Extent::Counted { count, .. } if count >= entry.n_params => {
            refuse(format!("`{symbol}` counts by parameter {count}, which it does not have"))
        }
        _ => Ok(()),
    }
}

/// Tiles are for ascending numbers of rows, from 0 on, and make a grid.
fn check_tiles(symbol: &str, tiles: &[RowTile]) -> Result<(), Error> {
    let starts = tiles.first().is_none_or(|first| first.from == 0);
    let ascends = tiles.windows(2).all(|pair| pair[0].from < pair[1].from);
    let is_tile = |tile: &RowTile| tile.rows > 0 && (1..=65535).contains(&tile.across);
    if starts && ascends && tiles.iter().all(is_tile) {
        Ok(())
    } else {
        refuse(format!("`{symbol}` has the tiles {tiles:?}"))
    }
}

fn check_step(program: &Program, step: &Step) -> Result<(), Error> {
    let origin = &step.origin;
    let Some(entry) = program.entries.get(step.kernel as usize) else {
        return refuse(format!("a step of {origin} runs kernel {}, which is not there", step.kernel));
    };
    if step.args.len() != entry.n_params as usize {
        return refuse(format!("a step of {origin} gives `{}` {} pointers", entry.symbol, step.args.len()));
    }
    let known = |arg: &Arg| match *arg {
        Arg::Buffer(idx) => (idx as usize) < program.layout.buffers.len(),
        Arg::Constant(idx) => (idx as usize) < program.constants.len(),
    };
    if let Some(arg) = step.args.iter().find(|arg| !known(arg)) {
        return refuse(format!("a step of {origin} gives `{}` {arg:?}, which is not there", entry.symbol));
    }
    if let Extent::Counted { count, .. } = entry.extent {
        let is_count = step.args.get(count as usize).is_some_and(|&arg| match arg {
            Arg::Buffer(idx) => is_shaped(program, idx, DType::U32, RowBound::Fixed(1), 1),
            Arg::Constant(_) => false,
        });
        if !is_count {
            return refuse(format!(
                "a step of {origin} counts `{}` by something other than a u32",
                entry.symbol
            ));
        }
    }
    Ok(())
}

fn is_shaped(program: &Program, idx: u32, dtype: DType, rows: RowBound, cols: u32) -> bool {
    let shape = |buffer: &Buffer| (buffer.dtype, buffer.rows, buffer.cols) == (dtype, rows, cols);
    program.layout.buffers.get(idx as usize).is_some_and(shape)
}

fn check_io(program: &Program) -> Result<(), Error> {
    let io = &program.layout.io;
    let (one, tokens) = (RowBound::Fixed(1), RowBound::Tokens);
    let mut shapes = vec![
        ("n_tokens", io.n_tokens, DType::U32, one, 1),
        ("tokens", io.tokens, DType::U32, tokens, 1),
        ("positions", io.positions, DType::U32, tokens, 1),
        ("sequences", io.sequences, DType::U32, tokens, 1),
        ("use_forced", io.use_forced, DType::U32, one, 1),
        ("logits", io.logits, DType::F32, tokens, program.layout.vocab_size),
    ];
    for gate in &io.gates {
        if let Gate::Routed { mask, forced, count, wanted } = *gate {
            shapes.push(("mask", mask, DType::U8, tokens, 1));
            shapes.push(("forced", forced, DType::U8, tokens, 1));
            shapes.push(("count", count, DType::U32, one, 1));
            shapes.extend(wanted.map(|wanted| ("wanted", wanted, DType::U32, one, 1)));
        }
    }
    match shapes.iter().find(|&&(_, idx, dtype, rows, cols)| !is_shaped(program, idx, dtype, rows, cols)) {
        Some((what, idx, ..)) => refuse(format!("`{what}` is buffer {idx}, which has another type or shape")),
        None => Ok(()),
    }
}
