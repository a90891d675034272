//! A safetensors file.
//!
//! The header is read and checked when the file is opened, tensors when they are asked for, so that a hostile file costs no
//! more than its header. Tensors are read by their range instead of mapped: a file that somebody cuts short meanwhile is
//! an error then, not a signal.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, TensorInfo as Row};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use skipc_artifact::regular;

use super::{DType, Tensor, TensorInfo, TensorSource, no_tensor};
use crate::diagnostic::Diagnostic;
use crate::frontend::language::limits;
use crate::frontend::language::words::quoted;

/// A safetensors file, or the bytes of one.
pub struct Safetensors {
    name: String,
    infos: BTreeMap<String, TensorInfo>,
    places: BTreeMap<String, Range<u64>>,
    data: Data,
}

enum Data {
    File(File),
    Bytes(Vec<u8>),
}

impl Safetensors {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// `weights::read`, `weights::truncated` or `weights::header`.
    pub fn open(path: &Path) -> Result<Safetensors, Diagnostic> {
        let name = path.display().to_string();
        let failed = |error: std::io::Error| unreadable(&name, &error);
        let (file, length) = regular::open(path).map_err(failed)?;
        let (rows, begin) = read_header(&name, &file, length)?;
        Ok(Safetensors::new(name, rows, begin, Data::File(file)))
    }

    /// The bytes of a file; `name` is what users call it.
    ///
    /// # Errors
    /// As [`Safetensors::open`].
    pub fn of_bytes(name: &str, bytes: Vec<u8>) -> Result<Safetensors, Diagnostic> {
        let (rows, begin) = read_header(name, bytes.as_slice(), bytes.len() as u64)?;
        Ok(Safetensors::new(name.to_owned(), rows, begin, Data::Bytes(bytes)))
    }

    fn new(name: String, rows: Rows, begin: u64, data: Data) -> Safetensors {
        let mut file = Safetensors { name, infos: BTreeMap::new(), places: BTreeMap::new(), data };
        for (tensor, row) in rows.0 {
            let (start, end) = row.data_offsets;
            let dtype = match row.dtype {
                Dtype::F32 => Ok(DType::F32),
                Dtype::BF16 => Ok(DType::Bf16),
                Dtype::F16 => Ok(DType::F16),
                other => Err(other.to_string()),
            };
            file.infos.insert(tensor.clone(), TensorInfo { dtype, shape: row.shape });
            file.places.insert(tensor, begin + start as u64..begin + end as u64);
        }
        file
    }

    fn bytes(&self, range: &Range<u64>) -> std::io::Result<Cow<'_, [u8]>> {
        let cut_short = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        match &self.data {
            Data::Bytes(bytes) => {
                let part = bytes.get(range.start as usize..range.end as usize);
                part.map(Cow::Borrowed).ok_or_else(cut_short)
            }
            Data::File(file) => {
                let mut bytes = vec![0; (range.end - range.start) as usize];
                std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, range.start)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }
}

impl TensorSource for Safetensors {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<Tensor<'_>, Diagnostic> {
        let found = self.infos.get(name).zip(self.places.get(name));
        let found = found.and_then(|(info, place)| Some((info.dtype.clone().ok()?, &info.shape, place)));
        let (dtype, shape, place) = found.ok_or_else(|| no_tensor(&self.name, name))?;
        let bytes = self.bytes(place).map_err(|error| unreadable(&self.name, &error))?;
        Ok(Tensor { dtype, shape, bytes })
    }
}

/// Reads the header; returns its rows and where data begins.
fn read_header(name: &str, mut from: impl Read, len: u64) -> Result<(Rows, u64), Diagnostic> {
    if len < 8 {
        return Err(truncated(name, format!("{len} bytes do not hold the length of a header")));
    }
    let mut length = [0; 8];
    from.read_exact(&mut length).map_err(|error| unreadable(name, &error))?;
    if length[0] == b'{' {
        let message = format!("{name} is JSON, not a safetensors file");
        let help = "if it is an index of shards, give it a name that ends in `.json`";
        return Err(Diagnostic::new("weights::header", message).help(help));
    }
    let length = u64::from_le_bytes(length);
    if length > limits::WEIGHTS_HEADER_BYTES {
        let most = limits::WEIGHTS_HEADER_BYTES;
        let message = format!("{name} starts with a header of {length} bytes; at most {most} are read");
        return Err(Diagnostic::new("weights::header", message).help(NOT_SAFETENSORS));
    }
    if length > len - 8 {
        return Err(truncated(name, format!("its header needs {length} bytes, {} are left", len - 8)));
    }
    let mut text = Vec::new();
    from.take(length).read_to_end(&mut text).map_err(|error| unreadable(name, &error))?;
    let rows: Rows = serde_json::from_slice(&text).map_err(|error| {
        let message = format!("the header of {name} cannot be read: {error}");
        Diagnostic::new("weights::header", message).help(NOT_SAFETENSORS)
    })?;
    // Sorted and free of gaps is what the format demands and the library checks.
    let mut in_file: Vec<(String, Row)> =
        rows.0.iter().map(|(name, row)| (name.clone(), row.clone())).collect();
    in_file.sort_by_key(|(_, row)| row.data_offsets);
    let checked = Metadata::new(None, in_file).map_err(|error| bad_layout(name, &error))?;
    let (wanted, got) = (checked.data_len() as u64, len - 8 - length);
    if got < wanted {
        return Err(truncated(name, format!("its tensors need {wanted} bytes, {got} are left")));
    }
    if got > wanted {
        let message = format!("{name} has {} bytes after its last tensor", got - wanted);
        return Err(Diagnostic::new("weights::header", message)
            .help("write the file again; a download may have been mixed up"));
    }
    Ok((rows, 8 + length))
}

const NOT_SAFETENSORS: &str =
    "is this a safetensors file? PyTorch files are converted by `safetensors.torch.save_file`";

/// The rows of a header by tensor. A name that comes twice is an error: either could be meant.
struct Rows(BTreeMap<String, Row>);

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Rows, D::Error> {
        struct Header;

        impl<'de> Visitor<'de> for Header {
            type Value = Rows;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from names to tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Rows, A::Error> {
                let mut rows = BTreeMap::new();
                let mut has_metadata = false;
                while let Some(tensor) = map.next_key::<String>()? {
                    let is_double = if tensor == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        std::mem::replace(&mut has_metadata, true)
                    } else {
                        let row = map.next_value::<Row>();
                        let row =
                            row.map_err(|error| A::Error::custom(format!("{}: {error}", quoted(&tensor))))?;
                        rows.insert(tensor.clone(), row).is_some()
                    };
                    if is_double {
                        return Err(A::Error::custom(format!("duplicate key {}", quoted(&tensor))));
                    }
                }
                Ok(Rows(rows))
            }
        }

        deserializer.deserialize_map(Header)
    }
}

fn bad_layout(name: &str, error: &SafeTensorError) -> Diagnostic {
    let why = match error {
        SafeTensorError::InvalidOffset(_) => "its tensors overlap or leave gaps",
        SafeTensorError::TensorInvalidInfo => "the bytes of a tensor do not match its shape and type",
        SafeTensorError::ValidationOverflow => "a tensor is larger than any memory",
        _ => "its tensors are not laid out as the format demands",
    };
    let message = format!("the header of {name} contradicts itself: {why}");
    Diagnostic::new("weights::header", message).help("write the file again with a safetensors library")
}

fn truncated(name: &str, why: String) -> Diagnostic {
    Diagnostic::new("weights::truncated", format!("{name} is incomplete: {why}"))
        .help("copy or download it again")
}

fn unreadable(name: &str, error: &std::io::Error) -> Diagnostic {
    Diagnostic::new("weights::read", format!("cannot read {name}: {error}"))
        .help("give the path of a safetensors file")
}
