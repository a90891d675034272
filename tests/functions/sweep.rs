//! Every f32 through every function of one number, in the host code of each backend and level of instructions, against
//! f64.
//!
//! ```text
//! cargo run --release --features cuda --example function-sweep -- --ledger tests/ledger/functions.json
//! ```

#[path = "../conformance/compiled.rs"]
#[allow(dead_code, reason = "tests of kernels use the rest")]
mod compiled;
mod ledger;
mod oracle;
mod variant;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use clap::Parser;
use indicatif::ProgressBar;

use ledger::Ledger;
use oracle::Worst;
use skipc_ir::Unary;
use variant::{COUNT, Variant};

/// Sweeps all functions of one number over all f32.
#[derive(Parser)]
struct Args {
    /// Only each so many-th block of 4 Mi neighbouring numbers.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Only this function; may stand several times.
    #[arg(long, value_name = "NAME")]
    function: Vec<String>,
    /// Where to write what was found; what the file says of other functions stays.
    #[arg(long)]
    ledger: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match sweep(&args) {
        Ok(ledger) => {
            println!("{}", ledger.text());
            let is_clean = ledger.is_clean();
            let written = args.ledger.as_ref().map_or(Ok(()), |path| ledger.write(path));
            match written {
                Ok(()) if is_clean => ExitCode::SUCCESS,
                Ok(()) => ExitCode::FAILURE,
                Err(error) => {
                    eprintln!("{error}");
                    ExitCode::FAILURE
                }
            }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn sweep(args: &Args) -> Result<Ledger, String> {
    let functions = functions(&args.function)?;
    let (begin, variants) = (Instant::now(), Variant::all(&functions)?);
    let blocks: Vec<u32> =
        (0..(1u64 << 32).div_ceil(COUNT as u64) as u32).step_by(args.every as usize).collect();
    let (next, progress) = (AtomicU32::new(0), ProgressBar::new(blocks.len() as u64));
    let work = || -> Result<Vec<Vec<Worst>>, String> {
        let mut sessions = Vec::new();
        for variant in &variants {
            sessions.push(variant.session()?);
        }
        let mut worst = vec![vec![Worst::default(); functions.len()]; variants.len()];
        while let Some(block) = blocks.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let inputs: Vec<f32> =
                (0..COUNT).map(|idx| f32::from_bits(block * COUNT as u32 + idx as u32)).collect();
            let expected = oracle::expected(&functions, &inputs);
            for ((variant, session), worst) in variants.iter().zip(&mut sessions).zip(&mut worst) {
                let found = variant.apply(session, &inputs)?;
                for (function, worst) in worst.iter_mut().enumerate() {
                    worst.compare(&inputs, &expected[function], &found[function]);
                }
            }
            progress.inc(1);
        }
        Ok(worst)
    };
    let found: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..args.threads.max(1)).map(|_| scope.spawn(work)).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().map_err(|_| "a thread ended early".to_owned())?)
            .collect()
    });
    progress.finish_and_clear();
    let mut total = vec![vec![Worst::default(); functions.len()]; variants.len()];
    for of_thread in found {
        for (total, of_thread) in total.iter_mut().flatten().zip(of_thread?.iter().flatten()) {
            total.add(of_thread);
        }
    }
    let numbers = blocks.len() as u64 * COUNT as u64;
    Ok(Ledger::of(&functions, &variants, &total, (numbers, begin.elapsed().as_secs())))
}

/// The functions of these names; without any, all.
fn functions(names: &[String]) -> Result<Vec<Unary>, String> {
    let named = |name: &String| {
        let found = Unary::SAMPLES.iter().find(|function| function.name() == *name);
        found.copied().ok_or_else(|| format!("there is no function {name}"))
    };
    if names.is_empty() { Ok(Unary::SAMPLES.to_vec()) } else { names.iter().map(named).collect() }
}
