//! Arithmetic and structured control flow over LLVM's builder.
//!
//! Indices and counts are `i64` values, compared as unsigned numbers. Reals are vectors of f32, also where one lane is
//! enough, so that what works on many columns works on one. Nothing is fused or reordered unless it says so.

use std::rc::Rc;

use inkwell::basic_block::BasicBlock;
use inkwell::builder::Builder;
use inkwell::context::Context;
use inkwell::intrinsics::Intrinsic;
use inkwell::module::Module;
use inkwell::types::{BasicTypeEnum, VectorType};
use inkwell::values::{
    BasicMetadataValueEnum, BasicValue, BasicValueEnum, FunctionValue, IntValue, PointerValue, VectorValue,
};
use inkwell::{AddressSpace, FloatPredicate, IntPredicate};

use super::fault::Fault;
use super::level::Level;
use crate::ffi;

/// An index, a count, or a condition of one bit.
pub(crate) type Int<'c> = IntValue<'c>;
/// Neighbouring reals, or their bits, or a condition for each.
pub(crate) type Lanes<'c> = VectorValue<'c>;
/// An address.
pub(crate) type Ptr<'c> = PointerValue<'c>;
/// What emitting gives.
pub(crate) type Made<T> = Result<T, Fault>;

/// A function under construction.
pub(crate) struct Code<'c> {
    pub(crate) ctx: &'c Context,
    pub(crate) module: Rc<Module<'c>>,
    pub(crate) builder: Builder<'c>,
    pub(crate) function: FunctionValue<'c>,
    pub(crate) level: Level,
}

/// A value that a loop hands from turn to turn.
pub(crate) trait Carried<'c>: BasicValue<'c> + Copy + TryFrom<BasicValueEnum<'c>> {}

impl<'c, V: BasicValue<'c> + Copy + TryFrom<BasicValueEnum<'c>>> Carried<'c> for V {}

/// Whole numbers.
impl<'c> Code<'c> {
    pub(crate) fn int(&self, number: i64) -> Int<'c> {
        self.ctx.i64_type().const_int(number as u64, true)
    }

    pub(crate) fn bit(&self, bit: bool) -> Int<'c> {
        self.ctx.bool_type().const_int(u64::from(bit), false)
    }

    pub(crate) fn pointer_type(&self) -> inkwell::types::PointerType<'c> {
        self.ctx.ptr_type(AddressSpace::default())
    }

    pub(crate) fn add(&self, a: Int<'c>, b: Int<'c>) -> Made<Int<'c>> {
        Ok(self.builder.build_int_add(a, b, "")?)
    }

    pub(crate) fn plus(&self, a: Int<'c>, number: i64) -> Made<Int<'c>> {
        if number == 0 { Ok(a) } else { self.add(a, self.int(number)) }
    }

    pub(crate) fn sub(&self, a: Int<'c>, b: Int<'c>) -> Made<Int<'c>> {
        Ok(self.builder.build_int_sub(a, b, "")?)
    }

    /// `a − number`, or 0 if that is below it.
    pub(crate) fn less(&self, a: Int<'c>, number: u32) -> Made<Int<'c>> {
        self.sub(a, self.min(a, self.int(i64::from(number)))?)
    }

    pub(crate) fn mul(&self, a: Int<'c>, b: Int<'c>) -> Made<Int<'c>> {
        Ok(self.builder.build_int_mul(a, b, "")?)
    }

    pub(crate) fn times(&self, a: Int<'c>, number: u64) -> Made<Int<'c>> {
        if number == 1 { Ok(a) } else { self.mul(a, self.int(number as i64)) }
    }

    pub(crate) fn div(&self, a: Int<'c>, number: u32) -> Made<Int<'c>> {
        Ok(self.builder.build_int_unsigned_div(a, self.int(i64::from(number.max(1))), "")?)
    }

    pub(crate) fn modulo(&self, a: Int<'c>, number: u32) -> Made<Int<'c>> {
        Ok(self.builder.build_int_unsigned_rem(a, self.int(i64::from(number.max(1))), "")?)
    }

    pub(crate) fn and(&self, a: Int<'c>, b: Int<'c>) -> Made<Int<'c>> {
        Ok(self.builder.build_and(a, b, "")?)
    }

    pub(crate) fn or(&self, a: Int<'c>, b: Int<'c>) -> Made<Int<'c>> {
        Ok(self.builder.build_or(a, b, "")?)
    }

    pub(crate) fn xor(&self, a: Int<'c>, b: Int<'c>) -> Made<Int<'c>> {
        Ok(self.builder.build_xor(a, b, "")?)
    }

    pub(crate) fn shl(&self, a: Int<'c>, bits: i64) -> Made<Int<'c>> {
        Ok(self.builder.build_left_shift(a, self.int(bits), "")?)
    }

    pub(crate) fn shr(&self, a: Int<'c>, bits: i64) -> Made<Int<'c>> {
        Ok(self.builder.build_right_shift(a, self.int(bits), false, "")?)
    }

    pub(crate) fn is(&self, comparison: IntPredicate, a: Int<'c>, b: Int<'c>) -> Made<Int<'c>> {
        Ok(self.builder.build_int_compare(comparison, a, b, "")?)
    }

    pub(crate) fn below(&self, a: Int<'c>, b: Int<'c>) -> Made<Int<'c>> {
        self.is(IntPredicate::ULT, a, b)
    }

    pub(crate) fn equal(&self, a: Int<'c>, b: Int<'c>) -> Made<Int<'c>> {
        self.is(IntPredicate::EQ, a, b)
    }

    pub(crate) fn min(&self, a: Int<'c>, b: Int<'c>) -> Made<Int<'c>> {
        self.select(self.below(a, b)?, a, b)
    }

    pub(crate) fn max(&self, a: Int<'c>, b: Int<'c>) -> Made<Int<'c>> {
        self.select(self.below(a, b)?, b, a)
    }

    /// A bit as an index, 0 or 1.
    pub(crate) fn as_index(&self, bit: Int<'c>) -> Made<Int<'c>> {
        Ok(self.builder.build_int_z_extend(bit, self.ctx.i64_type(), "")?)
    }

    pub(crate) fn select<V: Carried<'c>>(&self, condition: Int<'c>, then: V, otherwise: V) -> Made<V> {
        carried(self.builder.build_select(condition, then, otherwise, "")?)
    }

    /// `base + bytes`.
    pub(crate) fn offset(&self, base: Ptr<'c>, bytes: Int<'c>) -> Made<Ptr<'c>> {
        Ok(ffi::byte_offset(&self.builder, self.ctx.i8_type(), base, bytes)?)
    }

    /// The address of an element of so many bytes.
    pub(crate) fn element(&self, base: Ptr<'c>, index: Int<'c>, size: u32) -> Made<Ptr<'c>> {
        self.offset(base, self.times(index, u64::from(size))?)
    }
}

/// Reals.
impl<'c> Code<'c> {
    pub(crate) fn real_type(&self, lanes: u32) -> VectorType<'c> {
        self.ctx.f32_type().vec_type(lanes)
    }

    fn bits_type(&self, lanes: u32) -> VectorType<'c> {
        self.ctx.i32_type().vec_type(lanes)
    }

    /// The same number in every lane.
    pub(crate) fn real(&self, number: f32, lanes: u32) -> Lanes<'c> {
        // A double holds every f32.
        let lane = self.ctx.f32_type().const_float(f64::from(number));
        VectorType::const_vector(&vec![lane; lanes as usize])
    }

    /// The same 32 bits in every lane.
    pub(crate) fn word(&self, bits: u32, lanes: u32) -> Lanes<'c> {
        self.words(&vec![bits; lanes as usize])
    }

    /// These 32 bits, a lane each.
    pub(crate) fn words(&self, words: &[u32]) -> Lanes<'c> {
        let word = |word: &u32| self.ctx.i32_type().const_int(u64::from(*word), false);
        VectorType::const_vector(&words.iter().map(word).collect::<Vec<_>>())
    }

    /// Whole numbers of 32 bits as f32.
    pub(crate) fn signed(&self, words: Lanes<'c>) -> Made<Lanes<'c>> {
        let reals = self.ctx.f32_type().vec_type(words.get_type().get_size());
        Ok(self.builder.build_signed_int_to_float(words, reals, "")?)
    }

    /// The low 32 bits of an index in every lane.
    pub(crate) fn splat_word(&self, index: Int<'c>) -> Made<Lanes<'c>> {
        let word = self.builder.build_int_truncate(index, self.ctx.i32_type(), "")?;
        let first = self.ctx.i64_type().const_zero();
        let single = self.builder.build_insert_element(self.word(0, self.level.lanes), word, first, "")?;
        self.shuffle(single, &vec![0; self.level.lanes as usize])
    }

    pub(crate) fn fadd(&self, a: Lanes<'c>, b: Lanes<'c>) -> Made<Lanes<'c>> {
        Ok(self.builder.build_float_add(a, b, "")?)
    }

    pub(crate) fn fsub(&self, a: Lanes<'c>, b: Lanes<'c>) -> Made<Lanes<'c>> {
        Ok(self.builder.build_float_sub(a, b, "")?)
    }

    pub(crate) fn fmul(&self, a: Lanes<'c>, b: Lanes<'c>) -> Made<Lanes<'c>> {
        Ok(self.builder.build_float_mul(a, b, "")?)
    }

    pub(crate) fn fdiv(&self, a: Lanes<'c>, b: Lanes<'c>) -> Made<Lanes<'c>> {
        Ok(self.builder.build_float_div(a, b, "")?)
    }

    /// `a · b + sum`, rounded once where the processor can.
    pub(crate) fn mul_add(&self, a: Lanes<'c>, b: Lanes<'c>, sum: Lanes<'c>) -> Made<Lanes<'c>> {
        match self.level.fuses {
            true => self.intrinsic("llvm.fma", &[a, b, sum]),
            false => self.fadd(self.fmul(a, b)?, sum),
        }
    }

    /// The sum, and the products of two pairs of bf16 in the words of each lane.
    pub(crate) fn dot_pairs(&self, a: Lanes<'c>, b: Lanes<'c>, sum: Lanes<'c>) -> Made<Lanes<'c>> {
        let unknown = || Fault::Llvm("there is no dot product of bf16".to_owned());
        let pairs = self.ctx.bf16_type().vec_type(2 * sum.get_type().get_size());
        let as_pairs = |words| self.builder.build_bit_cast(words, pairs, "");
        let function = Intrinsic::find("llvm.x86.avx512bf16.dpbf16ps.512")
            .and_then(|found| found.get_declaration(&self.module, &[]));
        let args = [sum.into(), as_pairs(a)?.into(), as_pairs(b)?.into()];
        let call = self.builder.build_call(function.ok_or_else(unknown)?, &args, "")?;
        carried(call.try_as_basic_value().basic().ok_or_else(unknown)?)
    }

    pub(crate) fn sqrt(&self, x: Lanes<'c>) -> Made<Lanes<'c>> {
        self.intrinsic("llvm.sqrt", &[x])
    }

    pub(crate) fn abs(&self, x: Lanes<'c>) -> Made<Lanes<'c>> {
        self.intrinsic("llvm.fabs", &[x])
    }

    fn intrinsic(&self, name: &str, args: &[Lanes<'c>]) -> Made<Lanes<'c>> {
        let unknown = || Fault::Llvm(format!("there is no `{name}`"));
        let ty = BasicTypeEnum::from(args.first().ok_or_else(unknown)?.get_type());
        let function = Intrinsic::find(name).and_then(|found| found.get_declaration(&self.module, &[ty]));
        let args: Vec<BasicMetadataValueEnum<'c>> = args.iter().map(|arg| (*arg).into()).collect();
        let call = self.builder.build_call(function.ok_or_else(unknown)?, &args, "")?;
        carried(call.try_as_basic_value().basic().ok_or_else(unknown)?)
    }

    pub(crate) fn fis(&self, comparison: FloatPredicate, a: Lanes<'c>, b: Lanes<'c>) -> Made<Lanes<'c>> {
        Ok(self.builder.build_float_compare(comparison, a, b, "")?)
    }

    /// Lane by lane.
    pub(crate) fn fselect(
        &self,
        condition: Lanes<'c>,
        then: Lanes<'c>,
        otherwise: Lanes<'c>,
    ) -> Made<Lanes<'c>> {
        carried(self.builder.build_select(condition, then, otherwise, "")?)
    }

    /// `max(x, low)`; a NaN in `x` stays.
    pub(crate) fn at_least(&self, x: Lanes<'c>, low: Lanes<'c>) -> Made<Lanes<'c>> {
        self.fselect(self.fis(FloatPredicate::OLT, x, low)?, low, x)
    }

    /// The bits of reals.
    pub(crate) fn bits(&self, x: Lanes<'c>) -> Made<Lanes<'c>> {
        carried(self.builder.build_bit_cast(x, self.bits_type(x.get_type().get_size()), "")?)
    }

    /// Reals of these bits.
    pub(crate) fn of_bits(&self, x: Lanes<'c>) -> Made<Lanes<'c>> {
        carried(self.builder.build_bit_cast(x, self.real_type(x.get_type().get_size()), "")?)
    }

    /// A scalar in every lane.
    pub(crate) fn splat(&self, scalar: Lanes<'c>, lanes: u32) -> Made<Lanes<'c>> {
        self.shuffle(scalar, &vec![0; lanes as usize])
    }

    /// Lane `order[i]` in lane `i`.
    pub(crate) fn shuffle(&self, x: Lanes<'c>, order: &[u32]) -> Made<Lanes<'c>> {
        self.shuffle_two(x, x, order)
    }

    /// Lane `order[i]` of two vectors one after the other in lane `i`.
    pub(crate) fn shuffle_two(&self, x: Lanes<'c>, y: Lanes<'c>, order: &[u32]) -> Made<Lanes<'c>> {
        Ok(self.builder.build_shuffle_vector(x, y, self.words(order), "")?)
    }

    /// The sum of each vector, side by side; there are a power of two of them. Each is as [`Code::sum_lanes`] makes it.
    pub(crate) fn sums_of(&self, mut vectors: Vec<Lanes<'c>>) -> Made<Lanes<'c>> {
        let Some(mut lanes) = vectors.first().map(|first| first.get_type().get_size()) else {
            return Err(Fault::Malformed("there is nothing to sum".to_owned()));
        };
        // Lanes of a vector that belong to one sum.
        let mut group = lanes;
        while group > 1 || vectors.len() > 1 {
            // Neighbours become one vector; a single one becomes half of it.
            let n = if vectors.len() > 1 { 2 * lanes } else { lanes };
            if group == 1 {
                let all: Vec<u32> = (0..n).collect();
                vectors = pairs(&vectors).map(|(x, y)| self.shuffle_two(x, y, &all)).collect::<Made<_>>()?;
                lanes = n;
                continue;
            }
            let lower: Vec<u32> = (0..n).filter(|lane| lane % group < group / 2).collect();
            let upper: Vec<u32> = lower.iter().map(|lane| lane + group / 2).collect();
            let add = |(x, y)| self.fadd(self.shuffle_two(x, y, &lower)?, self.shuffle_two(x, y, &upper)?);
            vectors = pairs(&vectors).map(add).collect::<Made<_>>()?;
            (lanes, group) = (n / 2, group / 2);
        }
        Ok(vectors[0])
    }

    /// The largest of all lanes; a NaN may be lost.
    pub(crate) fn largest_lane(&self, x: Lanes<'c>) -> Made<Lanes<'c>> {
        let lanes = x.get_type().get_size();
        if lanes == 1 {
            return Ok(x);
        }
        let [lower, upper]: [Vec<u32>; 2] = [(0..lanes / 2).collect(), (lanes / 2..lanes).collect()];
        self.largest_lane(self.at_least(self.shuffle(x, &lower)?, self.shuffle(x, &upper)?)?)
    }

    /// The sum of all lanes: halves are added until one is left.
    pub(crate) fn sum_lanes(&self, x: Lanes<'c>) -> Made<Lanes<'c>> {
        let lanes = x.get_type().get_size();
        if lanes == 1 {
            return Ok(x);
        }
        let half: Vec<u32> = (0..lanes / 2).collect();
        let upper: Vec<u32> = (lanes / 2..lanes).collect();
        self.sum_lanes(self.fadd(self.shuffle(x, &half)?, self.shuffle(x, &upper)?)?)
    }
}

/// Control flow.
impl<'c> Code<'c> {
    /// Runs `body` for each `i` of `begin, begin + step ..` below `end`.
    pub(crate) fn for_each(
        &self,
        begin: Int<'c>,
        end: Int<'c>,
        step: u32,
        body: impl FnOnce(Int<'c>) -> Made<()>,
    ) -> Made<()> {
        let body = |index, _: &[Int<'c>]| body(index).map(|()| Vec::new());
        self.fold(begin, end, step, &[], body).map(drop)
    }

    /// Runs `body` for each `i` of `begin, begin + step ..` below `end`, handing values from turn to turn; gives the
    /// last ones, or `initial` if there was no turn.
    pub(crate) fn fold<V: Carried<'c>>(
        &self,
        begin: Int<'c>,
        end: Int<'c>,
        step: u32,
        initial: &[V],
        body: impl FnOnce(Int<'c>, &[V]) -> Made<Vec<V>>,
    ) -> Made<Vec<V>> {
        let before = self.here()?;
        let (turn, done) = (self.block(), self.block());
        // The test stands at the end of the loop, so that a turn takes one jump.
        self.builder.build_conditional_branch(self.below(begin, end)?, turn, done)?;
        self.builder.position_at_end(turn);
        let index = self.builder.build_phi(self.ctx.i64_type(), "")?;
        let values = self.joins(initial)?;
        let next_values = body(index.as_basic_value().into_int_value(), &values.0)?;
        let next = self.plus(index.as_basic_value().into_int_value(), i64::from(step))?;
        let last = self.here()?;
        self.builder.build_conditional_branch(self.below(next, end)?, turn, done)?;
        index.add_incoming(&[(&begin, before), (&next, last)]);
        values.1.iter().zip(initial).for_each(|(join, value)| join.add_incoming(&[(value, before)]));
        values.1.iter().zip(&next_values).for_each(|(join, value)| join.add_incoming(&[(value, last)]));
        self.builder.position_at_end(done);
        let results = self.joins(initial)?;
        results.1.iter().zip(initial).for_each(|(join, value)| join.add_incoming(&[(value, before)]));
        results.1.iter().zip(&next_values).for_each(|(join, value)| join.add_incoming(&[(value, last)]));
        Ok(results.0)
    }

    /// Runs `body` while the condition holds, handing values from turn to turn; gives the last ones.
    pub(crate) fn repeat_while<V: Carried<'c>>(
        &self,
        initial: &[V],
        condition: impl FnOnce(&[V]) -> Made<Int<'c>>,
        body: impl FnOnce(&[V]) -> Made<Vec<V>>,
    ) -> Made<Vec<V>> {
        let before = self.here()?;
        let (head, turn, done) = (self.block(), self.block(), self.block());
        self.builder.build_unconditional_branch(head)?;
        self.builder.position_at_end(head);
        let values = self.joins(initial)?;
        let more = condition(&values.0)?;
        self.builder.build_conditional_branch(more, turn, done)?;
        self.builder.position_at_end(turn);
        let next = body(&values.0)?;
        let last = self.here()?;
        self.builder.build_unconditional_branch(head)?;
        values.1.iter().zip(initial).for_each(|(join, value)| join.add_incoming(&[(value, before)]));
        values.1.iter().zip(&next).for_each(|(join, value)| join.add_incoming(&[(value, last)]));
        self.builder.position_at_end(done);
        Ok(values.0)
    }

    /// Runs `then` if the condition holds.
    pub(crate) fn when(&self, condition: Int<'c>, then: impl FnOnce() -> Made<()>) -> Made<()> {
        let then = || then().map(|()| Vec::<Int<'c>>::new());
        self.branch(condition, then, || Ok(Vec::new())).map(drop)
    }

    /// What `then` gives if the condition holds, else what `otherwise` gives.
    pub(crate) fn branch<V: Carried<'c>>(
        &self,
        condition: Int<'c>,
        then: impl FnOnce() -> Made<Vec<V>>,
        otherwise: impl FnOnce() -> Made<Vec<V>>,
    ) -> Made<Vec<V>> {
        let (yes, no, after) = (self.block(), self.block(), self.block());
        self.builder.build_conditional_branch(condition, yes, no)?;
        self.builder.position_at_end(yes);
        let then = then()?;
        let from_yes = self.here()?;
        self.builder.build_unconditional_branch(after)?;
        self.builder.position_at_end(no);
        let otherwise = otherwise()?;
        let from_no = self.here()?;
        self.builder.build_unconditional_branch(after)?;
        self.builder.position_at_end(after);
        let results = self.joins(&then)?;
        results.1.iter().zip(&then).for_each(|(join, value)| join.add_incoming(&[(value, from_yes)]));
        results.1.iter().zip(&otherwise).for_each(|(join, value)| join.add_incoming(&[(value, from_no)]));
        Ok(results.0)
    }

    /// Values of these types that depend on where the flow comes from.
    fn joins<V: Carried<'c>>(&self, like: &[V]) -> Made<(Vec<V>, Vec<inkwell::values::PhiValue<'c>>)> {
        let (mut values, mut joins) = (Vec::new(), Vec::new());
        for value in like {
            let join = self.builder.build_phi(value.as_basic_value_enum().get_type(), "")?;
            values.push(carried(join.as_basic_value())?);
            joins.push(join);
        }
        Ok((values, joins))
    }

    fn block(&self) -> BasicBlock<'c> {
        self.ctx.append_basic_block(self.function, "")
    }

    fn here(&self) -> Made<BasicBlock<'c>> {
        self.builder.get_insert_block().ok_or_else(|| Fault::Llvm("no block is open".to_owned()))
    }
}

/// Columns.
impl<'c> Code<'c> {
    /// Runs `body` over `first..first + count`, whole vectors of at most `widest` lanes first, then narrower ones.
    pub(crate) fn for_columns(
        &self,
        count: Columns<'c>,
        widest: u32,
        mut body: impl FnMut(Int<'c>, u32) -> Made<()>,
    ) -> Made<()> {
        let mut begin = self.int(0);
        for lanes in widths(widest) {
            let Some(end) = count.whole(self, lanes)? else { continue };
            self.for_each(begin, end, lanes, |col| body(col, lanes))?;
            begin = end;
            if count.unit.is_multiple_of(lanes) {
                break;
            }
        }
        Ok(())
    }

    /// Sums what `terms` gives for each column, `n` sums at once, as scalars. The order of the additions depends on
    /// the number of columns alone.
    pub(crate) fn sum_columns(
        &self,
        count: Columns<'c>,
        n: usize,
        mut terms: impl FnMut(Int<'c>, u32) -> Made<Vec<Lanes<'c>>>,
    ) -> Made<Vec<Lanes<'c>>> {
        let mut totals = vec![self.real(0.0, 1); n];
        self.each_width_of_sums(count, n, &mut terms, |sums| {
            for (total, sum) in totals.iter_mut().zip(sums) {
                *total = self.fadd(*total, self.sum_lanes(sum)?)?;
            }
            Ok(())
        })?;
        Ok(totals)
    }

    /// As [`Code::sum_columns`], with the sums side by side in a vector; there are a power of two of them.
    pub(crate) fn sum_columns_side_by_side(
        &self,
        count: Columns<'c>,
        n: u32,
        mut terms: impl FnMut(Int<'c>, u32) -> Made<Vec<Lanes<'c>>>,
    ) -> Made<Lanes<'c>> {
        let mut totals = self.real(0.0, n);
        self.each_width_of_sums(count, n as usize, &mut terms, |sums| {
            totals = self.fadd(totals, self.sums_of(sums)?)?;
            Ok(())
        })?;
        Ok(totals)
    }

    /// Sums `terms` over the columns that vectors of each width take, and gives those to `add`, a vector for each sum.
    fn each_width_of_sums(
        &self,
        count: Columns<'c>,
        n: usize,
        terms: &mut impl FnMut(Int<'c>, u32) -> Made<Vec<Lanes<'c>>>,
        mut add: impl FnMut(Vec<Lanes<'c>>) -> Made<()>,
    ) -> Made<()> {
        let mut begin = self.int(0);
        for lanes in widths(self.level.lanes) {
            let Some(end) = count.whole(self, lanes)? else { continue };
            let nothing = vec![self.real(0.0, lanes); n];
            add(self.fold(begin, end, lanes, &nothing, |col, sums| {
                let terms = terms(col, lanes)?;
                sums.iter().zip(terms).map(|(sum, term)| self.fadd(*sum, term)).collect()
            })?)?;
            begin = end;
            if count.unit.is_multiple_of(lanes) {
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn columns(&self, count: u32) -> Columns<'c> {
        Columns { count: self.int(i64::from(count)), exact: Some(count), unit: count }
    }
}

/// How many columns a loop visits.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'c> {
    pub(crate) count: Int<'c>,
    /// The count, where it is known.
    pub(crate) exact: Option<u32>,
    /// A number of which it is a multiple.
    pub(crate) unit: u32,
}

impl<'c> Columns<'c> {
    /// The columns that whole vectors cover; nothing if there is surely none.
    fn whole(&self, code: &Code<'c>, lanes: u32) -> Made<Option<Int<'c>>> {
        match self.exact {
            Some(exact) if exact < lanes => Ok(None),
            _ if self.unit.is_multiple_of(lanes) => Ok(Some(self.count)),
            _ => code.and(self.count, code.int(-i64::from(lanes))).map(Some),
        }
    }
}

/// Neighbours; a single one beside itself.
fn pairs<'v, 'c>(vectors: &'v [Lanes<'c>]) -> impl Iterator<Item = (Lanes<'c>, Lanes<'c>)> + 'v {
    vectors.chunks(2).filter_map(|pair| Some((*pair.first()?, *pair.last()?)))
}

/// Lanes of vectors to try in turn: a vector of four for what the widest leaves, then single columns.
pub(crate) fn widths(widest: u32) -> impl Iterator<Item = u32> {
    let narrow = [4, 1].into_iter().filter(move |lanes| *lanes < widest);
    std::iter::once(widest).chain(narrow)
}

/// A value of the type that was built.
pub(crate) fn carried<'c, V: TryFrom<BasicValueEnum<'c>>>(value: BasicValueEnum<'c>) -> Made<V> {
    V::try_from(value).map_err(|_| Fault::Llvm(format!("a value of another type: {value}")))
}
