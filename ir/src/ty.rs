//! Types of values: element kinds, dimensions, token sets, states.

use std::collections::BTreeMap;
use std::fmt;

use smallvec::SmallVec;

/// What one element of a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Elem {
    /// A number in the precision that the compile chooses for the target.
    Real,
    /// A number in f32 whatever the target: router logits and what is computed from them.
    F32,
    /// A token id, a position or a sequence index.
    Int,
    /// One decision: true means execute.
    Mask,
}

impl Elem {
    /// All element kinds with the word that the text form uses.
    pub const ALL: [(Elem, &'static str); 4] =
        [(Elem::Real, "real"), (Elem::F32, "f32"), (Elem::Int, "int"), (Elem::Mask, "mask")];
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, word) = Self::ALL.iter().find(|(elem, _)| elem == self).unwrap_or(&Self::ALL[0]);
        f.write_str(word)
    }
}

/// Names a token set, and with it the dimension `c<number>` that counts its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetSym(pub u32);

impl fmt::Display for SetSym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

/// The size of one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// Known when the model is compiled.
    Fixed(u32),
    /// `n`: the tokens of the batch, known to the host before a step.
    Tokens,
    /// `c…`: the executed tokens of a set, known to the device only, during a step.
    Count(SetSym),
    /// `m`: the rows of a cache, known when its memory is allocated, which outlives a step.
    Cached,
}

impl Dim {
    /// Whether rows of this dimension are tokens (all of them or those of a set).
    pub fn is_token_rows(self) -> bool {
        match self {
            Dim::Tokens | Dim::Count(_) => true,
            Dim::Fixed(_) | Dim::Cached => false,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(size) => write!(f, "{size}"),
            Dim::Tokens => f.write_str("n"),
            Dim::Count(sym) => write!(f, "{sym}"),
            Dim::Cached => f.write_str("m"),
        }
    }
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Type {
    /// A tensor of rank 1 (`[rows]`) or 2 (`[rows, columns]`).
    Tensor {
        /// What its elements are.
        elem: Elem,
        /// Its sizes, rows first.
        dims: SmallVec<[Dim; 2]>,
    },
    /// A token set `tokens<sym ≤ of>`: which rows of `of` execute, in order.
    Set {
        /// The dimension that counts its rows.
        sym: SetSym,
        /// The rows it selects from.
        of: Dim,
    },
    /// Rows in segments, `parts<sym ≤ of, parts>`: each segment in order, no row twice.
    Partition {
        /// The dimension that counts the rows of all segments.
        sym: SetSym,
        /// The rows it selects from.
        of: Dim,
        /// How many segments there are.
        parts: u32,
    },
    /// A tensor that outlives the step: a value of it is used up by the one op that makes the next of it, or by the
    /// graph's result. Others may look at it, as long as it is there.
    State {
        /// What its elements are.
        elem: Elem,
        /// Its sizes, rows first; none depends on the step.
        dims: SmallVec<[Dim; 2]>,
    },
}

impl Type {
    /// A tensor type.
    pub fn tensor(elem: Elem, dims: &[Dim]) -> Type {
        Type::Tensor { elem, dims: SmallVec::from_slice(dims) }
    }

    /// The element kind and sizes of a tensor; `None` for a set and a state.
    pub fn as_tensor(&self) -> Option<(Elem, &[Dim])> {
        match self {
            Type::Tensor { elem, dims } => Some((*elem, dims)),
            Type::Set { .. } | Type::Partition { .. } | Type::State { .. } => None,
        }
    }

    /// The element kind and sizes of a state.
    pub fn as_state(&self) -> Option<(Elem, &[Dim])> {
        match self {
            Type::State { elem, dims } => Some((*elem, dims)),
            Type::Tensor { .. } | Type::Set { .. } | Type::Partition { .. } => None,
        }
    }

    /// The symbol of a set or partition, and the rows that it selects from.
    pub fn as_rows(&self) -> Option<(SetSym, Dim)> {
        match self {
            Type::Set { sym, of } | Type::Partition { sym, of, .. } => Some((*sym, *of)),
            Type::Tensor { .. } | Type::State { .. } => None,
        }
    }

    /// Whether it is a state's.
    pub fn is_state(&self) -> bool {
        self.as_state().is_some()
    }

    /// The rows of a tensor or state, or the rows that a set or partition counts.
    pub fn rows(&self) -> Dim {
        match self {
            Type::Tensor { dims, .. } | Type::State { dims, .. } => {
                dims.first().copied().unwrap_or(Dim::Fixed(1))
            }
            Type::Set { sym, .. } | Type::Partition { sym, .. } => Dim::Count(*sym),
        }
    }

    /// The columns of a tensor or state: 1 for a tensor of rank 1, a set and a partition.
    pub fn cols(&self) -> u32 {
        match self {
            Type::Tensor { dims, .. } | Type::State { dims, .. } => match dims.get(1) {
                Some(Dim::Fixed(size)) => *size,
                _ => 1,
            },
            Type::Set { .. } | Type::Partition { .. } => 1,
        }
    }

    /// Gives token sets other symbols.
    pub fn rename_sets(&mut self, renames: &BTreeMap<SetSym, SetSym>) {
        let rename = |sym: &mut SetSym| *sym = *renames.get(sym).unwrap_or(sym);
        let (dims, own) = match self {
            Type::Tensor { dims, .. } | Type::State { dims, .. } => (dims.as_mut_slice(), None),
            Type::Set { sym, of } | Type::Partition { sym, of, .. } => (std::slice::from_mut(of), Some(sym)),
        };
        own.into_iter().for_each(rename);
        for dim in dims {
            if let Dim::Count(sym) = dim {
                rename(sym);
            }
        }
    }
}

/// Sizes with commas between them.
struct Sizes<'a>(&'a [Dim]);

impl fmt::Display for Sizes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (idx, dim) in self.0.iter().enumerate() {
            let comma = if idx > 0 { ", " } else { "" };
            write!(f, "{comma}{dim}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Tensor { elem, dims } => write!(f, "{elem}[{}]", Sizes(dims)),
            Type::State { elem, dims } => write!(f, "state<{elem}[{}]>", Sizes(dims)),
            Type::Set { sym, of } => write!(f, "tokens<{sym} <= {of}>"),
            Type::Partition { sym, of, parts } => write!(f, "parts<{sym} <= {of}, {parts}>"),
        }
    }
}
