//! Proofs of forms: complete, in order, and each step as its rule says.

use super::instances::instance;
use super::{graph, limits::layers};
use crate::rewrite::check::check;
use crate::rewrite::{CPU, Head, cheapest, region, rules};
use crate::{Options, default_pipeline, run_reported};

/// Two layers over one set, with a norm and a router of two columns each.
const ADJACENT: &str = r#"graph "adjacent" {
  %t = input {port=tokens}
  %table = weight {name="table", shape=[8, 16]}
  %x = embed %table, %t
  %gain = weight {name="gain", shape=[16]}
  %bias = weight {name="bias", shape=[16]}
  %u = layer_norm %x, %gain, %bias {eps=1e-5}
  %wr = weight {name="router", shape=[2, 16]}
  %wr2 = weight {name="router2", shape=[1, 16]}
  %z = router_logits %u, %wr
  %z0 = slice %z {start=0, len=1}
  %z2 = router_logits %u, %wr2
  %set = route %z0 {set=c0, at_least=0.0}
  %set2 = route %z2 {set=c1, at_least=0.0}
  %h = gather %x, %set
  %n = rms_norm %h, %gain {eps=1e-5}
  %wa = weight {name="a", shape=[16, 16]}
  %a = matmul %n, %wa
  %xa = scatter %x, %a, %set
  %m = layer_norm %xa, %gain, %bias {eps=1e-5}
  %g = gather %m, %set
  %wb = weight {name="b", shape=[16, 16]}
  %wc = weight {name="c", shape=[16, 16]}
  %b = matmul %g, %wb
  %c = matmul %g, %wc
  %d = mul %b, %c
  %xb = scatter %xa, %d, %set
  %g2 = executed %set2
  return result "out" = %xb, result "other" = %g2
}"#;

#[test]
fn every_step_follows_from_the_source() {
    let mut n_chains = 0;
    for text in [ADJACENT.to_owned(), layers(1), layers(3)] {
        let passes = default_pipeline();
        let (_, report) =
            run_reported(graph(&text), &passes, &Options::default(), &mut |_, _| {}).expect("the passes run");
        assert!(!report.rewrites.is_empty());
        for rewritten in &report.rewrites {
            check(rewritten).unwrap_or_else(|error| panic!("{error}\n{text}"));
            n_chains += rewritten.chains.len();
        }
    }
    assert!(n_chains > 30, "{n_chains}");
}

/// The nodes of a form that have no proof are nodes of the source, but for operands that have one.
#[test]
fn every_value_that_the_source_does_not_have_has_a_proof() {
    let rules: Vec<_> = rules::all().collect();
    let mut n_forms = 0;
    let texts = rules.iter().map(|rule| instance(rule.name, 63)).chain([ADJACENT.to_owned(), layers(2)]);
    for text in texts {
        let graph = graph(&text);
        for region in region::regions(&graph) {
            let (source, _) = region::region(&graph, &region, |_| 0.25);
            let Some(outcome) = cheapest(&source, &rules, &CPU).expect("no rule is at fault") else {
                continue;
            };
            n_forms += 1;
            check(&outcome.rewritten).unwrap_or_else(|error| panic!("{error}\n{text}"));
            for (idx, (head, _)) in outcome.nodes.iter().enumerate() {
                let is_made = outcome.rewritten.chains.iter().any(|chain| chain.node == idx);
                let is_known = source.nodes.iter().any(|(known, _)| known == head);
                assert!(is_made || is_known || matches!(head, Head::Outside { .. }), "{head:?}\n{text}");
            }
        }
    }
    assert!(n_forms > 10, "{n_forms}");
}

/// A chain with a step left out, or out of order, is none. That no step can be left out is more than is promised.
#[test]
fn the_check_refuses_what_is_no_proof() {
    for text in [ADJACENT.to_owned(), layers(2)] {
        let passes = default_pipeline();
        let ran = run_reported(graph(&text), &passes, &Options::default(), &mut |_, _| {});
        let (_, report) = ran.expect("the passes run");
        for rewritten in &report.rewrites {
            for (chain, of) in rewritten.chains.iter().enumerate() {
                for step in 0..of.steps.len() {
                    let mut fewer = rewritten.clone();
                    fewer.chains[chain].steps.remove(step);
                    assert!(check(&fewer).is_err(), "chain {chain} does not need step {step}");
                }
                let mut turned = rewritten.clone();
                turned.chains[chain].steps.reverse();
                assert_eq!(check(&turned).is_err(), of.steps.len() > 1, "chain {chain}");
            }
        }
    }
}

#[test]
fn names_are_those_of_each_place() {
    let passes = default_pipeline();
    let ran = run_reported(graph(&layers(3)), &passes, &Options::default(), &mut |_, _| {});
    let (_, report) = ran.expect("the passes run");
    let shared = report.rewrites.iter().find(|rewritten| rewritten.places.len() > 1).expect("equal layers");
    let (first, second) = (shared.chain(0, 0).expect("a chain"), shared.chain(0, 1).expect("a place"));
    assert_eq!(first.steps.len(), second.steps.len());
    assert!(first.values.iter().any(|line| line.contains("\"r1\"")), "{first:#?}");
    assert!(second.values.iter().any(|line| line.contains("\"r2\"")), "{second:#?}");
    for place in &shared.places {
        assert!(place.results.iter().all(Option::is_some), "every value is still there");
    }
}
