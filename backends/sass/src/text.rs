//! Figures as a table.

use std::fmt::Write;

use crate::analysis::{Figures, Kernel, Limit, Role};

/// The figures of kernels, a line for each part, for reading.
pub fn table(kernels: &[Kernel]) -> String {
    let mut out = String::new();
    for kernel in kernels {
        let _ = writeln!(out, "{}: {} bytes of code", kernel.name, kernel.code_bytes);
        let _ = write!(out, "{}", parts(kernel));
    }
    out
}

/// The same of one kernel, without its name.
pub fn parts(kernel: &Kernel) -> String {
    let mut out = String::new();
    if let Some(pool) = kernel.pool {
        let covered = if pool.is_covered() { "" } else { ": NOT COVERED, its warps wait for ever" };
        let _ = writeln!(
            out,
            "  {} registers a thread for producers, {} for consumers: {} of {} a block{covered}",
            pool.producer, pool.consumer, pool.taken, pool.launched
        );
    }
    let [part, warps, instructions, bound, by, tensor, alone] =
        ["part", "warps", "instr", "bound", "by", "tensor", "alone"];
    let [waits, chain, stores, special, fences, gap] =
        ["ld waits", "ld chain", "stores", "special", "fences", "gap"];
    let _ = writeln!(
        out,
        "  {part:WIDTH$} {warps:>5} {instructions:>5} {bound:>6} {by:>7} {tensor:>6} {alone:>6} {waits:>8} {chain:>8} \
         {stores:>6} {special:>7} {fences:>6} {gap:>3}"
    );
    for part in kernel.parts.iter().filter(|part| part.is_whole_loop || part.mix.instructions >= SHOWN) {
        let _ = writeln!(out, "{}", line(part));
    }
    out
}

/// Characters of a part's name.
const WIDTH: usize = 34;

/// Instructions of a part that is shown: shorter ones between loops are jumps.
const SHOWN: u32 = 10;

fn line(part: &Figures) -> String {
    let role = match part.role {
        Role::All => "",
        Role::Producers => ", producers",
        Role::Consumers => ", consumers",
    };
    let place = match (&part.of, part.is_whole_loop, part.behind) {
        (Some(label), true, _) => format!("loop {label}"),
        (Some(label), false, 0) => format!("{label}, before"),
        (Some(label), false, n) => format!("{label}, after loop {n}"),
        (None, _, 0) => "before".to_owned(),
        (None, _, n) => format!("after loop {n}"),
    };
    let limit = match part.limit {
        Limit::Issue => "issue",
        Limit::Special => "special",
        Limit::Tensor => "tensor",
        Limit::Shared => "shared",
        Limit::Global => "L2",
    };
    let two = |global: u32, shared: u32| format!("{global}+{shared}");
    let indent = "  ".repeat(part.depth as usize);
    format!(
        "  {:WIDTH$} {:>5} {:>5} {:>6} {:>7} {:>6} {:>6} {:>8} {:>8} {:>6} {:>7} {:>6} {:>3}",
        format!("{indent}{place}{role}"),
        part.warps,
        part.mix.instructions,
        part.bound,
        limit,
        part.tensor_cycles,
        part.alone,
        two(part.global_waits, part.shared_waits),
        two(part.global_chain, part.shared_chain),
        part.mix.global_stores,
        part.mix.special,
        part.mix.fences,
        part.matmul_gap,
    )
}
