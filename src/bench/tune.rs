//! Measuring the forms of kernels on a device.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use skipc_artifact::bundle::Bundle;
use skipc_artifact::manifest::{Manifest, Promises};
use skipc_artifact::program::{Arg, Buffer, Extent, RowBound, Step};
use skipc_artifact::section::ContentHash;
use skipc_artifact::target::{DType, Target};
use skipc_artifact::writer::Writer;
use skipc_plan::buckets::{Bucket, Bucketing, Tile};
use skipc_plan::kernel::{Body, Kernel};
use skipc_runtime::{Device, Model as Artefact, Options, Session, cuda};

use crate::cost::bucketing::counts;
use crate::cost::bucketing::tuning::{FormTimes, Table, Tuning, VERSION, key};
use crate::diagnostic::Diagnostic;
use crate::driver::backends::CpuBackend;
use crate::driver::constants;
use crate::driver::pipeline::{self, Request};
use crate::driver::trace::Trace;
use crate::error::{Error, ErrorKind};
use crate::frontend::spec::model::Model;
use crate::frontend::weights::Weights;

/// Forms that a kernel can have, at most.
const MOST_FORMS: usize = 4;

/// How long the runs between two looks at the clock take at least.
const SAMPLE: Duration = Duration::from_micros(200);

/// Always one form; notes which there are.
struct Only {
    form: usize,
    menus: Arc<Mutex<Menus>>,
}

/// The forms of kernels that have several, by the kernels' keys.
type Menus = BTreeMap<String, Vec<Tile>>;

impl Bucketing for Only {
    fn buckets(&self, kernel: &Kernel, tiles: &[Tile], _: u32) -> Vec<Bucket> {
        if tiles.len() > 1 {
            let mut menus = self.menus.lock().unwrap_or_else(PoisonError::into_inner);
            menus.insert(key(kernel), tiles.to_vec());
        }
        vec![Bucket { from: 0, tile: self.form.min(tiles.len().saturating_sub(1)) }]
    }
}

/// Times every form of every kernel of a model that has several, at counts up to its bound (on the host: up to the rows
/// of its highest tile, as it chooses for each tile). The shortest of so many rounds counts: what else the machine does
/// only adds to a time.
///
/// # Errors
/// If this machine has no device for the target, which is looked for first; as a compile; and what the runtime says of
/// the device.
pub fn tune(
    (model, weights): (&Model, &Weights),
    (target, dtype, cpu_backend): (&Target, DType, CpuBackend),
    rounds: u32,
    tick: &mut dyn FnMut(&str),
) -> Result<Tuning, Error> {
    let device = match target {
        Target::Cpu => Device::Cpu,
        Target::Cuda(_) => {
            // Compiling takes its time, and is for nothing without a GPU that takes the code.
            let gpu = cuda::Gpu::open(0).map_err(skipc_runtime::Error::from)?;
            gpu.choose(std::slice::from_ref(target)).map_err(skipc_runtime::Error::from)?;
            Device::Cuda(0)
        }
    };
    let menus: Arc<Mutex<Menus>> = Arc::default();
    let mut kernels: Vec<(String, Kernel)> = Vec::new();
    let (mut bundles, mut constants) = (Vec::new(), Vec::new());
    for form in 0..MOST_FORMS {
        let noted = Arc::clone(&menus);
        let request = Request {
            targets: vec![(target.clone(), dtype)],
            cpu_backend,
            bucketings: Arc::new(move |_| Box::new(Only { form, menus: Arc::clone(&noted) })),
            ..Request::here()
        };
        let compiled = pipeline::compile(model, &request, &mut Trace::silent())?;
        if let Some(linked) = compiled.linked(target, dtype) {
            // Forms of kernels differ in how they run, not in what they read.
            if form == 0 {
                constants = constants::lay_out(&linked.constants, weights)?;
            }
            kernels.clone_from(&linked.kernels);
        }
        bundles.extend(compiled.bundles);
    }
    let menus = menus.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut described = String::new();
    let mut tables = Vec::new();
    for (idx, (symbol, kernel)) in (0..).zip(&kernels) {
        let Some(tiles) = menus.get(&key(kernel)).filter(|_| can_vary(kernel)) else { continue };
        tick(symbol);
        let sessions = bundles.iter().take(tiles.len());
        let sessions = sessions.map(|bundle| session(model, (bundle, &constants), (device, idx)));
        let mut sessions = sessions.collect::<Result<Vec<Session>, Error>>()?;
        described = sessions.first().map_or_else(String::new, Session::describe);
        tables.push(table(kernel, tiles, &mut sessions, target, rounds)?);
    }
    let (version, target) = (VERSION, target.to_string());
    Ok(Tuning { version, target, device: described, kernels: tables })
}

/// Whether the rows of a kernel can be few while all else is large. Where an attention has as many queries as keys, few
/// rows are what is left of a long sequence, which no count shows; the cost model decides there.
fn can_vary(kernel: &Kernel) -> bool {
    match &kernel.body {
        Body::Attention(attention) => attention.kv_extent != kernel.extent,
        // How rows fall into segments is no number.
        Body::Grouped(_)
        | Body::Partition(_)
        | Body::Along(_)
        | Body::CachedAttention(_)
        | Body::Pending(_)
        | Body::Loops(_)
        | Body::WeightGradient(_) => false,
        Body::Gemm(_) | Body::Rowwise(_) | Body::Compact(_) | Body::Update(_) => true,
    }
}

/// A session that runs the first step with a kernel, and no other.
fn session(
    model: &Model,
    (bundle, constants): (&Bundle, &[u8]),
    (device, kernel): (Device, u32),
) -> Result<Session, Error> {
    let mut bundle = bundle.clone();
    let mut runs = None;
    for (name, function) in &mut bundle.program.functions {
        let only: Option<Step> = function.steps.iter().find(|step| step.kernel == kernel).cloned();
        runs = runs.or(only.is_some().then(|| name.clone()));
        function.steps = only.into_iter().collect();
    }
    let spec_hash = ContentHash::of(model.to_string().as_bytes());
    let target = bundle.program.target.clone();
    let mut writer = Writer::new(Manifest {
        model: model.name.clone(),
        compiler: env!("CARGO_PKG_VERSION").to_owned(),
        llvm: None,
        ptxas: None,
        flags: Vec::new(),
        spec_hash,
        weights_hash: spec_hash,
        targets: vec![target.to_string()],
        promises: Promises { device_resident: true, causal: model.is_causal() },
    });
    let broken = |error: &skipc_artifact::error::Error| Error::in_artifact(model.name.as_ref(), error);
    bundle.write(&mut writer, constants).map_err(|error| broken(&error))?;
    let bytes = writer.to_bytes().map_err(|error| broken(&error))?;
    let artefact = Artefact::from_bytes(&bytes)?;
    let options = Options { threads: 1, ..Options::default() };
    let mut session = Session::new(&artefact, device, options)?;
    if let Some(function) = runs {
        session.choose(&function)?;
    }
    Ok(session)
}

fn table(
    kernel: &Kernel,
    tiles: &[Tile],
    sessions: &mut [Session],
    target: &Target,
    rounds: u32,
) -> Result<Table, Error> {
    let max_tokens = sessions.first().map_or(1, |session| session.function().max_tokens);
    let (Extent::Fixed(bound) | Extent::Counted { at_most: bound, .. }) = kernel.extent;
    let highest = tiles.iter().map(|tile| tile.rows).max().unwrap_or(1);
    let most = if *target == Target::Cpu { highest } else { u32::MAX };
    let counts = counts(bound.min(max_tokens).min(most));
    let mut ns = vec![vec![f64::INFINITY; counts.len()]; tiles.len()];
    for (at, count) in counts.iter().enumerate() {
        let mut runs = Vec::new();
        for session in sessions.iter_mut() {
            runs.push(Run::new(session, kernel, *count, max_tokens)?);
        }
        for _ in 0..rounds {
            for (run, times) in runs.iter_mut().zip(&mut ns) {
                times[at] = times[at].min(run.time()?);
            }
        }
    }
    let form = |(tile, ns): (&Tile, Vec<f64>)| FormTimes {
        rows: tile.rows,
        cols: tile.cols,
        across: tile.across,
        ns,
    };
    Ok(Table {
        name: kernel.describe(),
        key: key(kernel),
        forms: tiles.iter().zip(ns).map(form).collect(),
        counts,
    })
}

/// A kernel over some rows.
struct Run<'s> {
    session: &'s mut Session,
    tokens: u32,
    /// Runs between two looks at the clock.
    repeat: u32,
}

impl Run<'_> {
    /// Fills the operands and runs it once.
    fn new<'s>(session: &'s mut Session, kernel: &Kernel, rows: u32, tokens: u32) -> Result<Run<'s>, Error> {
        let inputs = inputs(session, kernel, rows, tokens)?;
        session.run_buffers(tokens, inputs, &[])?;
        let mut run = Run { session, tokens, repeat: 1 };
        let once = run.time()?.max(1.0);
        run.repeat = (SAMPLE.as_nanos() as f64 / once).ceil().clamp(1.0, 10_000.0) as u32;
        Ok(run)
    }

    /// Nanoseconds of a run. The operands are where they were put.
    fn time(&mut self) -> Result<f64, Error> {
        let started = Instant::now();
        for _ in 0..self.repeat {
            let ran = self.session.run_buffers(self.tokens, Vec::new(), &[]);
            ran?;
        }
        Ok(started.elapsed().as_nanos() as f64 / f64::from(self.repeat))
    }
}

/// What the operands of a kernel hold: reals of no pattern, and the numbers of rows where rows are listed.
fn inputs(session: &Session, kernel: &Kernel, rows: u32, tokens: u32) -> Result<Vec<(u32, Vec<u8>)>, Error> {
    let function = session.function();
    let args = function.steps.first().map_or(&[][..], |step| &step.args);
    let mut inputs = Vec::new();
    for (slot, (param, arg)) in (0..).zip(kernel.params.iter().zip(args)) {
        let Arg::Buffer(idx) = *arg else { continue };
        let Some(buffer) = function.buffers.get(idx as usize) else { continue };
        let number: Box<dyn Fn(u32) -> u32> = match &kernel.body {
            _ if is_count(kernel.extent, slot) => Box::new(move |_| rows),
            Body::Attention(attention) if is_count(attention.kv_extent, slot) => Box::new(move |_| tokens),
            // One sequence with one position, so that all queries see all keys, wherever they stand.
            Body::Attention(_) => Box::new(|_| 0),
            Body::Gemm(_) => Box::new(|row| row),
            Body::CachedAttention(_)
            | Body::Grouped(_)
            | Body::Partition(_)
            | Body::Along(_)
            | Body::Rowwise(_)
            | Body::Compact(_)
            | Body::Pending(_)
            | Body::Update(_)
            | Body::Loops(_)
            | Body::WeightGradient(_) => {
                let message = format!("no operands for `{}`", kernel.describe());
                return Err(Error::new(ErrorKind::Internal, Diagnostic::new("tuning::operands", message)));
            }
        };
        inputs.push((idx, bytes(buffer, param.dtype, tokens, number.as_ref())));
    }
    Ok(inputs)
}

fn is_count(extent: Extent, slot: u32) -> bool {
    matches!(extent, Extent::Counted { count, .. } if count == slot)
}

fn bytes(buffer: &Buffer, dtype: DType, tokens: u32, number: &dyn Fn(u32) -> u32) -> Vec<u8> {
    let rows = match buffer.rows {
        RowBound::Tokens => tokens,
        RowBound::Fixed(rows) => rows,
        RowBound::Cached => 0,
    };
    let elements = (0..rows).flat_map(|row| (0..buffer.cols).map(move |col| (row, col)));
    let real = |(row, col): (u32, u32)| {
        let mixed = (row.wrapping_mul(0x9e37_79b9) ^ col.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35);
        (mixed >> 16) as f32 / 32768.0 - 1.0
    };
    match dtype {
        DType::F32 => elements.flat_map(|at| real(at).to_le_bytes()).collect(),
        DType::Bf16 => elements.flat_map(|at| half::bf16::from_f32(real(at)).to_le_bytes()).collect(),
        DType::U32 => elements.flat_map(|(row, _)| number(row).to_le_bytes()).collect(),
        DType::U8 | DType::I8 => elements.map(|_| 0).collect(),
    }
}
