//! Commands that are killed at random moments: what they write is as it was or whole, the next one does not mind, and leaves
//! nothing of those that were killed.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use skipc_testkit::random::Rng;

use super::commands::writer;
use super::inputs::{input, skipc};
use super::ledger::{self, everything, setting};
use super::outputs::{Outputs, Tree, earlier, is_temporary, wrong};

const SEED: u64 = 20_261_130;

/// How often each command is killed.
fn times() -> u64 {
    if everything() { 1000 } else { 25 }
}

/// Random moments of a time that something takes, and a little beyond its end.
struct Moments {
    rng: Rng,
    length: Duration,
    n: u64,
}

impl Moments {
    fn of(name: &str, length: Duration) -> Moments {
        let seed = setting("FAULTS_SEED", SEED);
        let rng = Rng::new(name.bytes().fold(seed, |hash, byte| hash.wrapping_mul(257) + u64::from(byte)));
        Moments { rng, length, n: 0 }
    }

    /// Every other moment is a while, at most two milliseconds, after a file is there or has changed: writing is a small part of
    /// what a command does.
    fn next(&mut self) -> Moment {
        let share = self.rng.below(1 << 16) as f64 / 65536.0;
        self.n += 1;
        match self.n % 2 {
            0 => Moment { is_writing: true, after: Duration::from_millis(2).mul_f64(share) },
            _ => Moment { is_writing: false, after: self.length.mul_f64(1.05 * share) },
        }
    }
}

/// When a command is killed.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// Whether the time begins where a file changes, and not where the command begins.
    is_writing: bool,
    after: Duration,
}

/// Starts a command and kills it; says whether it was still running.
fn killed(args: &[String], outputs: &Outputs, folder: &str, moment: Moment) -> bool {
    let mut command = skipc(args);
    let command = command.env("TMPDIR", outputs.temporary()).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let folder = outputs.path().join(folder);
    let files = || -> Vec<_> {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter_map(|entry| {
                let now = entry.metadata().ok()?;
                now.is_file().then(|| (entry.file_name(), now.len(), now.modified().ok()))
            })
            .collect();
        found.sort();
        found
    };
    let before = files();
    while moment.is_writing && files() == before && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_micros(20));
    }
    std::thread::sleep(moment.after);
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

#[track_caller]
fn succeeds(args: &[String], temporary: &Path) -> Duration {
    let begun = Instant::now();
    let output = skipc(args).env("TMPDIR", temporary).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    begun.elapsed()
}

/// Kills a command again and again; each time in a campaign, and every `pause`th time in a test run, it then runs to its end.
fn kill(name: &str, pause: u64) {
    let pause = if everything() { 1 } else { pause };
    let (writer, outputs, began) = (writer(name), Outputs::with(&Tree::new()), Instant::now());
    let args = writer.args(outputs.path());
    let length = (0..3).map(|_| succeeds(&args, &outputs.temporary())).min().unwrap();
    let whole = outputs.tree();
    let before = earlier(&whole);
    let (mut moments, mut n_killed, mut n_left) = (Moments::of(name, length), 0, 0);
    outputs.put(&before);
    for time in 1..=times() {
        let moment = moments.next();
        n_killed += u64::from(killed(&args, &outputs, "", moment));
        let found = wrong(&before, &whole, &outputs.tree(), true);
        assert!(found.is_empty(), "{name}, killed after {moment:?}: {found:?}");
        if time % pause == 0 {
            n_left += outputs.tree().keys().filter(|name| is_temporary(name)).count();
            succeeds(&args, &outputs.temporary());
            let found = wrong(&Tree::new(), &whole, &outputs.tree(), false);
            assert!(found.is_empty(), "{name}, after one that was killed after {moment:?}: {found:?}");
            outputs.put(&before);
        }
    }
    println!("{name}: {n_killed} of {} were killed, {n_left} temporary files went with the next", times());
    assert!(3 * n_killed > times(), "{name}: only {n_killed} were killed");
    ledger::add(&format!("kills: {name}"), n_killed, began);
}

#[test]
fn a_compile_may_be_killed() {
    kill("compile", 5);
}

#[test]
fn a_run_may_be_killed() {
    kill("run", 5);
}

#[test]
fn a_tuning_may_be_killed() {
    kill("tune", 25);
}

/// A training run is killed some times in a row, and goes on from where it was each time.
#[test]
fn a_training_run_may_be_killed() {
    let (outputs, began) = (Outputs::with(&Tree::new()), Instant::now());
    let path = |name: &str| input(name).display().to_string();
    let train = |folder: &str, resume: bool| -> Vec<String> {
        let (spec, config) = (path("learns.toml"), path("train.toml"));
        let out = outputs.path().join(folder).display().to_string();
        let fixed = ["train", &spec, "--config", &config, "--target", "interpreter", "--save-every", "1"];
        let more = ["-o", &out, "--resume"];
        let words = fixed.iter().chain(&more[..if resume { 3 } else { 2 }]);
        words.map(|word| (*word).to_owned()).collect()
    };
    let weights = |folder: &str| outputs.tree().remove(&format!("{folder}/weights.safetensors"));
    let length = succeeds(&train("whole", false), &outputs.temporary());
    let wanted = weights("whole");
    assert!(wanted.is_some());
    let (mut moments, mut n_killed) = (Moments::of("train", length), 0);
    for round in 0..times() / 5 {
        let folder = format!("round-{round}");
        let has_checkpoint = || {
            let name = format!("{folder}/step-");
            let files = outputs.tree();
            files.keys().any(|file| {
                let of_moments = file.replace(".safetensors", ".optimizer.safetensors");
                file.starts_with(&name) && !file.contains("optimizer") && files.contains_key(&of_moments)
            })
        };
        for _ in 0..5 {
            let moment = moments.next();
            n_killed += u64::from(killed(&train(&folder, has_checkpoint()), &outputs, &folder, moment));
            if let Some(found) = weights(&folder) {
                assert!(Some(found) == wanted, "round {round}, killed after {moment:?}");
            }
        }
        succeeds(&train(&folder, has_checkpoint()), &outputs.temporary());
        assert!(weights(&folder) == wanted, "round {round}");
        let left: Vec<String> = outputs.tree().into_keys().filter(|name| is_temporary(name)).collect();
        assert!(left.is_empty(), "round {round}: {left:?}");
        std::fs::remove_dir_all(outputs.path().join(&folder)).unwrap();
    }
    println!("train: {n_killed} of {} were killed", times());
    assert!(3 * n_killed > times(), "only {n_killed} were killed");
    ledger::add("kills: train", n_killed, began);
}
