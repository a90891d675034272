//! Structured control flow and constants over Cranelift's builder.
//!
//! Indices, counts and addresses are `i64` values; indices are compared as unsigned numbers.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::immediates::V128Imm;
use cranelift_codegen::ir::types::{F32, F32X4, I8X16, I32, I32X4, I64};
use cranelift_codegen::ir::{Block, BlockArg, Endianness, InstBuilder, MemFlagsData, SigRef, Type, Value};
use cranelift_frontend::{FuncInstBuilder, FunctionBuilder};
use skipc_plan::kernel::Kernel;

use crate::error::Fault;

/// How many neighbouring columns one value holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lanes {
    /// A scalar.
    One,
    /// A 128-bit vector.
    Four,
}

impl Lanes {
    pub(crate) fn count(self) -> i64 {
        match self {
            Lanes::One => 1,
            Lanes::Four => 4,
        }
    }

    /// Type of f32 values.
    pub(crate) fn real(self) -> Type {
        match self {
            Lanes::One => F32,
            Lanes::Four => F32X4,
        }
    }

    /// Type of their bits.
    pub(crate) fn bits(self) -> Type {
        match self {
            Lanes::One => I32,
            Lanes::Four => I32X4,
        }
    }
}

/// How many columns a loop visits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns {
    /// How many.
    pub(crate) count: Value,
    /// Whether that is known to be a multiple of four, so that no scalar loop is needed.
    pub(crate) whole: bool,
    /// The count, where it is known and so small that sums over the columns need no loop.
    pub(crate) few: Option<u32>,
}

/// Columns up to which a sum is unrolled: a loop's turn costs about as much as the four columns that it adds.
const FEW_COLUMNS: u32 = 64;

/// A kernel's function under construction.
pub(crate) struct Emitter<'a> {
    pub(crate) builder: FunctionBuilder<'a>,
    pub(crate) kernel: &'a Kernel,
    /// The pointer for each parameter.
    pub(crate) args: Vec<Value>,
    /// Address of the table of helpers.
    pub(crate) helpers: Value,
    /// Signature of the matmul in it.
    pub(crate) gemm_signature: SigRef,
    /// Signature of the functions of many numbers.
    pub(crate) map_signature: SigRef,
    /// Signature of the weights of a softmax.
    pub(crate) softmax_signature: SigRef,
    /// Range of row tiles, `i64`.
    pub(crate) tiles: (Value, Value),
    /// Address of the scratch memory.
    pub(crate) scratch: Value,
}

impl<'a> Emitter<'a> {
    pub(crate) fn ins(&mut self) -> FuncInstBuilder<'_, 'a> {
        self.builder.ins()
    }

    pub(crate) fn int(&mut self, number: i64) -> Value {
        self.ins().iconst(I64, number)
    }

    /// The same number in every lane.
    pub(crate) fn real(&mut self, number: f32, lanes: Lanes) -> Value {
        match lanes {
            Lanes::One => self.ins().f32const(number),
            Lanes::Four => self.vector(F32X4, number.to_bits()),
        }
    }

    /// The same 32 bits in every lane.
    pub(crate) fn bits(&mut self, bits: u32, lanes: Lanes) -> Value {
        match lanes {
            Lanes::One => self.ins().iconst(I32, i64::from(bits)),
            Lanes::Four => self.vector(I32X4, bits),
        }
    }

    fn vector(&mut self, ty: Type, lane: u32) -> Value {
        let bytes = V128Imm(u128::to_le_bytes(u128::from(lane) * 0x0000_0001_0000_0001_0000_0001_0000_0001));
        let constant = self.builder.func.dfg.constants.insert((&bytes.0[..]).into());
        self.ins().vconst(ty, constant)
    }

    /// All columns of a matrix.
    pub(crate) fn columns(&mut self, count: u32) -> Columns {
        Columns {
            count: self.int(i64::from(count)),
            whole: count.is_multiple_of(4),
            few: (count <= FEW_COLUMNS).then_some(count),
        }
    }

    /// As many columns as a value says.
    pub(crate) fn some_columns(&mut self, count: Value) -> Columns {
        Columns { count, whole: false, few: None }
    }

    /// The same f32 in every lane.
    pub(crate) fn splat(&mut self, scalar: Value, lanes: Lanes) -> Value {
        match lanes {
            Lanes::One => scalar,
            Lanes::Four => self.ins().splat(F32X4, scalar),
        }
    }

    /// The same bits as another type of the same lanes.
    pub(crate) fn recast(&mut self, value: Value, ty: Type) -> Value {
        self.ins().bitcast(ty, MemFlagsData::new(), value)
    }

    /// Runs `body` for each `i` of `begin, begin + step ..` below `end`.
    pub(crate) fn for_each(
        &mut self,
        begin: Value,
        end: Value,
        step: i64,
        body: impl FnOnce(&mut Self, Value) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.fold(begin, end, step, &[], |e, index, _| {
            body(e, index)?;
            Ok(Vec::new())
        })?;
        Ok(())
    }

    /// Runs `body` for each `i` of `begin, begin + step ..` below `end`, handing values from turn to turn; gives the
    /// last ones, or `initial` if there was no turn.
    pub(crate) fn fold(
        &mut self,
        begin: Value,
        end: Value,
        step: i64,
        initial: &[Value],
        body: impl FnOnce(&mut Self, Value, &[Value]) -> Result<Vec<Value>, Fault>,
    ) -> Result<Vec<Value>, Fault> {
        let (turn, done) = (self.builder.create_block(), self.builder.create_block());
        let index = self.builder.append_block_param(turn, I64);
        let types: Vec<Type> = initial.iter().map(|value| self.builder.func.dfg.value_type(*value)).collect();
        let carried: Vec<Value> = types.iter().map(|ty| self.builder.append_block_param(turn, *ty)).collect();
        let results: Vec<Value> = types.iter().map(|ty| self.builder.append_block_param(done, *ty)).collect();

        // The test stands at the end of the loop, so that a turn takes one jump.
        self.turn_or_done(turn, done, begin, end, initial);
        self.builder.switch_to_block(turn);
        let next_carried = body(self, index, &carried)?;
        let next = self.ins().iadd_imm_s(index, step);
        self.turn_or_done(turn, done, next, end, &next_carried);
        self.builder.seal_block(turn);
        self.builder.seal_block(done);
        self.builder.switch_to_block(done);
        Ok(results)
    }

    fn turn_or_done(&mut self, turn: Block, done: Block, index: Value, end: Value, carried: &[Value]) {
        let results = block_args(carried);
        let mut params = vec![BlockArg::Value(index)];
        params.extend(&results);
        let more = self.ins().icmp(IntCC::UnsignedLessThan, index, end);
        self.ins().brif(more, turn, &params, done, &results);
    }

    /// Runs `body` while `condition` is not 0, handing values from turn to turn; gives the last ones.
    pub(crate) fn repeat_while(
        &mut self,
        initial: &[Value],
        condition: impl FnOnce(&mut Self, &[Value]) -> Result<Value, Fault>,
        body: impl FnOnce(&mut Self, &[Value]) -> Result<Vec<Value>, Fault>,
    ) -> Result<Vec<Value>, Fault> {
        let [head, turn, done] = [(); 3].map(|()| self.builder.create_block());
        let types: Vec<Type> = initial.iter().map(|value| self.builder.func.dfg.value_type(*value)).collect();
        let carried: Vec<Value> = types.iter().map(|ty| self.builder.append_block_param(head, *ty)).collect();
        self.ins().jump(head, &block_args(initial));
        self.builder.switch_to_block(head);
        let more = condition(self, &carried)?;
        self.ins().brif(more, turn, &[], done, &[]);
        self.builder.seal_block(turn);
        self.builder.seal_block(done);
        self.builder.switch_to_block(turn);
        let next = body(self, &carried)?;
        self.ins().jump(head, &block_args(&next));
        self.builder.seal_block(head);
        self.builder.switch_to_block(done);
        Ok(carried)
    }

    /// Runs `then` if the condition is not 0.
    pub(crate) fn when(
        &mut self,
        condition: Value,
        then: impl FnOnce(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.branch(condition, then, |_| Ok(()))
    }

    /// Runs `then` if the condition is not 0, else `otherwise`.
    pub(crate) fn branch(
        &mut self,
        condition: Value,
        then: impl FnOnce(&mut Self) -> Result<(), Fault>,
        otherwise: impl FnOnce(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let [yes, no, after] = [(); 3].map(|()| self.builder.create_block());
        self.ins().brif(condition, yes, &[], no, &[]);
        self.builder.seal_block(yes);
        self.builder.seal_block(no);
        self.builder.switch_to_block(yes);
        then(self)?;
        self.ins().jump(after, &[]);
        self.builder.switch_to_block(no);
        otherwise(self)?;
        self.ins().jump(after, &[]);
        self.builder.seal_block(after);
        self.builder.switch_to_block(after);
        Ok(())
    }

    /// Runs `body` over columns, four at a time while there are four.
    pub(crate) fn for_columns(
        &mut self,
        columns: Columns,
        mut body: impl FnMut(&mut Self, Value, Lanes) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let (zero, split) = (self.int(0), self.whole_vectors(columns));
        self.for_each(zero, split, 4, |e, col| body(e, col, Lanes::Four))?;
        if !columns.whole {
            self.for_each(split, columns.count, 1, |e, col| body(e, col, Lanes::One))?;
        }
        Ok(())
    }

    /// Sums what `terms` gives for each column, `n` sums at once, as scalars. The order of the additions depends on
    /// the number of columns alone.
    pub(crate) fn sum_columns(
        &mut self,
        columns: Columns,
        n: usize,
        mut terms: impl FnMut(&mut Self, Value, Lanes) -> Result<Vec<Value>, Fault>,
    ) -> Result<Vec<Value>, Fault> {
        let mut add = |e: &mut Self, col: Value, sums: &[Value], lanes: Lanes| {
            let terms = terms(e, col, lanes)?;
            Ok(sums.iter().zip(terms).map(|(sum, term)| e.ins().fadd(*sum, term)).collect())
        };
        let (zero, split) = (self.int(0), self.whole_vectors(columns));
        let nothing = vec![self.real(0.0, Lanes::Four); n];
        let vectors = match columns.few {
            Some(count) => {
                let mut vectors = nothing;
                for first in (0..count / 4).map(|vector| vector * 4) {
                    let col = self.int(i64::from(first));
                    vectors = add(self, col, &vectors, Lanes::Four)?;
                }
                vectors
            }
            None => self.fold(zero, split, 4, &nothing, |e, col, sums| add(e, col, sums, Lanes::Four))?,
        };
        let sums: Vec<Value> = vectors.into_iter().map(|vector| self.sum_lanes(vector)).collect();
        if columns.whole {
            return Ok(sums);
        }
        self.fold(split, columns.count, 1, &sums, |e, col, sums| add(e, col, sums, Lanes::One))
    }

    /// `(v₀ + v₂) + (v₁ + v₃)`.
    pub(crate) fn sum_lanes(&mut self, vector: Value) -> Value {
        let swapped = self.shuffle(vector, vector, [2, 3, 0, 1]);
        let pairs = self.ins().fadd(vector, swapped);
        let crossed = self.shuffle(pairs, pairs, [1, 0, 3, 2]);
        let total = self.ins().fadd(pairs, crossed);
        self.ins().extractlane(total, 0)
    }

    /// Lane `lanes[i]` of two vectors of f32 one after the other in lane `i`.
    pub(crate) fn shuffle(&mut self, first: Value, second: Value, lanes: [u8; 4]) -> Value {
        let mask: Vec<u8> = lanes.iter().flat_map(|lane| (0..4).map(move |byte| lane * 4 + byte)).collect();
        let mask = self.builder.func.dfg.immediates.push(mask.into());
        let flags = MemFlagsData::new().with_endianness(Endianness::Little);
        let [first, second] = [first, second].map(|vector| self.ins().bitcast(I8X16, flags, vector));
        let bytes = self.ins().shuffle(first, second, mask);
        self.ins().bitcast(F32X4, flags, bytes)
    }

    /// The rows of a 4 × 4 matrix of f32 as its columns.
    pub(crate) fn transpose(&mut self, rows: [Value; 4]) -> [Value; 4] {
        const LOW: [u8; 4] = [0, 4, 1, 5];
        const HIGH: [u8; 4] = [2, 6, 3, 7];
        let [a, b, c, d] = rows;
        let (low_ac, high_ac) = (self.shuffle(a, c, LOW), self.shuffle(a, c, HIGH));
        let (low_bd, high_bd) = (self.shuffle(b, d, LOW), self.shuffle(b, d, HIGH));
        [
            self.shuffle(low_ac, low_bd, LOW),
            self.shuffle(low_ac, low_bd, HIGH),
            self.shuffle(high_ac, high_bd, LOW),
            self.shuffle(high_ac, high_bd, HIGH),
        ]
    }

    /// The columns that whole vectors cover.
    pub(crate) fn whole_vectors(&mut self, columns: Columns) -> Value {
        if columns.whole { columns.count } else { self.ins().band_imm_s(columns.count, -4) }
    }
}

fn block_args(values: &[Value]) -> Vec<BlockArg> {
    values.iter().map(|value| BlockArg::Value(*value)).collect()
}
