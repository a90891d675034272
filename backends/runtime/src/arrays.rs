//! Named arrays with a note in JSON, as a safetensors file: what routing traces and known answers are stored as.
//!
//! All metadata is one entry, because the library keeps entries in a hash map, whose order would reach the bytes.
//! Files come from anywhere: the header is bounded before it is parsed, and an array is checked against the length
//! that its reader expects.

use std::borrow::Cow;

use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::Serialize;

/// Longest header that is parsed, in bytes. An array takes about 70, so this is room for 60,000.
const HEADER_LIMIT: u64 = 4 << 20;

/// An array to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Array {
    /// Bytes, `[bytes.len()]`.
    #[must_use]
    pub fn of_bytes(bytes: Vec<u8>) -> Self {
        Self { dtype: Dtype::U8, shape: vec![bytes.len()], bytes }
    }

    /// Numbers, `[numbers.len()]`.
    #[must_use]
    pub fn of_u32(numbers: &[u32]) -> Self {
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Self { dtype: Dtype::U32, shape: vec![numbers.len()], bytes }
    }

    /// Numbers, `[numbers.len() / cols, cols]`, row by row.
    #[must_use]
    pub fn of_f32(numbers: &[f32], cols: usize) -> Self {
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: vec![numbers.len() / cols.max(1), cols], bytes }
    }
}

impl View for &Array {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// The file: same arrays and note, same bytes. `key` names the note.
///
/// # Errors
///
/// A note that is not JSON, or a header over the library's limit, in words.
pub fn to_bytes(key: &str, note: &impl Serialize, arrays: &[(String, Array)]) -> Result<Vec<u8>, String> {
    let note = serde_json::to_string(note).map_err(|error| error.to_string())?;
    let metadata = std::iter::once((key.to_owned(), note)).collect();
    let views = arrays.iter().map(|(name, array)| (name.as_str(), array));
    safetensors::serialize(views, Some(metadata)).map_err(|error| error.to_string())
}

/// Whether a file that begins with these bytes may be one of arrays: the length of a header, then the header.
#[must_use]
pub fn may_be(file: &[u8]) -> bool {
    header_length(file).is_some() && file.get(8) == Some(&b'{')
}

fn header_length(file: &[u8]) -> Option<u64> {
    let length = u64::from_le_bytes(file.get(..8)?.try_into().ok()?);
    (length <= HEADER_LIMIT).then_some(length)
}

/// A file of arrays in memory.
#[derive(Debug)]
pub struct Arrays<'a> {
    tensors: SafeTensors<'a>,
    note: String,
}

impl<'a> Arrays<'a> {
    /// Reads the header of `file`, whose note has this name.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub fn parse(file: &'a [u8], key: &str) -> Result<Self, String> {
        if header_length(file).is_none() {
            return Err("it does not begin with the length of a header".into());
        }
        let tensors = SafeTensors::deserialize(file).map_err(|error| error.to_string())?;
        let (_, header) = SafeTensors::read_metadata(file).map_err(|error| error.to_string())?;
        let note = header.metadata().as_ref().and_then(|metadata| metadata.get(key));
        let note = note.ok_or_else(|| format!("its metadata has no `{key}`"))?.clone();
        Ok(Self { tensors, note })
    }

    /// The note, JSON if nobody changed it.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// How many arrays there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Whether there is an array of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.tensors.tensor(name).is_ok()
    }

    /// The numbers of an array `[any]`.
    ///
    /// # Errors
    ///
    /// No such array, another type, or another number of dimensions, in words; likewise for its siblings.
    pub fn u32s(&self, name: &str) -> Result<Vec<u32>, String> {
        let (shape, bytes) = self.array(name, Dtype::U32)?;
        if shape.len() != 1 {
            return Err(format!("`{name}` has shape {shape:?}, expected one dimension"));
        }
        Ok(bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
    }

    /// The numbers of an array `[rows, cols]`.
    ///
    /// # Errors
    ///
    /// As [`Arrays::u32s`].
    pub fn f32s(&self, name: &str, [rows, cols]: [usize; 2]) -> Result<Vec<f32>, String> {
        let (shape, bytes) = self.array(name, Dtype::F32)?;
        if shape != [rows, cols] {
            return Err(format!("`{name}` has shape {shape:?}, expected [{rows}, {cols}]"));
        }
        Ok(bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect())
    }

    /// The decisions about `n` rows of an array `[⌈n / 8⌉]`, 1 for each row that executes; see [`pack_bits`].
    ///
    /// # Errors
    ///
    /// As [`Arrays::u32s`], or a bit behind the last row.
    pub fn decisions(&self, name: &str, n: usize) -> Result<Vec<u8>, String> {
        let (shape, bytes) = self.array(name, Dtype::U8)?;
        if shape != [n.div_ceil(8)] {
            return Err(format!("`{name}` has shape {shape:?}, expected [{}] for {n} rows", n.div_ceil(8)));
        }
        let tail = bytes.last().filter(|_| !n.is_multiple_of(8)).map_or(0, |last| last >> (n % 8));
        if tail != 0 {
            return Err(format!("`{name}` has bits behind the last of {n} rows"));
        }
        Ok(bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1)).take(n).collect())
    }

    fn array(&self, name: &str, dtype: Dtype) -> Result<(Vec<usize>, &'a [u8]), String> {
        let tensor = self.tensors.tensor(name).map_err(|_| format!("it has no `{name}`"))?;
        if tensor.dtype() != dtype {
            return Err(format!("`{name}` has elements of type {}, expected {dtype}", tensor.dtype()));
        }
        Ok((tensor.shape().to_vec(), tensor.data()))
    }
}

/// Decisions as bits: bit `i % 8` of byte `i / 8` is row `i`, 1 where it executes.
#[must_use]
pub fn pack_bits(decisions: &[u8]) -> Vec<u8> {
    let byte = |rows: &[u8]| rows.iter().rev().fold(0, |byte, row| byte << 1 | u8::from(*row != 0));
    decisions.chunks(8).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_where_the_format_says() {
        assert_eq!(pack_bits(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]), [0b1001, 0b10]);
        assert_eq!(pack_bits(&[]), [0u8; 0]);
        for n in 0..20 {
            let decisions: Vec<u8> = (0..n).map(|row| u8::from(row % 3 == 0)).collect();
            let file = to_bytes("k", &1, &[("a".into(), Array::of_bytes(pack_bits(&decisions)))]).unwrap();
            assert_eq!(Arrays::parse(&file, "k").unwrap().decisions("a", n).unwrap(), decisions);
        }
    }

    #[test]
    fn arrays_are_what_their_reader_expects() {
        let arrays = [
            ("bits".to_owned(), Array::of_bytes(vec![0b100])),
            ("words".to_owned(), Array::of_u32(&[7, 1 << 31])),
            ("table".to_owned(), Array::of_f32(&[1.0, -2.5], 1)),
        ];
        let file = to_bytes("note", &"text", &arrays).unwrap();
        assert_eq!(file, to_bytes("note", &"text", &arrays).unwrap());
        let read = Arrays::parse(&file, "note").unwrap();
        assert_eq!((read.note(), read.len(), read.is_empty()), ("\"text\"", 3, false));
        assert_eq!(read.u32s("words").unwrap(), [7, 1 << 31]);
        assert_eq!(read.f32s("table", [2, 1]).unwrap(), [1.0, -2.5]);
        assert_eq!(read.decisions("bits", 3).unwrap(), [0, 0, 1]);
        let reasons = [
            read.decisions("bits", 2).unwrap_err(),
            read.decisions("bits", 9).unwrap_err(),
            read.decisions("words", 3).unwrap_err(),
            read.u32s("nothing").unwrap_err(),
            read.u32s("table").unwrap_err(),
            read.f32s("table", [1, 2]).unwrap_err(),
            Arrays::parse(&file, "other").unwrap_err(),
        ];
        let words = ["behind", "[2]", "type U32", "no `nothing`", "type F32", "[1, 2]", "no `other`"];
        for (reason, word) in reasons.iter().zip(words) {
            assert!(reason.contains(word), "{reason}");
        }
    }
}
