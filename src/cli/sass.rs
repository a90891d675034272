//! `skipc inspect --sass`: what the machine code of GPUs costs at least, and what it waits for.

use std::fmt::Write;

use skipc_artifact::target::Target;

use super::{InspectArgs, diff, to_json};
use crate::cost::sass::{self, OfKernel, Report};
use crate::diagnostic::Diagnostic;
use crate::driver::pipeline::Request;
use crate::error::{Error, ErrorKind};

/// Rows around which fillings are taken if the user names no number.
const ROWS: u32 = 2048;

/// The most of them: fillings are taken at each count near them.
const MOST_ROWS: u32 = 1 << 20;

/// What the columns are.
const LEGEND: &str = "\
Estimates from the machine code alone, for a multiprocessor of Hopper, each time that a part runs.
bound     cycles that the warps of a block need together at least, and `by` what: issue slots, special functions, tensor
          cores, shared memory, L2
alone     cycles of one warp with its waits, loads of global memory at 300 cycles, of shared memory at 35
ld waits  how often it waits for loads of global + shared memory; ld chain: the longest row of which each needs the last
gap       the most instructions between two matmuls of a warp group
";

pub(super) fn run(args: &InspectArgs, json: bool) -> Result<String, Error> {
    let rows = args.step_tokens.unwrap_or(ROWS);
    if !(1..=MOST_ROWS).contains(&rows) {
        let message = format!("--step-tokens: {rows} rows");
        let help = format!("give 1 to {MOST_ROWS}");
        return Err(Error::new(ErrorKind::Request, Diagnostic::new("usage::inspect", message).help(help)));
    }
    let subject = diff::subject(&args.artifact, &|| Ok(Request::host()))?;
    let mut reports = Vec::new();
    for program in &subject.programs {
        let Target::Cuda(arch) = &program.target else { continue };
        let name = format!("cuda/{arch}/code.cubin");
        let Some(cubin) = subject.code.iter().find(|code| code.name == name) else { continue };
        let linked = subject.plans_of(program).map(|plans| &plans.linked);
        let report = sass::report(program, linked, &cubin.content, rows);
        reports.push(report.map_err(|error| failed(&subject.name, &error))?);
    }
    if reports.is_empty() {
        let message = format!("--sass: {} has no machine code of a GPU", subject.name);
        let help = "compile it with `--target cuda:sm_90a`, where ptxas is at hand";
        return Err(Error::new(ErrorKind::Request, Diagnostic::new("usage::inspect", message).help(help)));
    }
    if json { to_json(&serde_json::json!({"sass": reports})) } else { Ok(text(&reports)) }
}

fn failed(name: &str, error: &skipc_sass::Error) -> Error {
    let kind = match error {
        skipc_sass::Error::NoDisassembler { .. } => ErrorKind::Unsupported,
        skipc_sass::Error::Temporary(_)
        | skipc_sass::Error::Refused(_)
        | skipc_sass::Error::NoKernel(_)
        | skipc_sass::Error::Listing { .. } => ErrorKind::Input,
    };
    Error::new(kind, Diagnostic::new(error.code(), format!("{name}: {error}")).help(error.help()))
}

fn text(reports: &[Report]) -> String {
    let mut out = LEGEND.to_owned();
    for Report { target, rows, processors, kernels } in reports {
        let _ = writeln!(out, "\n{target}");
        for kernel in kernels {
            let _ = writeln!(out, "\n{}: {} bytes of code", kernel.code.name, kernel.code.code_bytes);
            out.push_str(&skipc_sass::parts(&kernel.code));
            out.push_str(&of_matmul(kernel, (*rows, *processors)));
        }
    }
    out
}

/// What is known of a matmul alone.
fn of_matmul(kernel: &OfKernel, (rows, processors): (u32, u32)) -> String {
    let Some(turns) = kernel.turns else { return String::new() };
    let mut out = format!("  {turns} turns of the main loop a tile");
    if let Some(exposed) = kernel.exposed {
        let _ = write!(out, ", behind which {:.1} % more cycles follow", 100.0 * exposed);
    }
    if let Some(bytes) = kernel.operand_bytes {
        let _ = write!(out, "; {bytes:.0} bytes a cycle from L2");
    }
    if let Some(filled) = kernel.filled {
        let _ = write!(
            out,
            "; tiles fill {:.0} % of {processors} multiprocessors at {rows} rows ± 10 %",
            100.0 * filled
        );
    }
    out + "\n"
}
