//! A kernel's function: the ABI around its body.

use cranelift_codegen::Context;
use cranelift_codegen::ir::types::{F32, I32, I64};
use cranelift_codegen::ir::{AbiParam, InstBuilder, MemFlagsData, Signature, UserFuncName, Value};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use skipc_artifact::program::{Launch, RowTile};
use skipc_plan::buckets::{self, Bucketing};
use skipc_plan::kernel::{Along, Body, Grouped, Kernel, Rowwise};

use crate::emit::Emitter;
use crate::error::Fault;
use crate::{
    along, attention, choose, compact, gemm, loops, pending, pointwise, rowwise, update, weight_gradient,
};

/// Rows of a tile of matmuls: enough for the library's micro-kernels, few enough that short batches have work for
/// several threads. Calls of several tiles make larger matmuls, see [`crate::gemm`].
const GEMM_TILE: u32 = 64;

/// Rows of a tile of row-wise work.
const ROWWISE_TILE: u32 = 64;

/// `kernel` of [`skipc_artifact::abi`].
pub(crate) fn signature(call_conv: CallConv) -> Signature {
    let params = [I64, I64, I32, I32, I64];
    Signature { params: params.map(AbiParam::new).into(), returns: Vec::new(), call_conv }
}

/// [`skipc_artifact::abi::GemmF32`].
fn gemm_signature(call_conv: CallConv) -> Signature {
    Signature { params: vec![AbiParam::new(I64); 10], returns: Vec::new(), call_conv }
}

/// [`skipc_artifact::abi::MapF32`].
fn map_signature(call_conv: CallConv) -> Signature {
    Signature { params: [I64; 3].map(AbiParam::new).into(), returns: Vec::new(), call_conv }
}

/// [`skipc_artifact::abi::SoftmaxF32`].
fn softmax_signature(call_conv: CallConv) -> Signature {
    let params = [I64, I64, F32, F32];
    Signature { params: params.map(AbiParam::new).into(), returns: vec![AbiParam::new(F32)], call_conv }
}

/// Which form of the kernel runs for which number of rows; none if it has one.
pub(crate) fn tiles(kernel: &Kernel, bucketing: &dyn Bucketing) -> Result<Vec<RowTile>, Fault> {
    let menu = match &kernel.body {
        Body::Attention(attention) => attention::menu(kernel, attention),
        Body::Gemm(_)
        | Body::Grouped(_)
        | Body::Partition(_)
        | Body::CachedAttention(_)
        | Body::Along(_)
        | Body::Rowwise(_)
        | Body::Compact(_)
        | Body::Pending(_)
        | Body::Update(_)
        | Body::Loops(_)
        | Body::WeightGradient(_) => Vec::new(),
    };
    if menu.is_empty() {
        return Ok(Vec::new());
    }
    let chosen = buckets::buckets(bucketing, kernel, &menu, attention::TILE_ROWS);
    let chosen = chosen.ok_or_else(|| Fault::Malformed("buckets of forms that there are not".to_owned()))?;
    Ok(buckets::row_tiles(&chosen, &menu))
}

/// How the kernel is started.
pub(crate) fn launch(kernel: &Kernel, tiles: &[RowTile]) -> Result<Launch, Fault> {
    let (tile_rows, scratch_bytes) = match &kernel.body {
        Body::Gemm(gemm) | Body::Grouped(Grouped { gemm, .. }) => {
            (GEMM_TILE, gemm::scratch_bytes(kernel, gemm, GEMM_TILE)?)
        }
        Body::Attention(attention) => (attention::TILE_ROWS, attention::scratch_bytes(kernel, attention)),
        Body::CachedAttention(attention) => {
            (attention::cached::TILE_ROWS, attention::cached::scratch_bytes(kernel, attention))
        }
        Body::Rowwise(Rowwise::Map { cols, program }) => {
            (ROWWISE_TILE, pointwise::functions(program).count() as u64 * pointwise::row_bytes(*cols))
        }
        Body::Rowwise(Rowwise::Choose { n, .. }) => (ROWWISE_TILE, choose::scratch_bytes(*n)),
        Body::Rowwise(_) => (ROWWISE_TILE, 0),
        Body::Loops(_) => (loops::tile_rows(kernel), 0),
        Body::WeightGradient(of) => (weight_gradient::TILE_ROWS, weight_gradient::scratch_bytes(of)),
        Body::Along(Along::Conv(_)) => (ROWWISE_TILE, 0),
        Body::Along(Along::Mean { .. })
        | Body::Partition(_)
        | Body::Compact(_)
        | Body::Pending(_)
        | Body::Update(_) => (0, 0),
    };
    Ok(Launch::Host { tile_rows, few_rows: None, scratch_bytes, tiles: tiles.to_vec() })
}

/// Fills the context's function with the kernel's code.
pub(crate) fn build(
    ctx: &mut Context,
    builder_ctx: &mut FunctionBuilderContext,
    config: TargetFrontendConfig,
    symbol: &str,
    (kernel, row_tiles): (&Kernel, &[RowTile]),
) -> Result<(), Fault> {
    let call_conv = config.default_call_conv;
    ctx.func.signature = signature(call_conv);
    ctx.func.name = UserFuncName::testcase(symbol);
    let mut builder = FunctionBuilder::new(&mut ctx.func, builder_ctx);
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    builder.seal_block(entry);
    let gemm_signature = builder.import_signature(gemm_signature(call_conv));
    let map_signature = builder.import_signature(map_signature(call_conv));
    let softmax_signature = builder.import_signature(softmax_signature(call_conv));
    let &[table, helpers, begin, end, scratch] = builder.block_params(entry) else {
        return Err(Fault::Malformed("the entry block lacks the kernel ABI's parameters".to_owned()));
    };
    // Nobody writes to the table of pointers while the kernel runs.
    let constant = MemFlagsData::trusted().with_readonly();
    let args = (0..kernel.params.len())
        .map(|idx| builder.ins().load(I64, constant, table, idx as i32 * 8))
        .collect();
    let tiles = (builder.ins().uextend(I64, begin), builder.ins().uextend(I64, end));
    let mut e = Emitter {
        builder,
        kernel,
        args,
        helpers,
        gemm_signature,
        map_signature,
        softmax_signature,
        tiles,
        scratch,
    };
    body(&mut e, row_tiles)?;
    e.ins().return_(&[]);
    e.builder.finalize(config);
    Ok(())
}

fn body(e: &mut Emitter<'_>, row_tiles: &[RowTile]) -> Result<(), Fault> {
    let kernel = e.kernel;
    match &kernel.body {
        Body::Gemm(gemm) => {
            let rows = rows(e, GEMM_TILE)?;
            gemm::emit(e, gemm, GEMM_TILE, rows)
        }
        Body::Grouped(grouped) => {
            let rows = rows(e, GEMM_TILE)?;
            gemm::emit_grouped(e, grouped, GEMM_TILE, rows)
        }
        Body::Partition(partition) => {
            let n_rows = e.extent(kernel.extent)?;
            choose::partition(e, partition, n_rows)
        }
        Body::Attention(attention) => {
            check_heads(attention.heads, attention.kv_heads)?;
            let rows = rows(e, attention::TILE_ROWS)?;
            attention::emit(e, attention, rows, row_tiles)
        }
        Body::CachedAttention(attention) => {
            check_heads(attention.heads, attention.kv_heads)?;
            let (begin, end) = rows(e, attention::cached::TILE_ROWS)?;
            e.for_each(begin, end, 1, |e, row| attention::cached::emit_row(e, attention, row))
        }
        Body::Along(along) => {
            let rows = match along {
                Along::Conv(_) => rows(e, ROWWISE_TILE)?,
                Along::Mean { .. } => (e.int(0), e.extent(kernel.extent)?),
            };
            along::emit(e, along, rows)
        }
        Body::Rowwise(rowwise) => {
            let (begin, end) = rows(e, ROWWISE_TILE)?;
            e.for_each(begin, end, 1, |e, row| rowwise::emit_row(e, rowwise, row))
        }
        Body::Compact(compact) => {
            let n_rows = e.extent(kernel.extent)?;
            compact::emit(e, compact, n_rows)
        }
        Body::Pending(pending) => {
            let n_rows = e.extent(kernel.extent)?;
            pending::emit(e, pending, n_rows)
        }
        Body::Update(state_update) => {
            let n_rows = e.extent(kernel.extent)?;
            update::emit(e, state_update, n_rows)
        }
        Body::Loops(of) => {
            let (begin, end) = rows(e, loops::tile_rows(kernel))?;
            e.for_each(begin, end, 1, |e, row| loops::emit_row(e, of, row))
        }
        Body::WeightGradient(of) => {
            let rows = rows(e, weight_gradient::TILE_ROWS)?;
            weight_gradient::emit(e, (kernel, of), rows)
        }
    }
}

/// The rows of the call's tiles that lie in the extent.
fn rows(e: &mut Emitter<'_>, tile_rows: u32) -> Result<(Value, Value), Fault> {
    let (begin, end) = e.tiles;
    let begin = e.ins().imul_imm_s(begin, i64::from(tile_rows));
    let end = e.ins().imul_imm_s(end, i64::from(tile_rows));
    let limit = e.extent(e.kernel.extent)?;
    Ok((begin, e.ins().umin(end, limit)))
}

fn check_heads(heads: u32, kv_heads: u32) -> Result<(), Fault> {
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(Fault::Malformed(format!("{kv_heads} key heads do not divide {heads} query heads")));
    }
    Ok(())
}
