//! The CUDA half of the runtime against a stand-in for the driver, so that the order of its calls, what it passes to
//! them and what it makes of their answers is tested on machines without a GPU. What a GPU does is not.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::path::Path;
use std::process::{Command, Output};

use skipc_artifact::bundle::Bundle;
use skipc_artifact::program::Arg;
use skipc_runtime::npy;

mod stand_in;
mod tiny;

fn bundle() -> Bundle {
    stand_in::for_cuda(tiny::bundle())
}

/// A folder with the stand-in as `libcuda.so` and a batch of 2 × 35 tokens.
fn folder() -> tempfile::TempDir {
    let folder = stand_in::folder();
    let tokens: Vec<i32> = (0..70).map(|idx| idx % 4).collect();
    npy::write(&folder.path().join("t.npy"), &[2, 35], &tokens).unwrap();
    folder
}

fn run(folder: &Path, bundle: Bundle, fault: &str, args: &[&str]) -> Output {
    std::fs::write(folder.join("m.skp"), tiny::artifact(bundle)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_skipc-run"));
    command.current_dir(folder).env("LD_LIBRARY_PATH", folder).env("STAND_IN", fault);
    command.args(["m.skp", "--device", "cuda", "--tokens", "t.npy"]).args(args).output().unwrap()
}

#[test]
fn a_step_is_one_graph_and_everything_is_given_back() {
    let folder = folder();
    let folder = folder.path();
    let output =
        run(folder, bundle(), "", &["--checked", "--routing-out", "r.npy", "--logits", "o.npy", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(
        lines,
        [
            r#"{"device":"cuda:sm_90a, Stand-in","executed":[70,35,0],"sequences":2,"tokens":70}"#,
            "image CUBIN",
            "function 1 attribute 8 = 60000",
            // 70 tokens are bound by 128, the kernel by 100 rows, of which 16 make a block.
            "table_4 7x2x1 of 96x1x1 with 60000",
            "odd_set 1x1x1 of 96x1x1 with 0",
            "held 0 pieces 0",
        ]
    );
    let logits = std::fs::read(folder.join("o.npy")).unwrap();
    let numbers = logits[logits.len() - 70 * 16..].chunks_exact(4);
    let numbers: Vec<f32> = numbers.map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect();
    let expected: Vec<f32> = (0..70).flat_map(|idx| tiny::logits_of(idx % 4)).collect();
    assert_eq!(numbers, expected);

    // Other decisions than the router's own, replayed.
    let gates = npy::read_ints(&folder.join("r.npy"), &[3]).unwrap();
    let flipped: Vec<u8> = gates
        .data
        .iter()
        .enumerate()
        .map(|(idx, &gate)| gate as u8 ^ u8::from((70..140).contains(&idx)))
        .collect();
    npy::write(&folder.join("f.npy"), &gates.shape, &flipped).unwrap();
    run(folder, bundle(), "", &["--routing", "f.npy", "--routing-out", "again.npy"]);
    let again = npy::read_ints(&folder.join("again.npy"), &[3]).unwrap();
    assert!(again.data.iter().zip(&flipped).all(|(&found, &forced)| found == i64::from(forced)));
}

#[test]
fn each_answer_of_the_driver_has_its_error() {
    let folder = folder();
    let cases = [
        ("old", 5, "error[cuda::driver_too_old]", "11.8"),
        ("no-device", 5, "error[cuda::no_device]", "shows no such GPU (CUDA_ERROR_NO_DEVICE)"),
        ("broken", 5, "error[cuda::no_device]", "cannot be used (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)"),
        ("new-ptx", 5, "error[cuda::driver_too_old]", "13.0"),
        ("bad-ptx", 70, "error[cuda::code]", "line 7: bad"),
        ("oom", 1, "error[cuda::oom]", "the arena"),
        ("sticky", 70, "error[cuda::sticky]", "CUDA_ERROR_ILLEGAL_ADDRESS"),
    ];
    for (fault, exit, code, detail) in cases {
        let output = run(folder.path(), bundle(), fault, &[]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.starts_with(code) && text.contains(detail), "{fault}: {text}");
        assert_eq!(output.status.code(), Some(exit), "{fault}");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(
            ["old", "no-device", "broken"].contains(&fault) || printed.ends_with("held 0 pieces 0\n"),
            "{fault}"
        );
    }
}

#[test]
fn ptx_is_for_devices_that_the_cubin_is_not_for() {
    let folder = folder();
    let mut older = bundle();
    older.program.target = "cuda:sm_80".parse().unwrap();
    let output = run(folder.path(), older, "", &[]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("image PTX t\n"));
    let mut newer = bundle();
    newer.program.target = "cuda:sm_100a".parse().unwrap();
    let output = run(folder.path(), newer, "", &[]);
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error[cuda::no_code]"));
}

#[test]
fn a_checked_run_finds_writes_beside_the_arena() {
    let folder = folder();
    let mut bundle = bundle();
    let function = tiny::function(&mut bundle);
    function.steps[0].kernel = 2;
    function.steps[0].args = vec![Arg::Buffer(2)];
    // The kernel writes before its buffer, which is the first in the arena.
    let storages = [2, 0].map(|idx: usize| function.buffers[idx].storage);
    [function.buffers[0].storage, function.buffers[2].storage] = storages;
    let output = run(folder.path(), bundle.clone(), "", &["--checked"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.starts_with("error[run::stray-write]") && text.contains("at byte -4"), "{text}");
    assert_eq!(output.status.code(), Some(70));
    assert!(run(folder.path(), bundle, "", &[]).status.success(), "only a checked run looks");
}
