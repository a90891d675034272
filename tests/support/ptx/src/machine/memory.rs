//! Global memory: buffers that the caller owns, each alone in its stretch of addresses.

use super::fault::{FaultKind, Finding};
use super::shadow::{Access, Conflict, Shadow};

/// Addresses of a buffer: this many bits.
const STRETCH: u32 = 40;

/// Stretch of the first buffer; those below hold the other spaces.
const FIRST: u64 = 16;

/// Bytes whose shadow is made at once, when the first of them is touched.
const PAGE: usize = 4096;

/// A buffer in global memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffer {
    /// Its name, for messages.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Whether a kernel may write it.
    pub writable: bool,
}

/// Global memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    buffers: Vec<Buffer>,
}

impl Memory {
    /// Puts a buffer into memory and tells its address, which is a multiple of 256 and more.
    pub fn add(&mut self, buffer: Buffer) -> u64 {
        self.buffers.push(buffer);
        (self.buffers.len() as u64 - 1 + FIRST) << STRETCH
    }

    /// The buffers, in the order in which they were added.
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// The buffers, in the order in which they were added.
    pub fn into_buffers(self) -> Vec<Buffer> {
        self.buffers
    }

    /// Index of the buffer and offset in it.
    pub(crate) fn place(
        &self,
        lane: u32,
        address: u64,
        bytes: u32,
        align: u32,
    ) -> Result<(usize, usize), Finding> {
        let index = (address >> STRETCH).wrapping_sub(FIRST) as usize;
        let offset = (address & ((1 << STRETCH) - 1)) as usize;
        let Some(buffer) = self.buffers.get(index) else {
            let what = format!("global address {address:#x} is in no buffer");
            return Err(Finding { kind: FaultKind::OutOfBounds, lane, what });
        };
        if offset + bytes as usize > buffer.bytes.len() {
            let (name, size) = (&buffer.name, buffer.bytes.len());
            let what = format!("bytes {offset}..{} of `{name}`, which has {size}", offset + bytes as usize);
            return Err(Finding { kind: FaultKind::OutOfBounds, lane, what });
        }
        if !offset.is_multiple_of(align as usize) {
            let what = format!("byte {offset} of `{}` is not aligned to {align} bytes", buffer.name);
            return Err(Finding { kind: FaultKind::Misaligned, lane, what });
        }
        Ok((index, offset))
    }

    pub(crate) fn buffer(&self, index: usize) -> &Buffer {
        &self.buffers[index]
    }

    pub(crate) fn bytes_mut(&mut self, index: usize) -> &mut [u8] {
        &mut self.buffers[index].bytes
    }
}

/// The shadow of all buffers during a launch.
#[derive(Debug)]
pub(crate) struct GlobalShadow {
    pages: Vec<Vec<Option<Box<Shadow>>>>,
    granule: u32,
}

impl GlobalShadow {
    pub(crate) fn new(memory: &Memory, granule: u32) -> Self {
        let pages = |buffer: &Buffer| (0..buffer.bytes.len().div_ceil(PAGE)).map(|_| None).collect();
        Self { pages: memory.buffers.iter().map(pages).collect(), granule }
    }

    fn page(&mut self, (buffer, offset): (usize, usize)) -> &mut Shadow {
        let granule = self.granule;
        self.pages[buffer][offset / PAGE].get_or_insert_with(|| Box::new(Shadow::new(PAGE, granule)))
    }

    /// Notes a read of bytes that lie in one page, as aligned accesses do.
    #[inline]
    pub(crate) fn read(
        &mut self,
        place: (usize, usize),
        bytes: usize,
        access: &Access<'_>,
    ) -> Result<(), Conflict> {
        let at = place.1 % PAGE;
        let result = self.page(place).read(at, bytes, access);
        result.map_err(|conflict| in_buffer(conflict, place.1 - at))
    }

    /// Notes a write of bytes that lie in one page.
    #[inline]
    pub(crate) fn write(
        &mut self,
        place: (usize, usize),
        bytes: usize,
        access: &Access<'_>,
    ) -> Result<(), Conflict> {
        let at = place.1 % PAGE;
        let result = self.page(place).write(at, bytes, access);
        result.map_err(|conflict| in_buffer(conflict, place.1 - at))
    }
}

fn in_buffer(conflict: Conflict, page: usize) -> Conflict {
    Conflict { offset: conflict.offset + page, ..conflict }
}
