//! Plans whose numbers are the point: sets, views, precisions.

use skipc_artifact::interface::RouterPorts;
use skipc_artifact::target::DType;
use skipc_plan::{Options, build};

use crate::{HEAD, ROUTER, check, legal, options, plan};

/// A block in which only executed tokens are keys: attention over the rows of a set.
#[test]
fn keys_of_executed_tokens_only() {
    plan(&format!(
        r#"{HEAD}{ROUTER}
  %h = gather %x, %set
  %ph = gather %p, %set
  %sh = gather %s, %set
  %wk = weight {{name="k", shape=[2, 4]}}
  %q = rope %h, %ph {{heads=2, theta=100.0}}
  %k = matmul %h, %wk
  %mixed = attention %q, %k, %k, %ph, %sh, %ph, %sh {{heads=2, kv_heads=1}}
  %out = add %h, %mixed
  %y = scatter %x, %out, %set
  %logits = matmul %y, %table
  return logits = %logits, decision 0 = %gate"#
    ));
}

/// A block in which all tokens are keys; queries, keys and values are views that attention needs dense.
#[test]
fn keys_of_all_tokens_as_slices() {
    plan(&format!(
        r#"{HEAD}{ROUTER}
  %wkv = weight {{name="kv", shape=[8, 4]}}
  %kv = matmul %x, %wkv
  %k = slice %kv {{start=0, len=4}}
  %v = slice %kv {{start=4, len=4}}
  %q = gather %x, %set
  %ph = gather %p, %set
  %sh = gather %s, %set
  %mixed = attention %q, %k, %v, %ph, %sh, %p, %s {{heads=2, kv_heads=2}}
  %out = add %q, %mixed
  %y = scatter %x, %out, %set
  %logits = matmul %y, %table
  return logits = %logits, decision 0 = %gate"#
    ));
}

/// A slice of gathered rows, and gathered rows of a slice.
#[test]
fn slices_and_gathers_compose() {
    plan(&format!(
        r#"{HEAD}{ROUTER}
  %w = weight {{name="w", shape=[8, 4]}}
  %f = matmul %x, %w
  %g = gather %f, %set
  %a = slice %g {{start=1, len=4}}
  %b0 = slice %f {{start=3, len=5}}
  %b1 = gather %b0, %set
  %b = slice %b1 {{start=1, len=4}}
  %ab = mul %a, %b
  %y = scatter %x, %ab, %set
  %logits = matmul %y, %table
  return logits = %logits, decision 0 = %gate"#
    ));
}

#[test]
fn two_routers_and_the_random_one() {
    let plan = plan(&format!(
        r#"{HEAD}{ROUTER}
  %w = weight {{name="w", shape=[4, 4]}}
  %h = gather %x, %set
  %f = matmul %h, %w
  %hf = add %h, %f
  %y = scatter %x, %hf, %set
  %set2 = route_random %p, %s {{set=c1, seed=7, block=3, limit=2147483648}}
  %gate2 = executed %set2
  %h2 = gather %y, %set2
  %n = layer_norm %h2, %gain, %bias {{eps=1e-5}}
  %f2 = matmul %n, %w
  %hf2 = add %h2, %f2
  %y2 = scatter %y, %hf2, %set2
  %always = fill_mask %t {{value=true}}
  %logits = matmul %y2, %table
  return logits = %logits, decision 0 = %gate, decision 1 = %gate2, decision 2 = %always, decision 3 = %gate"#
    )
    .replace("  %h = gather", "  %gain = weight {name=\"g\", shape=[4]}\n  %bias = weight {name=\"b\", shape=[4]}\n  %h = gather"));
    let gates = plan.function.interface.routers();
    assert_eq!(gates[2], RouterPorts::Constant(true));
    // Equal routers share one decision.
    assert_eq!(gates[0], gates[3]);
    assert_ne!(gates[0], gates[1]);
}

#[test]
fn bf16_keeps_scores_and_logits_in_f32() {
    let legal = legal(&format!(
        r#"{HEAD}{ROUTER}
  %h = gather %x, %set
  %w = weight {{name="w", shape=[4, 4]}}
  %b = weight {{name="b", shape=[4]}}
  %f0 = matmul %h, %w
  %f = add_bias %f0, %b
  %y = scatter %x, %f, %set
  %logits = matmul %y, %table
  return logits = %logits, decision 0 = %gate"#
    ));
    let plan = build(&legal, &Options { dtype: DType::Bf16, ..options() }).expect("a plan");
    check::check(&legal, &plan);
    let dtype =
        |name: &str| plan.function.buffers.iter().find(|buffer| buffer.name.ends_with(name)).unwrap().dtype;
    assert_eq!(dtype("router_logits"), DType::F32);
    assert_eq!(dtype("embed"), DType::Bf16);
    assert_eq!(dtype("logits"), DType::F32);
    let constant = |name: &str| plan.constants.iter().find(|found| found.constant.name == name).unwrap();
    assert_eq!(constant("table").constant.dtype, DType::Bf16);
    // Three terms of bf16 are as good as the f32.
    for term in ["router term 0", "router term 1", "router term 2"] {
        assert_eq!(constant(term).constant.dtype, DType::Bf16);
    }
    assert_eq!(constant("b").constant.dtype, DType::F32);
}

#[test]
fn learned_positions_are_one_map() {
    let plan = plan(&format!(
        r#"{HEAD}
  %pt = weight {{name="positions", shape=[64, 4]}}
  %pe = embed %pt, %p
  %h = add %x, %pe
  %logits = matmul %h, %table
  return logits = %logits"#
    ));
    assert_eq!(crate::steps(&plan), ["embed_4", "embed_4", "map_4", "gemm_4x5"]);
}

/// Memory is reused: a deep chain needs no more rows than a short one.
#[test]
fn deep_models_need_no_more_memory() {
    let chain = |depth: usize| {
        let mut lines = format!("{HEAD}  %w = weight {{name=\"w\", shape=[4, 4]}}\n  %x0 = matmul %x, %w\n");
        for idx in 0..depth {
            lines += &format!("  %g{idx} = matmul %x{idx}, %w\n  %x{} = add %x{idx}, %g{idx}\n", idx + 1);
        }
        let legal = legal(&format!("{lines}  %logits = matmul %x{depth}, %table\n  return logits = %logits"));
        let plan = build(&legal, &options()).expect("a plan");
        // No gap in such a chain: the layout takes what is in use.
        assert_eq!(plan.function.row_bytes, plan.peak_row_bytes());
        plan.function.row_bytes
    };
    assert_eq!(chain(3), chain(40));
}

/// Decisions that no gate shows are never replayed.
#[test]
fn set_without_a_gate_decides_by_itself() {
    let plan = plan(&format!(
        r#"{HEAD}
  %set = route_random %p, %s {{set=c0, seed=1, block=0, limit=2147483648}}
  %h = gather %x, %set
  %g = gelu %h
  %y = scatter %x, %g, %set
  %logits = matmul %y, %table
  return logits = %logits"#
    ));
    assert!(plan.function.interface.routers().is_empty());
}
