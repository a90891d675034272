//! The 128 bytes in which a tensor map travels from the host to a kernel: our own, see [`super`].

use super::{DataType, Fill, TensorMap, TensorMapError, Tiled};
use crate::isa::swizzle::Swizzle;

/// The first eight bytes.
const MAGIC: [u8; 8] = *b"skipcTM\x01";

/// Why 128 bytes are no tensor map: something else was passed, or something was written over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BytesError {
    /// They do not start as a tensor map does.
    #[error("no tensor map: it starts with {found:02x?}")]
    Magic {
        /// The first bytes.
        found: [u8; 8],
    },
    /// They are not as they were written.
    #[error("a tensor map that was changed after it was made")]
    CheckSum,
    /// A field has a value that no map has.
    #[error("a tensor map with {field} {value}")]
    Field {
        /// Which.
        field: &'static str,
        /// Its value.
        value: u8,
    },
    /// What they say breaks a rule.
    #[error(transparent)]
    Rule(#[from] TensorMapError),
}

// Where the fields stand, in bytes; what lies between is zero.
const DATA_TYPE: usize = 8;
const RANK: usize = 9;
const SWIZZLE: usize = 10;
const FILL: usize = 11;
const ADDRESS: usize = 16;
/// Five numbers of 4 bytes, less one.
const DIMS: usize = 24;
/// Four numbers of 8 bytes.
const STRIDES: usize = 44;
/// Five numbers of 1 byte, less one.
const BOX: usize = 76;
/// Five numbers of 1 byte.
const ELEMENT_STRIDES: usize = 81;
/// Eight bytes over all before.
const CHECK_SUM: usize = 120;

impl TensorMap {
    /// The bytes that a kernel gets for its `__grid_constant__` parameter.
    pub fn to_bytes(&self) -> [u8; 128] {
        let mut bytes = [0; 128];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[DATA_TYPE] = self.data_type as u8;
        bytes[RANK] = self.rank as u8;
        bytes[SWIZZLE] = self.swizzle as u8;
        bytes[FILL] = self.fill as u8;
        bytes[ADDRESS..ADDRESS + 8].copy_from_slice(&self.global_address.to_le_bytes());
        for dim in 0..self.rank {
            let at = DIMS + 4 * dim;
            bytes[at..at + 4].copy_from_slice(&((self.global_dim[dim] - 1) as u32).to_le_bytes());
            bytes[BOX + dim] = (self.box_dim[dim] - 1) as u8;
            bytes[ELEMENT_STRIDES + dim] = self.element_strides[dim] as u8;
        }
        for idx in 0..self.rank - 1 {
            let at = STRIDES + 8 * idx;
            bytes[at..at + 8].copy_from_slice(&self.global_strides[idx].to_le_bytes());
        }
        let sum = check_sum(&bytes[..CHECK_SUM]);
        bytes[CHECK_SUM..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads what [`TensorMap::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`BytesError`] if these are other bytes.
    pub fn from_bytes(bytes: &[u8; 128]) -> Result<Self, BytesError> {
        let found = std::array::from_fn(|at| bytes[at]);
        if found != MAGIC {
            return Err(BytesError::Magic { found });
        }
        if number(bytes, CHECK_SUM, 8) != check_sum(&bytes[..CHECK_SUM]) {
            return Err(BytesError::CheckSum);
        }
        let value = |at: usize, field| BytesError::Field { field, value: bytes[at] };
        let data_type = DataType::ALL.into_iter().find(|known| *known as u8 == bytes[DATA_TYPE]);
        let swizzle = Swizzle::ALL.into_iter().find(|known| *known as u8 == bytes[SWIZZLE]);
        let fill = [Fill::Zero, Fill::Nan].into_iter().find(|known| *known as u8 == bytes[FILL]);
        let rank = usize::from(bytes[RANK]);
        if !(1..=super::MAX_RANK).contains(&rank) {
            return Err(value(RANK, "rank"));
        }
        let dims: [u64; 5] = std::array::from_fn(|dim| number(bytes, DIMS + 4 * dim, 4) + 1);
        let strides: [u64; 4] = std::array::from_fn(|idx| number(bytes, STRIDES + 8 * idx, 8));
        let boxes: [u32; 5] = std::array::from_fn(|dim| u32::from(bytes[BOX + dim]) + 1);
        let steps: [u32; 5] = std::array::from_fn(|dim| u32::from(bytes[ELEMENT_STRIDES + dim]));
        Ok(Self::encode(&Tiled {
            data_type: data_type.ok_or(value(DATA_TYPE, "data type"))?,
            global_address: number(bytes, ADDRESS, 8),
            global_dim: &dims[..rank],
            global_strides: &strides[..rank - 1],
            box_dim: &boxes[..rank],
            element_strides: &steps[..rank],
            swizzle: swizzle.ok_or(value(SWIZZLE, "swizzle"))?,
            fill: fill.ok_or(value(FILL, "fill"))?,
        })?)
    }
}

/// A little-endian number of `n_bytes`.
fn number(bytes: &[u8; 128], at: usize, n_bytes: usize) -> u64 {
    bytes[at..at + n_bytes].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// FNV-1a: enough to notice a stray write.
fn check_sum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |sum: u64, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}
