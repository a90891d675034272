//! Steps of generation: what their regions take from outside is more than tokens.

use skipc_ir::verify;

use super::super::{Options, edits};
use super::graph;

/// A layer whose keys wait, and a head of the rows whose logits are wanted.
const STEP: &str = r#"graph "g" {
  %ids = input {port=tokens}
  %pos = input {port=positions}
  %seq = input {port=sequences}
  %places = input {port=places}
  %pages = input {port=pages} : int[n, 4]
  %waiting = input {port=pending} : int[n, 2]
  %margins = input {port=margins}
  %embed = weight {name="embed", shape=[64, 32]}
  %x = embed %embed, %ids
  %gain = weight {name="gain", shape=[32]}
  %router = weight {name="router", shape=[1, 32]}
  %normed = rms_norm %x, %gain {eps=1e-5}
  %z = router_logits %normed, %router
  %d = sub %z, %margins
  %set = route %d {set=c0, at_least=0.0}
  %own_pos = gather %pos, %set
  %own_seq = gather %seq, %set
  %own = gather %x, %set
  %stream = input {port=state "stream"} : state<real[m, 32]>
  %kept = store_rows %stream, %x, %places
  %due = pending %set, %pos, %seq, %pages, %waiting, %kept {set=c1, router=0}
  %late = gather %kept, %due
  %normed_late = rms_norm %late, %gain {eps=1e-5}
  %key = weight {name="k", shape=[16, 32]}
  %keys_late = matmul %normed_late, %key
  %keys = input {port=state "keys"} : state<real[m, 16]>
  %keys_now = store_rows %keys, %keys_late, %due
  %normed_own = rms_norm %own, %gain {eps=1e-5}
  %query = weight {name="q", shape=[16, 32]}
  %queries = matmul %normed_own, %query
  %attended = cached_attention %queries, %keys_now, %keys_now, %own_pos, %own_seq, %pages {heads=2, kv_heads=2}
  %output = weight {name="o", shape=[32, 16]}
  %more = matmul %attended, %output
  %sum = add %own, %more
  %next = scatter %x, %sum, %set
  %wanted = input {port=logit_rows} : tokens<c2 <= n>
  %last = gather %next, %wanted
  %gain_of_head = weight {name="head", shape=[32]}
  %normed_last = rms_norm %last, %gain_of_head {eps=1e-5}
  %logits = matmul %normed_last, %embed
  return logits = %logits, state "stream" = %kept, state "keys" = %keys_now
}"#;

/// A form that cannot be compared with its source is not used: then a step has weights of its own beside those of whole
/// sequences, and an artefact holds both.
#[test]
fn forms_with_margins_caches_and_wanted_rows_are_proved() {
    let graph = graph(STEP);
    let facts = verify(&graph).expect("it is right");
    let made = edits(&graph, &facts, &Options::default()).expect("no rule is at fault");
    let folded: u64 = made.regions.iter().filter_map(|region| region.rules.get("norm_into_weight")).sum();
    assert_eq!(folded, 4, "the router, queries, keys that waited, and the head");
}
