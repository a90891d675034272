//! `skipc init`: random weights for a spec; for a directory, weights of its routers.

use safetensors::tensor::TensorView;
use serde_json::json;

use super::{InitArgs, source, to_json};
use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};
use crate::frontend::source::Source;
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
    let source = source::open(&args.spec, &args.overlay)?;
    if source.directory.is_some() {
        return routers(args, &source, dtype, json);
    }
    let model = source.model;
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

/// Weights of the routers of a directory, with which every token executes.
fn routers(args: &InitArgs, source: &Source, dtype: DType, json: bool) -> Result<String, Error> {
    let directory = source.directory.as_ref();
    let made = directory.map_or(Ok(Vec::new()), |directory| directory.executing_routers(&source.model));
    let made = made.map_err(|error| Error::new(ErrorKind::Request, error))?;
    let bytes: Vec<Vec<u8>> = made.iter().map(|tensor| dtype.encode(&tensor.values)).collect();
    let internal = |error| Error::internal("weights::header", &error);
    let mut views = Vec::new();
    for (tensor, bytes) in made.iter().zip(&bytes) {
        let view = TensorView::new(dtype.stored(), tensor.shape.clone(), bytes).map_err(internal)?;
        views.push((tensor.name.as_str(), view));
    }
    let file = safetensors::serialize(views, None).map_err(internal)?;
    skipc_artifact::replace::bytes(&args.output, &file)
        .map_err(|error| Error::in_artifact(&args.output, &error))?;
    let output = args.output.display();
    if json {
        let (bytes, tensors) = (file.len(), made.len());
        return to_json(
            &json!({"output": output.to_string(), "bytes": bytes, "tensors": tensors, "dtype": args.dtype}),
        );
    }
    Ok(format!("{output}: {} tensors of routers in {}; every token executes\n", made.len(), args.dtype))
}
