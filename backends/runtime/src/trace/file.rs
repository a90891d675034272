//! Traces to bytes and back, and against the run that replays them.

use std::path::Path;

use serde::Deserialize;
use skipc_artifact::manifest::Manifest;
use skipc_artifact::replace;

use super::{FORMAT, Provenance, Trace};
use crate::arrays::{self, Array, Arrays};
use crate::choices::Choices;
use crate::error::Error;
use crate::file::read_limited;

/// The entry of the metadata.
const KEY: &str = "skipc.trace";

/// What the names of the arrays of choices begin with.
const CHOICES: &str = "choices";

/// Largest file that is read, in bytes. In memory a decision takes eight times as much as in the file.
pub(crate) const FILE_LIMIT: u64 = 1 << 29;

/// What is read of the metadata before anything else, so that a later version is named as such.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, is no sound trace ([`Error::TraceFormat`]), or is of another version
    /// ([`Error::TraceVersion`]).
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(path, &read_limited(path, FILE_LIMIT)?)
    }

    /// [`Trace::read`] from memory; `path` is for errors only.
    ///
    /// # Errors
    ///
    /// As [`Trace::read`].
    pub fn parse(path: &Path, file: &[u8]) -> Result<Self, Error> {
        let format = |reason: String| Error::TraceFormat { path: path.into(), reason };
        let note = |error: serde_json::Error| format(format!("its metadata: {error}"));
        let arrays = Arrays::parse(file, KEY).map_err(format)?;
        let version: Version = serde_json::from_str(arrays.note()).map_err(note)?;
        if version.format != FORMAT {
            return Err(Error::TraceVersion { path: path.into(), found: version.format });
        }
        let provenance: Provenance = serde_json::from_str(arrays.note()).map_err(note)?;
        let lengths = arrays.u32s("lengths").map_err(format)?;
        let n: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
        let n = usize::try_from(n).map_err(|_| format(format!("it is of {n} tokens")))?;
        let choices = if arrays.has(CHOICES) { choices(&arrays, n).map_err(format)? } else { Vec::new() };
        let n_others = 1 + choices.len() + usize::from(!choices.is_empty());
        // All other arrays are gates, or one of these names is missing.
        let routers = 0..arrays.len().saturating_sub(n_others);
        let gates = routers.map(|router| arrays.decisions(&format!("gate.{router}"), n));
        let gates = gates.collect::<Result<_, _>>().map_err(format)?;
        Ok(Self { provenance, lengths, gates, choices })
    }

    /// The file's bytes.
    ///
    /// # Errors
    ///
    /// More routers than a file has room for.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut all = vec![("lengths".to_owned(), Array::of_u32(&self.lengths))];
        for (router, decisions) in self.gates.iter().enumerate() {
            all.push((format!("gate.{router}"), Array::of_bytes(arrays::pack_bits(decisions))));
        }
        if !self.choices.is_empty() {
            let of: Vec<u32> = self.choices.iter().map(|layer| layer.of).collect();
            all.push((CHOICES.to_owned(), Array::of_u32(&of)));
        }
        for (layer, choices) in self.choices.iter().enumerate() {
            all.push((format!("{CHOICES}.{layer}"), Array::of_bytes(arrays::pack_bits(&choices.taken))));
        }
        let failed = |reason| Error::TraceFormat { path: "the trace".into(), reason };
        arrays::to_bytes(KEY, &self.provenance, &all).map_err(failed)
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    ///
    /// As [`Trace::to_bytes`], or what the file system says.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let bytes = self.to_bytes()?;
        Ok(replace::bytes(path, &bytes)?)
    }

    /// The decisions, `[routers][n]`, for a batch of sequences of these lengths on a model with as many routers.
    /// `path` is for errors only.
    ///
    /// # Errors
    ///
    /// A trace of another model, or of sequences of other lengths.
    pub fn into_decisions(
        self,
        path: &Path,
        manifest: &Manifest,
        (routers, lengths): (usize, &[u32]),
    ) -> Result<Vec<Vec<u8>>, Error> {
        self.check(path, manifest, lengths)?;
        if self.gates.len() != routers {
            let path = path.to_path_buf();
            return Err(Error::TraceRouters { path, found: self.gates.len(), expected: routers });
        }
        Ok(self.gates)
    }

    /// The choices of experts for a batch of sequences of these lengths on a model whose layers have so many. `path` is for errors
    /// only.
    ///
    /// # Errors
    ///
    /// A trace of another model, of sequences of other lengths, or without choices.
    pub fn into_choices(
        self,
        path: &Path,
        manifest: &Manifest,
        (layers, lengths): (&[u32], &[u32]),
    ) -> Result<Vec<Choices>, Error> {
        self.check(path, manifest, lengths)?;
        let of: Vec<u32> = self.choices.iter().map(|layer| layer.of).collect();
        if of != layers {
            let words = |of: &[u32]| match of {
                [] => "no layers of experts".to_owned(),
                of => format!("layers of experts with {} choices", in_words(of)),
            };
            let (found, expected) = (words(&of), words(layers));
            return Err(Error::TraceExperts { path: path.to_path_buf(), found, expected });
        }
        Ok(self.choices)
    }

    /// Whether it is of this model and of sequences of these lengths.
    fn check(&self, path: &Path, manifest: &Manifest, lengths: &[u32]) -> Result<(), Error> {
        if self.provenance.spec_hash != manifest.spec_hash {
            let name = |model: &str, hash: &dyn std::fmt::Display| {
                format!("`{model}` (spec {:.12}…)", hash.to_string())
            };
            let found = name(&self.provenance.model, &self.provenance.spec_hash);
            let expected = name(&manifest.model, &manifest.spec_hash);
            return Err(Error::TraceModel { path: path.to_path_buf(), found, expected });
        }
        if self.lengths != lengths {
            let (found, expected) = (in_words(&self.lengths), in_words(lengths));
            return Err(Error::TraceLengths { path: path.to_path_buf(), found, expected });
        }
        Ok(())
    }
}

/// The choices of the layers of a file that has some.
fn choices(arrays: &Arrays<'_>, n: usize) -> Result<Vec<Choices>, String> {
    let layers = arrays.u32s(CHOICES)?;
    if layers.is_empty() || layers.contains(&0) {
        return Err(format!("`{CHOICES}` is of layers without choices"));
    }
    let layer = |(layer, of): (usize, &u32)| {
        let rows = n.checked_mul(*of as usize).ok_or_else(|| format!("layer {layer} has {of} choices"))?;
        Ok(Choices { of: *of, taken: arrays.decisions(&format!("{CHOICES}.{layer}"), rows)? })
    };
    layers.iter().enumerate().map(layer).collect()
}

/// Lengths of sequences as text: all of few, the first of many.
fn in_words(lengths: &[u32]) -> String {
    const SHOWN: usize = 8;
    let mut words: Vec<String> = lengths.iter().take(SHOWN).map(ToString::to_string).collect();
    if lengths.len() > SHOWN {
        words.push(format!("… ({} in all)", lengths.len()));
    }
    if words.is_empty() { "none".into() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use skipc_artifact::section::ContentHash;

    use super::*;
    use crate::trace::{Decider, Recipe};

    fn trace() -> Trace {
        let routers = [Decider::Free, Decider::Constant(true), Decider::SameAs(0), Decider::Free];
        let recipe = Recipe { densities: vec![0.5, 0.5, 0.25], skew: 1.0, seed: 3 };
        Trace::generated(("tiny", ContentHash::of(b"spec")), &routers, vec![3, 0, 8], recipe).unwrap()
    }

    fn parse(file: &[u8]) -> Result<Trace, Error> {
        Trace::parse(Path::new("x.trace"), file)
    }

    fn code(file: &[u8]) -> &'static str {
        parse(file).expect_err("the file is unsound").code()
    }

    /// A file with other metadata or arrays than a trace's own.
    fn forged(note: &str, all: &[(&str, Array)]) -> Vec<u8> {
        let note: serde_json::Value = serde_json::from_str(note).unwrap();
        let all: Vec<_> = all.iter().map(|(name, array)| ((*name).to_owned(), array.clone())).collect();
        arrays::to_bytes(KEY, &note, &all).unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        let trace = trace();
        let file = trace.to_bytes().unwrap();
        assert_eq!(file, self::trace().to_bytes().unwrap(), "same trace, same bytes");
        assert_eq!(parse(&file).unwrap(), trace);
        assert!(arrays::may_be(&file));
    }

    /// Truncated anywhere: an error. Any byte replaced: an error, or a trace that is as sound as the first.
    #[test]
    fn damaged_files_are_errors_or_sound() {
        let file = trace().to_bytes().unwrap();
        for length in 0..file.len() {
            assert_eq!(code(&file[..length]), "trace::format", "cut to {length}");
        }
        assert_eq!(code(&[&file[..], b"\0"].concat()), "trace::format");
        let mut sound = 0;
        for at in 0..file.len() {
            for to in [0, b'"', b'0', b'9', b'{', b' ', 0xff, file[at] ^ 1, file[at] ^ 0x80] {
                let mut edited = file.clone();
                edited[at] = to;
                if let Ok(trace) = parse(&edited) {
                    sound += 1;
                    let n = trace.n_tokens() as usize;
                    assert!(
                        trace.gates.iter().all(|gate| gate.len() == n && gate.iter().all(|row| *row < 2))
                    );
                    assert_eq!(parse(&trace.to_bytes().unwrap()).unwrap(), trace);
                }
            }
        }
        assert!(sound > 0, "a flipped decision is still a trace");
    }

    #[test]
    fn unsound_files_have_codes() {
        let note = serde_json::to_string(&trace().provenance).unwrap();
        let [gate, lengths] = [Array::of_bytes(vec![0b111]), Array::of_u32(&[1, 2])];
        assert!(parse(&forged(&note, &[("lengths", lengths.clone()), ("gate.0", gate.clone())])).is_ok());
        let later = forged(&note.replace("\"format\":1", "\"format\":2"), &[("lengths", lengths.clone())]);
        assert_eq!(code(&later), "trace::version");
        let cases: [(&str, &[(&str, Array)]); 8] = [
            ("{}", &[("lengths", lengths.clone())]),
            (&note.replace("seed", "sead"), &[("lengths", lengths.clone())]),
            (&note, &[]),
            (&note, &[("gate.0", gate.clone())]),
            (&note, &[("lengths", lengths.clone()), ("gate.1", gate.clone())]),
            (&note, &[("lengths", lengths.clone()), ("gate.0", Array::of_bytes(vec![0b1111]))]),
            (&note, &[("lengths", lengths.clone()), ("gate.0", Array::of_bytes(vec![1, 0]))]),
            (&note, &[("lengths", Array::of_u32(&[u32::MAX; 4])), ("gate.0", gate.clone())]),
        ];
        for (note, all) in cases {
            assert_eq!(code(&forged(note, all)), "trace::format", "{note} {all:?}");
        }
        // A header that claims to be larger than the file, or than any header.
        for length in [1u64 << 20, 1 << 40, u64::MAX] {
            assert_eq!(code(&[&length.to_le_bytes()[..], b"{}"].concat()), "trace::format");
        }
    }
}
