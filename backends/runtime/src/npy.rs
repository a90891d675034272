//! Token ids, rows, lengths, decisions and logits as `.npy` files.
//!
//! Files come from anywhere: the header is bounded before it is parsed, shapes are multiplied with checks, and the
//! data must be there before memory is taken for it.

use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use npyz::{NpyHeader, Order, TypeChar, WriterBuilder};
use skipc_artifact::{regular, replace};

use crate::error::Error;

/// Largest file that is read, in bytes. A batch of a million tokens has 8 MB.
pub(crate) const FILE_LIMIT: u64 = 1 << 32;

/// Longest header that is parsed, in bytes. NumPy writes 118 for arrays such as ours.
const HEADER_LIMIT: usize = 4096;

/// Bytes before the header: magic, version and its length.
const PREAMBLE_LIMIT: usize = 12;

/// Deepest nesting of a header that is parsed. A plain array's has two levels.
const DEPTH_LIMIT: usize = 8;

/// Elements that are decoded at a time.
const CHUNK: usize = 1 << 13;

/// Numbers with their shape, in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array<T> {
    /// Sizes of the dimensions.
    pub shape: Vec<u64>,
    /// The numbers, last dimension fastest.
    pub data: Vec<T>,
}

/// Whole numbers.
pub type IntArray = Array<i64>;

/// What stands in the place of whole numbers for models that take rows.
pub type FloatArray = Array<f32>;

/// An array of which only the header has been read: its shape is known before memory is taken for its numbers.
pub(crate) struct Numbers<R, T> {
    path: PathBuf,
    shape: Vec<u64>,
    from: R,
    /// Bytes of a number.
    width: usize,
    decode: fn(&[u8]) -> T,
}

impl<R: Read + Seek, T> Numbers<R, T> {
    /// Sizes of the dimensions.
    pub(crate) fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Reads the next `count` numbers, in order.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], and whatever `each` says.
    pub(crate) fn take(
        &mut self,
        count: usize,
        mut each: impl FnMut(T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut bytes = vec![0; self.width * count.min(CHUNK)];
        let mut rest = count;
        while rest > 0 {
            let part = &mut bytes[..self.width * rest.min(CHUNK)];
            let read = self.from.read_exact(part);
            read.map_err(|source| Error::Io { action: "read", path: self.path.clone(), source })?;
            part.chunks_exact(self.width).map(self.decode).try_for_each(&mut each)?;
            rest -= rest.min(CHUNK);
        }
        Ok(())
    }

    /// Passes over `count` numbers, which lie in the file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(crate) fn skip(&mut self, count: usize) -> Result<(), Error> {
        // The whole file is shorter than 2^63 bytes.
        let sought = self.from.seek(SeekFrom::Current((self.width * count) as i64));
        sought.map_err(|source| Error::Io { action: "read", path: self.path.clone(), source })?;
        Ok(())
    }

    fn into_array(mut self) -> Result<Array<T>, Error> {
        let count = self.shape.iter().product::<u64>() as usize;
        let mut data = Vec::with_capacity(count);
        self.take(count, |number| {
            data.push(number);
            Ok(())
        })?;
        Ok(Array { shape: self.shape, data })
    }
}

/// The files that [`open_ints`] and [`open_floats`] give.
pub(crate) type IntFile = Numbers<std::fs::File, i64>;
pub(crate) type FloatFile = Numbers<std::fs::File, f32>;

/// Opens an array of whole numbers, of at most 32 bits or int64, or of bool, with `ranks` dimensions.
///
/// # Errors
///
/// As [`read_ints`].
pub(crate) fn open_ints(path: &Path, ranks: &[usize]) -> Result<IntFile, Error> {
    let (file, size) = open(path)?;
    of_ints(path, (file, size), ranks)
}

/// As [`open_ints`], an array of float32.
///
/// # Errors
///
/// As there.
pub(crate) fn open_floats(path: &Path, ranks: &[usize]) -> Result<FloatFile, Error> {
    of(path, open(path)?, ranks, ("float32, little-endian", float_decoder))
}

fn open(path: &Path) -> Result<(std::fs::File, u64), Error> {
    let opened = regular::open(path);
    let (file, size) = opened.map_err(|source| Error::Io { action: "read", path: path.into(), source })?;
    match size > FILE_LIMIT {
        true => Err(Error::TooLarge { path: path.into(), size, limit: FILE_LIMIT }),
        false => Ok((file, size)),
    }
}

/// Reads an array of whole numbers, of at most 32 bits or int64, or of bool, with `ranks` dimensions.
///
/// # Errors
///
/// A file that cannot be read ([`Error::Io`]), is malformed ([`Error::NpyFormat`]), or has elements or a rank other
/// than these.
pub fn read_ints(path: &Path, ranks: &[usize]) -> Result<IntArray, Error> {
    open_ints(path, ranks)?.into_array()
}

/// [`read_ints`] from memory; `path` is for errors only.
pub(crate) fn parse_ints(path: &Path, file: &[u8], ranks: &[usize]) -> Result<IntArray, Error> {
    of_ints(path, (Cursor::new(file), file.len() as u64), ranks)?.into_array()
}

/// As [`read_ints`], an array of float32.
///
/// # Errors
///
/// As there.
pub fn read_floats(path: &Path, ranks: &[usize]) -> Result<FloatArray, Error> {
    open_floats(path, ranks)?.into_array()
}

/// How an element of some type becomes a number; nothing for types that are not read.
type Decoder<T> = fn(&npyz::DType) -> Option<fn(&[u8]) -> T>;

fn of_ints<R: Read + Seek>(path: &Path, file: (R, u64), ranks: &[usize]) -> Result<Numbers<R, i64>, Error> {
    of(path, file, ranks, ("integers of at most 32 bits, int64 or bool, little-endian", int_decoder))
}

/// Reads the header of a file of so many bytes.
fn of<R: Read + Seek, T>(
    path: &Path,
    (mut from, size): (R, u64),
    ranks: &[usize],
    (expected, decoder): (&'static str, Decoder<T>),
) -> Result<Numbers<R, T>, Error> {
    let format = |reason: String| Error::NpyFormat { path: path.into(), reason };
    let failed = |source| Error::Io { action: "read", path: path.into(), source };
    let mut head = Vec::new();
    from.by_ref().take((PREAMBLE_LIMIT + HEADER_LIMIT) as u64).read_to_end(&mut head).map_err(failed)?;
    let end = check_header(&head).map_err(|reason| format(reason.into()))?;
    let header = NpyHeader::from_reader(&head[..end]).map_err(|error| format(error.to_string()))?;
    let dtype = header.dtype();
    let decode = decoder(&dtype).ok_or_else(|| Error::NpyDtype {
        path: path.into(),
        found: dtype.descr(),
        expected,
    })?;
    let shape = header.shape().to_vec();
    if header.order() != Order::C {
        return Err(Error::NpyOrder { path: path.into() });
    }
    if !ranks.contains(&shape.len()) {
        let wanted: Vec<_> = ranks.iter().map(ToString::to_string).collect();
        let expected = format!("{} dimensions, row by row", wanted.join(" or "));
        return Err(Error::NpyShape { path: path.into(), found: shape, expected });
    }
    let width = dtype.num_bytes().unwrap_or(1);
    let count = shape.iter().try_fold(1u64, |count, &size| count.checked_mul(size));
    let bytes = count.and_then(|count| count.checked_mul(width as u64));
    let there = size.saturating_sub(end as u64);
    if bytes != Some(there) {
        let reason = format!("shape {shape:?} of {width}-byte elements, but {there} bytes of data");
        return Err(format(reason));
    }
    from.seek(SeekFrom::Start(end as u64)).map_err(failed)?;
    Ok(Numbers { path: path.into(), shape, from, width, decode })
}

/// How a `.npy` file begins.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";

/// Bounds what the header parser, which allocates and recurses as the header says, is given; gives where the numbers begin.
fn check_header(file: &[u8]) -> Result<usize, &'static str> {
    let (b"\x93NUMPY", Some(&major)) = (file.get(..6).unwrap_or_default(), file.get(6)) else {
        return Err("it does not begin as a .npy file does");
    };
    let (start, length) = match (major, file.get(8..12)) {
        (1, Some(&[low, high, ..])) => (10, usize::from(u16::from_le_bytes([low, high]))),
        (2 | 3, Some(&[a, b, c, d])) => (12, u32::from_le_bytes([a, b, c, d]) as usize),
        _ => return Err("its version is not 1, 2 or 3"),
    };
    if length > HEADER_LIMIT {
        return Err("its header is too long");
    }
    let Some(header) = file.get(start..start + length) else {
        return Err("it is cut short in its header");
    };
    let open = header.iter().filter(|byte| matches!(byte, b'(' | b'[' | b'{')).count();
    if open > DEPTH_LIMIT {
        return Err("its header is nested too deeply");
    }
    // The parser multiplies sizes without a check. Every number in the header, whatever it means, bounds them.
    let numbers = header.split(|byte| !byte.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let mut product = Some(1u64);
    for digits in numbers {
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok());
        product = product.zip(number).and_then(|(product, number)| product.checked_mul(number.max(1)));
    }
    product.map(|_| start + length).ok_or("its sizes overflow")
}

/// Kind and size of plain elements that this machine reads as they are.
fn plain(dtype: &npyz::DType) -> Option<(TypeChar, u64)> {
    let npyz::DType::Plain(plain) = dtype else { return None };
    (plain.endianness() != npyz::Endianness::Big).then(|| (plain.type_char(), plain.size_field()))
}

fn float_decoder(dtype: &npyz::DType) -> Option<fn(&[u8]) -> f32> {
    match plain(dtype)? {
        (TypeChar::Float, 4) => Some(|bytes| bytes.try_into().map_or(0.0, f32::from_le_bytes)),
        _ => None,
    }
}

fn int_decoder(dtype: &npyz::DType) -> Option<fn(&[u8]) -> i64> {
    match plain(dtype)? {
        (TypeChar::Int, 4) => Some(|bytes| bytes.try_into().map(i32::from_le_bytes).map_or(0, i64::from)),
        (TypeChar::Int, 8) => Some(|bytes| bytes.try_into().map_or(0, i64::from_le_bytes)),
        (TypeChar::Int, 2) => Some(|bytes| bytes.try_into().map(i16::from_le_bytes).map_or(0, i64::from)),
        (TypeChar::Int, 1) => Some(|bytes| bytes.try_into().map(i8::from_le_bytes).map_or(0, i64::from)),
        (TypeChar::Uint, 4) => Some(|bytes| bytes.try_into().map(u32::from_le_bytes).map_or(0, i64::from)),
        (TypeChar::Uint, 2) => Some(|bytes| bytes.try_into().map(u16::from_le_bytes).map_or(0, i64::from)),
        (TypeChar::Uint | TypeChar::Bool, 1) => Some(|bytes| bytes.first().copied().map_or(0, i64::from)),
        _ => None,
    }
}

/// Writes `data` as an array of this shape, last dimension fastest; see [`replace::file`].
///
/// # Errors
///
/// What the file system says.
pub fn write<T: npyz::AutoSerialize + Copy>(path: &Path, shape: &[u64], data: &[T]) -> Result<(), Error> {
    Ok(replace::file(path, |out| write_to(out, shape, data))?)
}

fn write_to<T: npyz::AutoSerialize + Copy>(
    out: &mut dyn Write,
    shape: &[u64],
    data: &[T],
) -> std::io::Result<()> {
    let options = npyz::WriteOptions::new().default_dtype().shape(shape).writer(out);
    let mut writer = options.begin_nd()?;
    writer.extend(data.iter().copied())?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file_of<T: npyz::AutoSerialize + Copy>(shape: &[u64], data: &[T]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_to(&mut bytes, shape, data).unwrap();
        bytes
    }

    fn parse(bytes: &[u8], ranks: &[usize]) -> Result<IntArray, Error> {
        parse_ints(Path::new("x.npy"), bytes, ranks)
    }

    fn code(bytes: &[u8], ranks: &[usize]) -> &'static str {
        parse(bytes, ranks).expect_err("the file is unsound").code()
    }

    fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn whole_numbers_of_every_type_are_read() {
        let array = parse(&file_of(&[2, 2], &[1i32, -2, 3, 4]), &[1, 2]).unwrap();
        assert_eq!(array, IntArray { shape: vec![2, 2], data: vec![1, -2, 3, 4] });
        assert_eq!(parse(&file_of(&[1], &[i64::MIN]), &[1]).unwrap().data, [i64::MIN]);
        assert_eq!(parse(&file_of(&[0, 7], &[0u8; 0]), &[2]).unwrap().data, [0i64; 0]);
        assert_eq!(parse(&file_of(&[3], &[0u8, 1, 255]), &[1]).unwrap().data, [0, 1, 255]);
        assert_eq!(parse(&file_of(&[2], &[-1i8, 127]), &[1]).unwrap().data, [-1, 127]);
        assert_eq!(parse(&file_of(&[2], &[i16::MIN, 7]), &[1]).unwrap().data, [-32768, 7]);
        assert_eq!(parse(&file_of(&[2], &[u16::MAX, 7]), &[1]).unwrap().data, [65535, 7]);
        assert_eq!(parse(&file_of(&[1], &[u32::MAX]), &[1]).unwrap().data, [i64::from(u32::MAX)]);
        assert_eq!(parse(&file_of(&[2], &[true, false]), &[1]).unwrap().data, [1, 0]);
    }

    #[test]
    fn floats_are_float32_alone() {
        let read = |file: &[u8]| {
            let (from, size) = (Cursor::new(file), file.len() as u64);
            of(Path::new("x.npy"), (from, size), &[2], ("float32", float_decoder))?.into_array()
        };
        let array = read(&file_of(&[1, 2], &[1.5f32, -0.25])).unwrap();
        assert_eq!(array, FloatArray { shape: vec![1, 2], data: vec![1.5, -0.25] });
        assert_eq!(read(&file_of(&[1, 1], &[1f64])).unwrap_err().code(), "npy::dtype");
        assert_eq!(read(&file_of(&[1, 1], &[1i32])).unwrap_err().code(), "npy::dtype");
        assert_eq!(read(&file_of(&[1], &[1f32])).unwrap_err().code(), "npy::shape");
    }

    #[test]
    fn unsound_files_have_codes() {
        assert_eq!(code(&file_of(&[1], &[1f32]), &[1]), "npy::dtype");
        assert_eq!(code(&file_of(&[1], &[1u64]), &[1]), "npy::dtype");
        assert_eq!(code(&file_of(&[1, 1], &[1i32]), &[1]), "npy::shape");
        assert_eq!(code(b"PK\x03\x04", &[1]), "npy::format");
        let file = file_of(&[2], &[1i32, 2]);
        for length in 0..file.len() {
            assert_eq!(code(&file[..length], &[1]), "npy::format", "cut to {length}");
        }
        let huge = "{'descr': '<i4', 'fortran_order': False, 'shape': (4611686018427387905, 4), }\n";
        assert_eq!(code(&with_header(huge, &[0; 16]), &[2]), "npy::format");
        let fortran = "{'descr': '<i4', 'fortran_order': True, 'shape': (2, 2), }\n";
        assert_eq!(code(&with_header(fortran, &[0; 16]), &[2]), "npy::shape");
        let deep = "(".repeat(4000);
        assert_eq!(code(&with_header(&deep, &[]), &[1]), "npy::format");
        let long =
            format!("{{'descr': '<i4', 'fortran_order': False, 'shape': ({},), }}\n", "9".repeat(3000));
        assert_eq!(code(&with_header(&long, &[]), &[1]), "npy::format");
        let record = "{'descr': [('a', '<i4'), ('b', '<i4')], 'fortran_order': False, 'shape': (1,), }\n";
        assert_eq!(code(&with_header(record, &[0; 8]), &[1]), "npy::dtype");
    }

    proptest! {
        #[test]
        fn edits_never_panic(at in 0usize..140, to in any::<u8>()) {
            let mut file = file_of(&[2, 2], &[1i32, 2, 3, 4]);
            if let Some(byte) = file.get_mut(at) {
                *byte = to;
            }
            let _ = parse(&file, &[1, 2]);
        }

        #[test]
        fn noise_in_the_header_never_panics(text in "[ -~]{0,200}") {
            let _ = parse(&with_header(&text, &[0; 32]), &[1, 2]);
        }
    }
}
