//! Kernel cases on a machine that has a GPU but neither LLVM nor Rust.
//!
//! ```text
//! kernel-cases write cuda:sm_90a DIR   compiles all cases (needs the feature `cuda`)
//! kernel-cases run cuda DIR            runs them and checks the results (`cpu` likewise)
//! kernel-cases files DIR               writes operands and expectations as plain files, for other harnesses
//! kernel-cases modules cuda:sm_90a DIR writes the kernels' code as plain files (needs the feature `cuda`)
//! kernel-cases machine cuda:sm_90a DIR runs that code on the PTX machine and adds the results that have to be a GPU's
//! ```
//! Without the feature `cuda` the program itself needs no LLVM, so that it can be copied to the GPU machine with `DIR`;
//! it makes operands and expectations itself. It exits with 1 if a case fails. Cases that the target refuses are counted
//! by the reason, which `write` leaves beside the artefacts; a case that is missing without a reason fails.

#[path = "../conformance/compiled.rs"]
mod compiled;
mod kernel_modules;
mod kernel_results;
#[path = "../conformance/on_the_ptx_machine.rs"]
mod on_the_ptx_machine;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use compiled::{CHUNK, artefact, run};
use skipc_artifact::target::Target;
use skipc_plan::buckets::ByHeight;
use skipc_plan::codegen::{Codegen, CodegenError};
use skipc_runtime::{Device, Options};
use skipc_testkit::conformance::{self, Backend, Ran};
use skipc_testkit::kernel_cases::{Case, cases, cuda_cases};
use skipc_testkit::replay;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["write", target, dir] => write(target, Path::new(dir)),
        ["run", "cpu", dir] => run_written(Device::Cpu, dir),
        ["run", "cuda", dir] => run_written(Device::Cuda(0), dir),
        ["files", dir] => files(Path::new(dir)),
        ["modules", target, dir] => kernel_modules::write(target, Path::new(dir)),
        ["machine", target, dir] => kernel_results::write(target, Path::new(dir)),
        _ => {
            let forms = "write TARGET DIR | run cpu|cuda DIR | files DIR | modules|machine TARGET DIR";
            Err(format!("usage: kernel-cases {forms}"))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn files(dir: &Path) -> Result<(), String> {
    let cases = cuda_cases();
    replay::write(&cases, dir).map_err(|error| error.to_string())?;
    println!("{} cases", cases.len());
    Ok(())
}

/// The artefact of a chunk of cases, or of one case where the chunk could not be compiled as a whole.
fn file(dir: &Path, chunk: usize, case: Option<usize>) -> PathBuf {
    match case {
        None => dir.join(format!("{chunk:03}.skp")),
        Some(case) => dir.join(format!("{chunk:03}_{case:02}.skp")),
    }
}

/// Before the reason why there is no code for a case.
const REFUSED: &str = "no code: ";

/// Why there is no code for a case.
fn refusal(dir: &Path, chunk: usize, case: usize) -> PathBuf {
    dir.join(format!("{chunk:03}_{case:02}.refused"))
}

fn write(target: &str, dir: &Path) -> Result<(), String> {
    let target: Target = target.parse().map_err(|error| format!("{error}"))?;
    let codegen = skipc::driver::backends::for_target(&target, Default::default(), Box::new(ByHeight))
        .map_err(|failure| failure.diagnostics.to_string())?;
    std::fs::create_dir_all(dir).map_err(|error| error.to_string())?;
    let save = |path: PathBuf, bytes: Vec<u8>| std::fs::write(path, bytes).map_err(|error| error.to_string());
    let (cases, mut refused) = (cases(), 0);
    for (chunk_idx, chunk) in cases.chunks(CHUNK).enumerate() {
        let chunk: Vec<&Case> = chunk.iter().collect();
        if let Ok(bytes) = artefact(codegen.as_ref(), &chunk) {
            save(file(dir, chunk_idx, None), bytes)?;
            continue;
        }
        for (case_idx, case) in chunk.iter().enumerate() {
            match artefact(codegen.as_ref(), &[case]) {
                Ok(bytes) => save(file(dir, chunk_idx, Some(case_idx)), bytes)?,
                Err(why) if refuses(codegen.as_ref(), case) => {
                    refused += 1;
                    println!("no code for {}: {why}", case.name);
                    save(refusal(dir, chunk_idx, case_idx), why.into_bytes())?;
                }
                Err(why) => return Err(format!("{}: {why}", case.name)),
            }
        }
    }
    println!("{} of {} cases compiled for {target}", cases.len() - refused, cases.len());
    Ok(())
}

/// Whether the backend says that its target cannot do this.
fn refuses(codegen: &dyn Codegen, case: &Case) -> bool {
    let result = codegen.compile(&[("kernel".to_owned(), &case.kernel)]);
    matches!(result, Err(CodegenError::Unsupported { .. }))
}

/// Cases that were compiled before.
struct Packed {
    device: Device,
    dir: PathBuf,
}

impl Backend for Packed {
    fn name(&self) -> String {
        format!("{:?}, {}", self.device, self.dir.display())
    }

    fn run(&mut self, cases: &[&Case]) -> Vec<Ran> {
        let chunks = cases.chunks(CHUNK).enumerate();
        chunks.flat_map(|(chunk_idx, chunk)| self.run_chunk(chunk_idx, chunk)).collect()
    }
}

impl Packed {
    fn run_chunk(&self, chunk_idx: usize, chunk: &[&Case]) -> Vec<Ran> {
        if let Ok(bytes) = std::fs::read(file(&self.dir, chunk_idx, None)) {
            return match run(&bytes, chunk, self.device, one_thread()) {
                Ok(ran) => ran.into_iter().map(Ok).collect(),
                Err(why) => chunk.iter().map(|_| Err(why.clone())).collect(),
            };
        }
        let alone = |(case_idx, case): (usize, &&Case)| {
            let bytes = std::fs::read(file(&self.dir, chunk_idx, Some(case_idx)));
            let bytes = bytes.map_err(|_| {
                match std::fs::read_to_string(refusal(&self.dir, chunk_idx, case_idx)) {
                    Ok(why) => format!("{REFUSED}{why}"),
                    Err(_) => "it was not compiled".to_owned(),
                }
            })?;
            Ok(run(&bytes, &[case], self.device, one_thread())?.swap_remove(0))
        };
        chunk.iter().enumerate().map(alone).collect()
    }
}

/// One thread is all that checking results takes.
fn one_thread() -> Options {
    Options { threads: 1, ..Options::default() }
}

fn run_written(device: Device, dir: &str) -> Result<(), String> {
    let mut report = conformance::run(&cases(), &mut Packed { device, dir: PathBuf::from(dir) });
    let refused = report.failed.extract_if(.., |(_, why)| why.starts_with(REFUSED)).count();
    print!("{report}");
    println!("{refused} refused for the target, as `write` said");
    if report.failed.is_empty() { Ok(()) } else { Err(format!("{} cases failed", report.failed.len())) }
}
