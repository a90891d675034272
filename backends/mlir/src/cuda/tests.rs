//! Each kind of kernel through LLVM and ptxas, on the oldest and the newest target that plans run on.
//!
//! What the kernels compute is not checked here: that takes a device.

use skipc_artifact::program::{Extent, Launch};
use skipc_artifact::target::DType::{self, Bf16, F32, U8, U32};
use skipc_llvm::Ptxas;
use skipc_plan::buckets::{Always, Bucketing, ByHeight};
use skipc_plan::codegen::{Code, Codegen, CodegenError, Image};
use skipc_plan::kernel::{
    Access, Attention, Body, Candidates, Compact, Gemm, Keep, Kernel, NormKind, Param, Part, RankOrder,
    Ranked, Rows, Rowwise, SWIZZLE_TERMS, Scoring, Segment, Select, Slot, Sum, View, WeightLayout,
};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Reg, Store, Unary};

use super::CudaCodegen;

mod cached;
mod hopper;

/// One form of each kernel, with the highest tiles.
const HIGHEST: Always = Always(usize::MAX);

const TARGETS: [&str; 2] = ["cuda:sm_80", "cuda:sm_90a"];

/// The assembler that the set-up script fetches for this repository.
fn ptxas() -> Ptxas {
    let cached = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache/cuda/bin/ptxas");
    Ptxas::find(Some(cached.as_ref())).expect("tests/setup.sh fetches ptxas")
}

fn compile(target: &str, kernels: &[Kernel]) -> Result<Code, CodegenError> {
    compile_in(target, kernels, Box::new(ByHeight))
}

fn compile_in(target: &str, kernels: &[Kernel], bucketing: Box<dyn Bucketing>) -> Result<Code, CodegenError> {
    let target = target.parse().expect("a target");
    let codegen = CudaCodegen::new(target, ptxas()).expect("a known target").with_bucketing(bucketing);
    let named: Vec<(String, &Kernel)> =
        kernels.iter().enumerate().map(|(idx, kernel)| (format!("k{idx}"), kernel)).collect();
    codegen.compile(&named)
}

/// Compiles for all targets; yields each kernel's PTX for the first. Spills, stack frames and
/// external functions are errors of the compile.
fn ptx(kernels: &[Kernel]) -> Vec<String> {
    ptx_in(kernels, ByHeight)
}

fn ptx_in(kernels: &[Kernel], bucketing: impl Bucketing + Copy + 'static) -> Vec<String> {
    let [first, ..] = TARGETS.map(|target| {
        let code = compile_in(target, kernels, Box::new(bucketing)).expect("code");
        let shared_limit = if target == TARGETS[0] { 163 } else { 227 } * 1024;
        let [Image::Cubin(cubin), Image::Ptx(ptx)] = code.images.as_slice() else { panic!("two images") };
        assert!(cubin.starts_with(b"\x7fELF"));
        for launch in &code.launches {
            let Launch::Cuda { registers, shared_bytes, .. } = launch else { panic!("a launch on CUDA") };
            assert!((1..=255).contains(registers) && *shared_bytes <= shared_limit, "{launch:?}");
        }
        assert!(!ptx.contains(".local") && !ptx.contains(".func") && !ptx.contains(".file"), "{ptx}");
        ptx.split(".visible .entry").skip(1).map(str::to_owned).collect::<Vec<String>>()
    });
    assert_eq!(first.len(), kernels.len());
    first
}

fn error(kernel: &Kernel) -> String {
    compile(TARGETS[0], std::slice::from_ref(kernel)).expect_err("an error").to_string()
}

fn param(name: &str, dtype: DType, cols: u32, access: Access) -> Param {
    Param { name: name.to_owned(), dtype, cols, access }
}

fn read(name: &str, dtype: DType, cols: u32) -> Param {
    param(name, dtype, cols, Access::Read)
}

fn dense(slot: u32) -> View {
    View::dense(Slot(slot))
}

fn listed(slot: u32, list: u32) -> View {
    View { slot: Slot(slot), rows: Rows::Listed(Slot(list)), col: 0 }
}

fn counted(slot: u32) -> Extent {
    Extent::Counted { count: slot, at_most: 16_384 }
}

/// A program that stores the sum.
fn store_sum(to: u32) -> Pointwise {
    Pointwise { code: vec![Inst::Acc(0)], stores: vec![Store { to: dense(to), value: Reg(0) }] }
}

fn part(n: u32, sums: Vec<Sum>, epilogue: Pointwise) -> Part {
    Part { n, layout: WeightLayout::Rows, sums, epilogue }
}

/// `c = a · wᵀ`, dense.
fn plain(dtype: DType, k: u32, n: u32) -> Kernel {
    Kernel {
        params: vec![
            read("count", U32, 1),
            read("a", dtype, k),
            read("w", dtype, k),
            param("c", dtype, n, Access::Write),
        ],
        extent: counted(0),
        body: Body::Gemm(Gemm { a: dense(1), k, parts: vec![Part::of(n, &[Slot(2)], store_sum(3))] }),
    }
}

/// A gated pair of gathered rows: `c = silu(acc0 · scale) · acc1`.
fn pair(dtype: DType, k: u32, n: u32) -> Kernel {
    Kernel {
        params: vec![
            read("count", U32, 1),
            read("rows", U32, 1),
            read("x", dtype, k),
            read("gate", dtype, k),
            read("up", dtype, k),
            read("scale", F32, 1),
            param("c", dtype, n, Access::Write),
        ],
        extent: counted(0),
        body: Body::Gemm(Gemm {
            a: listed(2, 1),
            k,
            parts: vec![Part::of(
                n,
                &[Slot(3), Slot(4)],
                Pointwise {
                    code: vec![
                        Inst::Acc(0),
                        Inst::LoadRow(listed(5, 1)),
                        Inst::Binary(Binary::Mul, Reg(0), Reg(1)),
                        Inst::Unary(Unary::Silu, Reg(2)),
                        Inst::Acc(1),
                        Inst::Binary(Binary::Mul, Reg(3), Reg(4)),
                    ],
                    stores: vec![Store { to: dense(6), value: Reg(5) }],
                },
            )],
        }),
    }
}

/// `x[rows] += a · wᵀ + bias`, scattered.
fn scattered(dtype: DType, k: u32, n: u32) -> Kernel {
    Kernel {
        params: vec![
            read("count", U32, 1),
            read("rows", U32, 1),
            read("a", dtype, k),
            read("w", dtype, k),
            read("bias", F32, n),
            param("x", dtype, n, Access::ReadWrite),
        ],
        extent: counted(0),
        body: Body::Gemm(Gemm {
            a: dense(2),
            k,
            parts: vec![Part::of(
                n,
                &[Slot(3)],
                Pointwise {
                    code: vec![
                        Inst::Acc(0),
                        Inst::LoadCol(Slot(4)),
                        Inst::Binary(Binary::Add, Reg(0), Reg(1)),
                        Inst::Load(listed(5, 1)),
                        Inst::Binary(Binary::Add, Reg(2), Reg(3)),
                    ],
                    stores: vec![Store { to: listed(5, 1), value: Reg(4) }],
                },
            )],
        }),
    }
}

/// Sizes of the example model, of a large one, and without any alignment.
const MATMULS: [(u32, u32); 3] = [(128, 384), (2048, 8192), (35, 7)];

fn matmuls(dtype: DType) -> Vec<Kernel> {
    let kinds = |(k, n)| [pair(dtype, k, n), scattered(dtype, k, n)];
    MATMULS.into_iter().flat_map(kinds).collect()
}

#[test]
fn tensor_core_matmuls() {
    for (kernel, text) in matmuls(Bf16).iter().zip(ptx(&matmuls(Bf16))) {
        let Body::Gemm(gemm) = &kernel.body else { panic!("a matmul") };
        let copies = if gemm.k == 35 { "ld.global.nc.b16" } else { "cp.async.cg" };
        for instruction in ["mma.sync", "ldmatrix", "bar.sync", copies] {
            assert!(text.contains(instruction), "no {instruction} in {}", kernel.describe());
        }
    }
}

#[test]
fn multiply_add_matmuls() {
    for text in ptx(&matmuls(F32)) {
        assert!(text.contains("fma.rn.f32") && text.contains("cp.async"));
        assert!(!text.contains("tf32") && !text.contains("mma.sync") && !text.contains("approx"));
    }
}

/// What a routed attention layer begins with: queries that turn, values, and the score of a router, a difference of two
/// rows of a weight of `terms` terms.
fn attention_inputs(dtype: DType, k: u32, [heads, width]: [u32; 2], terms: u32) -> Kernel {
    let n = heads * width;
    let params = [
        vec![read("count", U32, 1), read("rows", U32, 1), read("x", dtype, k), read("positions", U32, 1)],
        vec![read("cos", F32, width / 2), read("sin", F32, width / 2)],
        vec![read("weights", dtype, k)],
        vec![
            param("q", dtype, n, Access::Write),
            param("v", dtype, n, Access::Write),
            param("score", F32, 1, Access::Write),
        ],
        (0..terms).map(|term| read(&format!("term{term}"), dtype, k)).collect(),
    ];
    let index = listed(3, 1);
    let turned = Pointwise {
        code: vec![
            Inst::Acc(0),
            Inst::LoadAt { table: Slot(4), index },
            Inst::Binary(Binary::Mul, Reg(0), Reg(1)),
            Inst::AccRotated { sum: 0, width },
            Inst::LoadAt { table: Slot(5), index },
            Inst::Binary(Binary::Mul, Reg(3), Reg(4)),
            Inst::Binary(Binary::Add, Reg(2), Reg(5)),
        ],
        stores: vec![Store { to: dense(7), value: Reg(6) }],
    };
    let mut code = vec![Inst::Acc(0)];
    for sum in 1..2 * terms {
        let so_far = Reg(code.len() as u32 - 1);
        let combine = if sum < terms { Binary::Add } else { Binary::Sub };
        code.extend([Inst::Acc(sum), Inst::Binary(combine, so_far, Reg(so_far.0 + 1))]);
    }
    let value = Reg(code.len() as u32 - 1);
    let score = Pointwise { code, stores: vec![Store { to: dense(9), value }] };
    let of_weights = |row: u32, epilogue| part(n, vec![Sum::of(Slot(6), row)], epilogue);
    let rows = [1, 0].into_iter().flat_map(|row| (0..terms).map(move |term| (10 + term, row)));
    let sums = rows.map(|(weight, row)| Sum::of(Slot(weight), row)).collect();
    let parts = vec![of_weights(0, turned), of_weights(n, store_sum(8)), part(1, sums, score)];
    Kernel {
        params: params.concat(),
        extent: counted(0),
        body: Body::Gemm(Gemm { a: listed(2, 1), k, parts }),
    }
}

#[test]
fn parts_share_the_loop() {
    let shapes = [(128, [2, 32]), (2048, [4, 64]), (2048, [16, 128]), (96, [1, 128]), (33, [5, 6])];
    for (dtype, terms, arithmetic) in [(Bf16, 3, "mma.sync"), (F32, 1, "fma.rn.f32")] {
        let kernels = shapes.map(|(k, heads)| attention_inputs(dtype, k, heads, terms));
        let alone = shapes.map(|(k, [heads, width])| plain(dtype, k, 2 * heads * width));
        for ((kernel, text), alone) in
            kernels.iter().zip(ptx_in(&kernels, HIGHEST)).zip(ptx_in(&alone, HIGHEST))
        {
            // Epilogues have no sums of products: theirs would show as more.
            let [parts, one] = [&text, &alone].map(|text| text.matches(arithmetic).count());
            assert!(
                parts > 0 && parts % one == 0 && parts <= 2 * one,
                "{parts}, {one}: {}",
                kernel.describe()
            );
        }
    }
}

#[test]
fn same_kernels_same_bytes() {
    let kernels = [pair(Bf16, 128, 384), plain(F32, 128, 256)];
    let [first, second] = [0, 1].map(|_| compile(TARGETS[1], &kernels).expect("code"));
    assert_eq!(first, second);
}

#[test]
fn what_cannot_be_generated_is_named() {
    let mut kernel = plain(Bf16, 128, 256);
    if let Body::Gemm(gemm) = &mut kernel.body {
        gemm.parts[0].sums.clear();
    }
    assert!(error(&kernel).contains("a part of a matmul with 0 sums"), "{}", error(&kernel));
    let wide = attention(F32, 1, 1, 512);
    assert!(error(&wide).contains("heads of 512 columns; at most 256"), "{}", error(&wide));
    let mut kernel = scattered(F32, 128, 256);
    if let Body::Gemm(gemm) = &mut kernel.body {
        gemm.parts[0].epilogue.code[3] = Inst::LoadRow(listed(5, 1));
    }
    assert!(error(&kernel).contains("`x` is written and read as one number"), "{}", error(&kernel));
    let mut kernel = plain(Bf16, 128, 256);
    if let Body::Gemm(gemm) = &mut kernel.body {
        gemm.parts[0].layout = WeightLayout::Columns;
    }
    assert!(error(&kernel).contains("weights in columns"), "{}", error(&kernel));
    let turned = attention_inputs(Bf16, 64, [1, 256], 3);
    assert!(error(&turned).contains("heads of 256 columns of 1 sums"), "{}", error(&turned));
    let unknown = CudaCodegen::new("cuda:sm_75".parse().expect("a target"), ptxas());
    assert!(unknown.is_err_and(|error| error.to_string().contains("unknown CUDA target `sm_75`")));
}

#[test]
fn rowwise_kernels() {
    for (dtype, cols) in [(F32, 128), (Bf16, 2048), (Bf16, 100), (F32, 7)] {
        for text in ptx(&rowwise(dtype, cols)) {
            if dtype == Bf16 && cols.is_multiple_of(16) {
                let is_whole =
                    ["ld.global.nc.v2.b32", "ld.global.v2.b32"].iter().any(|load| text.contains(load));
                assert!(is_whole, "loads are not whole groups:\n{text}");
            }
        }
    }
}

/// A kernel of each kind of row-wise work.
fn rowwise(dtype: DType, cols: u32) -> Vec<Kernel> {
    let rows_of = |params: Vec<Param>, work: Rowwise| Kernel {
        params: [vec![read("count", U32, 1), read("rows", U32, 1)], params].concat(),
        extent: counted(0),
        body: Body::Rowwise(work),
    };
    let (x, gain, out) =
        (read("x", dtype, cols), read("gain", F32, cols), param("out", dtype, cols, Access::Write));
    let norm = |kind| Rowwise::Norm {
        kind,
        eps: 1e-5.into(),
        cols,
        groups: 1,
        x: listed(2, 1),
        gain: Slot(3),
        out: Slot(4),
    };
    let gate = Pointwise {
        code: vec![
            Inst::Load(dense(2)),
            Inst::LoadRow(listed(3, 1)),
            Inst::Unary(Unary::Sigmoid, Reg(1)),
            Inst::Binary(Binary::Mul, Reg(0), Reg(2)),
            Inst::Unary(Unary::Gelu, Reg(3)),
        ],
        stores: vec![Store { to: dense(4), value: Reg(4) }],
    };
    let mut kernels = vec![
        rows_of(vec![x.clone(), read("scores", F32, 1), out.clone()], Rowwise::Map { cols, program: gate }),
        rows_of(vec![x.clone(), gain.clone(), out.clone()], norm(NormKind::Rms)),
        rows_of(
            vec![x.clone(), gain.clone(), out.clone(), read("bias", F32, cols)],
            norm(NormKind::Layer { bias: Slot(5) }),
        ),
        rows_of(
            vec![x.clone(), param("scale", F32, 1, Access::Write)],
            Rowwise::RowScale { eps: 1e-5.into(), cols, x: listed(2, 1), out: Slot(3) },
        ),
        rows_of(
            vec![read("ids", U32, 1), read("table", dtype, cols), out.clone()],
            Rowwise::Embed { cols, ids: dense(2), n_ids: 256, table: Slot(3), out: Slot(4) },
        ),
    ];
    if cols.is_multiple_of(4) {
        let tables = [read("cos", F32, cols / 4), read("sin", F32, cols / 4)];
        let params = [vec![x, read("positions", U32, 1)], tables.to_vec(), vec![out]].concat();
        kernels.push(rows_of(
            params,
            Rowwise::Rope {
                heads: 2,
                width: cols / 2,
                turned: None,
                x: dense(2),
                positions: listed(3, 1),
                cos: Slot(4),
                sin: Slot(5),
                out: Slot(6),
            },
        ));
    }
    kernels
}

/// A compaction whose rule reads these parameters.
fn compaction(select: Select, read_by_rule: &[Param]) -> Kernel {
    let first = read_by_rule.len() as u32;
    let own = [
        read("n", U32, 1),
        read("use_forced", U32, 1),
        read("forced", U8, 1),
        param("rows", U32, 1, Access::Write),
        param("count", U32, 1, Access::Write),
        param("mask", U8, 1, Access::Write),
    ];
    Kernel {
        params: [read_by_rule, &own].concat(),
        extent: counted(first),
        body: Body::Compact(Compact {
            select,
            use_forced: Slot(first + 1),
            forced: Slot(first + 2),
            rows: Slot(first + 3),
            count: Slot(first + 4),
            mask: Slot(first + 5),
        }),
    }
}

#[test]
fn compactions() {
    let scores = Select::AtLeast { scores: dense(0), threshold: 0.0.into() };
    let random =
        Select::Random { ids: dense(0), sequences: Some(dense(1)), seed: 7, block: 3, limit: 1 << 30 };
    let kernels = [
        compaction(scores, &[read("z", F32, 1)]),
        compaction(random, &[read("positions", U32, 1), read("sequences", U32, 1)]),
    ];
    for text in ptx(&kernels) {
        assert_eq!(text.matches("vote.sync.ballot").count(), 4);
    }
}

#[test]
fn rankings() {
    let columns = [
        read("sequences", U32, 1),
        read("positions", U32, 1),
        read("scores", F32, 2),
        read("list", U32, 1),
        read("wanted", U8, 1),
    ];
    let ranked = |order, keep, by_group: bool| {
        let group = Segment::Group { positions: dense(1), size: 48 };
        Select::Ranked(Ranked {
            among: if by_group { Candidates::Masked(Slot(4)) } else { Candidates::All },
            sequences: Some(dense(0)),
            segment: if by_group { group } else { Segment::Sequence },
            order,
            keep,
        })
    };
    let best = RankOrder::Score(View { col: 1, ..listed(2, 3) });
    let kernels = [
        ranked(best, Keep::Share(0.3.into()), false),
        ranked(best, Keep::Slots(5), true),
        ranked(RankOrder::Position, Keep::Slots(5), true),
    ];
    let text = ptx(&kernels.map(|select| compaction(select, &columns)));
    // Only a share needs a product in f64; only scores need counts over a segment.
    assert_eq!([0, 1, 2].map(|kernel| text[kernel].contains(".f64")), [true, false, false]);
    let reductions = text.iter().map(|text| text.matches("shfl.sync.bfly").count()).collect::<Vec<usize>>();
    assert!(reductions[0] == reductions[1] && reductions[1] > reductions[2], "{reductions:?}");
}

fn attention(dtype: DType, heads: u32, kv_heads: u32, width: u32) -> Kernel {
    let indices = ["q_pos", "q_seq", "k_pos", "k_seq"].map(|name| read(name, U32, 1));
    let params = [
        vec![read("count", U32, 1), read("rows", U32, 1), read("n", U32, 1)],
        indices.to_vec(),
        vec![
            read("q", dtype, heads * width),
            read("k", dtype, kv_heads * width),
            read("v", dtype, 2 * kv_heads * width),
            param("out", dtype, heads * width, Access::Write),
        ],
    ];
    Kernel {
        params: params.concat(),
        extent: counted(0),
        body: Body::Attention(Attention {
            heads,
            kv_heads,
            width,
            scoring: Scoring::default(),
            q: dense(7),
            q_pos: listed(3, 1),
            q_seq: listed(4, 1),
            kv_extent: counted(2),
            k: dense(8),
            v: View { col: kv_heads * width, ..dense(9) },
            k_pos: dense(5),
            k_seq: dense(6),
            out: Slot(10),
        }),
    }
}

/// Heads and widths of a large model, without alignment, and the widest.
fn attentions(dtype: DType) -> Vec<Kernel> {
    [(16, 4, 128), (3, 1, 7), (2, 2, 256)]
        .map(|(heads, kv_heads, width)| attention(dtype, heads, kv_heads, width))
        .to_vec()
}

#[test]
fn tensor_core_attention() {
    for text in ptx(&attentions(Bf16)) {
        for instruction in ["mma.sync", "ldmatrix", ".trans", "ex2.approx.ftz.f32"] {
            assert!(text.contains(instruction), "no {instruction}");
        }
    }
}

#[test]
fn multiply_add_attention() {
    for text in ptx(&attentions(F32)) {
        assert!(text.contains("fma.rn.f32") && !text.contains("approx") && !text.contains("mma.sync"));
    }
}
