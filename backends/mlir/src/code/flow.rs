//! Structured control flow.

use super::Code;
use super::value::{Bool, I32, Int, Operand, Ty, Val};

/// Values that pass a border of blocks: a value, an array or a list of them, or a tuple.
pub(crate) trait Carry<'c>: Sized {
    /// Calls `visit` with the id and type of each value, in order.
    fn visit(&self, visit: &mut dyn FnMut(u32, &'static str));

    /// The same shape with fresh values, asked for in the order of [`Carry::visit`].
    fn fresh(&self, fresh: &mut dyn FnMut() -> u32) -> Self;
}

impl<'c> Carry<'c> for () {
    fn visit(&self, _: &mut dyn FnMut(u32, &'static str)) {}

    fn fresh(&self, _: &mut dyn FnMut() -> u32) -> Self {}
}

impl<'c, T: Ty> Carry<'c> for Val<'c, T> {
    fn visit(&self, visit: &mut dyn FnMut(u32, &'static str)) {
        visit(self.id, T::NAME);
    }

    fn fresh(&self, fresh: &mut dyn FnMut() -> u32) -> Self {
        Val::new(self.code, fresh())
    }
}

impl<'c, C: Carry<'c>> Carry<'c> for Vec<C> {
    fn visit(&self, visit: &mut dyn FnMut(u32, &'static str)) {
        self.iter().for_each(|item| item.visit(visit));
    }

    fn fresh(&self, fresh: &mut dyn FnMut() -> u32) -> Self {
        self.iter().map(|item| item.fresh(fresh)).collect()
    }
}

impl<'c, C: Carry<'c>, const N: usize> Carry<'c> for [C; N] {
    fn visit(&self, visit: &mut dyn FnMut(u32, &'static str)) {
        self.iter().for_each(|item| item.visit(visit));
    }

    fn fresh(&self, fresh: &mut dyn FnMut() -> u32) -> Self {
        self.each_ref().map(|item| item.fresh(fresh))
    }
}

macro_rules! carry_tuples {
    ($(($($item:ident $idx:tt),*))*) => {$(
        impl<'c, $($item: Carry<'c>),*> Carry<'c> for ($($item,)*) {
            fn visit(&self, visit: &mut dyn FnMut(u32, &'static str)) {
                $(self.$idx.visit(visit);)*
            }
            fn fresh(&self, fresh: &mut dyn FnMut() -> u32) -> Self {
                ($(self.$idx.fresh(fresh),)*)
            }
        }
    )*};
}

carry_tuples! { (A 0, B 1) (A 0, B 1, C 2) (A 0, B 1, C 2, D 3) }

/// What a loop runs over: `from`, `from + step`, … below `to`.
#[derive(Clone, Copy)]
pub(crate) struct Steps<From, To, Step> {
    pub(crate) from: From,
    pub(crate) to: To,
    pub(crate) step: Step,
}

impl Code {
    /// Runs `body` where the condition holds.
    pub(crate) fn when(&self, condition: Bool<'_>, body: impl FnOnce()) {
        let (inside, after) = (self.next_block(), self.next_block());
        self.stmt(format_args!("llvm.cond_br {condition}, ^bb{inside}, ^bb{after}"));
        self.line(format_args!("^bb{inside}:"));
        body();
        self.stmt(format_args!("llvm.br ^bb{after}"));
        self.line(format_args!("^bb{after}:"));
    }

    /// The values of `yes` where the condition holds, else those of `no`. Both have the same shape.
    pub(crate) fn either<'c, C: Carry<'c>>(
        &'c self,
        condition: Bool<'c>,
        yes: impl FnOnce() -> C,
        no: impl FnOnce() -> C,
    ) -> C {
        let (first, second, after) = (self.next_block(), self.next_block(), self.next_block());
        self.stmt(format_args!("llvm.cond_br {condition}, ^bb{first}, ^bb{second}"));
        self.line(format_args!("^bb{first}:"));
        let yes = yes();
        self.stmt(format_args!("llvm.br ^bb{after}{}", self.arguments(&yes)));
        self.line(format_args!("^bb{second}:"));
        let no = no();
        self.stmt(format_args!("llvm.br ^bb{after}{}", self.arguments(&no)));
        let (result, header) = self.block_arguments(&no);
        self.line(format_args!("^bb{after}{header}:"));
        result
    }

    /// Ends the thread where the condition holds. Not before a barrier that others wait at.
    pub(crate) fn return_if(&self, condition: Bool<'_>) {
        let (end, go_on) = (self.next_block(), self.next_block());
        self.stmt(format_args!("llvm.cond_br {condition}, ^bb{end}, ^bb{go_on}"));
        self.line(format_args!("^bb{end}:"));
        self.stmt("llvm.return");
        self.line(format_args!("^bb{go_on}:"));
    }

    /// A loop with values that each turn hands to the next; yields those after the last turn.
    ///
    /// The body stands once in the code: what should be unrolled is a Rust loop.
    pub(crate) fn repeat<'c, C: Carry<'c>>(
        &'c self,
        steps: Steps<impl Operand<'c, I32>, impl Operand<'c, I32>, impl Operand<'c, I32>>,
        start: C,
        body: impl FnOnce(Int<'c>, C) -> C,
    ) -> C {
        let from = steps.from.val(self);
        let to = steps.to.val(self);
        let step = steps.step.val(self);
        let (head, inside, after) = (self.next_block(), self.next_block(), self.next_block());
        self.stmt(format_args!("llvm.br ^bb{head}{}", self.arguments(&(from, start.same()))));
        let ((index, carried), header) = self.block_arguments(&(from, start));
        self.line(format_args!("^bb{head}{header}:"));
        let more = index.lt(to);
        self.stmt(format_args!("llvm.cond_br {more}, ^bb{inside}, ^bb{after}"));
        self.line(format_args!("^bb{inside}:"));
        let next = body(index, carried.same());
        let next_index = index + step;
        self.stmt(format_args!(
            "llvm.br ^bb{head}{} {{loop_annotation = #llvm.loop_annotation<unroll = <disable = true>>}}",
            self.arguments(&(next_index, next))
        ));
        self.line(format_args!("^bb{after}:"));
        carried
    }

    /// A loop that goes on while its values say so; yields those that did not.
    pub(crate) fn walk<'c, C: Carry<'c>>(
        &'c self,
        start: C,
        goes_on: impl FnOnce(&C) -> Bool<'c>,
        body: impl FnOnce(C) -> C,
    ) -> C {
        let (head, inside, after) = (self.next_block(), self.next_block(), self.next_block());
        self.stmt(format_args!("llvm.br ^bb{head}{}", self.arguments(&start)));
        let (carried, header) = self.block_arguments(&start);
        self.line(format_args!("^bb{head}{header}:"));
        let more = goes_on(&carried);
        self.stmt(format_args!("llvm.cond_br {more}, ^bb{inside}, ^bb{after}"));
        self.line(format_args!("^bb{inside}:"));
        let next = body(carried.same());
        self.stmt(format_args!("llvm.br ^bb{head}{}", self.arguments(&next)));
        self.line(format_args!("^bb{after}:"));
        carried
    }

    /// A loop without carried values.
    pub(crate) fn each<'c>(
        &'c self,
        steps: Steps<impl Operand<'c, I32>, impl Operand<'c, I32>, impl Operand<'c, I32>>,
        body: impl FnOnce(Int<'c>),
    ) {
        self.repeat(steps, (), |index, ()| body(index));
    }

    /// `(%1, %2 : i32, f32)`, or nothing if there are no values.
    fn arguments<'c>(&self, values: &impl Carry<'c>) -> String {
        let (mut names, mut types) = (Vec::new(), Vec::new());
        values.visit(&mut |id, ty| {
            names.push(format!("%{id}"));
            types.push(ty);
        });
        if names.is_empty() {
            String::new()
        } else {
            format!("({} : {})", names.join(", "), types.join(", "))
        }
    }

    /// Fresh values of that shape and the header `(%3: i32, %4: f32)` that declares them.
    fn block_arguments<'c, C: Carry<'c>>(&self, values: &C) -> (C, String) {
        let result = values.fresh(&mut || self.next_value());
        let mut parts = Vec::new();
        result.visit(&mut |id, ty| parts.push(format!("%{id}: {ty}")));
        let header = if parts.is_empty() { String::new() } else { format!("({})", parts.join(", ")) };
        (result, header)
    }
}

/// Values are ids, so a copy is the same values again.
trait Same<'c>: Carry<'c> {
    fn same(&self) -> Self {
        let mut ids = Vec::new();
        self.visit(&mut |id, _| ids.push(id));
        let mut ids = ids.into_iter();
        // `fresh` asks for as many ids as `visit` names.
        self.fresh(&mut || ids.next().unwrap_or(0))
    }
}

impl<'c, C: Carry<'c>> Same<'c> for C {}
