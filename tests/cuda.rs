//! CUDA code of the example model, as far as a machine without a GPU can judge it.
#![cfg(feature = "cuda")]

use std::fs;
use std::process::{Command, Output};

use skipc_artifact::bundle;
use skipc_artifact::program::{Launch, Purpose};
use skipc_artifact::target::Target;
use skipc_runtime::Model;
use tempfile::TempDir;

const TARGETS: &str = "cpu,cuda:sm_80,cuda:sm_90a";

fn skipc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).env("NO_COLOR", "1").output().unwrap()
}

fn compile(output: &str, more: &[&str]) {
    let base =
        ["compile", "models/kjv-12l-d25.toml", "--weights", "models/kjv-12l-d25.safetensors", "-o", output];
    let ran = skipc(&[&base[..], &["--target", TARGETS], more].concat());
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// Spills, stack frames and unresolved functions are errors of the compile, so its success says that there are none.
#[test]
fn the_example_compiles_for_ampere_and_hopper_and_twice_to_the_same_bytes() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    compile(&path("a.skp"), &[]);
    compile(&path("b.skp"), &[]);
    assert!(fs::read(path("a.skp")).unwrap() == fs::read(path("b.skp")).unwrap());
    let model = Model::open(path("a.skp").as_ref()).unwrap();
    for arch in ["sm_80", "sm_90a"] {
        let target = Target::Cuda(arch.to_owned());
        let program = bundle::read_program(model.artifact(), &target, Purpose::Score).unwrap();
        for entry in &program.entries {
            let Launch::Cuda { registers, threads, shared_bytes, .. } = entry.launch else {
                panic!("{}: not launched on CUDA", entry.symbol)
            };
            assert!(registers > 0 && registers <= 255 && registers * threads <= 65_536, "{entry:?}");
            assert!(shared_bytes <= 163 * 1024, "{entry:?}");
        }
        let (ptx, cubin) = bundle::read_cuda_code(model.artifact(), &program).unwrap();
        let ptx = std::str::from_utf8(ptx).unwrap();
        assert!(
            ptx.contains("mma.sync") && ptx.contains("cp.async") && ptx.contains(&format!(".target {arch}"))
        );
        assert!(!ptx.contains(".loc") && cubin.unwrap().starts_with(b"\x7fELF"));
    }
    let tokens = "tests/golden/kjv-12l-d25-t2/tokens.npy";
    let ran = skipc(&["run", &path("a.skp"), "--tokens", tokens, "--device", "cuda"]);
    let text = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success() || (ran.status.code() == Some(5) && text.contains("cuda::no_dr")), "{text}");
}

#[test]
fn f32_code_never_rounds_to_tf32() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("f32.skp").display().to_string();
    compile(&path, &["--dtype", "cuda=f32"]);
    let model = Model::open(path.as_ref()).unwrap();
    let target = Target::Cuda("sm_80".to_owned());
    let program = bundle::read_program(model.artifact(), &target, Purpose::Score).unwrap();
    let (ptx, _) = bundle::read_cuda_code(model.artifact(), &program).unwrap();
    let ptx = std::str::from_utf8(ptx).unwrap();
    assert!(!ptx.contains("tf32") && !ptx.contains("mma.sync") && ptx.contains("fma.rn.f32"));
}
