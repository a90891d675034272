//! A stand-in for the CUDA driver: the calls that the runtime makes, over host memory.
//!
//! It runs the kernels of the hand-written model itself, those of a graph in the order in which they were captured, and
//! counts what is handed out and not given back. Each stream captures for itself, and a graph is what was captured into
//! it. The environment variable `STAND_IN` chooses a fault. Compiled by the test as a library of its own; part of no crate.
#![allow(non_snake_case, reason = "the driver's names")]

use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Mutex;

type Status = c_int;

const OUT_OF_MEMORY: Status = 2;
const NO_DEVICE: Status = 100;
const INVALID_PTX: Status = 218;
const UNSUPPORTED_PTX: Status = 222;
const DRIVER_MISMATCH: Status = 803;
const NOT_FOUND: Status = 500;
const ILLEGAL_ADDRESS: Status = 700;
const INVALID_VALUE: Status = 1;
const INVALID_CONTEXT: Status = 201;

/// Name and number of parameters of each kernel.
const KERNELS: [(&CStr, usize); 4] = [(c"table_4", 4), (c"odd_set", 6), (c"stray", 1), (c"count_up", 2)];

#[derive(Clone)]
struct Launch {
    kernel: usize,
    args: Vec<u64>,
}

/// What a stream does.
#[derive(Clone)]
enum Work {
    Launch(Launch),
    Record { event: usize },
}

struct State {
    /// Work since a stream began to capture, by the stream.
    captures: BTreeMap<usize, Vec<Work>>,
    /// What graphs, and instances of graphs, do.
    graphs: BTreeMap<usize, Vec<Work>>,
    /// When events were reached, in milliseconds; each kernel takes one, and so does a fill of memory.
    events: BTreeMap<usize, Option<u32>>,
    now: u32,
    /// Whether any graph was launched.
    has_launched: bool,
    /// Start and size of each piece of memory.
    memory: Vec<(u64, usize)>,
    /// Contexts, streams and modules that are held.
    held: i32,
    /// The last handle that was given out; none is given twice.
    last: usize,
    log: String,
}

static STATE: Mutex<State> = Mutex::new(State {
    captures: BTreeMap::new(),
    graphs: BTreeMap::new(),
    events: BTreeMap::new(),
    now: 0,
    has_launched: false,
    memory: Vec::new(),
    held: 0,
    last: 0,
    log: String::new(),
});

impl State {
    fn handle(&mut self) -> usize {
        self.last += 1;
        self.last
    }

    /// A graph, or an instance of one, of its own.
    fn add_graph(&mut self, work: Vec<Work>) -> usize {
        let handle = self.handle();
        self.graphs.insert(handle, work);
        handle
    }
}

thread_local! {
    /// Whether the thread has a current context, which most calls need.
    static HAS_CONTEXT: Cell<bool> = const { Cell::new(false) };
}

fn with<T>(work: impl FnOnce(&mut State) -> T) -> T {
    work(&mut STATE.lock().unwrap())
}

fn fault_is(name: &str) -> bool {
    std::env::var("STAND_IN").is_ok_and(|fault| fault == name)
}

/// Writes a result to where the caller wants it.
fn give<T>(to: *mut T, value: T) -> Status {
    // SAFETY: the driver's callers pass a place for the result.
    unsafe { to.write(value) };
    0
}

fn hold(to: *mut usize) -> Status {
    let handle = with(|state| {
        state.held += 1;
        state.handle()
    });
    give(to, handle)
}

fn release() -> Status {
    with(|state| state.held -= 1);
    0
}

/// Gives back a graph or an instance of one.
fn release_graph(handle: usize) -> Status {
    with(|state| if state.graphs.remove(&handle).is_some() { 0 } else { INVALID_VALUE })
}

/// Whether the bytes lie inside of one piece of memory.
fn is_ours(state: &State, at: u64, bytes: usize) -> bool {
    state.memory.iter().any(|&(start, size)| at >= start && at + bytes as u64 <= start + size as u64)
}

macro_rules! driver {
    ($($name:ident($($arg:ident: $ty:ty),*) $body:block)*) => {
        $(
            // SAFETY: the name is the driver's; nothing else in this library has it.
            #[unsafe(no_mangle)]
            extern "C" fn $name($($arg: $ty),*) -> Status { $body }
        )*
    };
}

/// Calls that fail in a thread without a current context.
macro_rules! driver_in_context {
    ($($name:ident($($arg:ident: $ty:ty),*) $body:block)*) => {
        driver! {
            $($name($($arg: $ty),*) { if HAS_CONTEXT.get() { $body } else { INVALID_CONTEXT } })*
        }
    };
}

driver! {
    cuDriverGetVersion(version: *mut c_int) { give(version, if fault_is("old") { 11_080 } else { 13_000 }) }
    cuInit(_flags: c_uint) {
        if fault_is("no-device") { NO_DEVICE } else if fault_is("broken") { DRIVER_MISMATCH } else { 0 }
    }
    cuDeviceGetCount(count: *mut c_int) { give(count, 1) }
    cuDeviceGet(device: *mut c_int, _ordinal: c_int) { give(device, 0) }
    cuDeviceGetName(name: *mut [u8; 9], _size: c_int, _device: c_int) { give(name, *b"Stand-in\0") }
    cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _device: c_int) {
        // Architecture 9.0, a clock of 1 GHz.
        let found = match attribute {
            75 => 9,
            13 => 1_000_000,
            _ => 0,
        };
        give(value, found)
    }
    cuDevicePrimaryCtxRetain(context: *mut usize, _device: c_int) { hold(context) }
    cuDevicePrimaryCtxRelease_v2(_device: c_int) {
        release();
        with(|state| {
            let held = state.held + (state.graphs.len() + state.events.len()) as i32;
            let log = std::mem::take(&mut state.log);
            println!("{log}held {held} pieces {}", state.memory.len());
        });
        0
    }
    cuCtxSetCurrent(_context: *mut c_void) {
        HAS_CONTEXT.set(true);
        0
    }
    cuGetErrorName(status: c_int, name: *mut *const c_char) {
        let text = match status {
            ILLEGAL_ADDRESS => c"CUDA_ERROR_ILLEGAL_ADDRESS",
            INVALID_CONTEXT => c"CUDA_ERROR_INVALID_CONTEXT",
            INVALID_PTX => c"CUDA_ERROR_INVALID_PTX",
            NO_DEVICE => c"CUDA_ERROR_NO_DEVICE",
            DRIVER_MISMATCH => c"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
            _ => c"CUDA_ERROR_OTHER",
        };
        give(name, text.as_ptr())
    }
}

driver_in_context! {
    cuStreamCreate(stream: *mut usize, _flags: c_uint) { hold(stream) }
    cuStreamDestroy_v2(_stream: *mut c_void) { release() }
    cuStreamSynchronize(_stream: *mut c_void) {
        if fault_is("sticky") && with(|state| state.has_launched) { ILLEGAL_ADDRESS } else { 0 }
    }
    cuStreamBeginCapture_v2(stream: usize, _mode: c_int) {
        with(|state| match state.captures.insert(stream, Vec::new()) {
            None => 0,
            Some(_) => INVALID_VALUE,
        })
    }
    cuStreamEndCapture(stream: usize, graph: *mut usize) {
        let captured = with(|state| {
            let work = state.captures.remove(&stream)?;
            Some(state.add_graph(work))
        });
        captured.map_or(INVALID_VALUE, |handle| give(graph, handle))
    }
    cuGraphInstantiateWithFlags(instance: *mut usize, graph: usize, _flags: u64) {
        let made = with(|state| {
            let work = state.graphs.get(&graph)?.clone();
            Some(state.add_graph(work))
        });
        made.map_or(INVALID_VALUE, |handle| give(instance, handle))
    }
    cuGraphDestroy(graph: usize) { release_graph(graph) }
    cuGraphExecDestroy(instance: usize) { release_graph(instance) }
    cuModuleLoadDataEx(
        module: *mut usize,
        image: *const [u8; 5],
        _options: c_uint,
        _names: *mut c_int,
        values: *mut *mut [u8; 11]
    ) {
        if fault_is("new-ptx") {
            return UNSUPPORTED_PTX;
        }
        if fault_is("bad-ptx") {
            // SAFETY: the first option is the buffer for the log.
            return unsafe { give(*values, *b"line 7: bad") } + INVALID_PTX;
        }
        // SAFETY: the test's images have five bytes at least.
        let image = unsafe { *image };
        with(|state| state.log += &format!("image {}\n", String::from_utf8_lossy(&image)));
        hold(module)
    }
    cuModuleUnload(_module: *mut c_void) { release() }
    cuModuleGetFunction(function: *mut usize, _module: *mut c_void, name: *const c_char) {
        // SAFETY: the caller passes text with a zero at its end.
        let name = unsafe { CStr::from_ptr(name) };
        match KERNELS.iter().position(|(kernel, _)| *kernel == name) {
            Some(idx) => give(function, idx + 1),
            None => NOT_FOUND,
        }
    }
    cuFuncSetAttribute(function: usize, attribute: c_int, value: c_int) {
        with(|state| state.log += &format!("function {function} attribute {attribute} = {value}\n"));
        0
    }
    cuMemAlloc_v2(address: *mut u64, bytes: usize) {
        if fault_is("oom") && bytes > 5000 {
            return OUT_OF_MEMORY;
        }
        // SAFETY: the runtime never asks for no bytes.
        let start = unsafe { alloc(Layout::from_size_align(bytes, 256).unwrap()) } as u64;
        with(|state| state.memory.push((start, bytes)));
        give(address, start)
    }
    cuMemFree_v2(address: u64) {
        with(|state| {
            let Some(at) = state.memory.iter().position(|&(start, _)| start == address) else { return INVALID_VALUE };
            let (start, bytes) = state.memory.remove(at);
            // SAFETY: allocated above with this layout, and taken off the list.
            unsafe { dealloc(start as *mut u8, Layout::from_size_align(bytes, 256).unwrap()) };
            0
        })
    }
    cuMemsetD8Async(address: u64, byte: u8, bytes: usize, _stream: *mut c_void) {
        with(|state| {
            if !is_ours(state, address, bytes) {
                return INVALID_VALUE;
            }
            // SAFETY: checked.
            unsafe { (address as *mut u8).write_bytes(byte, bytes) };
            state.now += 1;
            0
        })
    }
    cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, _stream: *mut c_void) {
        with(|state| {
            if !is_ours(state, to, bytes) {
                return INVALID_VALUE;
            }
            // SAFETY: the target was checked, the source is the caller's word.
            unsafe { from.copy_to(to as *mut u8, bytes) };
            0
        })
    }
    cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, _stream: *mut c_void) {
        with(|state| {
            if !is_ours(state, from, bytes) {
                return INVALID_VALUE;
            }
            // SAFETY: the source was checked, the target is the caller's word.
            unsafe { (from as *const u8).copy_to(to, bytes) };
            0
        })
    }
    cuLaunchKernel(
        function: usize,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared: c_uint,
        stream: usize,
        params: *const *const u64,
        _extra: *mut c_void
    ) {
        let kernel = function - 1;
        let (name, n_params) = KERNELS[kernel];
        // SAFETY: one pointer to a 64-bit value for each parameter.
        let args = (0..n_params).map(|idx| unsafe { **params.add(idx) }).collect();
        with(|state| {
            let grid = format!("{grid_x}x{grid_y}x{grid_z} of {block_x}x{block_y}x{block_z}");
            state.log += &format!("{} {grid} with {shared}\n", name.to_string_lossy());
            match state.captures.get_mut(&stream) {
                Some(work) => work.push(Work::Launch(Launch { kernel, args })),
                // All launches are part of a graph.
                None => return INVALID_VALUE,
            }
            0
        })
    }
    cuGraphLaunch(instance: usize, _stream: *mut c_void) {
        let work = with(|state| {
            state.has_launched = true;
            state.graphs.get(&instance).cloned()
        });
        let Some(work) = work else { return INVALID_VALUE };
        for work in work {
            match work {
                Work::Launch(launch) => {
                    run(&launch);
                    with(|state| state.now += 1);
                }
                Work::Record { event } => {
                    with(|state| state.events.insert(event, Some(state.now)));
                }
            }
        }
        0
    }
    cuEventCreate(event: *mut usize, _flags: c_uint) {
        let handle = with(|state| {
            let handle = state.handle();
            state.events.insert(handle, None);
            handle
        });
        give(event, handle)
    }
    cuEventDestroy_v2(event: usize) {
        with(|state| if state.events.remove(&event).is_some() { 0 } else { INVALID_VALUE })
    }
    cuEventRecordWithFlags(event: usize, stream: usize, flags: c_uint) {
        with(|state| {
            let now = state.now;
            // An event outside of a capture is reached at once; in one, only an external one can be asked for its time.
            match (state.captures.get_mut(&stream), flags) {
                (Some(work), 1) => work.push(Work::Record { event }),
                (None, 0) => _ = state.events.insert(event, Some(now)),
                _ => return INVALID_VALUE,
            }
            0
        })
    }
    cuEventElapsedTime_v2(milliseconds: *mut f32, begin: usize, end: usize) {
        let times = with(|state| [begin, end].map(|event| state.events.get(&event).copied().flatten()));
        match times {
            [Some(begin), Some(end)] => give(milliseconds, end as f32 - begin as f32),
            _ => INVALID_VALUE,
        }
    }
}

fn run(launch: &Launch) {
    let args = &launch.args;
    // SAFETY: the model's own kernels, with buffers of its own program; see its text.
    let word = |idx: usize, at: u32| unsafe { *(args[idx] as *const u32).add(at as usize) };
    match launch.kernel {
        0 => {
            for row in 0..word(3, 0) {
                for col in 0..4 {
                    let number = word(1, 4 * word(0, row) + col);
                    // SAFETY: as above.
                    unsafe { *(args[2] as *mut u32).add((4 * row + col) as usize) = number };
                }
            }
        }
        1 => {
            let mut count = 0;
            for row in 0..word(5, 0) {
                // SAFETY: as above.
                let forced = unsafe { *(args[2] as *const u8).add(row as usize) };
                let decision = if word(1, 0) != 0 { forced } else { word(0, row) as u8 } & 1;
                count += u32::from(decision);
                // SAFETY: as above.
                unsafe { *(args[3] as *mut u8).add(row as usize) = decision };
            }
            // SAFETY: as above.
            unsafe { *(args[4] as *mut u32) = count };
        }
        3 => {
            let sum = word(0, 0) + word(1, 0);
            // SAFETY: as above.
            unsafe { *(args[0] as *mut u32) = sum };
        }
        _ => {
            // SAFETY: a place in the guard before the arena, which is part of the same piece of memory.
            unsafe { *(args[0] as *mut u32).sub(1) = 0 };
        }
    }
}
