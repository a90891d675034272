//! The bits by which the compiler orders instructions: since Maxwell the hardware has no other order within a warp than what
//! they say. They stand from bit 105 of an instruction's 128 on, as the field has found out (Jia and others 2018, "Dissecting
//! the NVIDIA Volta GPU architecture via microbenchmarking", section 2.1).

/// When an instruction may issue, and what waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// Cycles until the warp's next instruction may issue.
    pub stall: u8,
    /// The barrier that is released once the result is there, for instructions of unknown latency.
    pub write_barrier: Option<u8>,
    /// The barrier that is released once the operands have been read.
    pub read_barrier: Option<u8>,
    /// The barriers that have to be released before it issues, a bit each.
    pub waits: u8,
}

impl Control {
    /// Those of an instruction with these upper 64 bits.
    pub fn of(upper: u64) -> Control {
        let bits = upper >> 41;
        let field = |from: u32, width: u32| (bits >> from & ((1 << width) - 1)) as u8;
        let barrier = |number: u8| (number != NO_BARRIER).then_some(number);
        Control {
            stall: field(0, 4),
            write_barrier: barrier(field(5, 3)),
            read_barrier: barrier(field(8, 3)),
            waits: field(11, 6),
        }
    }

    /// Whether it waits for a barrier.
    pub fn waits_for(&self, barrier: u8) -> bool {
        self.waits >> barrier & 1 == 1
    }
}

/// The number that stands for no barrier.
const NO_BARRIER: u8 = 7;

/// Barriers of a warp.
pub(crate) const BARRIERS: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_assembler_puts_them() {
        // `LDG.E R0, desc[UR16][R2.64]`, which waits for the address (barrier 1) and releases barrier 2.
        let load = Control::of(0x002e_a200_0c1e_1900);
        assert_eq!(load, Control { stall: 1, write_barrier: Some(2), read_barrier: None, waits: 0b10 });
        assert!(load.waits_for(1) && !load.waits_for(0));
        // `LDC R1, c[0x0][0x28]`, which is followed after four cycles.
        let constant = Control::of(0x000f_f000_0000_0800);
        assert_eq!(constant, Control { stall: 8, write_barrier: None, read_barrier: None, waits: 0 });
    }
}
