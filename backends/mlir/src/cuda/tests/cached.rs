//! Rows stored in caches and attention over their pages.

use skipc_artifact::program::Launch;
use skipc_artifact::target::DType::{self, Bf16, F32, U8, U32};
use skipc_plan::kernel::{Access, Body, CachedAttention, Kernel, Scoring, Slot, Update, View};

use super::{TARGETS, compile, counted, dense, error, param, ptx, read};

/// Heads of queries and of keys, and their width.
fn attention(dtype: DType, (heads, kv_heads, width): (u32, u32, u32), some: bool) -> Kernel {
    let cols = [heads * width, kv_heads * width];
    let params = vec![
        read("count", U32, 1),
        read("positions", U32, 1),
        read("sequences", U32, 1),
        read("q", dtype, cols[0]),
        read("k", dtype, cols[1]),
        read("v", dtype, cols[1]),
        read("pages", U32, 256),
        read("present", U8, 1),
        param("out", dtype, cols[0], Access::Write),
    ];
    let attention = CachedAttention {
        heads,
        kv_heads,
        width,
        scoring: Scoring::default(),
        q: dense(3),
        q_pos: dense(1),
        q_seq: dense(2),
        k: Slot(4),
        v: Slot(5),
        pages: Slot(6),
        present: some.then_some(Slot(7)),
        out: Slot(8),
    };
    Kernel { params, extent: counted(0), body: Body::CachedAttention(attention) }
}

fn store(dtype: DType, cols: u32) -> Kernel {
    let params = vec![
        read("count", U32, 1),
        read("rows", dtype, cols),
        read("places", U32, 1),
        param("cache", dtype, cols, Access::Write),
    ];
    let update = Update::StoreRows { cols, rows: dense(1), places: dense(2), cache: Slot(3) };
    Kernel { params, extent: counted(0), body: Body::Update(update) }
}

/// Heads of large models: as many as a lane has room for, more, and the widest; and heads without alignment.
const HEADS: [(u32, u32, u32); 6] =
    [(32, 8, 128), (16, 2, 128), (32, 1, 64), (8, 1, 256), (2, 2, 255), (3, 1, 7)];

#[test]
fn keys_and_values_are_loaded_in_whole_pieces() {
    for (dtype, loads) in [(Bf16, 2), (F32, 4)] {
        let kernels = HEADS.map(|heads| attention(dtype, heads, true));
        for (heads, text) in HEADS.iter().zip(ptx(&kernels)) {
            // Four keys at once and as many values, in one piece of bf16 a lane and two of f32.
            let pieces = text.matches("ld.global.nc.v4").count() as u32;
            let wanted = if heads.2.is_multiple_of(8) { 4 * loads } else { 0 };
            assert!(pieces >= wanted, "{dtype} {heads:?}: {pieces} pieces");
            assert_eq!(text.matches("bar.sync").count() + text.matches("barrier.sync").count(), 1, "{text}");
            assert_eq!(text.contains("ex2.approx.ftz.f32"), dtype == Bf16);
        }
    }
}

/// What each of [`HEADS`] is started with on Hopper, in bf16: blocks side by side, which share out the query heads of a key
/// as far as the registers of a lane ask for it, and eight to a cluster the keys, and what `ptxas` says.
const RESOURCES: &str = "\
32x8x128  64 across, 141 registers, 18720 bytes
16x2x128  16 across, 241 registers, 37440 bytes
32x1x64   32 across, 239 registers, 19008 bytes
8x1x256   8 across, 229 registers, 74304 bytes
2x2x255   16 across,  95 registers,  9360 bytes
3x1x7     8 across, 125 registers,  1008 bytes
";

#[test]
fn resources_are_as_they_were() {
    let kernels = HEADS.map(|heads| attention(Bf16, heads, true));
    let launches = compile(TARGETS[1], &kernels).expect("code").launches;
    let mut table = String::new();
    for ((heads, kv_heads, width), launch) in HEADS.iter().zip(launches) {
        let Launch::Cuda { tiles, registers, shared_bytes, .. } = launch else { panic!("a launch on CUDA") };
        let (shape, across) = (format!("{heads}x{kv_heads}x{width}"), tiles[0].across);
        table += &format!("{shape:9} {across} across, {registers:3} registers, {shared_bytes:5} bytes\n");
    }
    assert_eq!(table, RESOURCES, "\n{table}");
}

#[test]
fn rows_are_stored_in_pieces_by_many_blocks() {
    let kinds =
        [(Bf16, 1024, "v4.b32"), (Bf16, 12, "v2.b32"), (F32, 7, "b32"), (Bf16, 3, "b16"), (U8, 1, "b8")];
    let text = ptx(&kinds.map(|(dtype, cols, _)| store(dtype, cols)));
    for ((dtype, cols, piece), text) in kinds.iter().zip(text) {
        assert!(text.contains(&format!("st.global.{piece}")), "{dtype} {cols}: {text}");
        assert!(text.contains("%ctaid.x"), "{dtype} {cols}: one block");
    }
}

#[test]
fn caches_that_do_not_fit_are_named() {
    let wide = attention(Bf16, (1, 1, 512), false);
    assert!(error(&wide).contains("heads of 512 columns; at most 256"), "{}", error(&wide));
    let mut kernel = attention(Bf16, (2, 1, 64), true);
    kernel.params[7].dtype = U32;
    assert!(error(&kernel).contains("`present` holds u32, not u8"), "{}", error(&kernel));
    let mut kernel = attention(Bf16, (2, 1, 64), false);
    kernel.params[4].dtype = F32;
    assert!(error(&kernel).contains("`k` holds f32, not bf16"), "{}", error(&kernel));
    let mut kernel = store(Bf16, 64);
    kernel.params[3].dtype = F32;
    assert!(error(&kernel).contains("`cache` holds f32, not bf16"), "{}", error(&kernel));
    let mut kernel = store(Bf16, 64);
    kernel.body = Body::Update(Update::StoreRows {
        cols: 64,
        rows: View { col: 1, ..dense(1) },
        places: dense(2),
        cache: Slot(3),
    });
    assert!(error(&kernel).contains("columns 1.. of `rows` are fewer than 64"), "{}", error(&kernel));
}
