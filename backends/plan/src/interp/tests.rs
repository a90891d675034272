//! The interpreter on a small step with a route, and the faults that it has to find.

use skipc_artifact::interface::{Binding, Interface, Role, RouterPorts};
use skipc_artifact::program::{ArenaPlace, Arg, Buffer, Extent, Function, Head, RowBound, Step, Storage};
use skipc_artifact::target::DType;

use super::{Fault, Mode, States, StepInput, Tiling, run_function, run_kernel};
use crate::kernel::{Access, Body, Compact, Gemm, Kernel, Param, Part, Rows, Rowwise, Select, Slot, View};
use crate::pointwise::{Binary, Inst, Pointwise, Real, Reg, Store};

const N_TOKENS: u32 = 70;

fn param(name: &str, dtype: DType, cols: u32, access: Access) -> Param {
    Param { name: name.to_owned(), dtype, cols, access }
}

fn dense(slot: u32) -> View {
    View::dense(Slot(slot))
}

fn counted(count: u32) -> Extent {
    Extent::Counted { count, at_most: 100 }
}

/// `x[i] = table[tokens[i]]`, two columns.
fn embed() -> Kernel {
    let params = vec![
        param("tokens", DType::U32, 1, Access::Read),
        param("table", DType::F32, 2, Access::Read),
        param("x", DType::F32, 2, Access::Write),
        param("n", DType::U32, 1, Access::Read),
    ];
    let body = Rowwise::Embed { cols: 2, ids: dense(0), n_ids: 8, table: Slot(1), out: Slot(2) };
    Kernel { params, extent: counted(3), body: Body::Rowwise(body) }
}

/// Rows of `x` whose first column is at least 2.
fn route() -> Kernel {
    let params = vec![
        param("x", DType::F32, 2, Access::Read),
        param("use_forced", DType::U32, 1, Access::Read),
        param("forced", DType::U8, 1, Access::Read),
        param("rows", DType::U32, 1, Access::Write),
        param("count", DType::U32, 1, Access::Write),
        param("mask", DType::U8, 1, Access::Write),
        param("n", DType::U32, 1, Access::Read),
    ];
    let compact = Compact {
        select: Select::AtLeast { scores: dense(0), threshold: Real::from(2.0) },
        use_forced: Slot(1),
        forced: Slot(2),
        rows: Slot(3),
        count: Slot(4),
        mask: Slot(5),
    };
    Kernel { params, extent: counted(6), body: Body::Compact(compact) }
}

/// `h[j] = weight · x[rows[j]]`.
fn up() -> Kernel {
    let params = vec![
        param("x", DType::F32, 2, Access::Read),
        param("weight", DType::F32, 2, Access::Read),
        param("rows", DType::U32, 1, Access::Read),
        param("h", DType::F32, 3, Access::Write),
        param("count", DType::U32, 1, Access::Read),
    ];
    let epilogue =
        Pointwise { code: vec![Inst::Acc(0)], stores: vec![Store { to: dense(3), value: Reg(0) }] };
    let a = View { rows: Rows::Listed(Slot(2)), ..dense(0) };
    let gemm = Gemm { a, k: 2, parts: vec![Part::of(3, &[Slot(1)], epilogue)] };
    Kernel { params, extent: counted(4), body: Body::Gemm(gemm) }
}

/// `x[rows[j]] += weight · h[j]`, in place.
fn down() -> Kernel {
    let params = vec![
        param("h", DType::F32, 3, Access::Read),
        param("weight", DType::F32, 3, Access::Read),
        param("rows", DType::U32, 1, Access::Read),
        param("x", DType::F32, 2, Access::ReadWrite),
        param("count", DType::U32, 1, Access::Read),
    ];
    let x = View { rows: Rows::Listed(Slot(2)), ..dense(3) };
    let code = vec![Inst::Acc(0), Inst::Load(x), Inst::Binary(Binary::Add, Reg(0), Reg(1))];
    let epilogue = Pointwise { code, stores: vec![Store { to: x, value: Reg(2) }] };
    let gemm = Gemm { a: dense(0), k: 3, parts: vec![Part::of(2, &[Slot(1)], epilogue)] };
    Kernel { params, extent: counted(4), body: Body::Gemm(gemm) }
}

/// Buffers of the step, each after the other; `h` last.
const BUFFERS: [(&str, DType, RowBound, u32); 11] = [
    ("n", DType::U32, RowBound::Fixed(1), 1),
    ("use_forced", DType::U32, RowBound::Fixed(1), 1),
    ("count", DType::U32, RowBound::Fixed(1), 1),
    ("tokens", DType::U32, RowBound::Tokens, 1),
    ("positions", DType::U32, RowBound::Tokens, 1),
    ("sequences", DType::U32, RowBound::Tokens, 1),
    ("forced", DType::U8, RowBound::Tokens, 1),
    ("mask", DType::U8, RowBound::Tokens, 1),
    ("rows", DType::U32, RowBound::Tokens, 1),
    ("x", DType::F32, RowBound::Tokens, 2),
    ("h", DType::F32, RowBound::Tokens, 3),
];

fn index(name: &str) -> u32 {
    BUFFERS.iter().position(|buffer| buffer.0 == name).expect("a buffer of the step") as u32
}

fn step(kernel: u32, args: &[&str]) -> Step {
    let arg = |name: &&str| match name.strip_prefix("constant ") {
        Some(idx) => Arg::Constant(idx.parse().expect("an index")),
        None => Arg::Buffer(index(name)),
    };
    Step { kernel, args: args.iter().map(arg).collect(), origin: "test".to_owned() }
}

fn function() -> Function {
    let mut place = ArenaPlace::default();
    let mut buffers = Vec::new();
    for (name, dtype, rows, cols) in BUFFERS {
        let storage = Storage::Step(place);
        buffers.push(Buffer { name: name.to_owned(), dtype, rows, cols, storage, live: None });
        match rows {
            RowBound::Fixed(rows) => place.fixed_offset += u64::from(rows * cols * dtype.size()),
            RowBound::Tokens | RowBound::Cached => place.row_offset += u64::from(cols * dtype.size()),
        }
    }
    Function {
        max_tokens: 100,
        max_positions: 100,
        vocab_size: 2,
        head: Head::Tokens,
        class_token: false,
        ranks_batch: false,
        logits: 2,
        fixed_bytes: place.fixed_offset,
        row_bytes: place.row_offset,
        buffers,
        steps: vec![
            step(0, &["tokens", "constant 0", "x", "n"]),
            step(1, &["x", "use_forced", "forced", "rows", "count", "mask", "n"]),
            step(2, &["x", "constant 1", "rows", "h", "count"]),
            step(3, &["h", "constant 2", "rows", "x", "count"]),
        ],
        interface: interface(),
    }
}

fn interface() -> Interface {
    let mut interface = Interface::from([
        (Role::TokenCount, index("n")),
        (Role::Tokens, index("tokens")),
        (Role::Positions, index("positions")),
        (Role::Sequences, index("sequences")),
        (Role::UseForced, index("use_forced")),
        (Role::Logits, index("x")),
    ]);
    let (decision, forced, executed) = (index("mask"), index("forced"), index("count"));
    interface.bind_router(0, RouterPorts::Routed { decision, forced, executed, wanted: None });
    interface.bind_router(1, RouterPorts::Constant(true));
    interface
}

fn kernels() -> Vec<(String, Kernel)> {
    [embed(), route(), up(), down()].map(|kernel| (kernel.describe(), kernel)).to_vec()
}

fn constants() -> Vec<Vec<u8>> {
    let bytes = |numbers: &[f32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let table: Vec<f32> = (0..8).flat_map(|id| [id as f32, 10.0 * id as f32]).collect();
    vec![bytes(&table), bytes(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]), bytes(&[100.0, 0.0, 0.0, 0.0, 0.0, 1.0])]
}

fn batch() -> StepInput {
    StepInput {
        tokens: (0..N_TOKENS).map(|token| token % 4).collect(),
        positions: (0..N_TOKENS).collect(),
        sequences: vec![0; N_TOKENS as usize],
        ..StepInput::default()
    }
}

const ALL_WAYS: [(Mode, Tiling); 3] = [
    (Mode::Separate, Tiling { rows: 16, reversed: false }),
    (Mode::Arena, Tiling { rows: 7, reversed: true }),
    (Mode::Arena, Tiling { rows: 1000, reversed: false }),
];

#[test]
fn routed_rows_change_and_others_stay() {
    for way in ALL_WAYS {
        let outcome =
            run_function(&kernels(), &function(), &constants(), &mut States::default(), &batch(), way)
                .expect("it runs");
        for (token, logits) in outcome.logits.chunks(2).enumerate() {
            let id = (token % 4) as f32;
            let (a, b) = (id, 10.0 * id);
            let want = if id >= 2.0 { [a + 100.0 * a, b + a + b] } else { [a, b] };
            assert_eq!(logits, want, "token {token}");
            assert_eq!(outcome.gates[0].mask[token], id >= 2.0);
        }
        assert_eq!(outcome.gates[0].count, 34);
        assert_eq!((outcome.gates[1].count, outcome.gates[1].mask.len()), (N_TOKENS, N_TOKENS as usize));
    }
}

#[test]
fn decisions_are_replayed() {
    let mut batch = batch();
    let decisions: Vec<bool> = (0..N_TOKENS).map(|token| token % 3 == 0).collect();
    batch.forced = Some(vec![decisions.clone(), Vec::new()]);
    for way in ALL_WAYS {
        let outcome =
            run_function(&kernels(), &function(), &constants(), &mut States::default(), &batch, way)
                .expect("it runs");
        assert_eq!(outcome.gates[0].mask, decisions);
        assert_eq!(outcome.gates[0].count, 24);
        assert_eq!(outcome.logits[6..8], [3.0 + 300.0, 30.0 + 33.0]);
    }
}

#[test]
fn no_token_is_a_batch() {
    for way in ALL_WAYS {
        let outcome = run_function(
            &kernels(),
            &function(),
            &constants(),
            &mut States::default(),
            &StepInput::default(),
            way,
        )
        .expect("it runs");
        assert_eq!((outcome.logits.len(), outcome.gates[0].count), (0, 0));
    }
}

/// The fault of a run in the arena.
fn fault_of(kernels: &[(String, Kernel)], function: &Function) -> Fault {
    let way = (Mode::Arena, Tiling::of(16));
    match run_function(kernels, function, &constants(), &mut States::default(), &batch(), way) {
        Err(Fault::InStep { fault, .. }) => *fault,
        other => panic!("expected a fault in a step, got {other:?}"),
    }
}

#[test]
fn a_buffer_in_the_place_of_a_live_one_is_a_fault() {
    let mut function = function();
    let at = function.buffers[index("rows") as usize].storage;
    function.buffers[index("h") as usize].storage = at;
    let fault = fault_of(&kernels(), &function);
    assert!(matches!(&fault, Fault::Undefined { param, .. } if param == "rows"), "{fault}");
    let apart = (Mode::Separate, Tiling::of(16));
    run_function(&kernels(), &function, &constants(), &mut States::default(), &batch(), apart)
        .expect("apart they do no harm");
}

#[test]
fn a_value_that_nobody_wrote_is_a_fault() {
    let mut function = function();
    function.steps.remove(0);
    let fault = fault_of(&kernels(), &function);
    assert!(
        matches!(&fault, Fault::Undefined { param, why, .. } if param == "x" && why.contains("nobody")),
        "{fault}"
    );
}

#[test]
fn a_result_that_nobody_wrote_is_a_fault() {
    let mut function = function();
    function.interface.bind(Role::Logits, Binding::Buffer(index("h")));
    let way = (Mode::Arena, Tiling::of(16));
    let outcome = run_function(&kernels(), &function, &constants(), &mut States::default(), &batch(), way);
    assert!(matches!(outcome, Err(Fault::Undefined { row: 34, .. })), "{outcome:?}");
}

#[test]
fn undeclared_accesses_are_faults() {
    let mut kernels = kernels();
    kernels[3].1.params[3].access = Access::Write;
    assert_eq!(fault_of(&kernels, &function()), Fault::Access { param: "x".to_owned(), verb: "read" });
    kernels[3].1.params[3].access = Access::Read;
    assert_eq!(fault_of(&kernels, &function()), Fault::Access { param: "x".to_owned(), verb: "written" });
    let mut function = function();
    function.steps[0].args[2] = Arg::Constant(0);
    assert_eq!(fault_of(&kernels, &function), Fault::Access { param: "x".to_owned(), verb: "written" });
}

#[test]
fn mismatched_buffers_and_bounds_are_faults() {
    let mut function = function();
    function.steps[2].args[3] = Arg::Buffer(index("x"));
    assert!(matches!(fault_of(&kernels(), &function), Fault::BadOperand(_)));
    let mut kernels = kernels();
    kernels[0].1.extent = Extent::Counted { count: 3, at_most: 69 };
    let count = Fault::Count { param: "n".to_owned(), count: N_TOKENS, at_most: 69 };
    assert_eq!(fault_of(&kernels, &self::function()), count);
}

#[test]
fn wrong_operands_of_a_kernel_are_faults_that_change_nothing() {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let operands = |rows: &[u32], count: u32| {
        vec![vec![0; 5 * 8], constants()[1].clone(), words(rows), vec![0xEE; 5 * 12], words(&[count])]
    };
    let run = |rows: &[u32], count: u32| {
        let mut operands = operands(rows, count);
        let result = run_kernel(&up(), &mut operands, Tiling::of(2));
        assert!(result.is_ok() || operands[3] == vec![0xEE; 5 * 12], "a fault left something behind");
        result
    };
    assert_eq!(run(&[0, 2, 4], 3), Ok(()));
    // What is only read may be read in any order, what is written not twice.
    assert_eq!(run(&[2, 0, 2], 3), Ok(()));
    let mut written = vec![vec![0; 5 * 12], vec![0; 2 * 12], words(&[0, 2, 2]), vec![0; 5 * 8], words(&[3])];
    assert_eq!(
        run_kernel(&down(), &mut written, Tiling::of(2)),
        Err(Fault::RowTwice { param: "rows".to_owned(), at: 2, row: 2 })
    );
    assert!(matches!(run(&[0, 2, 5], 3), Err(Fault::OutOfRange { row: 5, .. })));
    assert!(matches!(run(&[0, 2], 3), Err(Fault::OutOfRange { row: 2, .. })));
    assert!(matches!(run_kernel(&up(), &mut operands(&[0], 1), Tiling::of(0)), Err(Fault::BadOperand(_))));
    assert!(matches!(
        run_kernel(&up(), &mut operands(&[0], 1)[..4], Tiling::of(1)),
        Err(Fault::BadOperand(_))
    ));
}
