//! Shares of rows that costs are taken at.

use skipc_ir::SetSym;

use super::super::{Options, densities};
use super::graph;

#[test]
fn a_partition_has_the_share_of_its_experts() {
    let graph = graph(
        r#"graph "g" {
  %ids = input {port=tokens}
  %pos = input {port=positions}
  %seq = input {port=sequences}
  %x = input {port=input "x"} : real[n, 4]
  %w = weight {name="w", shape=[8, 4]}
  %z = router_logits %x, %w
  %two = choose %z {k=2, sigmoid=false, normalise=true, scale=1.0}
  %first = slice %two {start=2, len=1}
  %experts = partition %first {set=c0, first=0, parts=6}
  %copies = partition %first {set=c1, first=7, parts=1}
  %index = slice %two {start=2, len=2}
  %kept = limit_choices %index, %pos, %seq {group_size=8, slots=3, experts=6}
  %second = slice %kept {start=1, len=1}
  %limited = partition %second {set=c2, first=0, parts=6}
  %all = choose %z {k=8, sigmoid=false, normalise=false, scale=1.0, ranks=score}
  %every = slice %all {start=8, len=8}
  %ranks = slice %all {start=16, len=8}
  %taken = share_choices %every, %ranks, %pos, %seq, %pos, %seq {top_k=2}
  %third = slice %taken {start=2, len=1}
  %chosen = partition %third {set=c3, first=0, parts=8}
  %hash = hash_choice %ids {experts=4, seed=0, block=0, n_ids=9}
  %which = slice %hash {start=1, len=1}
  %hashed = partition %which {set=c4, first=0, parts=3}
  %a = gather %x, %experts
  %b = gather %x, %copies
  %c = gather %x, %limited
  %d = gather %x, %chosen
  %e = gather %x, %hashed
  return result "a" = %a, result "b" = %b, result "c" = %c, result "d" = %d, result "e" = %e
}"#,
    );
    let found = densities(&graph, &Options::default());
    let of = |set| found.get(&SetSym(set)).copied();
    assert_eq!([0, 1, 2, 3, 4].map(of), [0.75, 0.125, 0.75, 0.25, 0.75].map(Some));
}
