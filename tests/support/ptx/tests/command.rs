//! `skipc-ptx` as people use it: what it prints, and how it ends.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// `y[i] = a · x[i]`
const SCALE: &str = "\
.version 8.6
.target sm_90a
.address_size 64
.visible .entry scale(.param .f32 a, .param .u64 x, .param .u64 y)
{
  .reg .b32 %r<5>;
  .reg .f32 %f<4>;
  .reg .b64 %rd<6>;
  ld.param.f32 %f1, [a];
  ld.param.u64 %rd1, [x];
  ld.param.u64 %rd2, [y];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mad.lo.s32 %r4, %r2, %r3, %r1;
  mul.wide.s32 %rd3, %r4, 4;
  add.s64 %rd4, %rd1, %rd3;
  add.s64 %rd5, %rd2, %rd3;
  ld.global.f32 %f2, [%rd4];
  mul.rn.f32 %f3, %f1, %f2;
  st.global.f32 [%rd5], %f3;
  ret;
}
";

/// Each thread writes a word of shared memory and reads that of the thread 32 further, without a barrier between.
const NEIGHBOUR: &str = "\
.version 8.6
.target sm_90a
.address_size 64
.visible .entry neighbour(.param .u64 out)
.reqntid 64, 1, 1
{
  .shared .align 4 .b8 words[256];
  .reg .b32 %r<7>;
  .reg .b64 %rd<4>;
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, words;
  shl.b32 %r3, %r1, 2;
  add.s32 %r4, %r2, %r3;
  st.shared.u32 [%r4], %r1;
  xor.b32 %r5, %r4, 128;
  ld.shared.u32 %r6, [%r5];
  ld.param.u64 %rd1, [out];
  mul.wide.u32 %rd2, %r1, 4;
  add.s64 %rd3, %rd1, %rd2;
  st.global.u32 [%rd3], %r6;
  ret;
}
";

/// Every thread takes a number and writes its own to the place of that number: no race, and every order is another
/// result.
const TICKETS: &str = "\
.version 8.6
.target sm_90a
.address_size 64
.visible .entry tickets(.param .u64 next, .param .u64 out)
{
  .reg .b32 %r<3>;
  .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [next];
  ld.param.u64 %rd2, [out];
  atom.global.add.u32 %r1, [%rd1], 1;
  mov.u32 %r2, %ctaid.x;
  mul.wide.u32 %rd3, %r1, 4;
  add.s64 %rd4, %rd2, %rd3;
  st.global.u32 [%rd4], %r2;
  ret;
}
";

/// What a run of the command left.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

fn skipc_ptx(file: &Path, args: &[&str]) -> Ran {
    let output =
        Command::new(env!("CARGO_BIN_EXE_skipc-ptx")).arg(file).args(args).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A file of PTX in a folder of its own.
fn file(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kernel.ptx");
    std::fs::write(&path, text).expect("it can be written");
    (folder, path)
}

const SCALE_ARGS: &[&str] =
    &["--grid", "2", "--block", "64", "--arg", "f32:2", "--arg", "x=integers-f32:128"];

fn scale(args: &[&str]) -> Ran {
    let (_folder, path) = file(SCALE);
    skipc_ptx(&path, &[SCALE_ARGS, args].concat())
}

#[test]
fn a_kernel_runs_in_all_schedules_and_its_result_is_printed() {
    let ran = scale(&["--arg", "y=poison-f32:128", "--print", "x:3", "--print", "y:3"]).expect(0);
    assert!(
        ran.stdout.contains("scale: no fault in 8 schedules, and all give the same bytes"),
        "{}",
        ran.stdout
    );
    let numbers = |name: &str| -> Vec<f64> {
        let line = ran.stdout.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.split(' ').filter_map(|word| word.parse().ok()).collect()
    };
    let (x, y) = (numbers("x: f32 128 = "), numbers("y: f32 128 = "));
    assert_eq!((x.len(), y.len()), (3, 3), "{}", ran.stdout);
    assert!(x.iter().zip(&y).all(|(x, y)| 2.0 * x == *y), "{}", ran.stdout);
}

#[test]
fn json_has_faults_counters_and_buffers() {
    let ran = scale(&["--arg", "zeros:512", "--schedules", "2", "--print", "x:2", "--json"]).expect(0);
    let json = ran.json();
    assert_eq!(json["sound"], true);
    assert_eq!(json["schedules"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["counters"]["global_stored"], 512);
    assert_eq!(json["buffers"]["x"].as_array().map(Vec::len), Some(2));
    assert!(json["thread_instructions_per_second"].as_f64().is_some_and(|rate| rate > 0.0));
}

#[test]
fn buffers_go_to_files_and_come_from_them() {
    let (folder, path) = file(SCALE);
    let npy = folder.path().join("y.npy");
    let out = format!("y={}", npy.display());
    skipc_ptx(&path, &[SCALE_ARGS, &["--arg", "y=zeros-f32:16x8", "--out", &out]].concat()).expect(0);
    let read = npyz::NpyFile::new(std::fs::File::open(&npy).expect("the file")).expect("an array");
    assert_eq!(read.shape(), [16, 8]);
    assert!(read.into_vec::<f32>().expect("floats").iter().all(|y| [-4.0, -2.0, 0.0, 2.0, 4.0].contains(y)));

    // Twice the result of the first run, from its file.
    let from = format!("x=file:{}", npy.display());
    let args =
        ["--grid", "2", "--block", "64", "--arg", "f32:2", "--arg", &from, "--arg", "y=zeros-bf16:16x16"];
    let ran = skipc_ptx(&path, &[&args[..], &["--print", "x:1", "--counters"]].concat()).expect(0);
    assert!(ran.stdout.contains("x: f32 16x8 = "), "{}", ran.stdout);
    assert!(ran.stdout.contains("512 loaded, 512 stored"), "{}", ran.stdout);

    let raw = folder.path().join("y.bin");
    let out = format!("y={}", raw.display());
    skipc_ptx(&path, &[SCALE_ARGS, &["--arg", "y=zeros:512", "--out", &out]].concat()).expect(0);
    assert_eq!(std::fs::metadata(&raw).expect("the file").len(), 512);
}

#[test]
fn a_fault_names_both_places() {
    let (_folder, path) = file(NEIGHBOUR);
    let ran = skipc_ptx(&path, &["--arg", "zeros:256"]).expect(3);
    assert!(ran.stdout.contains("neighbour: a fault in 8 of 8 schedules"), "{}", ran.stdout);
    assert!(ran.stdout.contains("st.shared.u32 [%r4], %r1"), "{}", ran.stdout);
    assert!(ran.stdout.contains("ld.shared.u32 %r6, [%r5]"), "{}", ran.stdout);
    assert!(ran.stdout.contains("line 14") && ran.stdout.contains("line 16"), "{}", ran.stdout);

    let ran = skipc_ptx(&path, &["--arg", "zeros:256", "--seed", "5"]).expect(3);
    assert!(ran.stdout.contains("neighbour: a fault in schedule 5"), "{}", ran.stdout);
    let json = skipc_ptx(&path, &["--arg", "zeros:256", "--seed", "5", "--json"]).expect(3).json();
    assert_eq!(json["sound"], false);
    assert_eq!(json["schedules"][0]["seed"], 5);
    assert!(json["schedules"][0]["fault"]["line"].is_u64(), "{json}");
}

#[test]
fn a_fault_names_the_buffer_of_the_argument() {
    let ran = scale(&["--arg", "y=zeros:256", "--seed", "0"]).expect(3);
    assert!(
        ran.stdout.contains("out of bounds") && ran.stdout.contains("`y`, which has 256"),
        "{}",
        ran.stdout
    );
    let ran = scale(&["--arg", "integers-f32:128", "--seed", "0"]).expect(3);
    assert!(ran.stdout.contains("write to read-only memory") && ran.stdout.contains("`y`"), "{}", ran.stdout);
    scale(&["--arg", "rw:integers-f32:128", "--seed", "0"]).expect(0);
}

#[test]
fn results_that_depend_on_the_schedule_are_a_finding() {
    let (_folder, path) = file(TICKETS);
    let args = ["--grid", "8", "--block", "1", "--arg", "zeros:4", "--arg", "out=zeros:32"];
    let ran = skipc_ptx(&path, &args).expect(3);
    assert!(
        ran.stdout.contains("tickets: no fault in 8 schedules, but their results differ"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("give different results: first in byte"), "{}", ran.stdout);
    assert!(ran.stdout.contains("of `out`"), "{}", ran.stdout);
    assert!(skipc_ptx(&path, &[&args[..], &["--json"]].concat()).expect(3).json()["difference"].is_object());
}

#[test]
fn kernels_are_listed_and_chosen() {
    let (_folder, path) = file(&format!("{SCALE}{}", NEIGHBOUR.split_once("64\n").expect("a head").1));
    let listed = skipc_ptx(&path, &["--list"]).expect(0).stdout;
    for part in
        ["scale\n", "threads         any", "neighbour\n", "threads         64", "256 bytes", "0 a (4 bytes)"]
    {
        assert!(listed.contains(part), "{part:?} in {listed}");
    }
    let json = skipc_ptx(&path, &["--list", "--json"]).expect(0).json();
    assert_eq!(json["kernels"][0]["instructions"], 14);
    assert_eq!(json["kernels"][1]["threads"], serde_json::json!([64, 1, 1]));

    let error = skipc_ptx(&path, &[]).expect(1).stderr;
    assert!(error.contains("2 kernels") && error.contains("--kernel: `scale`, `neighbour`"), "{error}");
    let error = skipc_ptx(&path, &["--kernel", "scala"]).expect(1).stderr;
    assert!(error.contains("unknown kernel `scala`") && error.contains("`scale`, `neighbour`"), "{error}");
    skipc_ptx(&path, &["--kernel", "neighbour", "--arg", "zeros:256"]).expect(3);
}

#[test]
fn machine_code_is_read_without_running_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/gemm_gather_d0.ptx");
    let ran = skipc_ptx(&path, &["--sass"]).expect(0);
    assert!(ran.stdout.contains("loop L_x_") && ran.stdout.contains("tensor"), "{}", ran.stdout);
    let json = skipc_ptx(&path, &["--sass", "--json"]).expect(0).json();
    let parts = json["kernels"][0]["parts"].as_array().expect("parts").clone();
    let main = parts.iter().find(|part| part["is_whole_loop"] == true && part["mix"]["group_matmuls"] != 0);
    let main = main.unwrap_or_else(|| panic!("no loop of matmuls in {parts:#?}"));
    assert_eq!(main["limit"], "tensor", "{main:#}");
    assert!(
        main["tile"]["inner"] == 64 && main["matmul_gap"].as_u64().is_some_and(|gap| gap < 16),
        "{main:#}"
    );

    let (_folder, path) = file(NEIGHBOUR);
    let kernel = skipc_ptx(&path, &["--sass", "--json"]).expect(0).json()["kernels"][0].clone();
    assert_eq!(
        (&kernel["pool"], &kernel["parts"][0]["warps"]),
        (&serde_json::Value::Null, &2.into()),
        "{kernel:#}"
    );
    assert_eq!(kernel["parts"][0]["mix"]["global_stores"], 1, "{kernel:#}");
    let error = skipc_ptx(&path, &["--sass", "--kernel", "neighbours"]).expect(1).stderr;
    assert!(error.contains("unknown kernel `neighbours`"), "{error}");
    let (_folder, path) = file(SCALE);
    let error = skipc_ptx(&path, &["--sass"]).expect(1).stderr;
    assert!(error.contains("how many threads") && error.contains(".reqntid"), "{error}");
}

#[test]
fn wrong_arguments_say_what_to_write() {
    let wrong = |args: &[&str], code: i32, parts: &[&str]| {
        let error = scale(args).expect(code).stderr;
        parts.iter().for_each(|part| assert!(error.contains(part), "{part:?} in {error}"));
    };
    wrong(&[], 1, &["`scale` takes 3 arguments, 2 are given", "2 y (8 bytes)"]);
    wrong(&["--arg", "u32:1"], 1, &["argument 2 has 4 bytes, parameter `y` has 8", "write u64:"]);
    wrong(&["--arg", "zeros"], 2, &["`zeros` has no kind"]);
    wrong(&["--arg", "random:8"], 2, &["write `random-f32:8`"]);
    wrong(&["--arg", "zeros:512", "--print", "z"], 1, &["unknown buffer `z`", "the buffers are x, y"]);
    wrong(&["--arg", "map:z,f32,16x8,8x8,0"], 1, &["unknown buffer `z`"]);
    wrong(&["--arg", "map:x,f32,99x8,8x8,0"], 1, &["over `x`, which has 512 bytes"]);
    wrong(&["--arg", "map:1,f32,16x8,8x3,0"], 1, &["boxDim[0] is 12 bytes"]);
    wrong(&["--arg", "map:1,f32,16x8,8x8,0"], 1, &["argument 2 has 128 bytes, parameter `y` has 8"]);
    wrong(&["--arg", "file:/nowhere"], 1, &["/nowhere: "]);
    let (_folder, path) = file(SCALE);
    let error =
        skipc_ptx(&path, &["--arg", "f32:1", "--arg", "zeros:4", "--arg", "zeros:8"]).expect(1).stderr;
    assert!(error.contains(".reqntid") && error.contains("--block"), "{error}");
    let sizes = |name: &str, sizes: &str| {
        let args = [name, sizes, "--arg", "f32:1", "--arg", "zeros:4", "--arg", "zeros:8"];
        skipc_ptx(&path, &args)
    };
    let error = sizes("--grid", "a").expect(2).stderr;
    assert!(error.contains("`a` is not a size"), "{error}");
    let error = sizes("--block", "2048").expect(1).stderr;
    assert!(error.contains("cannot be started") && error.contains("2048 threads a block"), "{error}");
}

#[test]
fn wrong_texts_are_shown_with_their_line() {
    let (_folder, path) = file(&SCALE.replace("mul.rn.f32 %f3", "mull.f32 %f3"));
    let ran = skipc_ptx(&path, SCALE_ARGS).expect(1);
    for part in ["does not know `mull.f32`", "kernel.ptx:20", "mull.f32 %f3, %f1, %f2;", "--forms"] {
        assert!(ran.stderr.contains(part), "{part:?} in {}", ran.stderr);
    }
    let json = skipc_ptx(&path, &[SCALE_ARGS, &["--json"]].concat()).expect(1).json();
    assert_eq!(json["error"]["line"], 20);
    let listed = skipc_ptx(&path, &["--list"]).expect(0).stdout;
    assert!(listed.contains("cannot be run") && listed.contains("mull.f32"), "{listed}");

    let (_folder, path) = file(&SCALE.replace("ld.param.u64 %rd2, [y];", "ld.param.u64 %rd2 [y];"));
    let error = skipc_ptx(&path, SCALE_ARGS).expect(1).stderr;
    assert!(error.contains("kernel.ptx:11"), "{error}");

    let error = skipc_ptx(Path::new("/nowhere.ptx"), &[]).expect(1).stderr;
    assert!(error.contains("/nowhere.ptx: "), "{error}");
}

#[test]
fn forms_are_listed_without_a_file() {
    let output = Command::new(env!("CARGO_BIN_EXE_skipc-ptx")).arg("--forms").output().expect("it starts");
    assert_eq!(String::from_utf8(output.stdout).expect("text"), skipc_ptx::forms::list());
    assert_eq!(output.status.code(), Some(0));
}

/// The gathered matmul of the other tests, from the command line: 128 listed rows, 128 columns, K of 128.
#[test]
fn the_gathered_matmul_runs_from_the_command_line() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/gemm_gather_d0.ptx");
    let rows: Vec<String> = (0..128).map(|row| (127 - row).to_string()).collect();
    let rows = format!("rows=u32s:{}", rows.join(","));
    let base = ["--shared", "163904", "--seed", "0", "--counters", "--buffer", "b=integers-bf16:128x128"];
    let args = |map: &'static str| {
        let args =
            ["--arg", "a=integers-bf16:128x128", "--arg", &rows, "--arg", "count=u32s:128", "--arg", map];
        [&base[..], &args, &["--arg", "d=poison-bf16:128x128", "--arg", "u32:128", "--arg", "u32:128"]]
            .concat()
    };
    let ran =
        skipc_ptx(&path, &[args("map:b,bf16,128x128,128x64,128"), vec!["--print", "d:4"]].concat()).expect(0);
    assert!(ran.stdout.contains("gemm_gather: no fault in schedule 0"), "{}", ran.stdout);
    assert!(ran.stdout.contains("2097152 MACs"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("NaN"), "{}", ran.stdout);

    // A box of half the rows announces fewer bytes than the kernel waits for.
    let ran = skipc_ptx(&path, &args("map:b,bf16,128x128,64x64,128")).expect(3);
    assert!(ran.stdout.contains("deadlock"), "{}", ran.stdout);
    assert!(ran.stdout.contains("mbarrier"), "{}", ran.stdout);
}
