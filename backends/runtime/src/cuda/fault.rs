//! What a GPU or its driver can answer.

use crate::kind::Kind;

/// Why something could not be done on a GPU.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// There is no driver. The machine has no NVIDIA GPU, or its driver is not installed.
    #[error("there is no NVIDIA driver on this machine (libcuda.so.1 was not found); use `--device cpu`")]
    NoDriver,
    /// There is a driver without a device.
    #[error(
        "the NVIDIA driver shows no such GPU ({reason}); see CUDA_VISIBLE_DEVICES, or use `--device cpu`"
    )]
    NoDevice {
        /// What the driver said.
        reason: String,
    },
    /// There is a driver that does not answer, such as one of another version than the kernel's module.
    #[error("the NVIDIA driver cannot be used ({reason}); see `nvidia-smi`, or use `--device cpu`")]
    BrokenDriver {
        /// What the driver said.
        reason: String,
    },
    /// The driver does not know what the code needs.
    #[error("the NVIDIA driver is too old: it supports CUDA {found}, {needed}")]
    DriverTooOld {
        /// The version of CUDA that the driver supports.
        found: String,
        /// What is needed, in words.
        needed: String,
    },
    /// No code in the artefact runs on this GPU. The user's choice of targets.
    #[error("no code of the artefact runs on {device}; it has {has}")]
    NoCode {
        /// Name and architecture of the GPU.
        device: String,
        /// Targets of the artefact.
        has: String,
    },
    /// The code does not load. A fault of the code generator.
    #[error("the driver refused the code: {log}")]
    Code {
        /// What its compiler said.
        log: String,
    },
    /// The memory of the GPU does not suffice. The session lives on; a smaller batch may fit.
    #[error("out of GPU memory: cannot allocate {bytes} bytes for {what}")]
    OutOfMemory {
        /// What it was for.
        what: &'static str,
        /// How many bytes.
        bytes: u64,
    },
    /// A kernel did something that leaves the GPU's context unusable. The session is over; results of this run are
    /// lost, those of earlier ones are sound.
    #[error("the GPU reported {fault}: this session is over, start a new process")]
    Sticky {
        /// The driver's name of the fault.
        fault: String,
    },
    /// Any other answer of the driver.
    #[error("{call} failed: {fault}")]
    Call {
        /// The function of the driver.
        call: &'static str,
        /// The driver's name of the fault.
        fault: String,
    },
    /// A fault of this program.
    #[error("internal error: {what}")]
    Internal {
        /// What happened.
        what: &'static str,
    },
}

impl CudaError {
    /// The stable name of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            CudaError::NoDriver => "cuda::no_driver",
            CudaError::NoDevice { .. } | CudaError::BrokenDriver { .. } => "cuda::no_device",
            CudaError::DriverTooOld { .. } => "cuda::driver_too_old",
            CudaError::NoCode { .. } => "cuda::no_code",
            CudaError::Code { .. } => "cuda::code",
            CudaError::OutOfMemory { .. } => "cuda::oom",
            CudaError::Sticky { .. } => "cuda::sticky",
            CudaError::Call { .. } => "cuda::call",
            CudaError::Internal { .. } => "cuda::internal",
        }
    }

    /// Whose fault it is, see [`crate::Error::kind`].
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            CudaError::NoDriver
            | CudaError::NoDevice { .. }
            | CudaError::BrokenDriver { .. }
            | CudaError::DriverTooOld { .. }
            | CudaError::NoCode { .. } => Kind::Unsupported,
            CudaError::OutOfMemory { .. } => Kind::Input,
            CudaError::Code { .. }
            | CudaError::Sticky { .. }
            | CudaError::Call { .. }
            | CudaError::Internal { .. } => Kind::Internal,
        }
    }
}
