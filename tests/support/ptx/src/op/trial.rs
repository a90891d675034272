//! Runs one instruction of the tables on registers made from values, for the tests of the families.

use crate::machine::Run;
use crate::machine::decode::{DecodeError, Decoder, Table};
use crate::registers::{Mask, RegisterFault, Registers, Slot, Source32, Source64, SourcePredicate, WARP};
use crate::syntax::{Instruction, Kernel, Operand, Register, RegisterClass, RegisterId};

/// The address of the one variable that trials have.
pub(super) const SYMBOL: u64 = 0x7_1234_5678;

/// A source operand; a register holds the same value in all lanes, but for [`Value::Lanes`] and
/// [`Value::Votes`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'v> {
    B16(u16),
    B32(u32),
    B64(u64),
    Predicate(bool),
    Lanes(&'v [u32; WARP]),
    Votes(Mask),
    Integer(u64),
    Float32(f32),
    Float64(f64),
    Symbol,
    List(&'v [Value<'v>]),
}

/// What an instruction is tried with.
pub(super) struct Trial {
    registers: Vec<Register>,
    /// Values of registers, all lanes.
    values: Vec<Option<[u64; WARP]>>,
    operands: Vec<Operand>,
}

impl Trial {
    pub(super) fn new() -> Self {
        Self { registers: Vec::new(), values: Vec::new(), operands: Vec::new() }
    }

    fn register(&mut self, class: RegisterClass, values: Option<[u64; WARP]>) -> Operand {
        let id = RegisterId(self.registers.len() as u32);
        self.registers.push(Register { name: format!("%{}", id.0), class });
        self.values.push(values);
        Operand::Register(id)
    }

    fn operand(&mut self, value: Value<'_>) -> Operand {
        use RegisterClass::{B16, B32, B64, Predicate};
        match value {
            Value::B16(value) => self.register(B16, Some([u64::from(value); WARP])),
            Value::B32(value) => self.register(B32, Some([u64::from(value); WARP])),
            Value::B64(value) => self.register(B64, Some([value; WARP])),
            Value::Predicate(value) => self.register(Predicate, Some([u64::from(value); WARP])),
            Value::Lanes(values) => self.register(B32, Some(values.map(u64::from))),
            Value::Votes(bits) => {
                let bit = |lane: usize| u64::from(bits >> lane & 1);
                self.register(Predicate, Some(std::array::from_fn(bit)))
            }
            Value::Integer(value) => Operand::Integer(value),
            Value::Float32(value) => Operand::Float32(value.to_bits()),
            Value::Float64(value) => Operand::Float64(value.to_bits()),
            Value::Symbol => Operand::Symbol("variable".to_owned()),
            Value::List(items) => Operand::List(items.iter().map(|item| self.operand(*item)).collect()),
        }
    }

    /// A result of each class, joined by `|` if there are two.
    pub(super) fn results(mut self, classes: &[RegisterClass]) -> Self {
        let mut results: Vec<Operand> = classes.iter().map(|class| self.register(*class, None)).collect();
        let operand = match (results.pop(), results.pop()) {
            (Some(second), Some(first)) => Operand::Pair(Box::new(first), Box::new(second)),
            (Some(single), None) => single,
            _ => Operand::Sink,
        };
        self.operands.push(operand);
        self
    }

    pub(super) fn result_list(mut self, class: RegisterClass, n: usize) -> Self {
        let results = (0..n).map(|_| self.register(class, None)).collect();
        self.operands.push(Operand::List(results));
        self
    }

    pub(super) fn sources(mut self, values: &[Value<'_>]) -> Self {
        for value in values {
            let operand = self.operand(*value);
            self.operands.push(operand);
        }
        self
    }

    pub(super) fn with(mut self, operand: Operand) -> Self {
        self.operands.push(operand);
        self
    }

    fn kernel(&self, opcode: &str) -> Kernel {
        let operands = self.operands.clone();
        let (opcode, text) = (opcode.to_owned(), opcode.to_owned());
        let instruction = Instruction { line: 1, guard: None, opcode, operands, text };
        Kernel {
            name: "trial".to_owned(),
            params: Vec::new(),
            threads: None,
            cluster: None,
            registers: self.registers.clone(),
            variables: Vec::new(),
            instructions: vec![instruction],
        }
    }

    pub(super) fn decode(&self, table: &Table, opcode: &str) -> Result<Run, DecodeError> {
        let kernel = self.kernel(opcode);
        let mut decoder = Decoder::new(&kernel, &|_| Some(SYMBOL));
        decoder.decode(table, &kernel.instructions[0]).map(|(_, run)| run)
    }

    /// Runs it; the values of all registers after it, results first.
    pub(super) fn run(&self, opcode: &str, mask: Mask) -> Result<Vec<[u64; WARP]>, RegisterFault> {
        let kernel = self.kernel(opcode);
        let mut decoder = Decoder::new(&kernel, &|_| Some(SYMBOL));
        let decoded = decoder.decode(super::table(), &kernel.instructions[0]);
        let Ok((_, Run::Registers(run))) = decoded else { panic!("{opcode}: {:?}", decoded.err()) };
        let (n_words, n_doubles, n_predicates) = decoder.sizes();
        let mut registers = Registers::new(n_words, n_doubles, n_predicates);
        let slots = |at: usize| decoder.slot(&Operand::Register(RegisterId(at as u32))).expect("a register");
        for (at, values) in self.values.iter().enumerate() {
            if let Some(values) = values {
                write(&mut registers, slots(at), values);
            }
        }
        run(&mut registers, mask)?;
        Ok((0..self.values.len()).map(|at| read(&registers, slots(at))).collect())
    }
}

fn write(registers: &mut Registers, slot: Slot, values: &[u64; WARP]) {
    match slot {
        Slot::Word(slot) => registers.set32(slot, Mask::MAX, &values.map(|value| value as u32)),
        Slot::Double(slot) => registers.set64(slot, Mask::MAX, values),
        Slot::Predicate(slot) => {
            let bits = super::lanes::each_bit(|lane| values[lane] != 0);
            registers.set_predicate(slot, Mask::MAX, bits);
        }
    }
}

/// Whatever lies there, written or not.
fn read(registers: &Registers, slot: Slot) -> [u64; WARP] {
    let unset = "no lane is looked at";
    match slot {
        Slot::Word(slot) => registers.get32(Source32::Register(slot), 0).expect(unset).map(u64::from),
        Slot::Double(slot) => registers.get64(Source64::Register(slot), 0).expect(unset),
        Slot::Predicate(slot) => {
            let bits = registers.get_predicate(SourcePredicate::Register(slot, false), 0).expect(unset);
            std::array::from_fn(|lane| u64::from(bits >> lane & 1))
        }
    }
}

/// The one value that all lanes give.
fn uniform(lanes: &[u64; WARP]) -> u64 {
    assert_eq!(*lanes, [lanes[0]; WARP]);
    lanes[0]
}

fn single(class: RegisterClass, opcode: &str, sources: &[Value<'_>]) -> u64 {
    let trial = Trial::new().results(&[class]).sources(sources);
    uniform(&trial.run(opcode, Mask::MAX).expect("no fault")[0])
}

/// A 16-bit result.
pub(super) fn b16(opcode: &str, sources: &[Value<'_>]) -> u64 {
    single(RegisterClass::B16, opcode, sources)
}

/// A 32-bit result.
pub(super) fn b32(opcode: &str, sources: &[Value<'_>]) -> u32 {
    single(RegisterClass::B32, opcode, sources) as u32
}

/// A 64-bit result.
pub(super) fn b64(opcode: &str, sources: &[Value<'_>]) -> u64 {
    single(RegisterClass::B64, opcode, sources)
}

/// A predicate.
pub(super) fn predicate(opcode: &str, sources: &[Value<'_>]) -> bool {
    single(RegisterClass::Predicate, opcode, sources) != 0
}

/// Two predicates.
pub(super) fn predicates(opcode: &str, sources: &[Value<'_>]) -> (bool, bool) {
    let trial = Trial::new().results(&[RegisterClass::Predicate; 2]).sources(sources);
    let values = trial.run(opcode, Mask::MAX).expect("no fault");
    (uniform(&values[0]) != 0, uniform(&values[1]) != 0)
}

/// The parts of a value.
pub(super) fn parts(opcode: &str, class: RegisterClass, n: usize, source: Value<'_>) -> Vec<u64> {
    let trial = Trial::new().result_list(class, n).sources(&[source]);
    let values = trial.run(opcode, Mask::MAX).expect("no fault");
    values[..n].iter().map(uniform).collect()
}

/// What the decoder says against the sources, whatever the result is.
pub(super) fn refused(opcode: &str, sources: &[Value<'_>]) -> String {
    use RegisterClass::{B16, B32, B64, Predicate};
    let table = super::table();
    let error = |class| {
        let trial = Trial::new().results(&[class]).sources(sources);
        let error = trial.decode(table, opcode).err();
        error.unwrap_or_else(|| panic!("`{opcode}` takes {sources:?}")).to_string()
    };
    [Predicate, B16, B32, B64].map(error).join("; ")
}
