//! `skipc init`: random weights for a spec.

use serde_json::json;

use super::{InitArgs, to_json};
use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};
use crate::frontend::spec;
use crate::frontend::spec::random::WeightsFile;
use crate::frontend::spec::tensors::tensors;
use crate::frontend::weights::DType;

pub(super) fn run(args: &InitArgs, json: bool) -> Result<String, Error> {
    let dtype = match args.dtype.as_str() {
        "f32" => DType::F32,
        "bf16" => DType::Bf16,
        "f16" => DType::F16,
        other => {
            let error = Diagnostic::new("usage::init", format!("--dtype: `{other}`"));
            return Err(Error::new(ErrorKind::Request, error.help("write `f32`, `bf16` or `f16`")));
        }
    };
    let model = spec::load(&args.spec)?;
    let file = WeightsFile::new(&model, args.seed, dtype)?;
    skipc_artifact::replace::file(&args.output, |out| file.write(out))
        .map_err(|error| Error::in_artifact(&args.output, &error))?;
    let tensors = tensors(&model);
    let parameters: usize = tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    if json {
        return to_json(&json!({
            "output": args.output.display().to_string(),
            "bytes": file.length(),
            "tensors": tensors.len(),
            "parameters": parameters,
            "seed": args.seed,
            "dtype": args.dtype,
        }));
    }
    Ok(format!(
        "{} ({} KiB)\n  {} tensors, {parameters} parameters in {}, seed {}\n",
        args.output.display(),
        file.length() / 1024,
        tensors.len(),
        args.dtype,
        args.seed,
    ))
}
