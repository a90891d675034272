//! What stands behind `--arg`, `--buffer`, `--out` and `--print`.

use std::path::PathBuf;
use std::str::FromStr;

use skipc_ptx::isa::swizzle::Swizzle;

use crate::data::{Element, Shape};

/// Most bytes of a buffer: a slip of the finger should not take all memory.
const MAX_BYTES: u64 = 1 << 32;

/// Elements that `--print` shows if nothing is said about it.
const PRINTED: usize = 16;

/// Sizes in x, y, z.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent(pub(crate) [u32; 3]);

impl FromStr for Extent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sizes: Vec<u32> =
            text.split([',', 'x']).map(|size| number(size, "a size")).collect::<Result<_, _>>()?;
        match sizes[..] {
            [x] => Ok(Self([x, 1, 1])),
            [x, y] => Ok(Self([x, y, 1])),
            [x, y, z] => Ok(Self([x, y, z])),
            _ => Err(format!("{} sizes; one to three are wanted, such as `4,1,1`", sizes.len())),
        }
    }
}

/// `[NAME=]SPEC`
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ArgumentSpec {
    pub(crate) name: Option<String>,
    pub(crate) value: Value,
}

/// An argument.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Bits of a number of 32 bits.
    Word(u32),
    /// Bits of a number of 64 bits.
    Double(u64),
    Buffer(BufferSpec),
    Map(MapSpec),
}

/// What a buffer holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BufferSpec {
    pub(crate) content: Content,
    /// `None`: bytes.
    pub(crate) element: Option<Element>,
    /// Sizes in elements, or the number of bytes.
    pub(crate) shape: Shape,
    pub(crate) writable: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Zeros,
    Poison,
    Random,
    Integers,
    Words(Vec<u32>),
    File(PathBuf),
}

/// `map:BUFFER,TYPE,ROWSxCOLS,BOXROWSxBOXCOLS,SWIZZLE`
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MapSpec {
    /// Name of the buffer, or its index among the arguments.
    pub(crate) buffer: String,
    pub(crate) element: Element,
    /// Rows, columns.
    pub(crate) shape: [u64; 2],
    pub(crate) tile: [u32; 2],
    pub(crate) swizzle: Swizzle,
}

impl FromStr for ArgumentSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A name comes before the first colon; paths behind it may hold a `=`.
        let (name, spec) = match text.split_once('=') {
            Some((name, spec)) if !name.contains(':') => (Some(name.to_owned()), spec),
            _ => (None, text),
        };
        if name.as_ref().is_some_and(String::is_empty) {
            return Err("the name before `=` is missing".to_owned());
        }
        let value = match spec.strip_prefix("rw:") {
            Some(rest) => match value(rest)? {
                Value::Buffer(buffer) => Value::Buffer(BufferSpec { writable: true, ..buffer }),
                _ => return Err("`rw:` stands before a buffer, such as `rw:random-f32:64`".to_owned()),
            },
            None => value(spec)?,
        };
        Ok(Self { name, value })
    }
}

fn value(spec: &str) -> Result<Value, String> {
    let Some((kind, rest)) = spec.split_once(':') else {
        return Err(format!("`{spec}` has no kind: write `u32:7`, `zeros:4096`, … (--help lists them)"));
    };
    match kind {
        "u32" => number(rest, "a u32").map(Value::Word),
        "i32" => number::<i32>(rest, "an i32").map(|value| Value::Word(value as u32)),
        "f32" => match rest.parse::<f32>() {
            Ok(value) => Ok(Value::Word(value.to_bits())),
            Err(_) => Err(format!("`{rest}` is not an f32")),
        },
        "u64" => number(rest, "a u64").map(Value::Double),
        "i64" => number::<i64>(rest, "an i64").map(|value| Value::Double(value as u64)),
        "map" => map(rest).map(Value::Map),
        _ => buffer(kind, rest).map(Value::Buffer),
    }
}

fn buffer(kind: &str, rest: &str) -> Result<BufferSpec, String> {
    let (family, element) = match kind.split_once('-') {
        Some((family, element)) => (family, Some(element.parse::<Element>()?)),
        None => (kind, None),
    };
    let content = match family {
        "zeros" => Content::Zeros,
        "poison" => Content::Poison,
        "random" => Content::Random,
        "integers" => Content::Integers,
        "file" => {
            let (content, shape) = (Content::File(PathBuf::from(rest)), Shape(Vec::new()));
            return Ok(BufferSpec { content, element, shape, writable: false });
        }
        "u32s" | "iota" if element.is_none() => return words(family, rest),
        _ => {
            let known = "u32, i32, u64, i64, f32, zeros, poison, random-TYPE, integers-TYPE, u32s, iota, file and map";
            return Err(format!("unknown kind `{kind}`; there are {known}"));
        }
    };
    if element.is_none() && matches!(content, Content::Random | Content::Integers) {
        return Err(format!(
            "`{family}` needs a type: write `{family}-f32:{rest}` or `{family}-bf16:{rest}`"
        ));
    }
    let shape: Shape = rest.parse()?;
    let bytes = shape.elements().and_then(|n| n.checked_mul(element.map_or(1, Element::bytes) as u64));
    match bytes {
        Some(1..=MAX_BYTES) => {}
        Some(0) => return Err("a buffer has one byte at least".to_owned()),
        _ => return Err(format!("`{rest}` is too large; a buffer has {MAX_BYTES} bytes at most")),
    }
    let writable = matches!(content, Content::Zeros | Content::Poison);
    Ok(BufferSpec { content, element, shape, writable })
}

/// `u32s:1,2,3` and `iota:N`
fn words(family: &str, rest: &str) -> Result<BufferSpec, String> {
    let words: Vec<u32> = match family {
        "iota" => (0..number::<u32>(rest, "a count")?).collect(),
        _ => rest.split(',').map(|word| number(word, "a u32")).collect::<Result<_, _>>()?,
    };
    if words.is_empty() {
        return Err("a buffer has one byte at least".to_owned());
    }
    let shape = Shape(vec![words.len() as u64]);
    Ok(BufferSpec { content: Content::Words(words), element: Some(Element::U32), shape, writable: false })
}

fn map(rest: &str) -> Result<MapSpec, String> {
    let parts: Vec<&str> = rest.split(',').map(str::trim).collect();
    let [buffer, element, shape, tile, swizzle] = parts[..] else {
        let wanted =
            "map:BUFFER,TYPE,ROWSxCOLS,BOXROWSxBOXCOLS,SWIZZLE, such as `map:0,bf16,256x320,128x64,128`";
        return Err(format!("a tensor map is {wanted}"));
    };
    let pair = |text: &str| match text.parse::<Shape>()?.0[..] {
        [rows, cols] => Ok([rows, cols]),
        _ => Err(format!("`{text}` is not ROWSxCOLS")),
    };
    let [box_rows, box_cols] = pair(tile)?;
    let small =
        |size: u64| u32::try_from(size).map_err(|_| format!("a box of {tile}; sizes are 256 at most"));
    let swizzle = match swizzle {
        "0" => Swizzle::None,
        "32" => Swizzle::B32,
        "64" => Swizzle::B64,
        "128" => Swizzle::B128,
        other => return Err(format!("a swizzle of `{other}`; there are 0, 32, 64 and 128")),
    };
    Ok(MapSpec {
        buffer: buffer.to_owned(),
        element: element.parse()?,
        shape: pair(shape)?,
        tile: [small(box_rows)?, small(box_cols)?],
        swizzle,
    })
}

/// A number, decimal or with `0x`.
fn number<T: FromStr + TryFrom<u64>>(text: &str, wanted: &str) -> Result<T, String> {
    let hex = text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let value = hex.map_or_else(|| text.parse().ok(), |value| T::try_from(value).ok());
    value.ok_or_else(|| format!("`{text}` is not {wanted}"))
}

/// `NAME=FILE`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputSpec {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl FromStr for OutputSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => {
                Ok(Self { name: name.to_owned(), path: path.into() })
            }
            _ => Err("write NAME=FILE, the name of a buffer and where it goes".to_owned()),
        }
    }
}

/// `NAME[:N]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PrintSpec {
    pub(crate) name: String,
    pub(crate) count: usize,
}

impl FromStr for PrintSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.rsplit_once(':') {
            Some((name, count)) => {
                Ok(Self { name: name.to_owned(), count: number::<u32>(count, "a count")? as usize })
            }
            None => Ok(Self { name: text.to_owned(), count: PRINTED }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ArgumentSpec {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn error(text: &str) -> String {
        text.parse::<ArgumentSpec>().expect_err("an error")
    }

    #[test]
    fn numbers_are_bits() {
        assert_eq!(parse("u32:0x10").value, Value::Word(16));
        assert_eq!(parse("i32:-1").value, Value::Word(u32::MAX));
        assert_eq!(parse("f32:1.5").value, Value::Word(0x3FC0_0000));
        assert_eq!(parse("u64:9").value, Value::Double(9));
        assert_eq!(parse("n=u32:1").name.as_deref(), Some("n"));
    }

    #[test]
    fn buffers_have_a_shape_and_may_be_written_if_said_so() {
        let Value::Buffer(buffer) = parse("x=rw:random-bf16:4x8").value else { panic!("a buffer") };
        assert!(buffer.writable && buffer.element == Some(Element::Bf16) && buffer.shape.0 == [4, 8]);
        let Value::Buffer(buffer) = parse("file:a=b.npy").value else { panic!("a buffer") };
        assert_eq!(buffer.content, Content::File("a=b.npy".into()));
    }

    #[test]
    fn errors_say_what_to_write() {
        assert!(error("7").contains("write `u32:7`"));
        assert!(error("random:8").contains("write `random-f32:8`"));
        assert!(error("random-f99:8").contains("bf16, f16, f32 or u32"));
        assert!(error("zeros:0").contains("one byte"));
        assert!(error("zeros:9999999999999").contains("too large"));
        assert!(error("map:0,bf16,8x8").contains("map:0,bf16,256x320,128x64,128"));
        assert!(error("map:0,bf16,8x8,8x8,7").contains("0, 32, 64 and 128"));
        assert!(error("nothing:1").contains("unknown kind `nothing`"));
    }
}
