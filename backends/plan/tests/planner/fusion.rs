//! What joins which kernel.

use crate::{HEAD, ROUTER, plan, steps};

#[test]
fn tied_head_shares_the_table() {
    let plan = plan(&format!("{HEAD}  %logits = matmul %x, %table\n  return logits = %logits"));
    assert_eq!(steps(&plan), ["embed_4", "gemm_4x5"]);
    assert_eq!(plan.constants.len(), 1);
}

#[test]
fn pointwise_ops_join_the_matmul_before_them() {
    let plan = plan(&format!(
        r#"{HEAD}
  %w = weight {{name="w", shape=[4, 4]}}
  %b = weight {{name="b", shape=[4]}}
  %h = matmul %x, %w
  %h1 = add_bias %h, %b
  %h2 = gelu %h1
  %y = add %x, %h2
  %logits = matmul %y, %table
  return logits = %logits"#
    ));
    assert_eq!(steps(&plan), ["embed_4", "gemm_4x4", "gemm_4x5"]);
}

#[test]
fn what_two_kernels_need_stays_in_memory() {
    let plan = plan(&format!(
        r#"{HEAD}
  %w = weight {{name="w", shape=[4, 4]}}
  %h = matmul %x, %w
  %a = relu %h
  %b = matmul %a, %w
  %y = add %h, %b
  %logits = matmul %y, %table
  return logits = %logits"#
    ));
    // The first matmul has two users, so the activation is a kernel of its own.
    assert_eq!(steps(&plan), ["embed_4", "gemm_4x4", "map_4", "gemm_4x4", "gemm_4x5"]);
}

#[test]
fn gated_pair_is_one_kernel() {
    let plan = plan(&format!(
        r#"{HEAD}
  %gain = weight {{name="gain", shape=[4]}}
  %u = rms_norm %x, %gain {{eps=1e-5}}
  %wu = weight {{name="up", shape=[8, 4]}}
  %wg = weight {{name="gate", shape=[8, 4]}}
  %wd = weight {{name="down", shape=[4, 8]}}
  %up = matmul %u, %wu
  %g = matmul %u, %wg
  %act = silu %g
  %inner = mul %act, %up
  %change = matmul %inner, %wd
  %y = add %x, %change
  %logits = matmul %y, %table
  return logits = %logits"#
    ));
    assert_eq!(steps(&plan), ["embed_4", "rms_norm_4", "gemm_4x8_by_2", "gemm_8x4", "gemm_4x5"]);
}

#[test]
fn matmuls_of_different_rows_are_not_a_pair() {
    let plan = plan(&format!(
        r#"{HEAD}
  %y = gelu %x
  %w = weight {{name="w", shape=[4, 4]}}
  %a = matmul %x, %w
  %b = matmul %y, %w
  %ab = mul %a, %b
  %logits = matmul %ab, %table
  return logits = %logits"#
    ));
    assert_eq!(steps(&plan), ["embed_4", "map_4", "gemm_4x4", "gemm_4x4", "gemm_4x5"]);
}

/// A dense block of attention and feed-forward.
#[test]
fn dense_block() {
    let plan = plan(&format!(
        r#"{HEAD}
  %gain = weight {{name="gain", shape=[4]}}
  %u = rms_norm %x, %gain {{eps=1e-5}}
  %wq = weight {{name="q", shape=[4, 4]}}
  %wk = weight {{name="k", shape=[2, 4]}}
  %wv = weight {{name="v", shape=[2, 4]}}
  %wo = weight {{name="o", shape=[4, 4]}}
  %q = matmul %u, %wq
  %k = matmul %u, %wk
  %v = matmul %u, %wv
  %qr = rope %q, %p {{heads=2, theta=10000.0}}
  %kr = rope %k, %p {{heads=1, theta=10000.0}}
  %mixed = attention %qr, %kr, %v, %p, %s, %p, %s {{heads=2, kv_heads=1}}
  %o = matmul %mixed, %wo
  %y = add %x, %o
  %logits = matmul %y, %table
  return logits = %logits"#
    ));
    let wanted = ["embed_4", "rms_norm_4", "gemm_4x2_4_2", "attention_2x1x2", "gemm_4x4", "gemm_4x5"];
    assert_eq!(steps(&plan), wanted);
}

/// The whole of a skipped feed-forward layer: gathered rows come in as views, the scatter is a store.
#[test]
fn skipped_layer_gathers_and_scatters_nothing_by_itself() {
    let plan = plan(&format!(
        r#"{HEAD}{ROUTER}
  %h = gather %x, %set
  %gain = weight {{name="gain", shape=[4]}}
  %u = rms_norm %h, %gain {{eps=1e-5}}
  %w1 = weight {{name="up", shape=[8, 4]}}
  %w2 = weight {{name="down", shape=[4, 8]}}
  %up = matmul %u, %w1
  %act = gelu %up
  %change = matmul %act, %w2
  %out = add %h, %change
  %y = scatter %x, %out, %set
  %logits = matmul %y, %table
  return logits = %logits, decision 0 = %gate"#
    ));
    let wanted = [
        "embed_4",
        "gemm_4x2",
        "map_1",
        "compact_at_least",
        "rms_norm_4",
        "gemm_4x8",
        "gemm_8x4_scattered",
        "gemm_4x5",
    ];
    assert_eq!(steps(&plan), wanted);
}

#[test]
fn gathered_operand_is_a_view_of_the_matmul() {
    let plan = plan(&format!(
        r#"{HEAD}{ROUTER}
  %gain = weight {{name="gain", shape=[4]}}
  %u = rms_norm %x, %gain {{eps=1e-5}}
  %h = gather %u, %set
  %w = weight {{name="w", shape=[4, 4]}}
  %change = matmul %h, %w
  %xh = gather %x, %set
  %out = add %xh, %change
  %y = scatter %x, %out, %set
  %logits = matmul %y, %table
  return logits = %logits, decision 0 = %gate"#
    ));
    assert!(steps(&plan).contains(&"gemm_4x4_gathered_scattered"), "{plan}");
    assert!(!steps(&plan).contains(&"map_4"), "{plan}");
}

/// `y = x + p · (F(x) − x)` over the executed rows, in the epilogue of F's last matmul.
#[test]
fn scaled_gate_joins_the_epilogue() {
    let plan = plan(&format!(
        r#"{HEAD}{ROUTER}
  %prob = sigmoid %margin
  %h = gather %x, %set
  %w = weight {{name="w", shape=[4, 4]}}
  %g = gelu %h
  %f = matmul %g, %w
  %full = add %h, %f
  %change = sub %full, %h
  %ph = gather %prob, %set
  %scaled = scale_rows %change, %ph
  %out = add %h, %scaled
  %y = scatter %x, %out, %set
  %logits = matmul %y, %table
  return logits = %logits, decision 0 = %gate"#
    ));
    let wanted = [
        "embed_4",
        "gemm_4x2",
        "map_1",
        "compact_at_least",
        "map_1",
        "map_4",
        "gemm_4x4_scattered",
        "gemm_4x5",
    ];
    let mut got = steps(&plan);
    let mut wanted = wanted.to_vec();
    got.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(got, wanted);
}

/// The mix of a soft gate: `1 − g` is a number for each row, computed where it is used.
#[test]
fn row_scale_computes_one_minus_in_place() {
    let plan = plan(&format!(
        r#"{HEAD}
  %wr = weight {{name="router", shape=[1, 4]}}
  %z = router_logits %x, %wr
  %g = sigmoid %z
  %rest = one_minus %g
  %w = weight {{name="w", shape=[4, 4]}}
  %f = matmul %x, %w
  %yf = scale_rows %f, %g
  %yx = scale_rows %x, %rest
  %y = add %yf, %yx
  %logits = matmul %y, %table
  return logits = %logits"#
    ));
    assert_eq!(steps(&plan), ["embed_4", "gemm_4x1", "gemm_4x4", "gemm_4x5"]);
}

#[test]
fn equal_layers_share_their_kernels() {
    let layer = |from: &str, to: &str| {
        format!(
            r#"
  %w_{to} = weight {{name="w.{to}", shape=[4, 4]}}
  %f_{to} = matmul %{from}, %w_{to}
  %{to} = add %{from}, %f_{to}"#
        )
    };
    let lines = format!(
        "{HEAD}{}{}{}\n  %logits = matmul %c, %table\n  return logits = %logits",
        layer("x", "a"),
        layer("a", "b"),
        layer("b", "c")
    );
    let plan = plan(&lines);
    assert_eq!((plan.function.steps.len(), plan.kernels.len()), (5, 3));
    assert_eq!(plan.constants.len(), 4);
}

#[test]
fn dead_ops_are_not_planned() {
    let plan =
        plan(&format!("{HEAD}  %dead = gelu %x\n  %logits = matmul %x, %table\n  return logits = %logits"));
    assert_eq!(steps(&plan), ["embed_4", "gemm_4x5"]);
}

#[test]
fn logits_are_computed_once_even_if_a_router_reads_them() {
    let plan = plan(&format!(
        r#"{HEAD}
  %b = weight {{name="b", shape=[5]}}
  %f = matmul %x, %table
  %logits = add_bias %f, %b
  %g = gelu %logits
  %wr = weight {{name="router", shape=[1, 5]}}
  %z = router_logits %g, %wr
  %set = route %z {{set=c0, at_least=0.1}}
  %gate = executed %set
  return logits = %logits, decision 0 = %gate"#
    ));
    assert_eq!(steps(&plan), ["embed_4", "gemm_4x5", "map_5", "gemm_5x1", "compact_at_least"]);
}

/// A norm whose gain is in the weights: its row scale is one number a row, which the epilogues apply.
#[test]
fn folded_norm_is_a_row_scale_in_the_epilogues() {
    let plan = plan(&format!(
        r#"{HEAD}{ROUTER}
  %gain = weight {{name="gain", shape=[4]}}
  %r = inv_rms %x {{eps=1e-5}}
  %wk0 = weight {{name="k", shape=[2, 4]}}
  %wv0 = weight {{name="v", shape=[2, 4]}}
  %wq0 = weight {{name="q", shape=[4, 4]}}
  %wk = fold_gain %wk0, %gain
  %wv = fold_gain %wv0, %gain
  %wq = fold_gain %wq0, %gain
  %k0 = matmul %x, %wk
  %k = scale_rows %k0, %r
  %v0 = matmul %x, %wv
  %v = scale_rows %v0, %r
  %h = gather %x, %set
  %rs = gather %r, %set
  %ph = gather %p, %set
  %sh = gather %s, %set
  %q0 = matmul %h, %wq
  %q = scale_rows %q0, %rs
  %mixed = attention %q, %k, %v, %ph, %sh, %p, %s {{heads=2, kv_heads=1}}
  %y = scatter %x, %mixed, %set
  %logits = matmul %y, %table
  return logits = %logits, decision 0 = %gate"#
    ));
    let wanted = [
        "embed_4",
        "inv_rms_4",
        "gemm_4x2_2_2",
        "map_1",
        "compact_at_least",
        "gemm_4x4_gathered",
        "attention_2x1x2",
        "map_4",
        "gemm_4x5",
    ];
    assert_eq!(steps(&plan), wanted);
}

/// Rows of one weight are one constant, of which each matmul reads its own.
#[test]
fn rows_of_a_weight_share_a_constant() {
    let plan = plan(&format!(
        r#"{HEAD}
  %gain = weight {{name="gain", shape=[4]}}
  %w = weight {{name="qk", shape=[6, 4]}}
  %wq0 = weight_rows %w {{start=0, len=4}}
  %wk0 = weight_rows %w {{start=4, len=2}}
  %wq = fold_gain %wq0, %gain
  %wk = fold_gain %wk0, %gain
  %q0 = matmul %x, %wq
  %k0 = matmul %x, %wk
  %q = rope %q0, %p {{heads=2, theta=100.0}}
  %k = rope %k0, %p {{heads=1, theta=100.0}}
  %y = attention %q, %k, %k, %p, %s, %p, %s {{heads=2, kv_heads=1}}
  %logits = matmul %y, %table
  return logits = %logits"#
    ));
    assert_eq!(steps(&plan), ["embed_4", "gemm_4x4_2", "attention_2x1x2", "gemm_4x5"]);
    let names: Vec<&str> = plan.constants.iter().map(|constant| constant.constant.name.as_str()).collect();
    assert_eq!(names.iter().filter(|name| **name == "qk·gain").count(), 1, "{names:?}");
}

/// Keys, values and what a router decides by come from one kernel: the rows of the stream are loaded once.
#[test]
fn keys_values_and_scores_are_one_kernel() {
    let plan = plan(&format!(
        r#"{HEAD}
  %r = inv_rms %x {{eps=1e-5}}
  %wk = weight {{name="k", shape=[2, 4]}}
  %wv = weight {{name="v", shape=[2, 4]}}
  %wq = weight {{name="q", shape=[4, 4]}}
  %wr = weight {{name="router", shape=[2, 4]}}
  %skip = weight_rows %wr {{start=0, len=1}}
  %run = weight_rows %wr {{start=1, len=1}}
  %z0 = router_logits %x, %skip
  %z1 = router_logits %x, %run
  %s0 = scale_rows %z0, %r
  %s1 = scale_rows %z1, %r
  %margin = sub %s1, %s0
  %set = route %margin {{set=c0, at_least=0.0}}
  %gate = executed %set
  %k0 = matmul %x, %wk
  %k1 = scale_rows %k0, %r
  %k = rope %k1, %p {{heads=1, theta=100.0}}
  %v0 = matmul %x, %wv
  %v = scale_rows %v0, %r
  %h = gather %x, %set
  %rs = gather %r, %set
  %ph = gather %p, %set
  %sh = gather %s, %set
  %q0 = matmul %h, %wq
  %q1 = scale_rows %q0, %rs
  %q = rope %q1, %ph {{heads=2, theta=100.0}}
  %mixed = attention %q, %k, %v, %ph, %sh, %p, %s {{heads=2, kv_heads=1}}
  %y = scatter %x, %mixed, %set
  %logits = matmul %y, %table
  return logits = %logits, decision 0 = %gate"#
    ));
    let wanted = [
        "embed_4",
        "inv_rms_4",
        "gemm_4x1_by_2_2_2",
        "compact_at_least",
        "gemm_4x4_gathered",
        "attention_2x1x2",
        "map_4",
        "gemm_4x5",
    ];
    assert_eq!(steps(&plan), wanted);
}
