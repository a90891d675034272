//! What is in a file, and what the machine knows.

use std::fmt::Write;

use serde_json::{Value, json};
use skipc_ptx::machine::Program;
use skipc_ptx::syntax::{Kernel, Module, VariableSpace};

/// The kernels of a module.
pub(crate) fn kernels(module: &Module, as_json: bool) -> String {
    if as_json {
        let kernels: Vec<Value> = module.kernels.iter().map(|kernel| kernel_json(module, kernel)).collect();
        return format!("{:#}\n", json!({"target": module.target, "kernels": kernels}));
    }
    let mut out = String::new();
    for kernel in &module.kernels {
        let _ = writeln!(out, "{}", kernel.name);
        let threads = kernel.threads.map_or_else(|| "any".to_owned(), extent);
        let cluster = kernel
            .cluster
            .map_or_else(String::new, |cluster| format!(", clusters of {} blocks", extent(cluster)));
        let _ = writeln!(out, "  threads         {threads}{cluster}");
        let (bytes, is_dynamic) = shared(module, kernel);
        let more = if is_dynamic { ", and dynamic (--shared)" } else { "" };
        let _ = writeln!(out, "  shared memory   {bytes} bytes{more}");
        let _ = writeln!(out, "  instructions    {}", kernel.instructions.len());
        if let Err(error) = Program::of_module(module, &kernel.name) {
            let _ = writeln!(out, "  cannot be run   {error}");
        }
        let _ = writeln!(out, "  parameters      {}", kernel.params.len());
        out.push_str(&parameters(kernel));
    }
    out
}

/// The parameters of a kernel, a line each.
pub(crate) fn parameters(kernel: &Kernel) -> String {
    let mut out = String::new();
    for (idx, param) in kernel.params.iter().enumerate() {
        let _ = writeln!(out, "    {idx:2} {} ({} bytes)", param.name, param.bytes);
    }
    out
}

fn extent([x, y, z]: [u32; 3]) -> String {
    if (y, z) == (1, 1) { x.to_string() } else { format!("{x},{y},{z}") }
}

/// Bytes of shared memory with a fixed size, and whether there is dynamic memory behind them.
fn shared(module: &Module, kernel: &Kernel) -> (u64, bool) {
    let variables = module.variables.iter().chain(&kernel.variables);
    let (mut size, mut is_dynamic) = (0_u64, false);
    for variable in variables.filter(|variable| variable.space == VariableSpace::Shared) {
        match variable.bytes {
            Some(bytes) => size = size.next_multiple_of(u64::from(variable.align.max(1))) + bytes,
            None => is_dynamic = true,
        }
    }
    (size, is_dynamic)
}

fn kernel_json(module: &Module, kernel: &Kernel) -> Value {
    let (bytes, is_dynamic) = shared(module, kernel);
    let params: Vec<Value> =
        kernel.params.iter().map(|param| json!({"name": param.name, "bytes": param.bytes})).collect();
    json!({
        "name": kernel.name,
        "parameters": params,
        "threads": kernel.threads,
        "cluster": kernel.cluster,
        "shared_bytes": bytes,
        "dynamic_shared": is_dynamic,
        "instructions": kernel.instructions.len(),
        "error": Program::of_module(module, &kernel.name).err().map(|error| error.to_string()),
    })
}

/// The instructions that the machine knows.
pub(crate) fn forms(as_json: bool) -> String {
    if !as_json {
        return skipc_ptx::forms::list();
    }
    let forms = skipc_ptx::op::forms();
    let rows =
        forms.map(|form| json!({"section": form.section, "syntax": form.syntax, "kind": form.kind.name()}));
    format!("{:#}\n", Value::Array(rows.collect()))
}
