//! What buffers hold: types of elements, drawn numbers, files.

use std::path::Path;
use std::str::FromStr;

use half::{bf16, f16};
use npyz::{DType, Endianness, NpyHeader, Order, TypeChar, WriterBuilder};

use crate::argument::{BufferSpec, Content};
use crate::failure::Failure;

/// Half of a poisoned word: a NaN in bf16, and twice in f32.
const POISON: u16 = 0x7FC1;

/// Type of a buffer's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    Bf16,
    F16,
    F32,
    U32,
}

impl FromStr for Element {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            "f32" => Ok(Self::F32),
            "u32" => Ok(Self::U32),
            other => Err(format!("unknown type `{other}`; it is bf16, f16, f32 or u32")),
        }
    }
}

impl Element {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::U32 => "u32",
        }
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 | Self::U32 => 4,
        }
    }

    /// Appends a number, rounded.
    fn push(self, to: &mut Vec<u8>, value: f32) {
        match self {
            Self::Bf16 => to.extend(bf16::from_f32(value).to_le_bytes()),
            Self::F16 => to.extend(f16::from_f32(value).to_le_bytes()),
            Self::F32 => to.extend(value.to_le_bytes()),
            Self::U32 => to.extend((value as u32).to_le_bytes()),
        }
    }

    /// The number that an element's bytes stand for.
    pub(crate) fn number(self, bytes: &[u8]) -> f64 {
        match *bytes {
            [a, b] if self == Self::Bf16 => bf16::from_le_bytes([a, b]).to_f64(),
            [a, b] => f16::from_le_bytes([a, b]).to_f64(),
            [a, b, c, d] if self == Self::F32 => f64::from(f32::from_le_bytes([a, b, c, d])),
            [a, b, c, d] => f64::from(u32::from_le_bytes([a, b, c, d])),
            _ => f64::NAN,
        }
    }
}

/// Sizes of the dimensions, the last one fastest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape(pub(crate) Vec<u64>);

impl Shape {
    /// How many elements; `None` if that is no number of 64 bits.
    pub(crate) fn elements(&self) -> Option<u64> {
        self.0.iter().try_fold(1_u64, |n, size| n.checked_mul(*size))
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = |size: &str| size.parse().map_err(|_| format!("`{text}` is not a shape such as `128x64`"));
        text.split('x').map(size).collect::<Result<_, _>>().map(Self)
    }
}

/// Bytes, and what they stand for if that is known.
#[derive(Debug, Clone)]
pub(crate) struct Data {
    pub(crate) bytes: Vec<u8>,
    pub(crate) kind: Option<(Element, Shape)>,
}

/// Makes the content of a buffer. `seed` decides what is drawn.
pub(crate) fn make(spec: &BufferSpec, seed: u64) -> Result<Data, Failure> {
    let n = spec.shape.elements().unwrap_or_default() as usize;
    let n_bytes = n * spec.element.map_or(1, Element::bytes);
    let mut draw = Draw(seed);
    let element = spec.element.unwrap_or(Element::F32);
    let bytes = match &spec.content {
        Content::Zeros => vec![0; n_bytes],
        Content::Poison => POISON.to_le_bytes().iter().copied().cycle().take(n_bytes).collect(),
        Content::Random => numbers(element, n, || draw.unit()),
        Content::Integers => numbers(element, n, || draw.whole()),
        Content::Words(words) => words.iter().flat_map(|word| word.to_le_bytes()).collect(),
        Content::File(path) => return read(path, spec.element),
    };
    Ok(Data { bytes, kind: spec.element.map(|element| (element, spec.shape.clone())) })
}

fn numbers(element: Element, n: usize, mut next: impl FnMut() -> f32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(n * element.bytes());
    (0..n).for_each(|_| element.push(&mut bytes, next()));
    bytes
}

/// Numbers that are the same everywhere: the generator of Knuth's MMIX, of which the high bits are used.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 40
    }

    /// From -1 to 1.
    fn unit(&mut self) -> f32 {
        self.next() as f32 / (1 << 23) as f32 - 1.0
    }

    /// From -2 to 2.
    fn whole(&mut self) -> f32 {
        (self.next() % 5) as f32 - 2.0
    }
}

/// Bytes of a file. Of a `.npy` file the header is taken away, and its numbers are rounded if a type is asked for.
fn read(path: &Path, wanted: Option<Element>) -> Result<Data, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::file(path, &error))?;
    if bytes.is_empty() {
        return Err(Failure::file(path, &"the file is empty; a buffer has one byte at least"));
    }
    if !bytes.starts_with(b"\x93NUMPY") {
        return as_they_are(path, bytes, wanted);
    }
    let mut rest = bytes.as_slice();
    let header = NpyHeader::from_reader(&mut rest).map_err(|error| Failure::file(path, &error))?;
    let dtype = header.dtype();
    let DType::Plain(plain) = &dtype else {
        return Err(Failure::file(path, &"records are not a buffer; save a plain array"));
    };
    if header.order() != Order::C || (plain.endianness() == Endianness::Big && plain.size_field() > 1) {
        let what =
            "columns first, or big-endian; save it with numpy.ascontiguousarray in the machine's own order";
        return Err(Failure::file(path, &what));
    }
    let shape = Shape(header.shape().to_vec());
    let found = match (plain.type_char(), plain.size_field()) {
        (TypeChar::Float, 2) => Some(Element::F16),
        (TypeChar::Float, 4) => Some(Element::F32),
        (TypeChar::Uint | TypeChar::Int, 4) => Some(Element::U32),
        _ => None,
    };
    let kind = found.map(|element| (element, shape));
    match (wanted, kind) {
        (None, kind) => Ok(Data { bytes: rest.to_vec(), kind }),
        (Some(wanted), Some((element, shape))) => {
            let mut bytes = Vec::new();
            rest.chunks_exact(element.bytes())
                .for_each(|item| wanted.push(&mut bytes, element.number(item) as f32));
            Ok(Data { bytes, kind: Some((wanted, shape)) })
        }
        (Some(wanted), None) => {
            let what = format!(
                "elements of type {}; float16, float32 and 32-bit integers become {}",
                dtype.descr(),
                wanted.name()
            );
            Err(Failure::file(path, &what))
        }
    }
}

/// Bytes of a file that has no header.
fn as_they_are(path: &Path, bytes: Vec<u8>, element: Option<Element>) -> Result<Data, Failure> {
    let Some(element) = element else { return Ok(Data { bytes, kind: None }) };
    if !bytes.len().is_multiple_of(element.bytes()) {
        let what = format!("{} bytes are not a whole number of {}", bytes.len(), element.name());
        return Err(Failure::file(path, &what));
    }
    let shape = Shape(vec![(bytes.len() / element.bytes()) as u64]);
    Ok(Data { bytes, kind: Some((element, shape)) })
}

/// Writes a buffer: `.npy` if its type is known, with bf16 and f16 as float32, which holds them; else its bytes.
pub(crate) fn write(path: &Path, bytes: &[u8], kind: Option<&(Element, Shape)>) -> std::io::Result<()> {
    let Some((element, shape)) = kind else { return std::fs::write(path, bytes) };
    let file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let items = bytes.chunks_exact(element.bytes()).map(|item| element.number(item));
    if *element == Element::U32 {
        write_npy(file, shape, items.map(|item| item as u32))
    } else {
        write_npy(file, shape, items.map(|item| item as f32))
    }
}

fn write_npy<T: npyz::AutoSerialize>(
    file: impl std::io::Write,
    shape: &Shape,
    items: impl Iterator<Item = T>,
) -> std::io::Result<()> {
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape.0).writer(file).begin_nd()?;
    writer.extend(items)?;
    writer.finish()
}
