//! Cases as compiled code: many of them make one artefact, with a step for each, which the runtime loads and runs
//! like any other.

use skipc_artifact::bundle::{Bundle, BundleCode};
use skipc_artifact::interface::{Interface, Role};
use skipc_artifact::manifest::{Manifest, Promises};
use skipc_artifact::object_image;
use skipc_artifact::program::{
    ArenaPlace, Arg, Bounds, Buffer, Entry, Function, Head, Program, RowBound, SCORE, Step, Storage,
};
use skipc_artifact::section::ContentHash;
use skipc_artifact::target::{DType, Target};
use skipc_artifact::writer::Writer;
use skipc_plan::codegen::{Code, Codegen, Image};
use skipc_plan::kernel::Kernel;
use skipc_runtime::{Device, Model, Options, Session};
use skipc_testkit::kernel_cases::Case;

/// Cases of an artefact. Few enough that a fault in one is soon found, many enough that linking and loading is
/// little of the time.
pub(crate) const CHUNK: usize = 64;

/// Bytes between buffers, written by no kernel that is right: they are compared like operands.
const GUARD: u32 = 256;

/// What stands in the guards.
const GUARD_BYTE: u8 = 0x5A;

/// Rows that a launch reckons with, above those of every case.
const MAX_ROWS: u32 = 4096;

/// An artefact with a step for each case.
pub(crate) fn artefact(codegen: &dyn Codegen, cases: &[&Case]) -> Result<Vec<u8>, String> {
    let kernels: Vec<_> = (0..).zip(cases).map(|(idx, case)| (symbol(case, idx), &case.kernel)).collect();
    let code = codegen.compile(&kernels).map_err(|error| error.to_string())?;
    let entry = |((symbol, kernel), launch): (&(String, &Kernel), _)| Entry {
        symbol: symbol.clone(),
        n_params: kernel.params.len() as u32,
        writes: kernel.writes(),
        extent: kernel.extent,
        launch,
    };
    let program = Program {
        target: codegen.target().clone(),
        dtype: DType::F32,
        constants: Vec::new(),
        constant_bytes: 0,
        states: Vec::new(),
        state_fixed_bytes: 0,
        state_row_bytes: 0,
        entries: kernels.iter().zip(code.launches.clone()).map(entry).collect(),
        functions: [(SCORE.to_owned(), function(cases))].into(),
    };
    let bundle = Bundle { program, code: link(code)? };
    let mut writer = Writer::new(manifest(codegen.target()));
    bundle.write(&mut writer, Vec::new()).map_err(|error| error.to_string())?;
    writer.to_bytes().map_err(|error| error.to_string())
}

/// Loads an artefact of these cases and runs it. Returns the operands of each case as they are afterwards.
pub(crate) fn run(
    artefact: &[u8],
    cases: &[&Case],
    device: Device,
    options: Options,
) -> Result<Vec<Vec<Vec<u8>>>, String> {
    let model = Model::from_bytes(artefact).map_err(|error| error.to_string())?;
    let mut session = Session::new(&model, device, options).map_err(|error| error.to_string())?;
    let mut inputs: Vec<Vec<u8>> = Vec::new();
    for operand in cases.iter().flat_map(|case| &case.operands) {
        inputs.extend([vec![GUARD_BYTE; GUARD as usize], operand.clone()]);
    }
    inputs.push(vec![GUARD_BYTE; GUARD as usize]);
    let wanted: Vec<u32> = (IO_BUFFERS..).take(inputs.len()).collect();
    let inputs = wanted.iter().copied().zip(inputs).collect();
    let outputs = session.run_buffers(MAX_ROWS, inputs, &wanted).map_err(|error| error.to_string())?;
    let mut outputs = outputs.into_iter();
    // Looks at the guard before it first.
    let mut next_operand = || match outputs.next() {
        Some(guard) if guard.iter().all(|byte| *byte == GUARD_BYTE) => Ok(outputs.next()),
        Some(_) => Err("something wrote beside its operands".to_owned()),
        None => Err("a buffer is missing".to_owned()),
    };
    let mut all = Vec::with_capacity(cases.len());
    for case in cases {
        let mut after = Vec::with_capacity(case.operands.len());
        for _ in &case.operands {
            after.push(next_operand()?.ok_or("an operand is missing")?);
        }
        all.push(after);
    }
    next_operand()?;
    Ok(all)
}

fn symbol(case: &Case, idx: usize) -> String {
    format!("{}_{idx}", case.kernel.describe())
}

/// Buffers that every program has: how many tokens there are, one number a token, and logits.
const IO_BUFFERS: u32 = 3;

/// Every operand in memory of its own, with guards around it.
fn function(cases: &[&Case]) -> Function {
    let mut end = 0;
    let mut buffers = Vec::new();
    let mut push = |name: &str, dtype: DType, rows: RowBound, cols: u32| {
        let storage = Storage::Step(ArenaPlace { fixed_offset: end, row_offset: 0 });
        let buffer = Buffer { name: name.to_owned(), dtype, rows, cols, storage, live: None };
        end = (end + buffer.bytes(Bounds { tokens: MAX_ROWS, cached: 0 })).next_multiple_of(256);
        buffers.push(buffer);
        buffers.len() as u32 - 1
    };
    push("n_tokens", DType::U32, RowBound::Fixed(1), 1);
    push("tokens", DType::U32, RowBound::Tokens, 1);
    push("logits", DType::F32, RowBound::Tokens, 1);
    let mut steps = Vec::new();
    for (kernel, case) in (0..).zip(cases) {
        let mut args = Vec::new();
        for (param, operand) in case.kernel.params.iter().zip(&case.operands) {
            push("guard", DType::U8, RowBound::Fixed(GUARD), 1);
            let rows = operand.len() as u32 / (param.cols * param.dtype.size());
            args.push(Arg::Buffer(push(&param.name, param.dtype, RowBound::Fixed(rows), param.cols)));
        }
        steps.push(Step { kernel, args, origin: case.name.clone() });
    }
    push("guard", DType::U8, RowBound::Fixed(GUARD), 1);
    let interface = Interface::from([(Role::TokenCount, 0), (Role::Tokens, 1), (Role::Logits, 2)]);
    Function {
        max_tokens: MAX_ROWS,
        max_positions: MAX_ROWS,
        vocab_size: 1,
        head: Head::Tokens,
        class_token: false,
        ranks_batch: false,
        logits: 1,
        fixed_bytes: end,
        row_bytes: 0,
        buffers,
        steps,
        interface,
    }
}

pub(crate) fn link(code: Code) -> Result<BundleCode, String> {
    let (mut host, mut ptx, mut cubin) = (Vec::new(), None, None);
    for image in code.images {
        match image {
            Image::HostObject { level, object } => {
                let image = object_image::link(&object, level);
                host.push(image.map_err(|error| error.to_string())?);
            }
            Image::Ptx(text) => ptx = Some(text),
            Image::Cubin(bytes) => cubin = Some(bytes),
        }
    }
    Ok(match ptx {
        Some(ptx) => BundleCode::Cuda { ptx, cubin },
        None => BundleCode::Host(host),
    })
}

pub(crate) fn manifest(target: &Target) -> Manifest {
    Manifest {
        model: "kernel cases".to_owned(),
        compiler: env!("CARGO_PKG_VERSION").to_owned(),
        llvm: None,
        ptxas: None,
        flags: Vec::new(),
        spec_hash: ContentHash::of(b""),
        weights_hash: ContentHash::of(b""),
        targets: vec![target.to_string()],
        promises: Promises { device_resident: true, causal: true },
    }
}
