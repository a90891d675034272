//! Every kernel case on every backend that this build has. The kernel interpreter runs with tiles of several sizes and
//! in both orders; it and all others are held against a reference in f64 with error bounds.
//!
//! What is not here is said and counted, never passed in silence.

#[path = "conformance/compiled.rs"]
mod compiled;
#[path = "conformance/faults/mod.rs"]
mod faults;
#[path = "conformance/inputs.rs"]
mod inputs;
#[cfg(feature = "cuda")]
#[path = "conformance/ptx_call.rs"]
mod ptx_call;
#[cfg(feature = "cuda")]
#[path = "cuda/ptx_model.rs"]
#[expect(dead_code, reason = "the tests of the example use the rest")]
mod ptx_model;
#[path = "conformance/states.rs"]
mod states;

use compiled::{CHUNK, artefact};
use skipc::driver::backends::{CpuBackend, CpuLevels};
use skipc_artifact::image::HostLevel;
use skipc_artifact::target::Target;
use skipc_plan::buckets::ByHeight;
use skipc_plan::codegen::{Codegen, CodegenError};
use skipc_plan::interp::{Tiling, run_kernel};
use skipc_runtime::cuda::{CudaError, Gpu};
use skipc_runtime::{Device, Options};
use skipc_testkit::conformance::{Backend, Ran, Report, run};
use skipc_testkit::kernel_cases::{Case, cases, host_cases};
use skipc_testkit::replay;
use skipc_testkit::tolerance::Want;

/// What Cranelift has no code for: it computes layers in f32.
const CRANELIFT_IGNORES: [(&str, &str); 7] = [
    ("panels_", "weights in panels are for register tiles"),
    ("levels_", "weights in 8 bits are for register tiles"),
    ("gemm_bf16", "weights of matmuls are f32"),
    ("epilogue_bf16", "weights of matmuls are f32"),
    ("parts_bf16", "weights of matmuls are f32"),
    ("scores_bf16", "weights of matmuls are f32"),
    ("grouped_bf16", "weights of matmuls are f32"),
];

/// The kernel interpreter with one way to cut rows into tiles.
struct Interpreter(Tiling);

impl Backend for Interpreter {
    fn name(&self) -> String {
        let order = if self.0.reversed { ", last first" } else { "" };
        format!("interpreter, tiles of {}{order}", self.0.rows)
    }

    fn run(&mut self, cases: &[&Case]) -> Vec<Ran> {
        let run = |case: &&Case| {
            let mut operands = case.operands.clone();
            let ran = run_kernel(&case.kernel, &mut operands, self.0);
            ran.map(|()| operands).map_err(|fault| fault.to_string())
        };
        cases.iter().map(run).collect()
    }
}

/// Code of a backend, run by the runtime.
struct Compiled<'a> {
    codegen: &'a dyn Codegen,
    device: Device,
    max_level: HostLevel,
    ignored: &'static [(&'static str, &'static str)],
}

impl Backend for Compiled<'_> {
    fn name(&self) -> String {
        match self.device {
            Device::Cpu => format!("code for {} up to {:?}", self.codegen.target(), self.max_level),
            Device::Cuda(_) => format!("code for {}", self.codegen.target()),
        }
    }

    fn run(&mut self, cases: &[&Case]) -> Vec<Ran> {
        let mut all = Vec::with_capacity(cases.len());
        for chunk in cases.chunks(CHUNK) {
            match artefact(self.codegen, chunk).and_then(|bytes| self.load(&bytes, chunk)) {
                Ok(ran) => all.extend(ran.into_iter().map(Ok)),
                // Some case of the chunk cannot be compiled or run: one by one tells which.
                Err(_) => all.extend(chunk.iter().map(|case| {
                    let bytes = artefact(self.codegen, &[case])?;
                    Ok(self.load(&bytes, &[case])?.swap_remove(0))
                })),
            }
        }
        all
    }

    fn ignored(&self) -> &[(&'static str, &'static str)] {
        self.ignored
    }
}

impl<'a> Compiled<'a> {
    fn new(codegen: &'a dyn Codegen, device: Device) -> Compiled<'a> {
        Compiled { codegen, device, max_level: HostLevel::Baseline, ignored: &[] }
    }

    /// Runs an artefact with one thread and with two, which may not make a difference.
    fn load(&self, artefact: &[u8], cases: &[&Case]) -> Result<Vec<Vec<Vec<u8>>>, String> {
        let options = |threads| Options { threads, max_level: Some(self.max_level), ..Options::default() };
        let alone = compiled::run(artefact, cases, self.device, options(1))?;
        let shared = compiled::run(artefact, cases, self.device, options(2))?;
        if alone == shared { Ok(alone) } else { Err("two threads give other bits than one".to_owned()) }
    }
}

/// Whether the backend says that its target cannot do this.
fn refuses(codegen: &dyn Codegen, case: &Case) -> bool {
    let result = codegen.compile(&[("kernel".to_owned(), &case.kernel)]);
    matches!(result, Err(CodegenError::Unsupported { .. }))
}

#[test]
fn the_interpreter_is_within_the_bounds_of_the_reference() {
    let cases = host_cases();
    for rows in [1, 16, 64, 1 << 20] {
        expect_clean(&cases, &mut Interpreter(Tiling::of(rows)));
    }
    expect_clean(&cases, &mut Interpreter(Tiling { rows: 7, reversed: true }));
}

#[test]
fn tiles_change_no_bit() {
    for case in host_cases() {
        let results = [Tiling::of(1), Tiling::of(13), Tiling { rows: 32, reversed: true }].map(|tiling| {
            let mut operands = case.operands.clone();
            run_kernel(&case.kernel, &mut operands, tiling)
                .unwrap_or_else(|fault| panic!("{}: {fault}", case.name));
            operands
        });
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{}", case.name);
    }
}

#[test]
fn host_code_is_within_the_bounds_of_the_reference() {
    let cases = host_cases();
    let built = CpuBackend::built();
    assert!(!built.is_empty(), "this build makes no code for the CPU, so there is nothing to test");
    for cpu in built {
        let codegen = |levels| {
            skipc::driver::backends::for_target(&Target::Cpu, (cpu, levels), Box::new(ByHeight))
                .unwrap_or_else(|failure| panic!("{}", failure.diagnostics))
        };
        let (levels, ignored): (Vec<HostLevel>, &'static [_]) = match cpu {
            CpuBackend::Cranelift => (vec![HostLevel::Baseline], &CRANELIFT_IGNORES),
            CpuBackend::Llvm => (skipc_runtime::cpu_levels().collect(), &[]),
        };
        for max_level in levels {
            let codegen = codegen(CpuLevels::Only(max_level));
            let mut backend = Compiled { ignored, max_level, ..Compiled::new(codegen.as_ref(), Device::Cpu) };
            expect_clean(&cases, &mut backend);
        }
        let codegen = codegen(CpuLevels::All);
        for (prefix, why) in ignored {
            let mut ignored = cases.iter().filter(|case| case.name.starts_with(prefix)).peekable();
            assert!(ignored.peek().is_some(), "no case begins with `{prefix}`");
            for case in ignored {
                assert!(refuses(codegen.as_ref(), case), "{} runs: no longer ignore it ({why})", case.name);
            }
        }
    }
}

#[test]
fn gpu_code_is_within_the_bounds_of_the_reference() {
    let cases = cases();
    let gpu = match Gpu::open(0) {
        Ok(gpu) if cfg!(feature = "cuda") => gpu,
        Ok(_) => return println!("cuda: {} skipped: no code generation for it", cases.len()),
        Err(why) => {
            // A GPU that is there and cannot be used is a failure, and so is one that the caller says is there. So is a
            // driver that does not answer: it is a [`CudaError::BrokenDriver`].
            let is_absent = matches!(why, CudaError::NoDriver | CudaError::NoDevice { .. });
            assert!(is_absent && std::env::var_os("SKIPC_REQUIRE_GPU").is_none(), "{why}");
            return println!("cuda: {} skipped: {why}", cases.len());
        }
    };
    let codegen = gpu_codegen(&gpu).unwrap_or_else(|why| panic!("{why}"));
    expect_clean(&cases, &mut Compiled::new(codegen.as_ref(), Device::Cuda(0)));
}

/// Code generation for this GPU.
fn gpu_codegen(gpu: &Gpu) -> Result<Box<dyn Codegen>, String> {
    let targets = skipc::driver::backends::targets().into_iter().filter(|target| target.built);
    let targets: Vec<Target> = targets.filter_map(|target| target.name.parse().ok()).collect();
    let target = gpu.choose(&targets).map_err(|error| error.to_string())?;
    skipc::driver::backends::for_target(target, (CpuBackend::default(), CpuLevels::All), Box::new(ByHeight))
        .map_err(|failure| failure.diagnostics.to_string())
}

#[test]
fn files_hold_what_the_cases_hold() {
    let dir = tempfile::tempdir().unwrap();
    let cases: Vec<Case> = cases().into_iter().step_by(7).collect();
    replay::write(&cases, dir.path()).unwrap();
    let index: replay::Index =
        serde_json::from_slice(&std::fs::read(dir.path().join("index.json")).unwrap()).unwrap();
    let data = std::fs::read(dir.path().join("data.bin")).unwrap();
    let bytes = |part: replay::Part| {
        assert!(part.offset.is_multiple_of(replay::ALIGN));
        &data[part.offset as usize..(part.offset + part.bytes) as usize]
    };
    let number = |part: replay::Part, idx: usize| {
        f64::from_le_bytes(*bytes(part)[idx * 8..].first_chunk().expect("a number for each element"))
    };
    assert_eq!((index.version, index.cases.len()), (replay::VERSION, cases.len()));
    for (case, entry) in cases.iter().zip(&index.cases) {
        let named = &index.kernels[entry.kernel as usize];
        assert_eq!((&named.kernel, &entry.name), (&case.kernel, &case.name));
        assert!(
            named.symbol.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_')),
            "{}",
            named.symbol
        );
        for (operand, part) in case.operands.iter().zip(&entry.operands) {
            assert_eq!(operand, bytes(*part));
        }
        for (expected, output) in case.expected.iter().zip(&entry.expected) {
            assert_eq!(output.values.bytes as usize, expected.wants.len() * 8);
            for (idx, want) in expected.wants.iter().enumerate() {
                let found = (number(output.values, idx), number(output.allowances, idx));
                match *want {
                    Want::Untouched => assert!(found.1 < 0.0),
                    Want::Value { value, error } if error == 0.0 || value.is_nan() => {
                        assert_eq!((found.0.to_bits(), found.1), (value.to_bits(), error));
                    }
                    Want::Value { value, error } => {
                        let least = error + (found.0 - value).abs();
                        assert!((least..=error * 1.02).contains(&found.1), "{found:?} for {value} ± {error}");
                    }
                }
            }
        }
    }
}

/// Runs all cases; prints how it went, and fails if one failed.
fn expect_clean(cases: &[Case], backend: &mut dyn Backend) -> Report {
    let report = run(cases, backend);
    print!("{report}");
    assert_eq!(report.n_passed + report.n_ignored(), cases.len(), "{report}");
    report
}
