//! `skipc sign`: says who made an artefact.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use serde_json::json;
use skipc_artifact::signature::{SecretKey, beside};
use skipc_runtime::Model;

use super::to_json;
use crate::diagnostic::Diagnostic;
use crate::error::Error;

/// Arguments of `skipc sign`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["key", "new_key"]))]
pub struct SignArgs {
    /// Artefact. It is read and checked whole; none of its code is called.
    #[arg(value_name = "M.skp", required_unless_present = "new_key")]
    pub artifact: Option<PathBuf>,

    /// Secret key (Ed25519, PKCS#8 in PEM), as `--new-key` or `openssl genpkey -algorithm ed25519` makes it.
    #[arg(long, value_name = "SECRET.pem", requires = "artifact")]
    pub key: Option<PathBuf>,

    /// Where to write the signature [default: M.skp.sig, where `--trust` looks for it].
    #[arg(short, long, value_name = "M.skp.sig", requires = "key")]
    pub output: Option<PathBuf>,

    /// Make a key instead: the secret one goes to this file, which only you can read and which may not be there yet, and the
    /// public one, for those who trust you, to SECRET.pem.pub.
    #[arg(long, value_name = "SECRET.pem", conflicts_with_all = ["artifact", "key"])]
    pub new_key: Option<PathBuf>,
}

pub(super) fn run(args: &SignArgs, json: bool) -> Result<String, Error> {
    match (&args.new_key, &args.artifact, &args.key) {
        (Some(path), ..) => new_key(path, json),
        (None, Some(artifact), Some(key)) => sign(artifact, key, args.output.as_deref(), json),
        // The parser of the command line has one of the two.
        (None, ..) => {
            let message = "give an artefact and `--key SECRET.pem`, or `--new-key SECRET.pem`";
            Err(Diagnostic::new("usage::sign", message).into())
        }
    }
}

fn sign(artifact: &Path, key: &Path, output: Option<&Path>, json: bool) -> Result<String, Error> {
    let key = SecretKey::read(key)?;
    let model = Model::open(artifact)?;
    let text = key.sign(model.artifact().preamble()).map_err(|error| Error::in_artifact(artifact, &error))?;
    let output = output.map_or_else(|| beside(artifact), Path::to_owned);
    skipc_artifact::replace::bytes(&output, text.as_bytes())
        .map_err(|error| Error::in_artifact(&output, &error))?;
    let (output, public) = (output.display(), key.public());
    match json {
        true => to_json(&json!({
            "artifact": artifact.display().to_string(),
            "output": output.to_string(),
            "public_key": public,
        })),
        false => Ok(format!("{output}: signed with the key {public}\n")),
    }
}

fn new_key(path: &Path, json: bool) -> Result<String, Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| {
        Diagnostic::new("sign::random", format!("the system gives no random numbers: {error}"))
    })?;
    let key = SecretKey::of_random(seed);
    let (secret, public) = key.to_pem()?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".pub");
    let beside = PathBuf::from(beside);
    create(path, &secret, 0o600)?;
    // A secret key without its public one is of no use to anyone.
    create(&beside, &public, 0o644).inspect_err(|_| drop(std::fs::remove_file(path)))?;
    match json {
        true => to_json(&json!({
            "secret_key": path.display().to_string(),
            "public_key_file": beside.display().to_string(),
            "public_key": key.public(),
        })),
        false => Ok(format!(
            "{}: the secret key, for `skipc sign --key`; keep it to yourself\n{}: the public key, for `--trust`: {}\n",
            path.display(),
            beside.display(),
            key.public()
        )),
    }
}

/// Writes a file that is not there yet: a key that was lost cannot be made again.
fn create(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    skipc_artifact::replace::new_file(path, mode, text.as_bytes())
        .map_err(|error| Error::in_artifact(path, &error))
}
