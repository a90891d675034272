//! The registers of one warp: 32 lanes side by side, each with a mark of whether it was ever written.

/// Lanes of a warp (PTX ISA section 3.1).
pub const WARP: usize = 32;

/// A 32-bit value of each lane; 16-bit values are extended with zeros.
pub type Lanes32 = [u32; WARP];

/// A 64-bit value of each lane.
pub type Lanes64 = [u64; WARP];

/// One bit for each lane; bit 0 is lane 0.
pub type Mask = u32;

/// Where a value lies: an index into one of the three files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// 16 or 32 bits.
    Word(u32),
    /// 64 bits.
    Double(u32),
    /// A predicate.
    Predicate(u32),
}

/// A 32-bit operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source32 {
    /// Slot in the file of words.
    Register(u32),
    /// The same value in every lane.
    Constant(u32),
}

/// A 64-bit operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source64 {
    /// Slot in the file of doubles.
    Register(u32),
    /// The same value in every lane.
    Constant(u64),
}

/// A predicate operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourcePredicate {
    /// Slot in the file of predicates, and whether it is negated.
    Register(u32, bool),
    /// The same value in every lane.
    Constant(bool),
}

/// A register that was read before it was written, or while an asynchronous instruction still owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unset {
    /// Which.
    pub slot: Slot,
    /// Lanes that read it and have no value.
    pub lanes: Mask,
}

/// Why an instruction could not be done on the registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterFault {
    /// An operand has no value.
    Unset(Unset),
    /// The lanes that execute a `.sync` instruction together are not those that it names (PTX ISA section
    /// 9.7.13.9).
    Membermask {
        /// The lane whose member mask does not hold.
        lane: usize,
        /// The lanes that it waits for.
        wanted: Mask,
        /// Those that are there.
        executing: Mask,
    },
    /// A shuffle reads from a lane that does not take part (PTX ISA section 9.7.9.6).
    SourceLane {
        /// The lane that reads.
        lane: usize,
        /// The lane that it reads from.
        source: usize,
    },
}

impl From<Unset> for RegisterFault {
    fn from(unset: Unset) -> Self {
        Self::Unset(unset)
    }
}

/// The registers of a warp.
#[derive(Debug, Clone)]
pub struct Registers {
    words: Vec<Lanes32>,
    doubles: Vec<Lanes64>,
    predicates: Vec<Mask>,
    set_words: Vec<Mask>,
    set_doubles: Vec<Mask>,
    set_predicates: Vec<Mask>,
    /// Words written since the last [`Registers::fence`].
    fresh: Vec<bool>,
    /// Lanes of the warp that have not ended.
    pub alive: Mask,
}

/// What an unwritten register holds: a signalling pattern that is easy to see in a dump.
const UNSET: u64 = 0xDEAD_BEEF_DEAD_BEEF;

impl Registers {
    /// Registers without values, of a warp whose lanes are all there.
    pub fn new(n_words: usize, n_doubles: usize, n_predicates: usize) -> Self {
        Self {
            words: vec![[UNSET as u32; WARP]; n_words],
            doubles: vec![[UNSET; WARP]; n_doubles],
            predicates: vec![0; n_predicates],
            set_words: vec![0; n_words],
            set_doubles: vec![0; n_doubles],
            set_predicates: vec![0; n_predicates],
            fresh: vec![false; n_words],
            alive: Mask::MAX,
        }
    }

    /// Values of all lanes; those of `mask` have been written.
    ///
    /// # Errors
    /// [`Unset`] if one of them has not.
    #[inline]
    pub fn get32(&self, source: Source32, mask: Mask) -> Result<Lanes32, Unset> {
        match source {
            Source32::Constant(value) => Ok([value; WARP]),
            Source32::Register(slot) => {
                let lanes = mask & !self.set_words[slot as usize];
                if lanes != 0 {
                    return Err(Unset { slot: Slot::Word(slot), lanes });
                }
                Ok(self.words[slot as usize])
            }
        }
    }

    /// As [`Registers::get32`], for 64 bits.
    ///
    /// # Errors
    /// [`Unset`] if a lane of `mask` was never written.
    #[inline]
    pub fn get64(&self, source: Source64, mask: Mask) -> Result<Lanes64, Unset> {
        match source {
            Source64::Constant(value) => Ok([value; WARP]),
            Source64::Register(slot) => {
                let lanes = mask & !self.set_doubles[slot as usize];
                if lanes != 0 {
                    return Err(Unset { slot: Slot::Double(slot), lanes });
                }
                Ok(self.doubles[slot as usize])
            }
        }
    }

    /// A predicate of all lanes, as a mask.
    ///
    /// # Errors
    /// [`Unset`] if a lane of `mask` was never written.
    #[inline]
    pub fn get_predicate(&self, source: SourcePredicate, mask: Mask) -> Result<Mask, Unset> {
        match source {
            SourcePredicate::Constant(value) => Ok(if value { Mask::MAX } else { 0 }),
            SourcePredicate::Register(slot, negated) => {
                let lanes = mask & !self.set_predicates[slot as usize];
                if lanes != 0 {
                    return Err(Unset { slot: Slot::Predicate(slot), lanes });
                }
                let value = self.predicates[slot as usize];
                Ok(if negated { !value } else { value })
            }
        }
    }

    /// Writes the lanes of `mask`.
    #[inline]
    pub fn set32(&mut self, slot: u32, mask: Mask, values: &Lanes32) {
        let to = &mut self.words[slot as usize];
        if mask == Mask::MAX {
            *to = *values;
        } else {
            for lane in lanes(mask) {
                to[lane] = values[lane];
            }
        }
        self.set_words[slot as usize] |= mask;
        self.fresh[slot as usize] = true;
    }

    /// Writes the lanes of `mask` on behalf of an asynchronous instruction that is complete.
    pub fn complete32(&mut self, slot: u32, mask: Mask, values: &Lanes32) {
        let fresh = self.fresh[slot as usize];
        self.set32(slot, mask, values);
        self.fresh[slot as usize] = fresh;
    }

    /// Whether a word was written since the last [`Registers::fence`].
    pub fn is_fresh(&self, slot: u32) -> bool {
        self.fresh[slot as usize]
    }

    /// Orders what was written before asynchronous instructions that come (`wgmma.fence`, PTX ISA section 9.7.15.7.1).
    pub fn fence(&mut self) {
        self.fresh.fill(false);
    }

    /// Writes the lanes of `mask`.
    #[inline]
    pub fn set64(&mut self, slot: u32, mask: Mask, values: &Lanes64) {
        let to = &mut self.doubles[slot as usize];
        if mask == Mask::MAX {
            *to = *values;
        } else {
            for lane in lanes(mask) {
                to[lane] = values[lane];
            }
        }
        self.set_doubles[slot as usize] |= mask;
    }

    /// Writes the lanes of `mask`.
    #[inline]
    pub fn set_predicate(&mut self, slot: u32, mask: Mask, values: Mask) {
        let to = &mut self.predicates[slot as usize];
        *to = (*to & !mask) | (values & mask);
        self.set_predicates[slot as usize] |= mask;
    }

    /// Takes the values of a word away from the lanes of `mask`, as an asynchronous instruction does with its results.
    pub fn unset32(&mut self, slot: u32, mask: Mask) {
        self.set_words[slot as usize] &= !mask;
    }
}

/// The lanes of a mask, lowest first.
#[inline]
pub fn lanes(mask: Mask) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let lane = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        Some(lane)
    })
}
