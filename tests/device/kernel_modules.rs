//! All kernels of the kernel cases as CUDA modules in plain files, for a harness that has nothing of ours.
//!
//! A folder with `code.json`, a [`CodeIndex`], and for each of its modules `NAME.cubin` and `NAME.ptx`.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use skipc_artifact::program::Launch;
use skipc_artifact::target::Target;
use skipc_plan::buckets::ByHeight;
use skipc_plan::codegen::{Code, Codegen, CodegenError, Image};
use skipc_plan::kernel::Kernel;
use skipc_testkit::kernel_cases::cuda_cases;
use skipc_testkit::replay::{self, NamedKernel};

/// Kernels of a module: few enough that a driver which compiles its PTX is soon done.
const CHUNK: usize = 32;

/// What was compiled for a target.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CodeIndex {
    pub(crate) target: Target,
    pub(crate) modules: Vec<Module>,
    refused: Vec<Refused>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) kernels: Vec<Entry>,
}

/// A kernel in a module; `kernel` counts as `index.json` of the cases does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) kernel: usize,
    pub(crate) symbol: String,
    pub(crate) launch: Launch,
}

/// A kernel without code.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refused {
    kernel: usize,
    /// Whether the target cannot do it; otherwise something is broken.
    unsupported: bool,
    why: String,
}

/// A module with its kernels' launches, and kernels that could not be compiled.
type Compiled = (Option<(Vec<Entry>, Code)>, Vec<Refused>);

/// Compiles every kernel for `target` and writes the folder.
///
/// # Errors
/// No code generation for the target, or the file system's. A kernel without code is an entry of `code.json`.
pub(crate) fn write(target: &str, dir: &Path) -> Result<(), String> {
    let target: Target = target.parse().map_err(|error| format!("{error}"))?;
    let (kernels, _) = replay::kernels(&cuda_cases());
    let chunks: Vec<Vec<usize>> =
        (0..kernels.len()).collect::<Vec<_>>().chunks(CHUNK).map(<[usize]>::to_vec).collect();
    let compiled = compile_all(&target, &kernels, &chunks)?;
    std::fs::create_dir_all(dir).map_err(|error| error.to_string())?;
    let mut index = CodeIndex { target, modules: Vec::new(), refused: Vec::new() };
    for (number, (module, refused)) in compiled.into_iter().enumerate() {
        index.refused.extend(refused);
        if let Some((kernels, code)) = module {
            let name = format!("{number:03}");
            save(dir, &name, code)?;
            index.modules.push(Module { name, kernels });
        }
    }
    let text = serde_json::to_vec(&index).map_err(|error| error.to_string())?;
    std::fs::write(dir.join("code.json"), text).map_err(|error| error.to_string())?;
    for refused in &index.refused {
        println!("no code for {}: {}", kernels[refused.kernel].symbol, refused.why);
    }
    println!("{} of {} kernels for {}", kernels.len() - index.refused.len(), kernels.len(), index.target);
    Ok(())
}

/// Compiles chunks side by side; the result is in their order.
fn compile_all(
    target: &Target,
    kernels: &[NamedKernel],
    chunks: &[Vec<usize>],
) -> Result<Vec<Compiled>, String> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Compiled)>> = Mutex::new(Vec::new());
    let work = || -> Result<(), String> {
        let codegen = skipc::driver::backends::for_target(target, Default::default(), Box::new(ByHeight))
            .map_err(|failure| failure.diagnostics.to_string())?;
        while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let compiled = compile_chunk(codegen.as_ref(), kernels, chunk);
            let number = chunk[0] / CHUNK;
            done.lock().map_err(|_| "a thread panicked".to_owned())?.push((number, compiled));
        }
        Ok(())
    };
    let n_threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => Err("a thread panicked".to_owned()),
        })
    })?;
    let mut done = done.into_inner().map_err(|_| "a thread panicked".to_owned())?;
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, compiled)| compiled).collect())
}

/// Kernels as one module; without those that have no code alone, if there is none for all together.
fn compile_chunk(codegen: &dyn Codegen, kernels: &[NamedKernel], chunk: &[usize]) -> Compiled {
    if let Ok(module) = compile(codegen, kernels, chunk) {
        return (Some(module), Vec::new());
    }
    let (mut good, mut refused) = (Vec::new(), Vec::new());
    for &kernel in chunk {
        match compile(codegen, kernels, &[kernel]) {
            Ok(_) => good.push(kernel),
            Err(error) => refused.push(refuse(kernel, &error)),
        }
    }
    if good.is_empty() {
        return (None, refused);
    }
    match compile(codegen, kernels, &good) {
        Ok(module) => (Some(module), refused),
        Err(error) => {
            refused.extend(good.iter().map(|&kernel| refuse(kernel, &error)));
            (None, refused)
        }
    }
}

fn compile(
    codegen: &dyn Codegen,
    kernels: &[NamedKernel],
    chunk: &[usize],
) -> Result<(Vec<Entry>, Code), CodegenError> {
    let named = |&kernel: &usize| (kernels[kernel].symbol.clone(), &kernels[kernel].kernel);
    let named: Vec<(String, &Kernel)> = chunk.iter().map(named).collect();
    let code = codegen.compile(&named)?;
    let entry = |(&kernel, launch): (&usize, &Launch)| Entry {
        kernel,
        symbol: kernels[kernel].symbol.clone(),
        launch: launch.clone(),
    };
    Ok((chunk.iter().zip(&code.launches).map(entry).collect(), code))
}

fn refuse(kernel: usize, error: &CodegenError) -> Refused {
    let unsupported = matches!(error, CodegenError::Unsupported { .. });
    Refused { kernel, unsupported, why: error.to_string() }
}

fn save(dir: &Path, name: &str, code: Code) -> Result<(), String> {
    for image in code.images {
        let (end, bytes) = match image {
            Image::Cubin(bytes) => ("cubin".to_owned(), bytes),
            Image::Ptx(text) => ("ptx".to_owned(), text.into_bytes()),
            Image::HostObject { level, object } => (format!("{level:?}.o").to_lowercase(), object),
        };
        std::fs::write(dir.join(format!("{name}.{end}")), bytes).map_err(|error| error.to_string())?;
    }
    Ok(())
}
