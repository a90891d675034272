//! Signatures of artefacts: who made a file, for those who get it from others.
//!
//! An artefact is code, so whoever runs one trusts whoever wrote it. A signature (Ed25519, RFC 8032) lies beside its artefact, in
//! a file of the same name and `.sig`:
//!
//! ```text
//! skipc-signature 1
//! key <64 hex digits>                   the public key
//! signature <128 hex digits>            of the first line and the fixed lines of the artefact
//! ```
//!
//! The fixed lines have the hash of the header, which has the hashes of all sections, those in a second file too: every byte
//! that an artefact is made of is signed. Keys lie in PEM files (RFC 8410), as `openssl genpkey -algorithm ed25519` writes them.

use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::container::PREAMBLE_LENGTH;
use crate::error::Error;
use crate::{hex, regular};

const FIRST_LINE: &str = "skipc-signature 1\n";

/// Largest file of keys or of a signature, in bytes.
const FILE_LIMIT: u64 = 1 << 16;

/// Where the signature of an artefact lies.
#[must_use]
pub fn beside(artifact: &Path) -> PathBuf {
    let mut name = artifact.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// The key with which its owner signs.
pub struct SecretKey {
    key: SigningKey,
}

impl SecretKey {
    /// The key of 32 bytes, which have to be random.
    #[must_use]
    pub fn of_random(bytes: [u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(&bytes) }
    }

    /// Reads a secret key (PKCS#8, PEM).
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Key`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = read_text(path)?;
        let key = SigningKey::from_pkcs8_pem(&text).map_err(|error| {
            let reason = match text.contains("BEGIN PUBLIC KEY") {
                true => "it is a public key; to sign takes the secret one".into(),
                false => format!("it is not a secret Ed25519 key in PEM ({error})"),
            };
            Error::Key { path: path.into(), reason }
        })?;
        Ok(Self { key })
    }

    /// The PEM texts of this key and of its public one.
    ///
    /// # Errors
    ///
    /// [`Error::Key`] if the key cannot be encoded, which no key of 32 bytes is.
    pub fn to_pem(&self) -> Result<(String, String), Error> {
        let failed = |reason: String| Error::Key { path: PathBuf::new(), reason };
        let secret = self.key.to_pkcs8_pem(LineEnding::LF).map_err(|error| failed(error.to_string()))?;
        let public = self.key.verifying_key().to_public_key_pem(LineEnding::LF);
        Ok((secret.to_string(), public.map_err(|error| failed(error.to_string()))?))
    }

    /// The 64 hex digits of the public key.
    #[must_use]
    pub fn public(&self) -> String {
        digits(self.key.verifying_key().as_bytes())
    }

    /// The text of a signature of an artefact, of which the fixed lines are looked at. Its reader has checked it.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] for a file without them.
    pub fn sign(&self, artifact: &[u8]) -> Result<String, Error> {
        let signature = self.key.sign(&signed(artifact)?);
        Ok(format!("{FIRST_LINE}key {}\nsignature {}\n", self.public(), digits(&signature.to_bytes())))
    }
}

/// Whose artefacts are run.
#[derive(Clone, Debug)]
pub struct Trust {
    path: PathBuf,
    keys: Vec<VerifyingKey>,
}

impl Trust {
    /// Reads one or more public keys (PEM, one after the other).
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Key`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = read_text(path)?;
        let wrong = |reason: String| Error::Key { path: path.into(), reason };
        let (begin, end) = ("-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----");
        let mut keys = Vec::new();
        for block in text.split_inclusive(end).filter(|block| !block.trim().is_empty()) {
            let at = block.find(begin).ok_or_else(|| {
                wrong(match block.contains("PRIVATE KEY") {
                    true => "it has a secret key; who trusts needs the public one alone".into(),
                    false => "it has something other than public keys in PEM".into(),
                })
            })?;
            let key = block.get(at..).map(VerifyingKey::from_public_key_pem);
            let key = key.and_then(Result::ok).ok_or_else(|| {
                wrong(format!("its key {} is not a public Ed25519 key in PEM", keys.len() + 1))
            })?;
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(wrong("it has no key".into()));
        }
        Ok(Self { path: path.into(), keys })
    }

    /// Checks that the artefact at `path`, whose bytes are in memory, was signed by one of the keys.
    ///
    /// # Errors
    ///
    /// [`Error::Unsigned`] without a signature beside it; [`Error::Signature`] for one of another artefact or another key.
    pub fn check(&self, path: &Path, artifact: &[u8]) -> Result<(), Error> {
        let beside = beside(path);
        let text = match regular::read_text(&beside, FILE_LIMIT) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::Unsigned { path: path.into(), signature: beside });
            }
            Err(source) => return Err(Error::Io { action: "read", path: beside, source }),
        };
        let wrong = |reason: String| Error::Signature { path: beside.clone(), reason };
        let (key, signature) =
            parse(&text).ok_or_else(|| wrong("it is not what `skipc sign` writes".into()))?;
        let trusted = self.keys.iter().find(|trusted| *trusted.as_bytes() == key).ok_or_else(|| {
            wrong(format!(
                "it was made with the key {}, which {} does not have",
                digits(&key),
                self.path.display()
            ))
        })?;
        trusted
            .verify_strict(&signed(artifact)?, &Signature::from_bytes(&signature))
            .map_err(|_| wrong("it is of another artefact, or was changed".into()))
    }
}

/// What is signed.
fn signed(artifact: &[u8]) -> Result<Vec<u8>, Error> {
    let fixed = artifact.get(..PREAMBLE_LENGTH).ok_or_else(|| Error::Truncated {
        what: "the preamble".into(),
        need: PREAMBLE_LENGTH as u64,
        have: artifact.len() as u64,
    })?;
    Ok([FIRST_LINE.as_bytes(), fixed].concat())
}

/// Key and signature; nothing for a text of any other shape.
fn parse(text: &str) -> Option<([u8; 32], [u8; 64])> {
    let rest = text.strip_prefix(FIRST_LINE)?.strip_prefix("key ")?;
    let (key, rest) = rest.split_once('\n')?;
    let signature = rest.strip_prefix("signature ")?.strip_suffix('\n')?;
    Some((hex::decode(key.as_bytes())?, hex::decode(signature.as_bytes())?))
}

fn digits(bytes: &[u8]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = hex::write(&mut text, bytes);
    text
}

fn read_text(path: &Path) -> Result<String, Error> {
    regular::read_text(path, FILE_LIMIT).map_err(|source| Error::Io {
        action: "read",
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with an artefact's fixed lines, its signature, and the keys that made it.
    fn signed_folder() -> (tempfile::TempDir, SecretKey, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let key = SecretKey::of_random([7; 32]);
        let artifact: Vec<u8> = (0..200).map(|byte| byte as u8).collect();
        std::fs::write(folder.path().join("m.skp.sig"), key.sign(&artifact).unwrap()).unwrap();
        let (secret, public) = key.to_pem().unwrap();
        std::fs::write(folder.path().join("secret.pem"), secret).unwrap();
        std::fs::write(folder.path().join("public.pem"), public).unwrap();
        (folder, key, artifact)
    }

    #[test]
    fn what_was_signed_is_trusted_and_nothing_else() {
        let (folder, key, mut artifact) = signed_folder();
        let path = |name: &str| folder.path().join(name);
        let trust = Trust::read(&path("public.pem")).unwrap();
        trust.check(&path("m.skp"), &artifact).unwrap();
        assert_eq!(SecretKey::read(&path("secret.pem")).unwrap().public(), key.public());
        for at in 0..PREAMBLE_LENGTH {
            artifact[at] ^= 1;
            assert_eq!(
                trust.check(&path("m.skp"), &artifact).unwrap_err().code(),
                "artifact::signature",
                "{at}"
            );
            artifact[at] ^= 1;
        }
        assert_eq!(trust.check(&path("other.skp"), &artifact).unwrap_err().code(), "artifact::unsigned");
        assert_eq!(trust.check(&path("m.skp"), &artifact[..50]).unwrap_err().code(), "artifact::truncated");
    }

    #[test]
    fn every_change_of_a_signature_is_refused() {
        let (folder, _, artifact) = signed_folder();
        let path = folder.path().join("m.skp");
        let trust = Trust::read(&folder.path().join("public.pem")).unwrap();
        let text = std::fs::read(beside(&path)).unwrap();
        for at in 0..text.len() {
            for other in [b'0', b'f', b'F', b'\n', 0xff] {
                let mut changed = text.clone();
                changed[at] = other;
                std::fs::write(beside(&path), &changed).unwrap();
                assert_eq!(trust.check(&path, &artifact).is_ok(), changed == text, "{at}: {other}");
            }
        }
        for length in 0..text.len() {
            std::fs::write(beside(&path), &text[..length]).unwrap();
            assert!(trust.check(&path, &artifact).is_err(), "{length}");
        }
    }

    #[test]
    fn several_keys_are_trusted_and_secret_ones_are_none() {
        let (folder, key, artifact) = signed_folder();
        let path = |name: &str| folder.path().join(name);
        let other = SecretKey::of_random([8; 32]).to_pem().unwrap();
        let keys = [other.1.clone(), key.to_pem().unwrap().1].concat();
        for (text, code) in [
            (keys.as_str(), None),
            (&other.1, Some("artifact::signature")),
            ("", Some("artifact::key")),
            (&other.0, Some("artifact::key")),
            (&keys[..keys.len() - 30], Some("artifact::key")),
            ("-----END PUBLIC KEY-----", Some("artifact::key")),
        ] {
            std::fs::write(path("keys.pem"), text).unwrap();
            let found =
                Trust::read(&path("keys.pem")).and_then(|trust| trust.check(&path("m.skp"), &artifact));
            assert_eq!(found.err().map(|error| error.code()), code, "{text}");
        }
        assert_eq!(SecretKey::read(&path("public.pem")).err().unwrap().code(), "artifact::key");
    }
}
