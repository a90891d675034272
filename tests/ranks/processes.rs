//! Runs under `mpirun`: what they leave, and how they end.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::BOUNDS;
use super::runs::compare;

/// A model with its configuration and data, to train for so many steps on two ranks.
fn project(steps: u32) -> tempfile::TempDir {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/training/text");
    for name in ["spec.toml", "text.txt"] {
        std::fs::copy(case.join(name), folder.join(name)).unwrap();
    }
    let config = std::fs::read_to_string(case.join("train.toml")).unwrap();
    let steps = format!("steps = {steps}");
    // Two rows a rank, and three windows that are held out.
    let config = config.replace("steps = 6", &steps).replace("batch = 5", "batch = 4");
    std::fs::write(folder.join("train.toml"), config.replace("validation = 0.1", "validation = 0.12"))
        .unwrap();
    temporary
}

/// Changes the configuration and writes it to a file of this name.
fn configure(folder: &Path, name: &str, from: &str, to: &str) {
    let config = std::fs::read_to_string(folder.join("train.toml")).unwrap();
    let changed = config.replacen(from, to, 1);
    assert_ne!(changed, config, "{from}");
    std::fs::write(folder.join(name), changed).unwrap();
}

/// `skipc train` and what follows it, in one process.
fn alone(folder: &Path, config: &str, out: &str, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skipc"));
    command.current_dir(folder).args(["train", "spec.toml", "--config", config, "-o", out]).args(options);
    for name in ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"] {
        command.env_remove(name);
    }
    command
}

/// The same under `mpirun`; with a configuration for each of so many ranks.
fn ranks(folder: &Path, configs: &[(u32, &str)], out: &str, options: &[&str]) -> Command {
    let mut command = Command::new("mpirun");
    command.current_dir(folder).env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.args(["--oversubscribe", "--bind-to", "none", "--mca", "btl", "self,vader"]);
    for (idx, (count, config)) in configs.iter().enumerate() {
        if idx > 0 {
            command.arg(":");
        }
        command.args(["-n", &count.to_string(), env!("CARGO_BIN_EXE_skipc"), "train", "spec.toml"]);
        command.args(["--config", config, "-o", out]).args(options);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn two(folder: &Path, out: &str, options: &[&str]) -> Command {
    ranks(folder, &[(2, "train.toml")], out, options)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// What a run that fails says; once, whatever its ranks have to say.
fn fails(mut command: Command, code: &str) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = text(&stderr);
    assert!(!status.success(), "{}{said}", text(&stdout));
    let heads = said.lines().filter(|line| line.starts_with("train::") || line.starts_with("run::"));
    assert_eq!(heads.collect::<Vec<_>>(), [code], "{said}");
    said
}

fn weights(folder: &Path, out: &str) -> Vec<u8> {
    std::fs::read(folder.join(out).join("weights.safetensors")).unwrap()
}

fn checkpoints(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_checkpoint =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-"));
    let mut found: Vec<PathBuf> = entries.filter(is_checkpoint).collect();
    found.sort();
    found
}

fn wait_for_checkpoint(run: &mut Child, folder: &Path) {
    let began = Instant::now();
    while checkpoints(folder).len() < 2 {
        assert!(run.try_wait().unwrap().is_none(), "the run ended before its first checkpoint");
        assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint comes");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The process of a rank of the run that trains into `folder`.
fn process_of(folder: &Path, rank: u32) -> u32 {
    let variable = format!("OMPI_COMM_WORLD_RANK={rank}");
    let found = std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let path = entry.path();
        let process = entry.file_name().to_string_lossy().parse().ok()?;
        let has = std::fs::read(path.join("environ"))
            .ok()?
            .split(|byte| *byte == 0)
            .any(|it| it == variable.as_bytes());
        (has && std::fs::read_link(path.join("cwd")).ok()? == folder.canonicalize().ok()?).then_some(process)
    });
    found.expect("the rank should run")
}

fn signal(name: &str, process: u32) {
    let sent = Command::new("kill").args([name, &process.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// What a run said until it ended, and whether it succeeded.
fn end_of(mut run: Child) -> (String, String, bool) {
    let (mut out, mut error) = (String::new(), String::new());
    run.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    run.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    (out, error, run.wait().unwrap().success())
}

#[test]
fn two_ranks_are_one() {
    for target in [&[][..], &["--cpu-backend", "cranelift"], &["--target", "interpreter"]] {
        let temporary = project(4);
        let folder = temporary.path();
        configure(folder, "train.toml", "seed = 2", "seed = 2\nmicrobatch = 1");
        succeeds(alone(folder, "train.toml", "one", &[&["--record", "record-of-one"], target].concat()));
        let said = succeeds(two(folder, "two", &[&["--record", "record-of-two"], target].concat()));
        compare(&folder.join("record-of-one"), &folder.join("record-of-two"), &BOUNDS);
        // The first rank alone has written, and said anything.
        assert_eq!(said.matches("4 of 4 steps").count(), 1, "{said}");
        let log = std::fs::read_to_string(folder.join("two/log.jsonl")).unwrap();
        assert_eq!(log.lines().count(), 5, "{log}");
        if target.is_empty() {
            succeeds(two(folder, "again", &[]));
            assert!(weights(folder, "two") == weights(folder, "again"), "two runs on two ranks differ");
        }
    }
}

#[test]
fn ranks_learn_from_a_teacher_as_one_process_does() {
    let temporary = project(3);
    let folder = temporary.path();
    let init = ["init", "spec.toml", "-o", "teacher.safetensors", "--seed", "9"];
    let made = Command::new(env!("CARGO_BIN_EXE_skipc")).current_dir(folder).args(init).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let teacher =
        "[distill]\nspec = \"spec.toml\"\nweights = \"teacher.safetensors\"\ntemperature = 2.0\n\n[init]";
    configure(folder, "train.toml", "[init]", teacher);
    succeeds(alone(folder, "train.toml", "one", &["--record", "record-of-one"]));
    succeeds(two(folder, "two", &["--record", "record-of-two"]));
    compare(&folder.join("record-of-one"), &folder.join("record-of-two"), &BOUNDS);
    let steps = std::fs::read_to_string(folder.join("record-of-two/steps.json")).unwrap();
    let steps: serde_json::Value = serde_json::from_str(&steps).unwrap();
    assert!(steps["steps"][0]["kl"].as_f64().is_some_and(|kl| kl > 0.0), "{steps}");
}

#[test]
fn a_rank_that_is_killed_ends_all_and_the_run_goes_on_to_the_same_bytes() {
    let temporary = project(40);
    let folder = temporary.path();
    succeeds(two(folder, "whole", &[]));
    for rank in [0, 1] {
        let out = format!("killed-{rank}");
        let mut run = two(folder, &out, &["--save-every", "1"]).spawn().unwrap();
        wait_for_checkpoint(&mut run, &folder.join(&out));
        let process = process_of(folder, rank);
        let began = Instant::now();
        signal("-KILL", process);
        let (_, error, success) = end_of(run);
        assert!(began.elapsed() < Duration::from_secs(30), "{error}");
        assert!(!success);
        assert!(error.contains(&format!("rank {rank} (process {process} on ")), "{error}");
        assert_eq!(error.matches("train::rank_died").count(), 1, "{error}");
        succeeds(two(folder, &out, &["--resume"]));
        assert!(weights(folder, &out) == weights(folder, "whole"), "killed rank {rank}");
    }
}

#[test]
fn a_rank_that_stops_is_noticed() {
    let temporary = project(100_000);
    let folder = temporary.path();
    let mut run = two(folder, "out", &["--save-every", "1"]).spawn().unwrap();
    wait_for_checkpoint(&mut run, &folder.join("out"));
    let process = process_of(folder, 1);
    signal("-STOP", process);
    let began = Instant::now();
    let (_, error, success) = end_of(run);
    assert!(!success && began.elapsed() < Duration::from_secs(30), "{error}");
    let wanted = format!("rank 1 (process {process} on ");
    assert!(error.contains(&wanted) && error.contains("no sign of life"), "{error}");
}

#[test]
fn a_rank_that_is_asked_to_end_ends_all_at_one_step() {
    let temporary = project(400);
    let folder = temporary.path();
    let mut run = two(folder, "out", &["--save-every", "1"]).spawn().unwrap();
    wait_for_checkpoint(&mut run, &folder.join("out"));
    signal("-TERM", process_of(folder, 1));
    let (said, error, success) = end_of(run);
    assert!(success, "{error}");
    assert!(said.contains("to go on: skipc train spec.toml --config train.toml -o out --resume"), "{said}");
    let done: u64 = said.split("train-text: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(done < 400);
    let last = checkpoints(&folder.join("out")).pop().unwrap();
    assert!(last.ends_with(format!("step-{done:08}.safetensors")), "{} {done}", last.display());
}

#[test]
fn another_number_of_ranks_may_go_on() {
    let temporary = project(4);
    let folder = temporary.path();
    succeeds(alone(folder, "train.toml", "one", &["--record", "record-of-one"]));
    configure(folder, "half.toml", "steps = 4", "steps = 2");
    let of_two = &[(2, "half.toml")];
    succeeds(ranks(folder, of_two, "out", &[]));
    succeeds(alone(folder, "train.toml", "out", &["--resume", "--override", "train.steps"]));
    let read = |path: &str| super::runs::tensors(&folder.join(path));
    let before = read("record-of-one/weights.safetensors");
    let (ours, theirs) = (read("out/weights.safetensors"), read("one/weights.safetensors"));
    for (name, theirs) in &theirs {
        let change = |after: &[f32]| -> Vec<f32> {
            after.iter().zip(&before[name]).map(|(after, before)| after - before).collect()
        };
        let off = super::runs::distance(&change(&ours[name]), &change(theirs));
        assert!(off <= BOUNDS.change, "the change of {name} is off by {off:e}");
    }
}

#[test]
fn what_is_wrong_is_said_once() {
    let temporary = project(2);
    let folder = temporary.path();
    let said = fails(ranks(folder, &[(3, "train.toml")], "out", &[]), "train::batch");
    assert!(said.contains("no multiple of 3") && said.contains("batch = 4"), "{said}");
    configure(folder, "other.toml", "lr = 5e-3", "lr = 6e-3");
    let differ = [(1, "train.toml"), (1, "other.toml")];
    let said = fails(ranks(folder, &differ, "out", &[]), "train::ranks_differ");
    assert!(said.contains("rank 1 (process") && said.contains("`optimizer.lr` is 0.006"), "{said}");
    let text = std::fs::read_to_string(folder.join("text.txt")).unwrap();
    std::fs::write(folder.join("other.txt"), text.replacen('e', "a", 1)).unwrap();
    configure(folder, "other.toml", "text.txt", "other.txt");
    let said = fails(ranks(folder, &differ, "out", &[]), "train::ranks_differ");
    assert!(said.contains("the data differs"), "{said}");
    // A file that one rank alone does not find.
    configure(folder, "other.toml", "text.txt", "nowhere.txt");
    let said = fails(ranks(folder, &differ, "out", &[]), "run::io");
    assert!(said.contains("rank 1 (process") && said.contains("nowhere.txt"), "{said}");
    assert!(!folder.join("out").exists(), "nothing has begun");
}

#[test]
fn ranks_that_mpi_knows_nothing_of_do_not_train() {
    let temporary = project(2);
    let folder = temporary.path();
    for (variables, wanted) in [
        (&[("RANK", "1"), ("WORLD_SIZE", "2")][..], "mpirun -n 2 skipc train"),
        (&[("PMI_RANK", "1"), ("PMI_SIZE", "2"), ("RANK", "0"), ("WORLD_SIZE", "2")], "contradict"),
        (&[("SLURM_PROCID", "1"), ("SLURM_NTASKS", "2")], "MPI that it is rank 0 of 1"),
    ] {
        let mut command = alone(folder, "train.toml", "out", &[]);
        command.envs(variables.iter().copied());
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        let said = fails(command, "train::ranks").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.replace("│ ", "").contains(wanted), "{said}");
    }
    assert!(!folder.join("out").exists(), "nothing has begun");
}
