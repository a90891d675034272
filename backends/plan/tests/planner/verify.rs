//! Each thing that can be wrong with a plan, once.

use skipc_artifact::interface::{Binding, Role};
use skipc_artifact::program::{ArenaPlace, Arg, Buffer, Extent, RowBound, State, Storage};
use skipc_artifact::target::DType;
use skipc_plan::error::Fault;
use skipc_plan::kernel::{Access, Body, Gemm, Kernel, Part, Rows, Rowwise, Slot, View};
use skipc_plan::pointwise::{Inst, Pointwise, Reg, Store};
use skipc_plan::{Plan, PlanError, build, verify};

use crate::{HEAD, ROUTER, legal, options, steps};

/// Embedding, router, a skipped layer with attention and in-place scatter, head.
fn skipped() -> Plan {
    let lines = format!(
        r#"{HEAD}{ROUTER}
  %h = gather %x, %set
  %ph = gather %p, %set
  %sh = gather %s, %set
  %gain = weight {{name="gain", shape=[4]}}
  %u = rms_norm %x, %gain {{eps=1e-5}}
  %wq = weight {{name="q", shape=[4, 4]}}
  %wk = weight {{name="k", shape=[4, 4]}}
  %uh = gather %u, %set
  %q = matmul %uh, %wq
  %k = matmul %u, %wk
  %r = rope %q, %ph {{heads=2, theta=100.0}}
  %mixed = attention %r, %k, %k, %ph, %sh, %p, %s {{heads=2, kv_heads=2}}
  %o = matmul %mixed, %wq
  %out = add %h, %o
  %y = scatter %x, %out, %set
  %b = weight {{name="b", shape=[5]}}
  %l = matmul %y, %table
  %logits = add_bias %l, %b
  return logits = %logits, decision 0 = %gate"#
    );
    build(&legal(&lines), &options()).expect("a plan")
}

/// What the verifier says of the plan after a change.
fn faults(change: impl FnOnce(&mut Plan)) -> Vec<Fault> {
    let mut plan = skipped();
    verify(&plan).expect("the plan is right before the change");
    change(&mut plan);
    let errors = verify(&plan).expect_err("the change is found");
    let fault = |error| match error {
        PlanError::Verify(error) => error.fault,
        other => panic!("{other}"),
    };
    errors.into_iter().map(fault).collect()
}

fn step(plan: &Plan, name: &str) -> usize {
    steps(plan).iter().position(|step| *step == name).unwrap_or_else(|| panic!("no {name} in {plan}"))
}

fn kernel<'a>(plan: &'a mut Plan, name: &str) -> &'a mut Kernel {
    let kernel = plan.function.steps[step(plan, name)].kernel;
    &mut plan.kernels[kernel as usize].1
}

fn slot(kernel: &Kernel, name: &str) -> usize {
    kernel
        .params
        .iter()
        .position(|param| param.name == name)
        .unwrap_or_else(|| panic!("no {name} in {kernel}"))
}

fn port(plan: &Plan, role: &Role) -> u32 {
    plan.function.interface.buffer(role).expect("a port")
}

/// Where a buffer lies in the arena.
fn place(plan: &mut Plan, buffer: usize) -> &mut ArenaPlace {
    match &mut plan.function.buffers[buffer].storage {
        Storage::Step(place) => place,
        Storage::State(_) => panic!("a state has no place in the arena"),
    }
}

/// The argument of a step, by the names of kernel and parameter.
fn arg<'a>(plan: &'a mut Plan, name: &str, param: &str) -> &'a mut Arg {
    let slot = slot(kernel(plan, name), param);
    let step = step(plan, name);
    &mut plan.function.steps[step].args[slot]
}

fn gemm<'a>(plan: &'a mut Plan, name: &str) -> &'a mut Gemm {
    match &mut kernel(plan, name).body {
        Body::Gemm(gemm) => gemm,
        _ => panic!("{name} is not a matmul"),
    }
}

/// The only part of the matmul that scatters.
fn part(plan: &mut Plan) -> &mut Part {
    &mut gemm(plan, SCATTERED).parts[0]
}

fn map<'a>(plan: &'a mut Plan, name: &str) -> &'a mut Pointwise {
    match &mut kernel(plan, name).body {
        Body::Rowwise(Rowwise::Map { program, .. }) => program,
        _ => panic!("{name} is not a map"),
    }
}

macro_rules! found {
    ($change:expr, $fault:pat) => {
        let faults = faults($change);
        assert!(faults.iter().any(|fault| matches!(fault, $fault)), "{faults:?}");
    };
}

const SCATTERED: &str = "gemm_4x4_scattered";

#[test]
fn slots_and_indices_are_in_range() {
    found!(|plan| gemm(plan, SCATTERED).a.slot = Slot(99), Fault::Range { what: "parameter", idx: 99, .. });
    found!(|plan| plan.function.steps[0].kernel = 99, Fault::Range { what: "kernel", idx: 99, .. });
    found!(|plan| *arg(plan, SCATTERED, "a") = Arg::Buffer(99), Fault::Range { what: "buffer", idx: 99, .. });
    found!(|plan| *arg(plan, SCATTERED, "w") = Arg::Constant(99), Fault::Range { what: "constant", .. });
    found!(|plan| _ = plan.sources.pop(), Fault::Range { what: "source of step", .. });
}

#[test]
fn kernels_are_unique_and_named() {
    found!(|plan| plan.kernels[0].0 = "K00".to_owned(), Fault::Symbol);
    found!(|plan| plan.kernels[0].0 = plan.kernels[1].0.clone(), Fault::Twice);
    found!(|plan| plan.kernels[0].1 = plan.kernels[1].1.clone(), Fault::Twice);
}

#[test]
fn types_and_columns_fit_the_use() {
    found!(
        |plan| kernel(plan, "embed_4").params[1].dtype = DType::F32,
        Fault::DType { got: DType::F32, wanted: "u32", .. }
    );
    found!(|plan| gemm(plan, SCATTERED).a.col = 1, Fault::Cols { wanted: 5, .. });
    found!(|plan| gemm(plan, SCATTERED).k = 3, Fault::Cols { wanted: 3, .. });
    found!(|plan| map(plan, "map_1").code[0] = Inst::LoadCol(Slot(1)), Fault::Cols { .. });
}

#[test]
fn sizes_make_sense() {
    found!(|plan| part(plan).sums.clear(), Fault::Size { what: "the number of sums", got: 0 });
    found!(|plan| map(plan, "map_1").stores.clear(), Fault::Size { what: "the number of stores", .. });
    let many = |plan: &mut Plan| {
        let param = kernel(plan, "map_1").params[0].clone();
        kernel(plan, "map_1").params.resize(200, param);
    };
    found!(many, Fault::Size { what: "the number of parameters", got: 200 });
    let many = |plan: &mut Plan| {
        let buffer = plan.function.buffers[0].clone();
        plan.function.buffers.resize(1 << 17, buffer);
    };
    found!(many, Fault::Size { what: "the number of buffers", .. });
    let set_heads = |plan: &mut Plan| match &mut kernel(plan, "attention_2x2x2").body {
        Body::Attention(attention) => attention.kv_heads = 3,
        _ => panic!("no attention"),
    };
    found!(set_heads, Fault::Size { what: "kv_heads", got: 3 });
}

#[test]
fn parameters_are_used_as_declared() {
    found!(
        |plan| kernel(plan, "embed_4").params[3].access = Access::Read,
        Fault::Access { used: "written", .. }
    );
    found!(
        |plan| kernel(plan, "embed_4").params[2].access = Access::ReadWrite,
        Fault::Access { used: "read", .. }
    );
    found!(
        |plan| kernel(plan, "map_1").extent = Extent::Fixed(3),
        Fault::Access { used: "neither read nor written", .. }
    );
}

#[test]
fn what_is_written_is_read_only_in_the_same_place() {
    let elsewhere = |plan: &mut Plan| {
        for inst in &mut part(plan).epilogue.code {
            if let Inst::Load(view) = inst {
                view.rows = Rows::Dense;
            }
        }
    };
    found!(elsewhere, Fault::Hazard { .. });
    // Other threads make another part: what one writes the other may neither write nor read.
    let two_parts = |plan: &mut Plan| {
        let gemm = gemm(plan, SCATTERED);
        let second = gemm.parts[0].clone();
        gemm.parts.push(second);
    };
    found!(two_parts, Fault::Hazard { .. });
    let read_by_another = |plan: &mut Plan| {
        let gemm = gemm(plan, SCATTERED);
        let mut second = gemm.parts[0].clone();
        let written = gemm.parts[0].epilogue.stores[0];
        gemm.parts[0].epilogue =
            Pointwise { code: vec![Inst::Acc(0)], stores: vec![Store { value: Reg(0), ..written }] };
        second.epilogue.stores[0].to.col = 4;
        gemm.parts.push(second);
    };
    found!(read_by_another, Fault::Hazard { .. });
    let twice = |plan: &mut Plan| {
        let store = map(plan, "map_1").stores[0];
        map(plan, "map_1").stores.push(store);
    };
    found!(twice, Fault::Hazard { .. });
}

#[test]
fn attention_reads_dense_rows() {
    let set_col = |plan: &mut Plan| match &mut kernel(plan, "attention_2x2x2").body {
        Body::Attention(attention) => {
            attention.v = View { col: 1, ..attention.v };
        }
        _ => panic!("no attention"),
    };
    found!(set_col, Fault::Dense { .. });
}

#[test]
fn programs_use_what_is_there() {
    found!(|plan| map(plan, "map_1").code[0] = Inst::Acc(0), Fault::Acc { acc: 0, sums: 0 });
    found!(|plan| part(plan).epilogue.code[0] = Inst::Acc(1), Fault::Acc { acc: 1, sums: 1 });
    found!(|plan| map(plan, "map_1").stores[0].value = Reg(9), Fault::Register { uses: 9, .. });
    found!(
        |plan| map(plan, "map_1").code[0] = Inst::Unary(skipc_plan::pointwise::Unary::Relu, Reg(0)),
        Fault::Register { inst: 0, uses: 0 }
    );
}

#[test]
fn arguments_fit_parameters() {
    found!(|plan| _ = plan.function.steps[0].args.pop(), Fault::Arity { got: 3, wanted: 4 });
    found!(|plan| *arg(plan, SCATTERED, "a") = Arg::Buffer(0), Fault::Arg { .. });
    found!(|plan| plan.constants[0].constant.rows = 1, Fault::Rows { got: 1, .. });
    let x = |plan: &mut Plan| match *arg(plan, "embed_4", "out") {
        Arg::Buffer(idx) => idx as usize,
        Arg::Constant(_) => panic!("no buffer"),
    };
    found!(
        |plan| {
            let idx = x(plan);
            plan.function.buffers[idx].rows = RowBound::Fixed(1);
        },
        Fault::Rows { got: 1, .. }
    );
    found!(
        |plan| {
            let out = *arg(plan, "embed_4", "out");
            *arg(plan, SCATTERED, "w") = out;
        },
        Fault::NotConstant { .. }
    );
}

#[test]
fn constants_and_inputs_are_not_written() {
    found!(
        |plan| {
            let table = *arg(plan, "embed_4", "table");
            *arg(plan, "embed_4", "out") = table;
        },
        Fault::ConstantWritten { .. }
    );
    found!(
        |plan| {
            let positions = port(plan, &Role::Positions);
            *arg(plan, "compact_at_least", "rows") = Arg::Buffer(positions);
        },
        Fault::HostOwned { .. }
    );
}

#[test]
fn reads_follow_writes() {
    found!(
        |plan| {
            plan.function.steps.remove(0);
            plan.sources.remove(0);
        },
        Fault::Unwritten { .. }
    );
    // The head alone writes the logits.
    found!(
        |plan| {
            plan.function.steps.pop();
            plan.sources.pop();
        },
        Fault::Unwritten { .. }
    );
    // What attention gives are rows of the set; all rows are more than those.
    found!(
        |plan| {
            let mixed = *arg(plan, "attention_2x2x2", "out");
            *arg(plan, "gemm_4x5", "a") = mixed;
        },
        Fault::OtherRows { .. }
    );
}

#[test]
fn row_lists_come_from_compactions_of_the_set() {
    found!(
        |plan| {
            let positions = port(plan, &Role::Positions);
            *arg(plan, SCATTERED, "rows") = Arg::Buffer(positions);
        },
        Fault::RowList { .. }
    );
    found!(
        |plan| {
            let n_tokens = port(plan, &Role::TokenCount);
            *arg(plan, SCATTERED, "count") = Arg::Buffer(n_tokens);
        },
        Fault::Extent { .. }
    );
}

#[test]
fn parameters_of_a_step_do_not_alias() {
    found!(
        |plan| {
            let a = *arg(plan, "gemm_4x4", "a");
            *arg(plan, "gemm_4x4", "out") = a;
        },
        Fault::Alias { .. }
    );
}

#[test]
fn memory_is_aligned_disjoint_and_within_bounds() {
    found!(|plan| place(plan, 1).row_offset += 2, Fault::Align { wanted: 4, .. });
    found!(|plan| place(plan, 0).fixed_offset += 4, Fault::Align { wanted: 256, .. });
    found!(|plan| plan.constants[1].constant.offset += 4, Fault::Align { wanted: 256, .. });
    found!(|plan| plan.constants[1].constant.offset = 0, Fault::Bounds);
    found!(|plan| plan.function.row_bytes -= 4, Fault::Bounds);
    found!(|plan| place(plan, 1).row_offset = u64::MAX - 3, Fault::Bounds);
    let overlap = |plan: &mut Plan| {
        plan.function.buffers[2].storage = plan.function.buffers[1].storage;
    };
    found!(overlap, Fault::Overlap { .. });
    let overlap = |plan: &mut Plan| {
        // The embedding and the router logits made from it.
        plan.function.buffers[7].storage = plan.function.buffers[6].storage;
    };
    found!(overlap, Fault::Overlap { other: 6 });
}

#[test]
fn lifetimes_are_those_of_the_steps() {
    let shorten = |plan: &mut Plan| {
        let live = plan.function.buffers.iter_mut().find_map(|buffer| buffer.live.as_mut());
        live.expect("a buffer with a lifetime").1 += 1;
    };
    found!(shorten, Fault::Lifetime { .. });
    found!(
        |plan| plan.function.buffers[5].live = Some((0, 1)),
        Fault::Lifetime { got: Some((0, 1)), wanted: None }
    );
}

#[test]
fn the_interface_is_as_promised() {
    found!(|plan| plan.function.logits = 6, Fault::Interface { .. });
    let wrong = |plan: &mut Plan| {
        let tokens = port(plan, &Role::Tokens);
        plan.function.interface.bind(Role::TokenCount, Binding::Buffer(tokens));
    };
    found!(wrong, Fault::Interface { .. });
    let missing = |plan: &mut Plan| plan.function.interface.ports.retain(|port| port.role != Role::UseForced);
    found!(missing, Fault::Interface { .. });
}

#[test]
fn states_are_what_their_buffers_are() {
    // A counter that no step touches, but that the function keeps.
    let keep = |plan: &mut Plan| {
        let (name, dtype) = ("seen".to_owned(), DType::U32);
        plan.states.push(State {
            name: name.clone(),
            dtype,
            rows: RowBound::Fixed(2),
            cols: 1,
            place: ArenaPlace::default(),
        });
        let storage = Storage::State(0);
        let rows = RowBound::Fixed(2);
        plan.function.buffers.push(Buffer { name: name.clone(), dtype, rows, cols: 1, storage, live: None });
        let idx = plan.function.buffers.len() as u32 - 1;
        plan.function.interface.bind(Role::State { name }, Binding::Buffer(idx));
        idx as usize
    };
    let mut plan = skipped();
    keep(&mut plan);
    verify(&plan).unwrap_or_else(|errors| panic!("{}", errors[0]));
    let wrong = |plan: &mut Plan| {
        let idx = keep(plan);
        plan.function.buffers[idx].rows = RowBound::Fixed(3);
    };
    found!(wrong, Fault::Interface { .. });
    let unnamed = |plan: &mut Plan| {
        keep(plan);
        plan.function.interface.ports.pop();
    };
    found!(unnamed, Fault::Interface { .. });
    let other = |plan: &mut Plan| {
        keep(plan);
        plan.states[0].name = "other".to_owned();
    };
    found!(other, Fault::Interface { .. });
    let unaligned = |plan: &mut Plan| {
        keep(plan);
        plan.states[0].place.fixed_offset = 4;
    };
    found!(unaligned, Fault::Align { got: 4, wanted: 256 });
}
