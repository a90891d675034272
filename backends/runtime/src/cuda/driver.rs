//! The driver's calls, each behind a type that owns what it hands out.
//!
//! This is one of the files that may contain `unsafe`. Every object holds the context it lives in, so that it cannot
//! outlive it, and makes it current before it calls; handles are never given out, so they are used only while their
//! owners live. Host memory is pageable throughout: the driver has copied from it or into it when a call returns.

use std::ffi::{CString, c_int, c_void};
use std::sync::Arc;

use cudarc::driver::{DriverError, result, sys};
use sys::cudaError_enum as Fault;

use super::fault::CudaError;

/// The first version of CUDA whose driver has all functions that are called here.
const DRIVER_VERSION: c_int = 12_000;

/// The first version of CUDA whose driver tells the time between events by the name that is called here.
const TIMES_VERSION: c_int = 12_080;

/// Bytes for what the driver's PTX compiler has to say.
const LOG_BYTES: usize = 16 << 10;

/// Dynamic shared memory in bytes that a kernel gets without asking.
const SHARED_WITHOUT_ASKING: u32 = 48 << 10;

/// The primary context of a GPU.
#[derive(Clone, Debug)]
pub(super) struct Context {
    handle: Arc<Primary>,
    /// The GPU's name.
    pub(super) name: String,
    /// Its architecture: major and minor version.
    pub(super) compute: (u32, u32),
    /// Its multiprocessors; at least one.
    pub(super) processors: u32,
}

#[derive(Debug)]
struct Primary {
    device: sys::CUdevice,
    context: sys::CUcontext,
    driver_version: c_int,
}

// SAFETY: the driver takes calls on a context from any thread; it only has to be current there, which every method
// sees to.
unsafe impl Send for Primary {}
// SAFETY: as above; the handle itself never changes.
unsafe impl Sync for Primary {}

impl Context {
    /// That of the device of this ordinal.
    pub(super) fn open(ordinal: u32) -> Result<Self, CudaError> {
        // SAFETY: opening the library runs its initialisers, which is what every CUDA program does.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoDriver);
        }
        let mut driver_version = 0;
        // SAFETY: writes one integer; the function may be called before initialisation.
        let asked = unsafe { sys::cuDriverGetVersion(&raw mut driver_version) };
        asked.result().map_err(no_device)?;
        // Functions that an old driver lacks would end the process when they are looked up.
        if driver_version < DRIVER_VERSION {
            let needed = format!("skipc needs {}", version(DRIVER_VERSION));
            return Err(CudaError::DriverTooOld { found: version(driver_version), needed });
        }
        result::init().map_err(no_device)?;
        let n_devices = result::device::get_count().map_err(no_device)?.unsigned_abs();
        if ordinal >= n_devices {
            let reason = match n_devices {
                0 => "it counts none".to_owned(),
                n => format!("it counts {n}, numbered from 0; there is no `cuda:{ordinal}`"),
            };
            return Err(CudaError::NoDevice { reason });
        }
        let no_number = |_| CudaError::NoDevice { reason: format!("it takes no number as {ordinal}") };
        let device = result::device::get(c_int::try_from(ordinal).map_err(no_number)?).map_err(no_device)?;
        let name = result::device::get_name(device).map_err(no_device)?;
        let attribute = |which| {
            // SAFETY: the device came from the driver.
            unsafe { result::device::get_attribute(device, which) }.map_err(no_device)
        };
        use sys::CUdevice_attribute_enum as Attribute;
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let processors =
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.unsigned_abs().max(1);
        // SAFETY: the device came from the driver; the context is released once, when the last user is dropped.
        let context =
            unsafe { result::primary_ctx::retain(device) }.map_err(fault("cuDevicePrimaryCtxRetain"))?;
        let handle = Arc::new(Primary { device, context, driver_version });
        Ok(Self { handle, name, compute: (major.unsigned_abs(), minor.unsigned_abs()), processors })
    }

    /// The clock of its multiprocessors at most, in Hz.
    pub(super) fn clock(&self) -> Result<f64, CudaError> {
        let rate = sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_CLOCK_RATE;
        // SAFETY: the device came from the driver.
        let kilohertz = unsafe { result::device::get_attribute(self.handle.device, rate) };
        Ok(1e3 * f64::from(kilohertz.map_err(fault("cuDeviceGetAttribute"))?))
    }

    /// Makes it the context of the calling thread.
    pub(super) fn make_current(&self) -> Result<(), CudaError> {
        self.handle.make_current()
    }
}

impl Primary {
    fn make_current(&self) -> Result<(), CudaError> {
        // SAFETY: the context is retained until `self` is dropped.
        unsafe { result::ctx::set_current(self.context) }.map_err(fault("cuCtxSetCurrent"))
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        // SAFETY: retained once in `open`, and everything that lives in it holds this object. A failure means that
        // the context is gone already.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// A queue of work on the GPU.
#[derive(Debug)]
pub(super) struct Stream {
    stream: sys::CUstream,
    context: Arc<Primary>,
}

// SAFETY: see `Primary`.
unsafe impl Send for Stream {}

impl Stream {
    pub(super) fn new(context: &Context) -> Result<Self, CudaError> {
        context.make_current()?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking);
        Ok(Self { stream: stream.map_err(fault("cuStreamCreate"))?, context: Arc::clone(&context.handle) })
    }

    /// Waits for all work in it.
    pub(super) fn synchronize(&self) -> Result<(), CudaError> {
        self.context.make_current()?;
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream) }.map_err(fault("cuStreamSynchronize"))
    }

    /// Records what `work` puts into this stream, without running it.
    pub(super) fn capture(&self, work: impl FnOnce() -> Result<(), CudaError>) -> Result<Graph, CudaError> {
        self.context.make_current()?;
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as `self`, and the capture ends below whatever `work` says.
        unsafe { result::stream::begin_capture(self.stream, mode) }.map_err(fault("cuStreamBeginCapture"))?;
        let worked = work();
        // SAFETY: as above.
        let graph = unsafe { result::stream::end_capture(self.stream) };
        worked?;
        let graph = graph.map_err(fault("cuStreamEndCapture"))?;
        // SAFETY: the graph is valid, and not used any more once it was instantiated.
        let instance = unsafe {
            let instance = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(graph);
            instance.map_err(fault("cuGraphInstantiate"))?
        };
        Ok(Graph { instance, context: Arc::clone(&self.context) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.context.make_current();
        // SAFETY: the stream is not used any more; work still in it is finished by the driver.
        let _ = unsafe { result::stream::destroy(self.stream) };
    }
}

/// Work that is launched as a whole. It holds addresses of memory and functions, which must live when it is launched;
/// the engine that owns all three sees to that.
#[derive(Debug)]
pub(super) struct Graph {
    instance: sys::CUgraphExec,
    context: Arc<Primary>,
}

// SAFETY: see `Primary`.
unsafe impl Send for Graph {}

impl Graph {
    pub(super) fn launch(&self, stream: &Stream) -> Result<(), CudaError> {
        self.context.make_current()?;
        // SAFETY: both live; what the graph refers to does too, see the type.
        unsafe { result::graph::launch(self.instance, stream.stream) }.map_err(fault("cuGraphLaunch"))
    }
}

/// A mark in a stream that says when work before it was done.
#[derive(Debug)]
pub(super) struct Event {
    event: sys::CUevent,
    context: Arc<Primary>,
}

// SAFETY: see `Primary`.
unsafe impl Send for Event {}

impl Event {
    pub(super) fn new(context: &Context) -> Result<Self, CudaError> {
        context.make_current()?;
        // An older driver lacks the call below that reads times, which would end the process.
        let found = context.handle.driver_version;
        if found < TIMES_VERSION {
            let needed = format!("times of kernels need {}", version(TIMES_VERSION));
            return Err(CudaError::DriverTooOld { found: version(found), needed });
        }
        let event = result::event::create(sys::CUevent_flags_enum::CU_EVENT_DEFAULT);
        Ok(Self { event: event.map_err(fault("cuEventCreate"))?, context: Arc::clone(&context.handle) })
    }

    /// Records it behind the work in a stream, now or, while the stream is captured, whenever the graph is launched.
    pub(super) fn record(&self, stream: &Stream, captured: bool) -> Result<(), CudaError> {
        self.context.make_current()?;
        use sys::CUevent_record_flags_enum as Flag;
        let flag = if captured { Flag::CU_EVENT_RECORD_EXTERNAL } else { Flag::CU_EVENT_RECORD_DEFAULT };
        // SAFETY: both live as long as their owners.
        unsafe { sys::cuEventRecordWithFlags(self.event, stream.stream, flag as u32) }
            .result()
            .map_err(fault("cuEventRecordWithFlags"))
    }

    /// Nanoseconds from this event to a later one of the same stream, both of which have been reached. The GPU's clock
    /// counts half microseconds.
    pub(super) fn nanoseconds_until(&self, later: &Event) -> Result<u64, CudaError> {
        self.context.make_current()?;
        // SAFETY: both events live.
        let milliseconds = unsafe { result::event::elapsed(self.event, later.event) };
        let milliseconds = milliseconds.map_err(fault("cuEventElapsedTime"))?;
        Ok((f64::from(milliseconds) * 1e6) as u64)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let _ = self.context.make_current();
        // SAFETY: not used any more; a recording that is under way is finished by the driver.
        let _ = unsafe { result::event::destroy(self.event) };
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _ = self.context.make_current();
        // SAFETY: not used any more; a launch that is still running keeps what it needs.
        let _ = unsafe { result::graph::exec_destroy(self.instance) };
    }
}

/// Memory of the GPU.
#[derive(Debug)]
pub(super) struct Memory {
    address: sys::CUdeviceptr,
    bytes: u64,
    context: Arc<Primary>,
}

impl Memory {
    pub(super) fn new(context: &Context, what: &'static str, bytes: u64) -> Result<Self, CudaError> {
        context.make_current()?;
        // The driver refuses to give out nothing.
        let size = usize::try_from(bytes.max(1)).map_err(|_| CudaError::OutOfMemory { what, bytes })?;
        // SAFETY: freed once, when `self` is dropped.
        let address = unsafe { result::malloc_sync(size) }.map_err(|error| match error.0 {
            Fault::CUDA_ERROR_OUT_OF_MEMORY => CudaError::OutOfMemory { what, bytes },
            _ => fault("cuMemAlloc")(error),
        })?;
        Ok(Self { address, bytes, context: Arc::clone(&context.handle) })
    }

    /// Where it begins: a multiple of 256, as the driver gives it.
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    /// Its size.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sets every byte.
    pub(super) fn fill(&self, stream: &Stream, byte: u8) -> Result<(), CudaError> {
        self.context.make_current()?;
        // SAFETY: the whole of memory that `self` owns.
        unsafe { result::memset_d8_async(self.address, byte, self.bytes as usize, stream.stream) }
            .map_err(fault("cuMemsetD8Async"))
    }

    /// Copies to the bytes from `at` on; nothing if there are none.
    pub(super) fn write(&self, stream: &Stream, at: u64, bytes: &[u8]) -> Result<(), CudaError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let address = self.part(at, bytes.len())?;
        // SAFETY: `part` checked that the target is inside of what `self` owns.
        unsafe { result::memcpy_htod_async(address, bytes, stream.stream) }
            .map_err(fault("cuMemcpyHtoDAsync"))
    }

    /// Copies the bytes from `at` on, after the work in the stream; nothing if none are asked for.
    pub(super) fn read(&self, stream: &Stream, at: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let address = self.part(at, bytes.len())?;
        // SAFETY: `part` checked that the source is inside of what `self` owns. A copy to pageable memory is done
        // when the call returns.
        unsafe { result::memcpy_dtoh_async(bytes, address, stream.stream) }
            .map_err(fault("cuMemcpyDtoHAsync"))
    }

    /// The address of so many bytes from `at` on, for a call that follows at once.
    fn part(&self, at: u64, length: usize) -> Result<sys::CUdeviceptr, CudaError> {
        self.context.make_current()?;
        let end = at.checked_add(length as u64);
        if end.is_none_or(|end| end > self.bytes) {
            return Err(CudaError::Internal { what: "a copy past the end of GPU memory" });
        }
        Ok(self.address + at)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = self.context.make_current();
        // SAFETY: allocated once in `new`; the call waits for work that may still use it.
        let _ = unsafe { result::free_sync(self.address) };
    }
}

/// Loaded code.
#[derive(Debug)]
pub(super) struct Module {
    module: sys::CUmodule,
    functions: std::collections::BTreeMap<String, sys::CUfunction>,
    context: Arc<Primary>,
}

// SAFETY: see `Primary`.
unsafe impl Send for Module {}
// SAFETY: as above; what is looked up in it never changes once it is shared.
unsafe impl Sync for Module {}

impl Module {
    pub(super) fn from_cubin(context: &Context, cubin: &[u8]) -> Result<Self, CudaError> {
        Self::load(context, cubin)
    }

    /// Has the driver compile PTX.
    pub(super) fn from_ptx(context: &Context, ptx: &[u8]) -> Result<Self, CudaError> {
        let text =
            CString::new(ptx).map_err(|_| CudaError::Code { log: "the PTX has a zero byte".into() })?;
        Self::load(context, text.as_bytes_with_nul())
    }

    /// `image` is a whole cubin, or PTX with a zero byte at its end.
    fn load(context: &Context, image: &[u8]) -> Result<Self, CudaError> {
        context.make_current()?;
        use sys::CUjit_option_enum as Jit;
        let mut log = vec![0u8; LOG_BYTES];
        let mut options = [Jit::CU_JIT_ERROR_LOG_BUFFER, Jit::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), LOG_BYTES as *mut c_void];
        let mut module = std::ptr::null_mut();
        // SAFETY: the image is complete and the log buffer as long as the option says; both outlive the call.
        let loaded = unsafe {
            let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
            sys::cuModuleLoadDataEx(&raw mut module, image.as_ptr().cast(), 2, options, values)
        };
        loaded.result().map_err(|error| match error.0 {
            Fault::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => CudaError::DriverTooOld {
                found: version(context.handle.driver_version),
                needed: "the PTX of this artefact needs a newer one".into(),
            },
            Fault::CUDA_ERROR_OUT_OF_MEMORY => {
                CudaError::OutOfMemory { what: "code", bytes: image.len() as u64 }
            }
            _ => {
                let text: Vec<u8> = log.into_iter().take_while(|&byte| byte != 0).collect();
                CudaError::Code { log: format!("{} {}", name_of(error), String::from_utf8_lossy(&text)) }
            }
        })?;
        Ok(Self {
            module,
            functions: std::collections::BTreeMap::new(),
            context: Arc::clone(&context.handle),
        })
    }

    /// Looks a kernel up and lets it have its dynamic shared memory.
    pub(super) fn add_function(&mut self, symbol: &str, shared_bytes: u32) -> Result<(), CudaError> {
        let missing = || CudaError::Code { log: format!("it has no kernel `{symbol}`") };
        let name = CString::new(symbol).map_err(|_| missing())?;
        // SAFETY: the module lives as long as `self`, and so do the functions in it.
        let function =
            unsafe { result::module::get_function(self.module, name) }.map_err(|error| match error.0 {
                Fault::CUDA_ERROR_NOT_FOUND => missing(),
                _ => fault("cuModuleGetFunction")(error),
            })?;
        if shared_bytes > SHARED_WITHOUT_ASKING {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(shared_bytes).map_err(|_| missing())?;
            // SAFETY: as above.
            unsafe { result::function::set_function_attribute(function, attribute, bytes) }
                .map_err(fault("cuFuncSetAttribute"))?;
        }
        self.functions.insert(symbol.into(), function);
        Ok(())
    }

    /// Starts a kernel with one pointer for each of `args`.
    pub(super) fn launch(
        &self,
        stream: &Stream,
        symbol: &str,
        grid: [u32; 2],
        threads: u32,
        shared_bytes: u32,
        args: &[u64],
    ) -> Result<(), CudaError> {
        let Some(&function) = self.functions.get(symbol) else {
            return Err(CudaError::Internal { what: "a kernel was not looked up" });
        };
        let mut values: Vec<*mut c_void> =
            args.iter().map(|arg| std::ptr::from_ref(arg).cast_mut().cast()).collect();
        let (grid, block) = ((grid[0], grid[1], 1), (threads, 1, 1));
        // SAFETY: the function lives as long as `self`. Its parameters are as many 64-bit pointers as the program
        // says, and the driver copies them before it returns. What the kernel does with them is up to the code
        // generator; its memory faults end the context, not the process.
        unsafe { result::launch_kernel(function, grid, block, shared_bytes, stream.stream, &mut values) }
            .map_err(fault("cuLaunchKernel"))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = self.context.make_current();
        // SAFETY: graphs with its functions are dropped before it, see the engine.
        let _ = unsafe { result::module::unload(self.module) };
    }
}

/// Turns the driver's answer to `call` into an error; faults that ruin the context are told apart.
fn fault(call: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |error| match error.0 {
        Fault::CUDA_ERROR_OUT_OF_MEMORY => CudaError::OutOfMemory { what: call, bytes: 0 },
        Fault::CUDA_ERROR_ILLEGAL_ADDRESS
        | Fault::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | Fault::CUDA_ERROR_MISALIGNED_ADDRESS
        | Fault::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | Fault::CUDA_ERROR_INVALID_PC
        | Fault::CUDA_ERROR_HARDWARE_STACK_ERROR
        | Fault::CUDA_ERROR_ASSERT
        | Fault::CUDA_ERROR_LAUNCH_FAILED
        | Fault::CUDA_ERROR_LAUNCH_TIMEOUT
        | Fault::CUDA_ERROR_ECC_UNCORRECTABLE
        | Fault::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | Fault::CUDA_ERROR_CONTEXT_IS_DESTROYED
        | Fault::CUDA_ERROR_UNKNOWN => CudaError::Sticky { fault: name_of(error) },
        _ => CudaError::Call { call, fault: name_of(error) },
    }
}

/// What it means that the driver shows no device: only where it says so is there none.
fn no_device(error: DriverError) -> CudaError {
    match error.0 {
        Fault::CUDA_ERROR_STUB_LIBRARY => CudaError::NoDriver,
        Fault::CUDA_ERROR_NO_DEVICE | Fault::CUDA_ERROR_INVALID_DEVICE => {
            CudaError::NoDevice { reason: name_of(error) }
        }
        _ => CudaError::BrokenDriver { reason: name_of(error) },
    }
}

fn name_of(error: DriverError) -> String {
    error.error_name().map_or_else(|_| format!("{:?}", error.0), |name| name.to_string_lossy().into_owned())
}

fn version(number: c_int) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_memory_does_not_end_a_session() {
        let answer = fault("cuGraphLaunch")(DriverError(Fault::CUDA_ERROR_OUT_OF_MEMORY));
        assert_eq!(answer.code(), "cuda::oom");
        assert_eq!(version(13_010), "13.1");
    }
}
