//! Signatures of artefacts: with `--trust`, every command that calls code of an artefact runs what a known key signed, as it was
//! signed, and nothing else.
#![cfg(all(feature = "cranelift", unix))]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

const GOLDEN: &str = "tests/golden/gumbel";

/// Of `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout`.
const OF_OPENSSL: [&str; 2] = [
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIACxkQlshsVZxCaLhMgzgILhJjYl15zLQcblUjJU7OOr\n-----END PRIVATE KEY-----\n",
    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAf0hNrFdgcNK6litueyAZr5S5gPg+Ya8UvdC61yxcmWU=\n-----END PUBLIC KEY-----\n",
];

/// Two artefacts, `m.skp` and `other.skp`, and two keys, `mine` and `theirs`.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(TempDir::new().unwrap());
        for (from, to) in [("spec.toml", "spec.toml"), ("weights.safetensors", "w"), ("tokens.npy", "t.npy")]
        {
            fs::copy(format!("{GOLDEN}/{from}"), folder.path(to)).unwrap();
        }
        let compile = ["compile", "spec.toml", "--cpu-backend", "cranelift", "--max-tokens", "128"];
        folder.succeeds(&[&compile[..], &["--weights", "w", "-o", "m.skp"]].concat());
        folder.succeeds(&["init", "spec.toml", "-o", "w2", "--seed", "1"]);
        folder.succeeds(&[&compile[..], &["--weights", "w2", "-o", "other.skp"]].concat());
        for key in ["mine", "theirs"] {
            folder.succeeds(&["sign", "--new-key", key]);
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn skipc(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skipc"));
        command.args(args).env("NO_COLOR", "1").current_dir(self.0.path()).output().unwrap()
    }

    #[track_caller]
    fn succeeds(&self, args: &[&str]) -> String {
        let output = self.skipc(args);
        assert!(output.status.success(), "skipc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn refuses(&self, args: &[&str], code: &str) {
        let output = self.skipc(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "skipc {args:?}: {said}");
        assert!(said.contains(code), "skipc {args:?}: {said}");
    }
}

/// All that call code of an artefact.
const RUNNING: &[&[&str]] = &[
    &["run", "m.skp", "--tokens", "t.npy"],
    &["generate", "m.skp", "--tokens", "t.npy", "--max-new-tokens", "1"],
    &["eval", "m.skp", "--tokens", "t.npy"],
    &["verify", "m.skp", "--weights", "w"],
    &["inspect", "m.skp", "--tokens", "t.npy"],
    &["bench", "m.skp", "--weights", "w", "--rounds", "1", "--density", "1", "--forms", "fused"],
    &["profile", "m.skp", "--rounds", "1", "--density", "1", "--tokens", "8"],
    &["trace", "record", "m.skp", "--tokens", "t.npy", "-o", "x.trace"],
];

#[test]
fn what_a_trusted_key_signed_runs_and_nothing_else() {
    let folder = Folder::new();
    let trusting = |args: &&[&'static str], keys| [args, &["--trust", keys][..]].concat();
    for args in RUNNING {
        folder.refuses(&trusting(args, "mine.pub"), "artifact::unsigned");
    }
    folder.refuses(&["serve", "m.skp", "--port", "0", "--trust", "mine.pub"], "artifact::unsigned");

    let said = folder.succeeds(&["sign", "m.skp", "--key", "mine"]);
    assert!(said.starts_with("m.skp.sig: signed with the key "), "{said}");
    for args in RUNNING {
        folder.succeeds(&trusting(args, "mine.pub"));
        folder.refuses(&trusting(args, "theirs.pub"), "artifact::signature");
    }
    folder.refuses(&["serve", "m.skp", "--port", "0", "--trust", "theirs.pub"], "artifact::signature");
    let keys = ["theirs.pub", "mine.pub"].map(|name| fs::read(folder.path(name)).unwrap());
    fs::write(folder.path("keys.pem"), keys.concat()).unwrap();
    folder.succeeds(&trusting(&RUNNING[0], "keys.pem"));

    // Another artefact in its place, as one compiled again is.
    fs::copy(folder.path("other.skp"), folder.path("m.skp")).unwrap();
    for args in RUNNING {
        folder.refuses(&trusting(args, "mine.pub"), "artifact::signature");
    }
    folder.succeeds(RUNNING[0]);
}

/// A change of constants in a second file is found by its hashes, which were signed.
#[test]
fn constants_in_a_second_file_are_signed_too() {
    let folder = Folder::new();
    let compile = ["compile", "spec.toml", "--weights", "w", "--cpu-backend", "cranelift"];
    let more = ["--max-tokens", "128", "--external-weights", "-o", "e.skp"];
    folder.succeeds(&[&compile[..], &more].concat());
    folder.succeeds(&["sign", "e.skp", "--key", "mine"]);
    let run = ["run", "e.skp", "--tokens", "t.npy", "--trust", "mine.pub"];
    folder.succeeds(&run);
    let mut constants = fs::read(folder.path("e.skw")).unwrap();
    constants[100] ^= 1;
    fs::write(folder.path("e.skw"), constants).unwrap();
    folder.refuses(&run, "artifact::external");
    folder.refuses(&["sign", "e.skp", "--key", "mine"], "artifact::external");
}

#[test]
fn keys_are_kept() {
    let folder = Folder::new();
    let mode = |name: &str| fs::metadata(folder.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("mine"), 0o600);
    let secret = fs::read(folder.path("mine")).unwrap();
    folder.refuses(&["sign", "--new-key", "mine"], "artifact::io");
    assert_eq!(fs::read(folder.path("mine")).unwrap(), secret);
    // Where the public key cannot be written, no secret one is left.
    fs::create_dir(folder.path("third.pub")).unwrap();
    folder.refuses(&["sign", "--new-key", "third"], "artifact::io");
    assert!(!folder.path("third").exists());
    folder.refuses(&["sign", "m.skp", "--key", "mine.pub"], "artifact::key");
    folder.refuses(&["sign", "spec.toml", "--key", "mine"], "artifact::magic");
    folder.refuses(&["run", "m.skp", "--tokens", "t.npy", "--trust", "mine"], "artifact::key");
    for args in
        [&["sign"][..], &["sign", "m.skp"], &["sign", "--key", "mine"], &["sign", "m.skp", "--new-key", "x"]]
    {
        assert_eq!(folder.skipc(args).status.code(), Some(2), "{args:?}");
    }
}

/// Where nothing of an artefact runs, there is nothing to trust.
#[test]
fn an_option_without_use_is_refused() {
    let folder = Folder::new();
    for args in [
        &["inspect", "m.skp", "--trust", "mine.pub"][..],
        &["bench", "spec.toml", "--rounds", "1", "--trust", "mine.pub"],
        &["bench", "spec.toml", "--decode", "--rounds", "1", "--trust", "mine.pub"],
        &["bench", "spec.toml", "--group-size", "16", "--rounds", "1", "--trust", "mine.pub"],
    ] {
        let output = folder.skipc(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains("--t"), "{args:?}: {said}");
    }
}

#[test]
fn keys_of_openssl_sign_and_are_trusted() {
    let folder = Folder::new();
    for (name, text) in ["s.pem", "p.pem"].into_iter().zip(OF_OPENSSL) {
        fs::write(folder.path(name), text).unwrap();
    }
    let said = folder.succeeds(&["sign", "m.skp", "--key", "s.pem", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["public_key"], "7f484dac576070d2ba962b6e7b2019af94b980f83e61af14bdd0bad72c5c9965");
    folder.succeeds(&["run", "m.skp", "--tokens", "t.npy", "--trust", "p.pem"]);
}
