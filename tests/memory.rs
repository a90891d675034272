//! How much memory it takes to write an artefact: as much as the largest tensor and what is made at once, not as much as the
//! model. A file of its own, since memory is counted by process.
#![cfg(all(feature = "cranelift", target_os = "linux"))]

use std::collections::BTreeMap;
use std::path::Path;

use skipc::diagnostic::Diagnostic;
use skipc::driver::backends::CpuBackend;
use skipc::driver::pack;
use skipc::driver::pipeline::{self, Request};
use skipc::driver::repack;
use skipc::driver::trace::Trace;
use skipc::frontend::spec;
use skipc::frontend::spec::tensors::tensors;
use skipc::frontend::weights::{DType, Tensor, TensorInfo, TensorSource, Weights};
use skipc_runtime::Model;
use skipc_runtime::memory::peak_kib;

/// 101 million parameters in matrices of at most a million.
const SPEC: &str = r#"
[model]
name = "deep"
vocab_size = 256
d_model = 512
max_positions = 64
norm = "rmsnorm"
positions = "none"
tie_embeddings = true

[block.a]
layers = [
  { kind = "attention", heads = 8, kv_heads = 8, head_dim = 64 },
  { kind = "ffn", d_ff = 2048, activation = "swiglu" },
]

[[stack]]
blocks = ["a"]
repeat = 24
"#;

/// Small numbers in bf16, made when they are asked for.
struct Pattern(BTreeMap<String, TensorInfo>);

impl TensorSource for Pattern {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.0
    }

    fn read(&self, name: &str) -> Result<Tensor<'_>, Diagnostic> {
        let shape = &self.0[name].shape;
        // From 2^-7 on, and both signs.
        let number = |idx: usize| (0x3c00 | (idx % 61) as u16 | ((idx % 2) as u16) << 15).to_le_bytes();
        let bytes: Vec<u8> = (0..shape.iter().product()).flat_map(number).collect();
        Ok(Tensor { dtype: DType::Bf16, shape, bytes: bytes.into() })
    }
}

#[test]
fn an_artefact_larger_than_memory_may_be_is_written() {
    let model = spec::model("deep.toml", SPEC).unwrap();
    let all = tensors(&model).into_iter();
    let infos: BTreeMap<String, TensorInfo> =
        all.map(|it| (it.name, TensorInfo { dtype: Ok(DType::Bf16), shape: it.shape })).collect();
    let parameters: usize = infos.values().map(|info| info.shape.iter().product::<usize>()).sum();
    assert!(parameters > 100_000_000, "{parameters}");
    let request = Request { cpu_backend: CpuBackend::Cranelift, ..Request::host() };
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &Path, external: Option<&Path>| {
        let compiled = pipeline::compile(&model, &request, &mut Trace::silent()).unwrap();
        let before = peak_kib().unwrap();
        let weights = Weights::new("a pattern", Pattern(infos.clone()), &model).unwrap();
        let files = (path, external);
        let lengths = pack::write(files, (&model, &weights), (&request, compiled), &mut Trace::silent());
        (lengths.unwrap(), peak_kib().unwrap() - before)
    };
    let path = folder.path().join("m.skp");
    let ([length, _], taken) = write(&path, None);
    // All constants are 388 MiB. Two groups of them are 128 MiB; beside them stands what those that are made come from.
    assert!(length > 4 * parameters as u64, "{length} bytes");
    assert!(taken < 200 << 10, "{taken} KiB");
    // Other weights: the artefact as it was opened, and no second one beside it.
    let artefact = Model::open(&path).unwrap();
    let (before, weights) =
        (peak_kib().unwrap(), Weights::new("a pattern", Pattern(infos.clone()), &model).unwrap());
    let again = repack::with_weights(artefact, &weights).unwrap();
    let taken = peak_kib().unwrap() - before;
    assert!(taken < 200 << 10, "{taken} KiB for constants of other weights");
    assert!(again.artifact().sections().iter().any(|entry| entry.length > 4 * parameters as u64));
    drop(again);
    let (other, external) = (folder.path().join("n.skp"), folder.path().join("n.skw"));
    let (lengths, _) = write(&other, Some(&external));
    assert!(lengths[0] < 2 << 20 && lengths[1] > 4 * parameters as u64, "{lengths:?}");
}
