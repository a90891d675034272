//! Runs programs on the host's processor.
//!
//! This is one of the files that may contain `unsafe`: it maps code, calls it, and hands it pointers. What makes
//! that sound is said at each block; all of it rests on [`skipc_artifact::check`], which holds every buffer inside
//! the arena or the states, on the hash of the code, and on the code generator being right: a kernel can write anywhere. A checked
//! run ([`crate::options::Options::checked`]) looks for such writes.

mod level;
mod task;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use gemm_common::Parallelism;
use memmap2::{Mmap, MmapMut};
use skipc_artifact::abi::{self, Helpers, HostKernel};
use skipc_artifact::bundle;
use skipc_artifact::image::{HostLevel, HostTable};
use skipc_artifact::program::{Arg, BOUND_UNIT, Bounds, Function, Launch, Program, Step};

use self::level::Wanted;
pub use self::level::{Choice, levels, share_of_dots};
pub use self::task::Call;
use self::task::{Pointers, Task, Tasks};
use crate::call::{Region, Run, place};
use crate::error::Error;
use crate::math;
use crate::model::Model;
use crate::options::Options;
use crate::threads::Threads;

/// Bytes before and after the arena that nothing may write to.
const GUARD: usize = 4096;

/// What memory is filled with before a checked run: NaN as f32 and bf16, out of range as an index.
const POISON: u8 = 0xff;

/// The functions that kernels may call.
static HELPERS: Helpers = Helpers { gemm_f32, map_f32, softmax_f32 };

/// A program with its code.
#[derive(Debug)]
pub(crate) struct Loaded {
    model: Model,
    program: Arc<Program>,
    code: Code,
    threads: Threads,
    /// Scratch memory of a thread, in bytes.
    per_thread: usize,
}

/// The memory of one state of a module.
#[derive(Debug)]
pub(crate) struct Memories {
    arena: Memory,
    states: Memory,
    /// Rows of the caches among the states.
    cached: u32,
    scratch: Memory,
    /// The tasks of the last run, for one that is like it.
    prepared: Option<Prepared>,
    /// What each step of the last run took.
    times: Vec<Duration>,
    /// Whether the calls of runs are wanted, and those of the last.
    calls: Option<Vec<Call>>,
}

impl Memories {
    pub(crate) fn step_times(&self) -> &[Duration] {
        &self.times
    }

    pub(crate) fn record_calls(&mut self, wanted: bool) {
        self.calls = wanted.then(Vec::new);
    }

    pub(crate) fn calls(&self) -> &[Call] {
        self.calls.as_deref().unwrap_or_default()
    }

    /// Copies `n_bytes` of the states.
    pub(crate) fn copy_state(&mut self, from: usize, to: usize, n_bytes: usize) {
        let states = self.states.inner();
        if from.max(to).checked_add(n_bytes).is_some_and(|end| end <= states.len()) {
            states.copy_within(from..from + n_bytes, to);
        }
    }

    /// Fills a part of the states with what is NaN in every type.
    pub(crate) fn poison_state(&mut self, span: Range<usize>) {
        if let Some(state) = self.states.inner().get_mut(span) {
            state.fill(POISON);
        }
    }

    /// The bytes of the states.
    pub(crate) fn states(&self) -> &[u8] {
        let end = self.states.bytes.len().saturating_sub(GUARD);
        self.states.bytes.get(GUARD..end).unwrap_or_default()
    }

    /// The same, to be changed.
    pub(crate) fn states_mut(&mut self) -> &mut [u8] {
        self.states.inner()
    }

    /// Sets the states to zero.
    pub(crate) fn clear(&mut self) {
        self.states.inner().fill(0);
    }

    fn region(&mut self, region: Region) -> &mut Memory {
        match region {
            Region::Arena => &mut self.arena,
            Region::States => &mut self.states,
        }
    }
}

/// The tasks of a run, which are those of the next if nothing has changed that addresses depend on: a generation's steps are
/// all alike.
#[derive(Debug)]
struct Prepared {
    of: RunKey,
    tasks: Vec<Task>,
}

/// What the tasks of a run depend on.
#[derive(Debug, PartialEq, Eq)]
struct RunKey {
    /// Address of the function, in a program that lives as long as its code.
    function: usize,
    steps: Vec<usize>,
    bounds: Bounds,
    /// Where the memories begin, and how long they are.
    memories: [(usize, usize); 2],
}

/// Where the memories begin while a step runs.
#[derive(Clone, Copy)]
struct Bases {
    arena: (*mut u8, usize),
    states: (*mut u8, usize),
}

impl Loaded {
    /// Maps the best code that this processor runs.
    pub(crate) fn new(model: &Model, program: Arc<Program>, options: Options) -> Result<Self, Error> {
        let code = Code::choose(model, &program, Wanted(options.max_level))?;
        let threads = Threads::new(options.threads)?;
        let per_thread = program.entries.iter().map(|entry| match entry.launch {
            Launch::Host { scratch_bytes, .. } => aligned(scratch_bytes),
            Launch::Cuda { .. } => 0,
        });
        let per_thread = per_thread.max().unwrap_or_default();
        Ok(Self { model: model.clone(), program, code, threads, per_thread })
    }

    pub(crate) fn describe(&self) -> String {
        format!("cpu ({})", self.code.choice)
    }

    /// Memory for a state of its own.
    pub(crate) fn memories(&self, cached: u32) -> Result<Memories, Error> {
        Ok(Memories {
            arena: Memory::new("the arena", 2 * GUARD)?,
            states: Memory::new("the states", self.program.state_bytes(cached) as usize + 2 * GUARD)?,
            cached,
            scratch: Memory::new("scratch", self.threads.count() * self.per_thread)?,
            prepared: None,
            times: Vec::new(),
            calls: None,
        })
    }

    /// Writes the inputs, runs the steps, and reads the wanted buffers.
    pub(crate) fn run(
        &self,
        memories: &mut Memories,
        run: &Run<'_>,
        checked: bool,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let Run { function, n_rows, .. } = *run;
        let bound = n_rows.next_multiple_of(BOUND_UNIT).max(BOUND_UNIT);
        let bounds = Bounds { tokens: bound, cached: memories.cached };
        let bytes = function.fixed_bytes + function.row_bytes * u64::from(bound);
        if memories.arena.bytes.len() < bytes as usize + 2 * GUARD {
            // The old one goes first, so that the new one has its memory.
            memories.arena = Memory::new("the arena", 0)?;
            memories.arena = Memory::new("the arena", bytes as usize + 2 * GUARD)?;
        }
        if checked {
            memories.arena.bytes.fill(POISON);
        }
        for input in run.inputs {
            if let Some((region, span)) = place(&self.program, function, input.buffer, bounds)
                && let Some(memory) = memories.region(region).inner().get_mut(span)
                && let Some(memory) = memory.get_mut(..input.bytes.len())
            {
                memory.copy_from_slice(&input.bytes);
            }
        }
        memories.times = vec![Duration::ZERO; function.steps.len()];
        let mut times = Vec::new();
        if checked {
            let mut before = [&memories.arena, &memories.states].map(|memory| memory.bytes.to_vec());
            for step in &run.steps {
                times.extend(self.run_checked(memories, &mut before, (function, *step), bounds)?);
            }
        } else {
            times = self.run_steps(memories, function, &run.steps, bounds);
        }
        for (idx, time) in run.steps.iter().zip(times) {
            memories.times[*idx] = time;
        }
        let mut result = |idx: u32| {
            let (region, span) = place(&self.program, function, idx, bounds)?;
            let memory = memories.region(region).inner();
            Some(memory.get(span)?.get(..run.result_bytes(idx, bounds))?.to_vec())
        };
        Ok(run.wanted.iter().map(|idx| result(*idx).unwrap_or_default()).collect())
    }

    /// Runs a step and compares all memory outside of its buffers with what was there before; then `before` is what is there now.
    fn run_checked(
        &self,
        memories: &mut Memories,
        before: &mut [Vec<u8>; 2],
        (function, step): (&Function, usize),
        bounds: Bounds,
    ) -> Result<Vec<Duration>, Error> {
        memories.scratch.bytes.fill(POISON);
        let times = self.run_steps(memories, function, &[step], bounds);
        let Some(step) = function.steps.get(step) else { return Ok(times) };
        for (region, before) in [Region::Arena, Region::States].into_iter().zip(before) {
            let spans = self.buffer_spans(function, step, bounds, region);
            let after: &[u8] = &memories.region(region).bytes;
            if let Some(at) = stray_write(before, after, &spans) {
                let kernel = self.program.entries.get(step.kernel as usize).map(|entry| entry.symbol.clone());
                return Err(Error::StrayWrite {
                    kernel: kernel.unwrap_or_default(),
                    origin: step.origin.clone(),
                    memory: region.name(),
                    at: at as i64 - GUARD as i64,
                });
            }
            for span in spans {
                if let (Some(before), Some(after)) = (before.get_mut(span.clone()), after.get(span)) {
                    before.copy_from_slice(after);
                }
            }
        }
        Ok(times)
    }

    /// Where the buffers of a step lie in a memory, from the start of the guarded memory, in order.
    fn buffer_spans(
        &self,
        function: &Function,
        step: &Step,
        bounds: Bounds,
        region: Region,
    ) -> Vec<Range<usize>> {
        let spans = step.args.iter().filter_map(|arg| match *arg {
            Arg::Buffer(idx) => place(&self.program, function, idx, bounds),
            Arg::Constant(_) => None,
        });
        let spans = spans.filter(|(of, _)| *of == region);
        let mut spans: Vec<Range<usize>> =
            spans.map(|(_, span)| span.start + GUARD..span.end + GUARD).collect();
        spans.sort_by_key(|span| span.start);
        spans
    }

    /// Runs steps one after the other, all threads at one step at a time. Returns what each took.
    fn run_steps(
        &self,
        memories: &mut Memories,
        function: &Function,
        steps: &[usize],
        bounds: Bounds,
    ) -> Vec<Duration> {
        let scratch = Pointers(vec![memories.scratch.bytes.as_mut_ptr()]);
        let [arena, states] = [Region::Arena, Region::States].map(|region| {
            let memory = memories.region(region).inner();
            (memory.as_mut_ptr(), memory.len())
        });
        let of = RunKey {
            function: std::ptr::from_ref(function).addr(),
            steps: steps.to_vec(),
            bounds,
            memories: [arena, states].map(|(base, size)| (base.addr(), size)),
        };
        let tasks = match memories.prepared.take() {
            Some(Prepared { of: last, tasks }) if last == of => tasks,
            _ => self.tasks(function, steps, bounds, Bases { arena, states }),
        };
        // SAFETY: the code was hashed and mapped for execution, and its entry has this signature by the kernel ABI.
        // Pointers are to buffers in `memories` and constants in `self`, at offsets that were checked. Nothing else
        // touches the memories meanwhile: they are borrowed exclusively.
        let tasks = unsafe { Tasks::begin(tasks, self.threads.count(), memories.calls.is_some()) };
        self.threads.together(|thread| {
            let Pointers(scratch) = &scratch;
            let base = scratch.first().map_or(std::ptr::null_mut(), |base| *base);
            // SAFETY: each thread has its own part of the scratch memory, which is that of this state.
            unsafe { tasks.run(thread, base.wrapping_add(thread * self.per_thread)) };
        });
        let (tasks, mut calls) = tasks.into_inner();
        if let Some(of_run) = &mut memories.calls {
            // Tasks are numbered by what runs, calls by the steps of the function.
            for call in &mut calls {
                call.step = steps.get(call.step as usize).map_or(call.step, |step| *step as u32);
            }
            *of_run = calls;
        }
        let times = task::times(&tasks);
        memories.prepared = Some(Prepared { of, tasks });
        times
    }

    /// What is to be done for each step.
    fn tasks(&self, function: &Function, steps: &[usize], bounds: Bounds, bases: Bases) -> Vec<Task> {
        let program = &self.program;
        let constants = bundle::read_constants(self.model.artifact(), program).unwrap_or_default();
        let address = |arg: &Arg| match *arg {
            Arg::Buffer(idx) => {
                let (region, span) = place(program, function, idx, bounds)?;
                let (base, size) = match region {
                    Region::Arena => bases.arena,
                    Region::States => bases.states,
                };
                (span.end <= size).then(|| base.wrapping_add(span.start))
            }
            Arg::Constant(idx) => {
                let offset = program.constants.get(idx as usize).map(|constant| constant.offset as usize);
                // Kernels only read constants, and their memory is mapped without write access.
                offset.and_then(|offset| constants.get(offset..)).map(|bytes| bytes.as_ptr().cast_mut())
            }
        };
        let task = |step: &Step| {
            let entry = program.entries.get(step.kernel as usize)?;
            let args = step.args.iter().map(|arg| address(arg).unwrap_or(std::ptr::null_mut()));
            let kernel = self.code.kernel(step.kernel)?;
            Some(Task::new((entry, kernel), Pointers(args.collect()), bounds.tokens))
        };
        steps.iter().filter_map(|idx| function.steps.get(*idx)).filter_map(task).collect()
    }
}

/// The first byte outside of `spans`, which are in order, that differs.
fn stray_write(before: &[u8], after: &[u8], spans: &[Range<usize>]) -> Option<usize> {
    let mut from = 0;
    for span in spans.iter().cloned().chain(std::iter::once(before.len()..before.len())) {
        let between = from..span.start;
        if let (Some(before), Some(after)) = (before.get(between.clone()), after.get(between))
            && before != after
        {
            let differs = before.iter().zip(after).position(|(before, after)| before != after);
            return differs.map(|at| from + at);
        }
        from = from.max(span.end);
    }
    None
}

fn aligned(bytes: u64) -> usize {
    bytes.next_multiple_of(64) as usize
}

/// Zeroed pages of our own.
#[derive(Debug)]
struct Memory {
    bytes: MmapMut,
}

impl Memory {
    fn new(what: &'static str, bytes: usize) -> Result<Self, Error> {
        let memory = MmapMut::map_anon(bytes.max(1));
        let memory = memory.map_err(|source| Error::Memory { what, bytes: bytes as u64, source })?;
        // Large pages save misses of the address cache. A system that has none does without.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Ok(Self { bytes: memory })
    }

    /// What lies between the guards.
    fn inner(&mut self) -> &mut [u8] {
        let end = self.bytes.len().saturating_sub(GUARD);
        self.bytes.get_mut(GUARD..end).unwrap_or_default()
    }
}

/// Mapped code.
#[derive(Debug)]
struct Code {
    choice: Choice,
    image: Mmap,
    /// Offset of each kernel, by its index in the program.
    offsets: Vec<usize>,
}

impl Code {
    /// Maps the best level of code, see [`Wanted`].
    fn choose(model: &Model, program: &Program, wanted: Wanted) -> Result<Self, Error> {
        let read = |level| bundle::read_host_code(model.artifact(), program, level).transpose();
        let codes = HostLevel::DESCENDING.into_iter().filter_map(read).collect::<Result<Vec<_>, _>>()?;
        let of_table = |table: &HostTable| (table.arch, table.level);
        let choice = wanted.choose(codes.iter().map(|(_, table)| of_table(table)));
        let is_chosen = |table: &HostTable| choice.is_some_and(|it| (it.arch, it.level) == of_table(table));
        if let (Some(choice), Some((code, table))) =
            (choice, codes.iter().find(|(_, table)| is_chosen(table)))
        {
            return Self::map(code, table, choice, program);
        }
        let found: Vec<String> =
            codes.iter().map(|(_, table)| format!("{:?} {:?}", table.arch, table.level)).collect();
        let found = if found.is_empty() { "no processor".into() } else { found.join(", ") };
        Err(Error::WrongArch { found, host: format!("{} ({})", std::env::consts::ARCH, wanted.describe()) })
    }

    fn map(code: &[u8], table: &HostTable, choice: Choice, program: &Program) -> Result<Self, Error> {
        let failed = |source| Error::Memory { what: "code", bytes: code.len() as u64, source };
        let mut image = MmapMut::map_anon(code.len().max(1)).map_err(failed)?;
        if let Some(memory) = image.get_mut(..code.len()) {
            memory.copy_from_slice(code);
        }
        let offsets = table.offsets(program)?.into_iter().map(|offset| offset as usize).collect();
        // From here on the pages cannot be written, also not by a stray kernel.
        let image = image.make_exec().map_err(failed)?;
        Ok(Self { choice, image, offsets })
    }

    fn kernel(&self, idx: u32) -> Option<HostKernel> {
        let entry = self.image.get(*self.offsets.get(idx as usize)?..)?.as_ptr();
        // SAFETY: the address is inside a mapping that is executable and lives as long as `self`; callers do not
        // keep the function longer. That a function of this type begins there is what the code generator promises
        // by naming it in the entry table; the table was found to fit the program.
        Some(unsafe { std::mem::transmute::<*const u8, HostKernel>(entry) })
    }
}

/// See [`skipc_artifact::abi::MapF32`].
///
/// # Safety
///
/// The numbers are so many, and nobody else's.
unsafe extern "C" fn map_f32(function: u64, numbers: *mut f32, n: u64) {
    // SAFETY: passed on from the caller.
    let numbers = unsafe { std::slice::from_raw_parts_mut(numbers, n as usize) };
    if let Some(function) = abi::Function::of(function) {
        math::map(function, numbers);
    }
}

/// See [`skipc_artifact::abi::SoftmaxF32`].
///
/// # Safety
///
/// The scores are so many, and nobody else's.
unsafe extern "C" fn softmax_f32(scores: *mut f32, n: u64, scale: f32, largest: f32) -> f32 {
    // SAFETY: passed on from the caller.
    let scores = unsafe { std::slice::from_raw_parts_mut(scores, n as usize) };
    math::softmax_weights(scores, scale, largest)
}

/// See [`skipc_artifact::abi::GemmF32`]. One thread, so that the same operands give the same bits.
///
/// # Safety
///
/// The pointers are to matrices of these sizes and strides; `c` overlaps neither of the others.
unsafe extern "C" fn gemm_f32(
    m: u64,
    n: u64,
    k: u64,
    a: *const f32,
    lda: u64,
    b: *const f32,
    ldb: u64,
    b_inner: u64,
    c: *mut f32,
    ldc: u64,
) {
    // The library wants columns of the result adjacent, ours has rows adjacent: it computes cᵀ = b · aᵀ.
    let gemm = gemm_f32::gemm::f32::get_gemm_fn();
    let (columns, rows) = (n as usize, m as usize);
    // SAFETY: passed on from the caller.
    unsafe {
        gemm(
            columns,
            rows,
            k as usize,
            c,
            ldc as isize,
            1,
            false,
            b,
            b_inner as isize,
            ldb as isize,
            a,
            lda as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_helper_multiplies_by_the_transpose() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (1, 40, 33), (40, 1, 33), (17, 64, 600), (2, 3, 0)] {
            let (lda, ldc) = (k + 3, n + 2);
            let number = |idx: usize| ((idx * 37 + 11) % 23) as f32 - 11.0;
            let a: Vec<f32> = (0..m * lda).map(number).collect();
            // Rows of the right operand, and columns.
            for (ldb, inner) in [(k + 1, 1), (1, n + 1)] {
                let b: Vec<f32> = (0..(n + 1) * (k + 1)).map(|idx| number(idx + 5)).collect();
                let mut c = vec![f32::NAN; m * ldc];
                let sizes = [m, n, k, lda, ldb, inner, ldc];
                let [m64, n64, k64, lda64, ldb64, inner64, ldc64] = sizes.map(|size| size as u64);
                let (from, by, to) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
                // SAFETY: the vectors have these sizes.
                unsafe {
                    gemm_f32(m64, n64, k64, from, lda64, by, ldb64, inner64, to, ldc64);
                }
                for (i, j) in (0..m).flat_map(|i| (0..ldc).map(move |j| (i, j))) {
                    if j < n {
                        let sum: f32 = (0..k).map(|l| a[i * lda + l] * b[j * ldb + l * inner]).sum();
                        assert_eq!(c[i * ldc + j], sum, "{m}x{n}x{k} at {i}, {j}: whole numbers are exact");
                    } else {
                        assert!(c[i * ldc + j].is_nan(), "{m}x{n}x{k} wrote into the gap at {i}, {j}");
                    }
                }
            }
        }
    }
}
