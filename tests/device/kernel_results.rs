//! What the PTX machine makes of kernels, for a harness that compares a GPU with it, bit for bit.
//!
//! Run are the cases that have one possible result ([`skipc_testkit::exact`]), on the PTX that [`crate::kernel_modules`]
//! wrote, so that machine and GPU run the same kernels. Two files are added to those of the modules. `machine.json` is a
//! [`Results`]; `machine.bin` holds for each written parameter of each case all its bytes after the run, without gaps,
//! in the order of the index. A case is missing if its kernel has no code. The same code gives the same files.
//!
//! Results that are not the exactly known ones are an error of the machine, of the compiler, or of the claim that the
//! case is exact, and are not written.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use skipc_artifact::target::Target;
use skipc_plan::kernel::Access;
use skipc_ptx::machine::Program;
use skipc_ptx::syntax;
use skipc_testkit::kernel_cases::{Case, cuda_cases};
use skipc_testkit::replay::{self, Part};
use skipc_testkit::tolerance::{Want, decode, round};

use crate::kernel_modules::CodeIndex;
use crate::on_the_ptx_machine::{self, Loaded};

/// Format of `machine.json` and `machine.bin`; raised with each change.
const VERSION: u32 = 1;

/// What the machine left, case by case in the order of `index.json` of the cases.
#[derive(Debug, Serialize)]
struct Results {
    /// [`VERSION`].
    version: u32,
    target: Target,
    cases: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    name: String,
    /// One for each parameter that the kernel writes.
    outputs: Vec<Output>,
}

#[derive(Debug, Serialize)]
struct Output {
    /// Index of the parameter.
    param: u32,
    /// Its bytes, in `machine.bin`.
    part: Part,
}

/// Parameters that a kernel wrote, with their bytes.
type Written = Vec<(u32, Vec<u8>)>;

/// Runs the code for `target` in `dir` and adds what it gives.
///
/// # Errors
/// There is no code for the target, a kernel is at fault or its result is wrong, or the file system's.
pub(crate) fn write(target: &str, dir: &Path) -> Result<(), String> {
    let code = std::fs::read(dir.join("code.json")).map_err(|error| format!("code.json: {error}"))?;
    let code: CodeIndex = serde_json::from_slice(&code).map_err(|error| format!("code.json: {error}"))?;
    if code.target.to_string() != target {
        return Err(format!("{} holds code for {}", dir.display(), code.target));
    }
    let cases = cuda_cases();
    let (_, of_case) = replay::kernels(&cases);
    let kernels = load(&code, dir)?;
    let runs: Vec<(&Case, &Loaded)> = (cases.iter().zip(&of_case))
        .filter_map(|(case, kernel)| Some((case, kernels.get(&(*kernel as usize))?)))
        .filter(|(case, _)| case.is_exact())
        .collect();
    let mut results = Results { version: VERSION, target: code.target, cases: Vec::new() };
    let data = std::fs::File::create(dir.join("machine.bin")).map_err(|error| error.to_string())?;
    let (mut data, mut end) = (std::io::BufWriter::new(data), 0);
    for ((case, _), written) in runs.iter().zip(run_all(&runs)?) {
        let mut entry = Entry { name: case.name.clone(), outputs: Vec::new() };
        for (param, bytes) in written {
            data.write_all(&bytes).map_err(|error| error.to_string())?;
            let part = Part { offset: end, bytes: bytes.len() as u64 };
            end += part.bytes;
            entry.outputs.push(Output { param, part });
        }
        results.cases.push(entry);
    }
    data.flush().map_err(|error| error.to_string())?;
    let text = serde_json::to_vec(&results).map_err(|error| error.to_string())?;
    std::fs::write(dir.join("machine.json"), text).map_err(|error| error.to_string())?;
    println!("{} of {} cases on the PTX machine as {target}", results.cases.len(), cases.len());
    Ok(())
}

/// All kernels of the modules by their numbers.
fn load(code: &CodeIndex, dir: &Path) -> Result<BTreeMap<usize, Loaded>, String> {
    let mut kernels = BTreeMap::new();
    for module in &code.modules {
        let file = format!("{}.ptx", module.name);
        let text = std::fs::read_to_string(dir.join(&file)).map_err(|error| format!("{file}: {error}"))?;
        let parsed = syntax::parse(&text).map_err(|error| format!("{file}: {error}"))?;
        for entry in &module.kernels {
            let program = Program::of_module(&parsed, &entry.symbol);
            let program = program.map_err(|error| format!("{file}: {}: {error}", entry.symbol))?;
            kernels.insert(entry.kernel, (Arc::new(program), entry.launch.clone()));
        }
    }
    Ok(kernels)
}

/// Runs cases side by side; the result is in their order.
fn run_all(runs: &[(&Case, &Loaded)]) -> Result<Vec<Written>, String> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Written)>, String> {
        let mut done = Vec::new();
        loop {
            let idx = next.fetch_add(1, Ordering::Relaxed);
            let Some((case, kernel)) = runs.get(idx) else { return Ok(done) };
            done.push((idx, run(case, kernel).map_err(|wrong| format!("{}: {wrong}", case.name))?));
        }
    };
    let n_threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut done = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| {
            done.extend(thread.join().map_err(|_| "a thread panicked".to_owned())??);
            Ok::<(), String>(())
        })
    })?;
    done.sort_by_key(|(idx, _)| *idx);
    Ok(done.into_iter().map(|(_, written)| written).collect())
}

/// Runs a case once; one schedule is enough where every order gives the same bits.
fn run(case: &Case, kernel: &Loaded) -> Result<Written, String> {
    let after = on_the_ptx_machine::run(kernel, &case.kernel, &case.operands, 0)?;
    case.check(&after).map_err(|wrong| wrong.to_string())?;
    require_exact(case, &after)?;
    let written = (0..).zip(case.kernel.params.iter().zip(after));
    let written = written.filter(|(_, (param, _))| param.access != Access::Read);
    Ok(written.map(|(idx, (_, bytes))| (idx, bytes)).collect())
}

/// Checks that every element has the bits of its exact value, rounded once.
fn require_exact(case: &Case, after: &[Vec<u8>]) -> Result<(), String> {
    for output in &case.expected {
        let numbers = decode(output.dtype, &after[output.param as usize]);
        for (idx, (want, got)) in output.wants.iter().zip(numbers).enumerate() {
            if let Want::Value { value, .. } = *want
                && round(value, output.dtype).to_bits() != got.to_bits()
            {
                return Err(format!("element {idx} of operand {} is {got:e}, not {value:e}", output.param));
            }
        }
    }
    Ok(())
}
