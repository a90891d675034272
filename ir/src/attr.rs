//! Attribute values of ops: totally ordered and hashable, so that ops can be e-nodes and map keys.

use std::fmt;
use std::sync::Arc;

use ordered_float::OrderedFloat;
use skipc_artifact::interface::Role;

use crate::ty::SetSym;

/// A real attribute (an epsilon, a threshold, a RoPE base).
pub type F64 = OrderedFloat<f64>;

/// A name: of a weight in the safetensors file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(pub Arc<str>);

impl From<&str> for Name {
    fn from(text: &str) -> Name {
        Name(text.into())
    }
}

/// Sizes of a weight: rows, then columns where it has rank 2.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape(pub Vec<u32>);

/// A value as it stands between `{` and `}` in the text form.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `12`, up to 2⁶⁴ − 1.
    Int(u64),
    /// `1e-5`, `0.5`, `-0.0`; always has a point or an exponent.
    Real(f64),
    /// `"embed.weight"`.
    Text(String),
    /// `tokens`, `true`, `c3`.
    Word(String),
    /// `[64, 128]`.
    List(Vec<u64>),
    /// `input "x"`: a role with something behind its word.
    Role(Role),
}

/// A Rust type that can be an attribute.
pub trait Attr: Sized {
    /// What the op reference calls it.
    const KIND: &'static str;
    /// The same where it may be left out.
    const OPTIONAL_KIND: &'static str = Self::KIND;

    /// Writes the value so that [`Attr::read`] gives it back.
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Reads the value; `None` if the literal is of another kind or out of range.
    fn read(literal: &Literal) -> Option<Self>;

    /// What is meant where the attribute is not written; `None` if it has to be.
    fn absent() -> Option<Self> {
        None
    }

    /// Whether it is what is meant where it is not written.
    fn is_absent(&self) -> bool {
        false
    }
}

/// An attribute that may be left out.
impl<A: Attr> Attr for Option<A> {
    const KIND: &'static str = A::OPTIONAL_KIND;

    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().map_or(Ok(()), |attr| attr.print(f))
    }

    fn read(literal: &Literal) -> Option<Option<A>> {
        A::read(literal).map(Some)
    }

    fn absent() -> Option<Option<A>> {
        Some(None)
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl Attr for F64 {
    const KIND: &'static str = "real";
    const OPTIONAL_KIND: &'static str = "real?";

    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `{:?}` is the shortest text that reads back as the same f64, and always shows a point or an exponent.
        write!(f, "{:?}", self.0)
    }

    fn read(literal: &Literal) -> Option<Self> {
        match literal {
            Literal::Real(real) => Some(OrderedFloat(*real)),
            _ => None,
        }
    }
}

impl Attr for u32 {
    const KIND: &'static str = "int";
    const OPTIONAL_KIND: &'static str = "int?";

    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }

    fn read(literal: &Literal) -> Option<Self> {
        match literal {
            Literal::Int(int) => u32::try_from(*int).ok(),
            _ => None,
        }
    }
}

impl Attr for u64 {
    const KIND: &'static str = "int";

    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }

    fn read(literal: &Literal) -> Option<Self> {
        match literal {
            Literal::Int(int) => Some(*int),
            _ => None,
        }
    }
}

impl Attr for bool {
    const KIND: &'static str = "bool";

    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }

    fn read(literal: &Literal) -> Option<Self> {
        match literal {
            Literal::Word(word) if word == "true" => Some(true),
            Literal::Word(word) if word == "false" => Some(false),
            _ => None,
        }
    }
}

impl Attr for Name {
    const KIND: &'static str = "text";

    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }

    fn read(literal: &Literal) -> Option<Self> {
        match literal {
            Literal::Text(text) => Some(text.as_str().into()),
            _ => None,
        }
    }
}

impl Attr for Shape {
    const KIND: &'static str = "shape";

    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }

    fn read(literal: &Literal) -> Option<Self> {
        match literal {
            Literal::List(list) => {
                let sizes: Option<Vec<u32>> = list.iter().map(|size| u32::try_from(*size).ok()).collect();
                sizes.map(Shape)
            }
            _ => None,
        }
    }
}

impl Attr for SetSym {
    const KIND: &'static str = "set";

    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }

    fn read(literal: &Literal) -> Option<Self> {
        match literal {
            Literal::Word(word) => word.strip_prefix('c')?.parse().ok().map(SetSym),
            _ => None,
        }
    }
}
