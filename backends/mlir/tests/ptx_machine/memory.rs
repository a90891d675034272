//! Global and shared memory.

/// Where the first operand lies; each further one lies this much higher.
const OPERAND: u64 = 1 << 40;

/// Where shared memory lies.
const SHARED: u64 = 1 << 32;

/// Shared memory is full of this: NaN in every type.
const POISON: u8 = 0xFF;

pub(crate) fn operand_address(index: usize) -> u64 {
    (index as u64 + 1) * OPERAND
}

pub(crate) fn shared_address() -> u64 {
    SHARED
}

pub(crate) struct Global<'o> {
    pub(crate) operands: &'o mut [Vec<u8>],
}

impl Global<'_> {
    fn slice(&mut self, address: u64, bytes: u32) -> Result<&mut [u8], String> {
        if !address.is_multiple_of(u64::from(bytes)) {
            return Err(format!("global address {address:#x} is not a multiple of {bytes}"));
        }
        let index = (address / OPERAND).checked_sub(1).ok_or("an address below all operands")? as usize;
        let offset = (address % OPERAND) as usize;
        let operand = self.operands.get_mut(index).ok_or_else(|| format!("no operand {index}"))?;
        let len = operand.len();
        operand
            .get_mut(offset..offset + bytes as usize)
            .ok_or_else(|| format!("bytes {offset}..+{bytes} of operand {index}, which has {len}"))
    }

    pub(crate) fn read(&mut self, address: u64, bytes: u32) -> Result<Vec<u8>, String> {
        self.slice(address, bytes).map(|slice| slice.to_vec())
    }

    pub(crate) fn write(&mut self, address: u64, data: &[u8]) -> Result<(), String> {
        self.slice(address, data.len() as u32)?.copy_from_slice(data);
        Ok(())
    }
}

/// Who touched a byte last.
#[derive(Clone, Copy, Default)]
struct Touch {
    /// Number of the barrier before it, plus one; 0 if never.
    phase: u32,
    /// The thread; `MANY` if several.
    thread: u32,
}

const MANY: u32 = u32::MAX;

pub(crate) struct SharedMemory {
    bytes: Vec<u8>,
    written: Vec<Touch>,
    read: Vec<Touch>,
    /// Number of the last barrier, plus one.
    pub(crate) phase: u32,
}

impl SharedMemory {
    pub(crate) fn new(bytes: u32) -> Self {
        let n = bytes as usize;
        Self {
            bytes: vec![POISON; n],
            written: vec![Touch::default(); n],
            read: vec![Touch::default(); n],
            phase: 1,
        }
    }

    fn place(&self, address: u64, bytes: u32) -> Result<std::ops::Range<usize>, String> {
        let offset = address.wrapping_sub(SHARED);
        if !offset.is_multiple_of(u64::from(bytes)) {
            return Err(format!("shared offset {offset} is not a multiple of {bytes}"));
        }
        let end = offset.saturating_add(u64::from(bytes));
        if end > self.bytes.len() as u64 {
            return Err(format!("shared bytes {offset}..+{bytes} of {}", self.bytes.len()));
        }
        Ok(offset as usize..end as usize)
    }

    pub(crate) fn read(&mut self, thread: u32, address: u64, bytes: u32) -> Result<Vec<u8>, String> {
        let place = self.place(address, bytes)?;
        for byte in place.clone() {
            let written = self.written[byte];
            if written.phase == self.phase && written.thread != thread {
                return Err(format!(
                    "shared byte {byte} is read without a barrier after thread {} wrote it",
                    written.thread
                ));
            }
            let read = &mut self.read[byte];
            let same = read.phase != self.phase || read.thread == thread;
            *read = Touch { phase: self.phase, thread: if same { thread } else { MANY } };
        }
        Ok(self.bytes[place].to_vec())
    }

    /// Checks that a thread may write there now, and notes that it does.
    pub(crate) fn claim(&mut self, thread: u32, address: u64, bytes: u32) -> Result<(), String> {
        for byte in self.place(address, bytes)? {
            for (what, touch) in [("wrote", self.written[byte]), ("read", self.read[byte])] {
                if touch.phase == self.phase && touch.thread != thread {
                    return Err(format!(
                        "shared byte {byte} is written without a barrier after thread {} {what} it",
                        touch.thread
                    ));
                }
            }
            self.written[byte] = Touch { phase: self.phase, thread };
        }
        Ok(())
    }

    pub(crate) fn write(&mut self, thread: u32, address: u64, data: &[u8]) -> Result<(), String> {
        self.claim(thread, address, data.len() as u32)?;
        let place = self.place(address, data.len() as u32)?;
        self.bytes[place].copy_from_slice(data);
        Ok(())
    }

    /// Overwrites with poison, as before an asynchronous copy arrives.
    pub(crate) fn poison(&mut self, thread: u32, address: u64, bytes: u32) -> Result<(), String> {
        self.write(thread, address, &vec![POISON; bytes as usize])
    }
}
