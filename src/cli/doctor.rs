//! `skipc doctor`: what this machine has of what skipc can use.

use serde::Serialize;
use skipc_runtime::cuda::Gpu;

use super::inspect::new_table;
use super::to_json;
use crate::driver::backends;
use crate::error::Error;

#[derive(Serialize)]
struct Finding {
    what: &'static str,
    found: Option<String>,
    /// What it is for, and how to get it.
    note: String,
}

pub(super) fn run(json: bool) -> Result<String, Error> {
    let (gpu, gpu_note) = match Gpu::open(0) {
        Ok(gpu) => (Some(gpu.name().to_owned()), "runs CUDA artefacts".to_owned()),
        Err(error) => (None, format!("`run --device cuda` needs one: {error}")),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let findings = [
        Finding {
            what: "processor",
            found: Some(format!("{}, {threads} threads", std::env::consts::ARCH)),
            note: "compiles and runs `cpu` artefacts".to_owned(),
        },
        Finding {
            what: "bf16 dot products",
            found: skipc_runtime::share_of_dots()
                .map(|share| format!("{share:.2} of the time of f32 matmuls")),
            note: "`cpu` artefacts in bf16 use them where they are faster".to_owned(),
        },
        Finding {
            what: "LLVM",
            found: backends::llvm_version(),
            note: "generates code for `cpu` and CUDA; comes with `make build` (feature `cuda`)".to_owned(),
        },
        Finding {
            what: "ptxas",
            found: backends::ptxas_version(),
            note: "assembles CUDA code; `make build` puts it into .cache, or set SKIPC_PTXAS".to_owned(),
        },
        Finding { what: "NVIDIA GPU", found: gpu, note: gpu_note },
    ];
    if json {
        return to_json(&findings);
    }
    let mut table = new_table(&["", "found", "for"]);
    for finding in findings {
        table.add_row([finding.what.to_owned(), finding.found.unwrap_or("no".to_owned()), finding.note]);
    }
    Ok(format!("{table}\n"))
}
