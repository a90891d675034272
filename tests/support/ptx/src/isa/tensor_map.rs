//! Tensor maps: what `cuTensorMapEncodeTiled` checks, and which bytes a bulk tensor copy moves
//! (PTX ISA 5.5; CUDA driver API, "Tensor Map Object Management").
//!
//! The 128 bytes of a real tensor map are not documented. Those here are our own; they start with a magic and
//! end with a check sum, so that a kernel that reads, or writes, anything else through one is found out.
//!
//! Not modelled, and errors: interleaved layouts, im2col, packed types of less than 8 bits, the types whose
//! name ends in `FTZ` and `TFLOAT32` (whose copies change values), swizzles that keep more than 16 bytes
//! together, and a swizzled box whose rows are shorter than the span of the swizzle (whose place in shared
//! memory no document gives).

use super::swizzle::{Swizzle, swizzle};

#[path = "tensor_map_bytes.rs"]
mod bytes;

pub use bytes::BytesError;

/// Largest number of dimensions (PTX ISA 5.5.1).
pub const MAX_RANK: usize = 5;

/// Bytes at whose multiples a tensor map must lie (driver API, `tensorMap`).
pub const MAP_ALIGNMENT: u64 = 64;

/// Bytes at whose multiples a box must lie in shared memory (PTX ISA 9.7.9.27.1.2, `dstMem` and `srcMem`).
pub const BOX_ALIGNMENT: u32 = 128;

/// Type of a tensor's elements: `CUtensorMapDataType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DataType {
    /// 1 byte.
    Uint8 = 0,
    /// 2 bytes.
    Uint16 = 1,
    /// 4 bytes.
    Uint32 = 2,
    /// 4 bytes.
    Int32 = 3,
    /// 8 bytes.
    Uint64 = 4,
    /// 8 bytes.
    Int64 = 5,
    /// 2 bytes.
    Float16 = 6,
    /// 4 bytes.
    Float32 = 7,
    /// 8 bytes.
    Float64 = 8,
    /// 2 bytes.
    Bfloat16 = 9,
}

impl DataType {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Int32,
        Self::Uint64,
        Self::Int64,
        Self::Float16,
        Self::Float32,
        Self::Float64,
        Self::Bfloat16,
    ];

    /// Bytes of an element.
    pub const fn size(self) -> u32 {
        match self {
            Self::Uint8 => 1,
            Self::Uint16 | Self::Float16 | Self::Bfloat16 => 2,
            Self::Uint32 | Self::Int32 | Self::Float32 => 4,
            Self::Uint64 | Self::Int64 | Self::Float64 => 8,
        }
    }

    /// Whether there is a NaN to fill with.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::Float16 | Self::Float32 | Self::Float64 | Self::Bfloat16)
    }
}

/// What a load puts in place of elements outside of the tensor: `CUtensorMapFloatOOBfill` (PTX ISA 5.5.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fill {
    /// Zero.
    Zero,
    /// A NaN.
    Nan,
}

/// The arguments of `cuTensorMapEncodeTiled`; dimension 0 is the innermost. `interleave` is always "none",
/// and `l2Promotion` changes no result.
#[derive(Debug, Clone, Copy)]
pub struct Tiled<'a> {
    /// `tensorDataType`.
    pub data_type: DataType,
    /// `globalAddress`, bytes.
    pub global_address: u64,
    /// `globalDim`, elements; its length is `tensorRank`.
    pub global_dim: &'a [u64],
    /// `globalStrides`, bytes, of dimensions 1 and up.
    pub global_strides: &'a [u64],
    /// `boxDim`, elements.
    pub box_dim: &'a [u32],
    /// `elementStrides`: every how many elements one is taken.
    pub element_strides: &'a [u32],
    /// `swizzle`.
    pub swizzle: Swizzle,
    /// `oobFill`.
    pub fill: Fill,
}

/// Why there is no such tensor map: the host's fault, `CUDA_ERROR_INVALID_VALUE` of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TensorMapError {
    /// `tensorRank` must be 1 to 5.
    #[error("a tensor of rank {rank}; it must be 1 to 5")]
    Rank {
        /// Given.
        rank: usize,
    },
    /// An array's length is not the rank, or for the strides the rank less one.
    #[error("{array} has {length} values for a tensor of rank {rank}")]
    Length {
        /// Name of the argument.
        array: &'static str,
        /// Given.
        length: usize,
        /// Given.
        rank: usize,
    },
    /// `globalAddress` must be a multiple of 16.
    #[error("globalAddress {address:#x} is not a multiple of 16")]
    GlobalAddress {
        /// Given.
        address: u64,
    },
    /// `globalDim` must be 1 to 2^32.
    #[error("globalDim[{dim}] is {size}; it must be 1 to 2^32")]
    GlobalDim {
        /// Index.
        dim: usize,
        /// Given.
        size: u64,
    },
    /// `globalStrides` must be a multiple of 16 below 2^40.
    #[error("globalStrides[{idx}] is {stride}; it must be a multiple of 16 below 2^40")]
    GlobalStride {
        /// Index; dimension less one.
        idx: usize,
        /// Given.
        stride: u64,
    },
    /// `globalStrides[0]` must hold a row of `globalDim[0]` elements, other strides be at least their
    /// `globalDim`.
    #[error("globalStrides[{idx}] is {stride}, less than {least}")]
    StrideTooShort {
        /// Index; dimension less one.
        idx: usize,
        /// Given.
        stride: u64,
        /// Least that the documentation allows.
        least: u64,
    },
    /// `boxDim` must be 1 to 256.
    #[error("boxDim[{dim}] is {size}; it must be 1 to 256")]
    BoxDim {
        /// Index.
        dim: usize,
        /// Given.
        size: u32,
    },
    /// The bytes of `boxDim[0]` elements must be a multiple of 16.
    #[error("boxDim[0] is {bytes} bytes, no multiple of 16")]
    InnerBox {
        /// Bytes of the box along dimension 0.
        bytes: u32,
    },
    /// With a swizzle, the bytes of `boxDim[0]` elements must be no more than its span.
    #[error("boxDim[0] is {bytes} bytes, more than the {span} of the swizzle")]
    WiderThanSwizzle {
        /// Bytes of the box along dimension 0.
        bytes: u32,
        /// Span of the swizzle.
        span: u32,
    },
    /// The driver allows fewer bytes than the span, but no document says where the rows of the box then lie.
    #[error("boxDim[0] is {bytes} bytes, less than the {span} of the swizzle: not modelled")]
    NarrowerThanSwizzle {
        /// Bytes of the box along dimension 0.
        bytes: u32,
        /// Span of the swizzle.
        span: u32,
    },
    /// `elementStrides` must be 1 to 8.
    #[error("elementStrides[{dim}] is {stride}; it must be 1 to 8")]
    ElementStride {
        /// Index.
        dim: usize,
        /// Given.
        stride: u32,
    },
    /// The driver ignores `elementStrides[0]`; PTX ISA 5.5.3.2 wants 1.
    #[error("elementStrides[0] is {stride}; without interleave it must be 1")]
    InnerElementStride {
        /// Given.
        stride: u32,
    },
    /// Integers have no NaN.
    #[error("{data_type:?} cannot be filled with NaN")]
    NanOfIntegers {
        /// Given.
        data_type: DataType,
    },
}

/// Why a copy cannot use a tensor map: the kernel's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BoxError {
    /// The instruction's dimension is not the tensor's.
    #[error("{coordinates} coordinates for a tensor of rank {rank}")]
    Rank {
        /// Given.
        coordinates: usize,
        /// Of the tensor.
        rank: usize,
    },
    /// A store must not start before the tensor (PTX ISA 9.7.9.27.1.1).
    #[error("a store to coordinate {coordinate} of dimension {dim}")]
    NegativeStore {
        /// Index.
        dim: usize,
        /// Given.
        coordinate: i32,
    },
    /// The box must lie at a multiple of 128 in shared memory.
    #[error("a box at {address:#x} of shared memory, no multiple of 128")]
    SharedAddress {
        /// Given.
        address: u32,
    },
}

/// Part of a box: consecutive bytes of shared memory, with those that consecutive bytes of the tensor belong
/// to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Address in shared memory, after the swizzle.
    pub shared: u32,
    /// Bytes: a multiple of 16.
    pub len: u32,
    /// The part of it that lies in the tensor. The rest is filled by a load and left out by a store.
    pub inside: Option<Inside>,
}

/// See [`Piece::inside`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inside {
    /// Bytes of the piece before it.
    pub skip: u32,
    /// Bytes, at least one element.
    pub len: u32,
    /// Address in global memory of its first byte.
    pub global: u64,
}

/// A tensor in global memory and the shape of the boxes to copy (PTX ISA 5.5.2, 5.5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorMap {
    data_type: DataType,
    rank: usize,
    global_address: u64,
    global_dim: [u64; MAX_RANK],
    global_strides: [u64; MAX_RANK - 1],
    box_dim: [u32; MAX_RANK],
    element_strides: [u32; MAX_RANK],
    swizzle: Swizzle,
    fill: Fill,
}

impl TensorMap {
    /// What `cuTensorMapEncodeTiled` does.
    ///
    /// # Errors
    /// [`TensorMapError`], the first rule that the arguments break.
    pub fn encode(arguments: &Tiled<'_>) -> Result<Self, TensorMapError> {
        check_shape(arguments)?;
        check_box(arguments)?;
        let mut map = Self {
            data_type: arguments.data_type,
            rank: arguments.global_dim.len(),
            global_address: arguments.global_address,
            global_dim: [1; MAX_RANK],
            global_strides: [0; MAX_RANK - 1],
            box_dim: [1; MAX_RANK],
            element_strides: [1; MAX_RANK],
            swizzle: arguments.swizzle,
            fill: arguments.fill,
        };
        map.global_dim[..map.rank].copy_from_slice(arguments.global_dim);
        map.global_strides[..map.rank - 1].copy_from_slice(arguments.global_strides);
        map.box_dim[..map.rank].copy_from_slice(arguments.box_dim);
        map.element_strides[..map.rank].copy_from_slice(arguments.element_strides);
        Ok(map)
    }

    /// The arguments that this map was made with.
    pub fn arguments(&self) -> Tiled<'_> {
        Tiled {
            data_type: self.data_type,
            global_address: self.global_address,
            global_dim: &self.global_dim[..self.rank],
            global_strides: &self.global_strides[..self.rank - 1],
            box_dim: &self.box_dim[..self.rank],
            element_strides: &self.element_strides[..self.rank],
            swizzle: self.swizzle,
            fill: self.fill,
        }
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Bytes of a box in shared memory, which is what a load adds to its barrier's transactions, elements
    /// outside of the tensor included (PTX ISA 9.7.9.27.1.2).
    pub fn box_bytes(&self) -> u64 {
        u64::from(self.row_bytes()) * self.n_rows()
    }

    /// Sixteen bytes of elements that lie outside of the tensor (PTX ISA 5.5.3.3). The bits of the NaN that
    /// the hardware takes are not documented; these are the canonical ones.
    pub fn fill_bytes(&self) -> [u8; 16] {
        match (self.fill, self.data_type) {
            (Fill::Nan, DataType::Float16 | DataType::Bfloat16) => repeated(0x7FFF_u16.to_le_bytes()),
            (Fill::Nan, DataType::Float32) => repeated(0x7FFF_FFFF_u32.to_le_bytes()),
            (Fill::Nan, DataType::Float64) => repeated(0x7FFF_FFFF_FFFF_FFFF_u64.to_le_bytes()),
            _ => [0; 16],
        }
    }

    /// Whether the box at these coordinates starts at a multiple of 16 in global memory, as PTX ISA 5.5.3.1
    /// wants.
    pub fn starts_aligned(&self, coordinates: &[i32]) -> bool {
        coordinates.first().is_none_or(|x| (i64::from(*x) * i64::from(self.data_type.size())) % 16 == 0)
    }

    /// What a store must obey beside the rules of [`TensorMap::boxes`] (PTX ISA 9.7.9.27.1.1).
    ///
    /// # Errors
    /// [`BoxError::NegativeStore`].
    pub fn check_store(&self, coordinates: &[i32]) -> Result<(), BoxError> {
        match coordinates.iter().enumerate().find(|(_, coordinate)| **coordinate < 0) {
            Some((dim, &coordinate)) => Err(BoxError::NegativeStore { dim, coordinate }),
            None => Ok(()),
        }
    }

    /// The parts of the box whose first element has these coordinates, dimension 0 first, at address `shared`
    /// of shared memory: 16 bytes each with a swizzle, else a row each. Every byte of the box is in one of
    /// them.
    ///
    /// # Errors
    /// [`BoxError`] for a wrong number of coordinates, or a box that is not aligned.
    pub fn boxes(&self, coordinates: &[i32], shared: u32) -> Result<Boxes<'_>, BoxError> {
        if coordinates.len() != self.rank {
            return Err(BoxError::Rank { coordinates: coordinates.len(), rank: self.rank });
        }
        if !shared.is_multiple_of(BOX_ALIGNMENT) {
            return Err(BoxError::SharedAddress { address: shared });
        }
        let mut first = [0; MAX_RANK];
        for (to, from) in first.iter_mut().zip(coordinates) {
            *to = i64::from(*from);
        }
        let piece_bytes = if self.swizzle == Swizzle::None { self.row_bytes() } else { 16 };
        let mut boxes = Boxes {
            map: self,
            first,
            next: shared,
            piece_bytes,
            digits: [0; MAX_RANK],
            rows_left: self.n_rows(),
            column: 0,
            row: None,
        };
        boxes.row = boxes.row_address();
        Ok(boxes)
    }

    /// Bytes of a box along dimension 0.
    fn row_bytes(&self) -> u32 {
        self.box_dim[0] * self.data_type.size()
    }

    /// Elements of a box along `dim`: every `elementStrides[dim]`-th of `boxDim[dim]`.
    fn n_taken(&self, dim: usize) -> u32 {
        self.box_dim[dim].div_ceil(self.element_strides[dim])
    }

    fn n_rows(&self) -> u64 {
        (1..self.rank).map(|dim| u64::from(self.n_taken(dim))).product()
    }
}

/// See [`TensorMap::boxes`].
#[derive(Debug, Clone)]
pub struct Boxes<'m> {
    map: &'m TensorMap,
    /// Coordinates of the box's first element.
    first: [i64; MAX_RANK],
    /// Unswizzled address of the next piece.
    next: u32,
    piece_bytes: u32,
    /// Place of the current row in the box, of dimensions 1 and up.
    digits: [u32; MAX_RANK],
    rows_left: u64,
    /// Bytes of the current row before the next piece.
    column: u32,
    /// Address in global memory of element 0 of the tensor's row that the current row is part of, if there is
    /// one.
    row: Option<u64>,
}

impl Boxes<'_> {
    fn row_address(&self) -> Option<u64> {
        let map = self.map;
        let mut address = map.global_address;
        for dim in 1..map.rank {
            let coordinate = self.first[dim] + i64::from(self.digits[dim] * map.element_strides[dim]);
            let coordinate = u64::try_from(coordinate).ok().filter(|at| *at < map.global_dim[dim])?;
            address = address.wrapping_add(coordinate.wrapping_mul(map.global_strides[dim - 1]));
        }
        Some(address)
    }

    /// The part of the next piece that lies in the tensor.
    fn inside(&self) -> Option<Inside> {
        let row = self.row?;
        let size = i64::from(self.map.data_type.size());
        // Bytes from element 0 of the row; at most 2^32 elements of 8 bytes.
        let from = self.first[0] * size + i64::from(self.column);
        let to = from + i64::from(self.piece_bytes);
        let end = i64::try_from(self.map.global_dim[0]).ok()? * size;
        let (start, end) = (from.max(0), to.min(end));
        (start < end).then(|| Inside {
            skip: (start - from) as u32,
            len: (end - start) as u32,
            global: row.wrapping_add(start as u64),
        })
    }

    fn advance(&mut self) {
        self.next = self.next.wrapping_add(self.piece_bytes);
        self.column += self.piece_bytes;
        if self.column < self.map.row_bytes() {
            return;
        }
        self.column = 0;
        self.rows_left -= 1;
        for dim in 1..self.map.rank {
            self.digits[dim] += 1;
            if self.digits[dim] < self.map.n_taken(dim) {
                break;
            }
            self.digits[dim] = 0;
        }
        self.row = self.row_address();
    }
}

impl Iterator for Boxes<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.rows_left == 0 {
            return None;
        }
        let shared = swizzle(self.next, self.map.swizzle);
        let piece = Piece { shared, len: self.piece_bytes, inside: self.inside() };
        self.advance();
        Some(piece)
    }
}

/// Rules of the tensor in global memory.
fn check_shape(arguments: &Tiled<'_>) -> Result<(), TensorMapError> {
    let rank = arguments.global_dim.len();
    if !(1..=MAX_RANK).contains(&rank) {
        return Err(TensorMapError::Rank { rank });
    }
    let lengths = [
        ("globalStrides", arguments.global_strides.len(), rank - 1),
        ("boxDim", arguments.box_dim.len(), rank),
        ("elementStrides", arguments.element_strides.len(), rank),
    ];
    if let Some(&(array, length, _)) = lengths.iter().find(|(_, length, expected)| length != expected) {
        return Err(TensorMapError::Length { array, length, rank });
    }
    let address = arguments.global_address;
    if !address.is_multiple_of(16) {
        return Err(TensorMapError::GlobalAddress { address });
    }
    for (dim, &size) in arguments.global_dim.iter().enumerate() {
        if size == 0 || size > 1 << 32 {
            return Err(TensorMapError::GlobalDim { dim, size });
        }
    }
    for (idx, &stride) in arguments.global_strides.iter().enumerate() {
        if !stride.is_multiple_of(16) || stride >= 1 << 40 {
            return Err(TensorMapError::GlobalStride { idx, stride });
        }
        let least = match idx {
            0 => arguments.global_dim[0] * u64::from(arguments.data_type.size()),
            _ => arguments.global_dim[idx],
        };
        if stride < least {
            return Err(TensorMapError::StrideTooShort { idx, stride, least });
        }
    }
    if arguments.fill == Fill::Nan && !arguments.data_type.is_float() {
        return Err(TensorMapError::NanOfIntegers { data_type: arguments.data_type });
    }
    Ok(())
}

/// Rules of the box.
fn check_box(arguments: &Tiled<'_>) -> Result<(), TensorMapError> {
    for (dim, &size) in arguments.box_dim.iter().enumerate() {
        if !(1..=256).contains(&size) {
            return Err(TensorMapError::BoxDim { dim, size });
        }
    }
    for (dim, &stride) in arguments.element_strides.iter().enumerate() {
        if !(1..=8).contains(&stride) {
            return Err(TensorMapError::ElementStride { dim, stride });
        }
    }
    if arguments.element_strides[0] != 1 {
        return Err(TensorMapError::InnerElementStride { stride: arguments.element_strides[0] });
    }
    let bytes = arguments.box_dim[0] * arguments.data_type.size();
    if !bytes.is_multiple_of(16) {
        return Err(TensorMapError::InnerBox { bytes });
    }
    let span = arguments.swizzle.span();
    match arguments.swizzle {
        Swizzle::None => Ok(()),
        _ if bytes > span => Err(TensorMapError::WiderThanSwizzle { bytes, span }),
        _ if bytes < span => Err(TensorMapError::NarrowerThanSwizzle { bytes, span }),
        _ => Ok(()),
    }
}

/// A value, again and again.
fn repeated<const N: usize>(value: [u8; N]) -> [u8; 16] {
    std::array::from_fn(|at| value[at % N])
}

#[cfg(test)]
#[path = "tensor_map_tests.rs"]
mod tests;
