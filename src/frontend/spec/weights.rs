//! Weights: reading the tensors of a model from a safetensors file.
//!
//! Names are those of the reference's state dict. The header is read and held against the model first; only a
//! file with exactly the wanted tensors is read further, so a hostile one costs no more than its header.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use half::{bf16, f16};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use skipc_artifact::section::ContentHash;

use super::limits;
use super::model::Model;
use super::words::{nearest, quoted};
use crate::diagnostic::{Diagnostic, Diagnostics};

pub use super::tensors::{Role, TensorSpec, tensors};

/// How elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// IEEE single.
    F32,
    /// The upper half of an IEEE single.
    Bf16,
    /// IEEE half.
    F16,
}

/// All tensors of a model, as stored.
#[derive(Clone, Debug)]
pub struct Weights {
    tensors: BTreeMap<String, Place>,
    data: Vec<u8>,
}

/// One tensor, borrowed from [`Weights`].
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'w> {
    /// How elements are stored.
    pub dtype: DType,
    /// Its extents, outermost first.
    pub shape: &'w [usize],
    /// Elements in row-major order, little endian.
    pub bytes: &'w [u8],
}

/// A tensor within the data.
#[derive(Clone, Debug)]
struct Place {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl Weights {
    /// Reads the weights of `model` from a safetensors file.
    ///
    /// Errors name every tensor that is missing, not of the model, of another shape, of a type that weights
    /// cannot have, or has an element that is not finite.
    pub fn open(path: &Path, model: &Model) -> Result<Weights, Diagnostics> {
        let name = path.display().to_string();
        let failed = |error: std::io::Error| unreadable(&name, &error);
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        Weights::read(&name, file, len, model)
    }

    /// Reads weights from `len` bytes; `name` is what users call the file.
    pub fn read(name: &str, mut from: impl Read, len: u64, model: &Model) -> Result<Weights, Diagnostics> {
        let header = read_header(name, &mut from, len)?;
        let tensors = hold_against(name, &header, model)?;
        let data_len = header.values().map(|info| info.data_offsets.1).max().unwrap_or(0);
        let mut data = Vec::new();
        from.take(data_len as u64).read_to_end(&mut data).map_err(|error| unreadable(name, &error))?;
        if data.len() != data_len {
            return Err(truncated(name, format!("it ends {} bytes early", data_len - data.len())).into());
        }
        let weights = Weights { tensors, data };
        weights.check_finite(name)?;
        Ok(weights)
    }

    /// A hash of names, types, shapes and elements of all tensors, whatever their order in the file.
    pub fn content_hash(&self) -> ContentHash {
        let mut text = String::new();
        for (name, place) in &self.tensors {
            let bytes = self.data.get(place.bytes.clone()).unwrap_or_default();
            text.push_str(&format!(
                "{name:?} {:?} {:?} {}\n",
                place.dtype,
                place.shape,
                ContentHash::of(bytes)
            ));
        }
        ContentHash::of(text.as_bytes())
    }

    /// The tensor of a name; every tensor of [`tensors`] is there.
    pub fn tensor(&self, name: &str) -> Option<TensorRef<'_>> {
        let place = self.tensors.get(name)?;
        let bytes = self.data.get(place.bytes.clone())?;
        Some(TensorRef { dtype: place.dtype, shape: &place.shape, bytes })
    }

    fn check_finite(&self, name: &str) -> Result<(), Diagnostics> {
        let mut found = Diagnostics::default();
        for tensor in self.tensors.keys() {
            let Some((idx, value)) = self.tensor(tensor).and_then(|tensor| tensor.first_not_finite()) else {
                continue;
            };
            let message = format!("`{tensor}` in {name} holds {value} (element {idx}, counted from 0)");
            found.push(
                Diagnostic::new("weights::non_finite", message)
                    .help("no output would be a number; check the training run or the conversion"),
            );
        }
        found.or(())
    }
}

impl DType {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::Bf16 | DType::F16 => 2,
        }
    }

    fn from_file(dtype: Dtype) -> Option<DType> {
        match dtype {
            Dtype::F32 => Some(DType::F32),
            Dtype::BF16 => Some(DType::Bf16),
            Dtype::F16 => Some(DType::F16),
            _ => None,
        }
    }
}

impl TensorRef<'_> {
    /// The elements in f32, exactly.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            DType::F32 => self.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            DType::Bf16 => self.halves().map(|bits| bf16::from_bits(bits).to_f32()).collect(),
            DType::F16 => self.halves().map(|bits| f16::from_bits(bits).to_f32()).collect(),
        }
    }

    fn halves(&self) -> impl Iterator<Item = u16> {
        self.bytes.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes))
    }

    /// Looks at bits, without an f32 copy of what may be gigabytes.
    fn first_not_finite(&self) -> Option<(usize, f32)> {
        match self.dtype {
            DType::F32 => {
                let mut values = self.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                let idx = values.position(|value| !value.is_finite())?;
                Some((idx, f32::from_le_bytes(*self.bytes.as_chunks().0.get(idx)?)))
            }
            DType::Bf16 => {
                let (idx, bits) =
                    self.halves().enumerate().find(|(_, bits)| !bf16::from_bits(*bits).is_finite())?;
                Some((idx, bf16::from_bits(bits).to_f32()))
            }
            DType::F16 => {
                let (idx, bits) =
                    self.halves().enumerate().find(|(_, bits)| !f16::from_bits(*bits).is_finite())?;
                Some((idx, f16::from_bits(bits).to_f32()))
            }
        }
    }
}

/// Tensors by name, in the order of names.
type Header = BTreeMap<String, TensorInfo>;

fn read_header(name: &str, from: &mut impl Read, len: u64) -> Result<Header, Diagnostic> {
    if len < 8 {
        return Err(truncated(name, format!("{len} bytes do not hold the length of a header")));
    }
    let mut length = [0; 8];
    from.read_exact(&mut length).map_err(|error| unreadable(name, &error))?;
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
    let header = parse_header(name, &text)?;
    // Sorted and free of gaps is what the format demands and the library checks.
    let mut in_file: Vec<(String, TensorInfo)> =
        header.iter().map(|(name, info)| (name.clone(), info.clone())).collect();
    in_file.sort_by_key(|(_, info)| info.data_offsets);
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
    Ok(header)
}

const NOT_SAFETENSORS: &str =
    "is this a safetensors file? PyTorch files are converted by `safetensors.torch.save_file`";

fn parse_header(name: &str, text: &[u8]) -> Result<Header, Diagnostic> {
    let not_json = |error: serde_json::Error| {
        let message = format!("the header of {name} cannot be read: {error}");
        Diagnostic::new("weights::header", message).help(NOT_SAFETENSORS)
    };
    let mut rows: BTreeMap<String, serde_json::Value> = serde_json::from_slice(text).map_err(not_json)?;
    rows.remove("__metadata__");
    let parse = |(tensor, row): (String, serde_json::Value)| match serde_json::from_value(row) {
        Ok(info) => Ok((tensor, info)),
        Err(error) => {
            let message = format!("the header of {name} cannot be read at {}: {error}", quoted(&tensor));
            Err(Diagnostic::new("weights::header", message).help(NOT_SAFETENSORS))
        }
    };
    rows.into_iter().map(parse).collect()
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

/// Holds the header against the model. Missing and mismatched tensors come in model order, then those that no
/// layer reads by name.
fn hold_against(name: &str, header: &Header, model: &Model) -> Result<BTreeMap<String, Place>, Diagnostics> {
    let wanted = tensors(model);
    let known: BTreeMap<&str, &TensorSpec> =
        wanted.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let extra: Vec<&str> =
        header.keys().map(String::as_str).filter(|name| !known.contains_key(name)).collect();
    let mut found = Diagnostics::default();
    let mut places = BTreeMap::new();
    for tensor in &wanted {
        match header.get(&tensor.name) {
            None => found.push(missing(name, &tensor.name, &extra, found.is_full())),
            Some(info) => {
                if let Some(place) = check_tensor(name, tensor, info, &mut found) {
                    places.insert(tensor.name.clone(), place);
                }
            }
        }
    }
    for tensor in &extra {
        let absent =
            wanted.iter().map(|wanted| wanted.name.as_str()).filter(|name| !header.contains_key(*name));
        found.push(surplus(name, tensor, absent, model, found.is_full()));
    }
    found.or(places)
}

fn missing(file: &str, tensor: &str, extra: &[&str], only_counted: bool) -> Diagnostic {
    let near = if only_counted { None } else { nearest(tensor, extra.iter().copied()) };
    let help = match near {
        Some(near) => format!("the file has {}, which the model does not; is it this one?", quoted(near)),
        None => "check that spec and weights are of one model; names are those of the reference's state dict"
            .to_owned(),
    };
    Diagnostic::new("weights::missing", format!("`{tensor}` is missing from {file}")).help(help)
}

fn surplus<'a>(
    file: &str,
    tensor: &str,
    absent: impl Iterator<Item = &'a str>,
    model: &Model,
    only_counted: bool,
) -> Diagnostic {
    let near = if only_counted { None } else { nearest(tensor, absent) };
    let help = match near {
        Some(near) => format!("the model wants `{near}`, which is missing; is it this one?"),
        None if tensor == "lm_head.weight" && model.tie_embeddings => {
            "the spec shares the embedding with the head; write `tie_embeddings = false` to use this tensor"
                .to_owned()
        }
        None => "remove it from the file, or add to the spec what reads it".to_owned(),
    };
    Diagnostic::new("weights::extra", format!("{file} has {}, which no layer reads", quoted(tensor)))
        .help(help)
}

fn check_tensor(
    file: &str,
    wanted: &TensorSpec,
    info: &TensorInfo,
    found: &mut Diagnostics,
) -> Option<Place> {
    let name = &wanted.name;
    if info.shape != wanted.shape {
        let message = format!("`{name}` in {file} is {:?}; the spec makes it {:?}", info.shape, wanted.shape);
        let transposed = info.shape.iter().rev().eq(&wanted.shape);
        let help = if transposed {
            "transpose it: weights of projections are [out, in]"
        } else {
            "check the sizes in the spec, or whether the weights are of another model"
        };
        found.push(Diagnostic::new("weights::shape", message).help(help));
        return None;
    }
    let Some(dtype) = DType::from_file(info.dtype) else {
        let message = format!("`{name}` in {file} is stored as {}", info.dtype);
        found.push(Diagnostic::new("weights::dtype", message).help("store it as F32, BF16 or F16"));
        return None;
    };
    let (start, end) = info.data_offsets;
    Some(Place { dtype, shape: info.shape.clone(), bytes: start..end })
}
