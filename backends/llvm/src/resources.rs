//! What the assembler says about the kernels of a cubin.

use crate::error::Error;
use crate::target::CudaTarget;

/// What one kernel takes of a multiprocessor, as reported by the assembler.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelResources {
    /// Entry point.
    pub kernel: String,
    /// Registers per thread.
    pub registers: u32,
    /// Bytes of stack frame per thread.
    pub stack: u32,
    /// Bytes of spill stores per thread.
    pub spill_stores: u32,
    /// Bytes of spill loads per thread.
    pub spill_loads: u32,
    /// Bytes of static shared memory per block.
    pub shared: u32,
    /// Whether each `wgmma` waits for the one before, because the assembler found accesses to accumulators in flight.
    pub serialized: bool,
}

impl KernelResources {
    /// Checks that the kernel keeps everything in registers and shared memory.
    ///
    /// # Errors
    /// [`Error::LocalMemory`] with the sizes.
    pub fn require_no_local_memory(&self, target: CudaTarget) -> Result<(), Error> {
        let spills = self.spill_stores.saturating_add(self.spill_loads);
        if self.stack == 0 && spills == 0 {
            return Ok(());
        }
        Err(Error::LocalMemory { kernel: self.kernel.clone(), target, stack: self.stack, spills })
    }

    /// Checks that matmuls of warp groups can be in flight together.
    ///
    /// # Errors
    /// [`Error::Serialized`].
    pub fn require_no_serialized_matmuls(&self, target: CudaTarget) -> Result<(), Error> {
        if self.serialized {
            return Err(Error::Serialized { kernel: self.kernel.clone(), target });
        }
        Ok(())
    }

    /// Reads the report of `ptxas -v`: one entry per kernel, in the order of the report.
    ///
    /// # Errors
    /// [`Error::Report`] with a line that should hold a number and does not, or that comes before
    /// any kernel was named.
    pub fn parse_report(report: &str) -> Result<Vec<Self>, Error> {
        let mut kernels: Vec<Self> = Vec::new();
        // Said before the kernel's own entry.
        let mut serialized: Vec<&str> = Vec::new();
        for line in report.lines() {
            let unknown = || Error::Report { line: line.to_owned() };
            if line.contains("wgmma.mma_async instructions are serialized") {
                let (_, rest) = line.split_once("in the function '").ok_or_else(unknown)?;
                serialized.push(rest.trim_end_matches('\''));
            } else if let Some((_, rest)) = line.split_once("Compiling entry function '") {
                let (name, _) = rest.split_once('\'').ok_or_else(unknown)?;
                kernels.push(Self { kernel: name.to_owned(), ..Self::default() });
            } else if line.contains("bytes stack frame") {
                let kernel = kernels.last_mut().ok_or_else(unknown)?;
                kernel.stack = number_before(line, " bytes stack frame").ok_or_else(unknown)?;
                kernel.spill_stores = number_before(line, " bytes spill stores").ok_or_else(unknown)?;
                kernel.spill_loads = number_before(line, " bytes spill loads").ok_or_else(unknown)?;
            } else if line.contains(": Used ") {
                let kernel = kernels.last_mut().ok_or_else(unknown)?;
                kernel.registers = number_before(line, " registers").ok_or_else(unknown)?;
                // Left out when the kernel has no static shared memory.
                kernel.shared = number_before(line, " bytes smem").unwrap_or(0);
            }
        }
        for kernel in &mut kernels {
            kernel.serialized = serialized.contains(&kernel.kernel.as_str());
        }
        Ok(kernels)
    }
}

/// The number that ends where `unit` begins.
fn number_before(line: &str, unit: &str) -> Option<u32> {
    let (head, _) = line.split_once(unit)?;
    let digits = head.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
ptxas info    : (C7518) Potential Performance Loss: wgmma.mma_async instructions are serialized due to program dependence in the function 'k2'
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'k1' for 'sm_80'
ptxas info    : Function properties for k1
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 2 barriers, 4096 bytes smem
ptxas info    : Compiling entry function 'k2' for 'sm_80'
ptxas info    : Function properties for k2
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 20 registers, used 0 barriers, 16 bytes cumulative stack size
";

    #[test]
    fn reads_each_kernel() -> Result<(), Error> {
        let kernels = KernelResources::parse_report(REPORT)?;
        let [first, second] = kernels.as_slice() else { return Err(Error::Report { line: String::new() }) };
        assert_eq!((first.registers, first.shared, first.stack), (168, 4096, 0));
        assert!(first.require_no_local_memory(CudaTarget::Sm80).is_ok());
        assert!(first.require_no_serialized_matmuls(CudaTarget::Sm90a).is_ok());
        let error = second.require_no_serialized_matmuls(CudaTarget::Sm90a);
        assert!(error.is_err_and(|error| error.to_string().contains("`k2` on sm_90a")));
        assert_eq!((second.registers, second.stack), (20, 16));
        assert_eq!((second.spill_stores, second.spill_loads), (8, 12));
        let error = second.require_no_local_memory(CudaTarget::Sm80);
        assert!(error.is_err_and(|error| error.to_string().contains("`k2` on sm_80")));
        Ok(())
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        let text = REPORT.replace("168 registers", "many registers");
        assert!(matches!(KernelResources::parse_report(&text), Err(Error::Report { .. })));
        let headless = "ptxas info    : Used 20 registers";
        assert!(matches!(KernelResources::parse_report(headless), Err(Error::Report { .. })));
    }
}
