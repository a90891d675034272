//! Traffic of small plans, counted by hand.

use std::collections::BTreeMap;

use skipc_artifact::interface::RouterPorts;
use skipc_artifact::program::Head;
use skipc_artifact::target::DType;
use skipc_ir::{legalize, text};

use super::{Counts, Traffic, traffic};
use crate::kernel::WeightLayout;
use crate::{Options, Plan, PlanError, build, build_unfused};

/// A feed-forward layer that is skipped: 4 columns, 8 within, a vocabulary of 5.
const FFN: &str = r#"graph "ffn" {
  %t = input {port=tokens}
  %p = input {port=positions}
  %s = input {port=sequences}
  %table = weight {name="table", shape=[5, 4]}
  %up = weight {name="up", shape=[8, 4]}
  %down = weight {name="down", shape=[4, 8]}
  %x = embed %table, %t
  %set = route_random %p, %s {set=c0, seed=1, block=0, limit=3000000000}
  %h = gather %x, %set
  %u = matmul %h, %up
  %a = gelu %u
  %d = matmul %a, %down
  %y = add %h, %d
  %z = scatter %x, %y, %set
  %logits = matmul %z, %table
  %gate = executed %set
  return logits = %logits, decision 0 = %gate
}"#;

/// Attention of the rows of a set over the keys of all tokens; two heads of 4 columns share one of keys.
const ATTENTION: &str = r#"graph "attention" {
  %t = input {port=tokens}
  %p = input {port=positions}
  %s = input {port=sequences}
  %table = weight {name="table", shape=[5, 8]}
  %kv = weight {name="kv", shape=[4, 8]}
  %x = embed %table, %t
  %set = route_random %p, %s {set=c0, seed=1, block=0, limit=3000000000}
  %ps = gather %p, %set
  %ss = gather %s, %set
  %h = gather %x, %set
  %k = matmul %x, %kv
  %m = attention %h, %k, %k, %ps, %ss, %p, %s {heads=2, kv_heads=1}
  %z = scatter %x, %m, %set
  %logits = matmul %z, %table
  %gate = executed %set
  return logits = %logits, decision 0 = %gate
}"#;

fn plan(
    graph: &str,
    build: impl Fn(&skipc_ir::Legal, &Options) -> Result<Plan, PlanError>,
    dtype: DType,
) -> Plan {
    let graph = text::parse(graph).unwrap_or_else(|errors| panic!("{}", errors[0]));
    let legal = legalize(graph).expect("a legal graph");
    let options = Options {
        dtype,
        layout: WeightLayout::Rows,
        max_tokens: 64,
        max_positions: 64,
        vocab_size: 5,
        head: Head::Tokens,
        class_token: false,
        logits: 5,
    };
    build(&legal, &options).expect("a plan")
}

/// Ten tokens, of which so many are in the one set.
fn moved(plan: &Plan, executed: u32) -> Vec<(String, u64, u64)> {
    let routers = plan.function.interface.routers();
    let Some(RouterPorts::Routed { executed: count, .. }) = routers.first() else { panic!("no router") };
    let sets = BTreeMap::from([(*count, executed)]);
    let counts = Counts { tokens: 10, sets, ..Counts::default() };
    let steps = plan.function.steps.iter().zip(traffic(plan, &counts));
    steps
        .map(|(step, Traffic { read, written })| {
            (plan.kernels[step.kernel as usize].1.describe(), read, written)
        })
        .collect()
}

fn sum(moved: &[(String, u64, u64)]) -> u64 {
    moved.iter().map(|(_, read, written)| read + written).sum()
}

#[test]
fn rows_columns_and_constants_are_counted() {
    let moved = moved(&plan(FFN, build, DType::F32), 3);
    let find = |kernel: &str| {
        let found = moved.iter().find(|(name, ..)| name == kernel);
        found.map(|(_, read, written)| (*read, *written)).unwrap_or_else(|| panic!("{kernel}: {moved:?}"))
    };
    // Ids, as many rows of the table as it has, the number of tokens.
    assert_eq!(find("embed_4"), (10 * 4 + 5 * 16 + 4, 10 * 16));
    // Positions and sequences, decisions to replay, two single numbers; the list, the mask, the count.
    assert_eq!(find("compact_random"), (10 * 4 * 2 + 10 + 4 + 4, 3 * 4 + 10 + 4));
    // Three rows of x by the list, the weight, the count.
    assert_eq!(find("gemm_4x8_gathered"), (3 * 16 + 3 * 4 + 8 * 16 + 4, 3 * 32));
    // The same list serves the residual and the store.
    assert_eq!(find("gemm_8x4_scattered"), (3 * 32 + 3 * 16 + 3 * 4 + 4 * 32 + 4, 3 * 16));
    assert_eq!(find("gemm_4x5"), (10 * 16 + 5 * 16 + 4, 10 * 20));
    assert_eq!(moved.len(), 5);
}

#[test]
fn bf16_halves_what_is_not_an_index() {
    let (wide, narrow) = (plan(FFN, build, DType::F32), plan(FFN, build, DType::Bf16));
    let find = |plan: &Plan| {
        moved(plan, 3).into_iter().find(|(name, ..)| name == "gemm_4x8_gathered").map(|(_, r, w)| (r, w))
    };
    assert_eq!(find(&wide), Some((48 + 12 + 128 + 4, 96)));
    assert_eq!(find(&narrow), Some((24 + 12 + 64 + 4, 48)));
}

#[test]
fn an_empty_set_costs_its_count_only() {
    let moved = moved(&plan(FFN, build, DType::F32), 0);
    for kernel in ["gemm_4x8_gathered", "gemm_8x4_scattered"] {
        let found = moved.iter().find(|(name, ..)| name == kernel);
        assert_eq!(found, Some(&(kernel.to_owned(), 4, 0)));
    }
}

#[test]
fn copies_are_what_unfused_kernels_move_more() {
    let (fused, unfused) = (plan(FFN, build, DType::F32), plan(FFN, build_unfused, DType::F32));
    for executed in [1, 3, 10] {
        let (fused, unfused) = (moved(&fused, executed), moved(&unfused, executed));
        assert!(fused.len() < unfused.len() && sum(&fused) < sum(&unfused), "{fused:?} {unfused:?}");
    }
    assert!(sum(&moved(&fused, 3)) < sum(&moved(&fused, 4)));
}

#[test]
fn keys_and_values_are_those_of_the_key_extent() {
    let moved = moved(&plan(ATTENTION, build, DType::F32), 3);
    let found = moved.iter().find(|(name, ..)| name.starts_with("attention"));
    let Some((_, read, written)) = found else { panic!("{moved:?}") };
    let queries = 3 * 32 + 3 * (4 + 4) + 3 * 4 + 4;
    // Keys are values, too, here, and count once; positions and sequences are those of all tokens.
    let keys = 10 * 16 + 10 * (4 + 4) + 4;
    assert_eq!((*read, *written), (queries + keys, 3 * 32), "{moved:?}");
}

#[test]
fn a_set_that_is_not_named_counts_as_all_tokens() {
    let plan = plan(FFN, build, DType::F32);
    let all = Counts { tokens: 10, ..Counts::default() };
    let bytes: u64 = traffic(&plan, &all).into_iter().map(Traffic::bytes).sum();
    assert_eq!(bytes, sum(&moved(&plan, 10)));
}
