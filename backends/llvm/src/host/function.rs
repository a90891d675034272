//! A kernel's function, and how it is started.

use std::rc::Rc;

use inkwell::AddressSpace;
use inkwell::attributes::AttributeLoc;
use inkwell::context::Context;
use inkwell::module::{Linkage, Module};
use inkwell::values::FunctionValue;
use skipc_artifact::program::{FewRows, Launch};
use skipc_plan::kernel::{Along, Body, Grouped, Kernel, Rowwise};

use super::code::{Code, Made};
use super::frame::{Frame, Share};
use super::level::Level;
use super::{
    along, attention, cached, choose, compact, gemm, loops, pending, rowwise, update, weight_gradient,
};

/// Rows of a tile of matmuls: the highest register tile, so that all calls but the last have whole ones.
const GEMM_TILE: u32 = 14;

/// Rows of a tile of row-wise work.
const ROWWISE_TILE: u32 = 16;

/// The most rows for which threads share out columns or heads: with more, each has enough rows of its own.
const FEW_ROWS: u32 = 256;

/// How the kernel is started, whichever of the levels runs.
pub(crate) fn launch(kernel: &Kernel, levels: &[Level]) -> Made<Launch> {
    let (tile_rows, scratch_bytes) = match &kernel.body {
        Body::Gemm(gemm) | Body::Grouped(Grouped { gemm, .. }) => {
            let mut bytes = 0;
            for level in levels {
                bytes = gemm::scratch_bytes(kernel, gemm, level)?.max(bytes);
            }
            (GEMM_TILE, bytes)
        }
        Body::Attention(attention) => (attention::TILE_ROWS, attention::scratch_bytes(kernel, attention)),
        Body::CachedAttention(attention) => (cached::TILE_ROWS, cached::scratch_bytes(kernel, attention)),
        Body::Rowwise(Rowwise::Choose { n, .. }) => (ROWWISE_TILE, choose::scratch_bytes(*n)),
        Body::Rowwise(_) => (ROWWISE_TILE, 0),
        Body::Loops(_) => (loops::tile_rows(kernel), 0),
        Body::WeightGradient(_) => {
            let bytes = levels.iter().map(weight_gradient::scratch_bytes).max();
            (weight_gradient::TILE_ROWS, bytes.unwrap_or(0))
        }
        Body::Along(Along::Conv(_)) => (ROWWISE_TILE, 0),
        Body::Along(Along::Mean { .. })
        | Body::Partition(_)
        | Body::Compact(_)
        | Body::Pending(_)
        | Body::Update(_) => (0, 0),
    };
    Ok(Launch::Host { tile_rows, few_rows: few_rows(kernel)?, scratch_bytes, tiles: Vec::new() })
}

/// How many blocks of columns, heads or groups of heads there are.
fn across(kernel: &Kernel) -> Made<u32> {
    match &kernel.body {
        Body::Gemm(gemm) | Body::Grouped(Grouped { gemm, .. }) => gemm::blocks(gemm),
        Body::Attention(attention) => Ok(attention.heads),
        Body::CachedAttention(attention) => Ok(cached::groups(attention)),
        Body::Along(_)
        | Body::Rowwise(_)
        | Body::Partition(_)
        | Body::Compact(_)
        | Body::Pending(_)
        | Body::Update(_)
        | Body::Loops(_)
        | Body::WeightGradient(_) => Ok(1),
    }
}

/// What threads share out if rows are few.
fn few_rows(kernel: &Kernel) -> Made<Option<FewRows>> {
    let tiles = across(kernel)?;
    let can = match &kernel.body {
        Body::Gemm(gemm) | Body::Grouped(Grouped { gemm, .. }) => !gemm::writes_left(gemm),
        _ => true,
    };
    let at_most = match &kernel.body {
        Body::CachedAttention(_) => cached::FEW_ROWS,
        _ => FEW_ROWS,
    };
    Ok((tiles > 1 && can).then_some(FewRows { at_most, tiles }))
}

/// Adds the kernel to the module, as [`skipc_artifact::abi`] says.
pub(crate) fn define<'c>(
    ctx: &'c Context,
    module: &Rc<Module<'c>>,
    level: Level,
    symbol: &str,
    kernel: &Kernel,
) -> Made<()> {
    let (pointer, word) = (ctx.ptr_type(AddressSpace::default()), ctx.i32_type());
    let params = [pointer.into(), pointer.into(), word.into(), word.into(), pointer.into()];
    let signature = ctx.void_type().fn_type(&params, false);
    let function = module.add_function(symbol, signature, Some(Linkage::External));
    let frame = Frame::new(Code::open(ctx, module, function, level), kernel)?;
    body(&frame)?;
    frame.builder.build_return(None)?;
    Ok(())
}

fn body(f: &Frame<'_, '_>) -> Made<()> {
    match &f.kernel.body {
        Body::Gemm(gemm) => gemm::emit(f, gemm, share(f, GEMM_TILE)?),
        Body::Grouped(grouped) => gemm::emit_grouped(f, grouped, share(f, GEMM_TILE)?),
        Body::Partition(partition) => choose::partition(f, partition, f.extent(f.kernel.extent)?),
        Body::Attention(attention) => attention::emit(f, attention, share(f, attention::TILE_ROWS)?),
        Body::CachedAttention(attention) => cached::emit(f, attention, share(f, cached::TILE_ROWS)?),
        Body::Along(along @ Along::Conv(_)) => along::emit(f, along, f.rows(ROWWISE_TILE)?),
        Body::Along(along @ Along::Mean { .. }) => {
            along::emit(f, along, (f.int(0), f.extent(f.kernel.extent)?))
        }
        Body::Rowwise(rowwise) => {
            let (begin, end) = f.rows(ROWWISE_TILE)?;
            f.for_each(begin, end, 1, |row| rowwise::emit_row(f, rowwise, row))
        }
        Body::Compact(compact) => compact::emit(f, compact, f.extent(f.kernel.extent)?),
        Body::Pending(pending) => pending::emit(f, pending, f.extent(f.kernel.extent)?),
        Body::Update(state_update) => update::emit(f, state_update, f.extent(f.kernel.extent)?),
        Body::Loops(of) => {
            let (begin, end) = f.rows(loops::tile_rows(f.kernel))?;
            f.for_each(begin, end, 1, |row| loops::emit_row(f, of, row))
        }
        Body::WeightGradient(of) => weight_gradient::emit(f, of, f.rows(weight_gradient::TILE_ROWS)?),
    }
}

/// The share of a call.
fn share<'c>(f: &Frame<'_, 'c>, tile_rows: u32) -> Made<Share<'c>> {
    f.share(tile_rows, across(f.kernel)?, few_rows(f.kernel)?)
}

impl<'c> Code<'c> {
    /// Code at the beginning of a function.
    pub(crate) fn open(
        ctx: &'c Context,
        module: &Rc<Module<'c>>,
        function: FunctionValue<'c>,
        level: Level,
    ) -> Code<'c> {
        // LLVM would rather split the widest vectors, and make calls of loops that copy.
        for (name, value) in
            [("prefer-vector-width", "512"), ("min-legal-vector-width", "512"), ("no-builtins", "")]
        {
            function.add_attribute(AttributeLoc::Function, ctx.create_string_attribute(name, value));
        }
        let nounwind = inkwell::attributes::Attribute::get_named_enum_kind_id("nounwind");
        function.add_attribute(AttributeLoc::Function, ctx.create_enum_attribute(nounwind, 0));
        let builder = ctx.create_builder();
        builder.position_at_end(ctx.append_basic_block(function, ""));
        Code { ctx, module: Rc::clone(module), builder, function, level }
    }
}
