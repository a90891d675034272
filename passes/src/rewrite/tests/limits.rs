//! Bounds: nodes, rounds, depth and width of graphs.

use std::fmt::Write;

use super::{graph, whole};
use crate::rewrite::rules::{self, Rule};
use crate::rewrite::saturate::{self, Limits};
use crate::rewrite::{edits, region};
use crate::{Options, default_pipeline, run};
use skipc_ir::verify;

/// A model of `n` skipped feed-forward layers of 64 columns.
pub(super) fn layers(n: usize) -> String {
    let mut text = String::from(
        "graph \"layers\" {\n %t = input {port=tokens}\n %table = weight {name=\"table\", shape=[32, 64]}\n %x0 = embed %table, %t\n",
    );
    for idx in 0..n {
        let next = idx + 1;
        let _ = writeln!(
            text,
            "%wr{idx} = weight {{name=\"r{idx}\", shape=[1, 64]}}\n%gain{idx} = weight {{name=\"gain{idx}\", shape=[64]}}\n\
             %n{idx} = rms_norm %x{idx}, %gain{idx} {{eps=1e-5}}\n%z{idx} = router_logits %n{idx}, %wr{idx}\n\
             %set{idx} = route %z{idx} {{set=c{idx}, at_least=0.0}}\n%gate{idx} = executed %set{idx}\n\
             %h{idx} = gather %x{idx}, %set{idx}\n%m{idx} = rms_norm %h{idx}, %gain{idx} {{eps=1e-5}}\n\
             %up{idx} = weight {{name=\"up{idx}\", shape=[128, 64]}}\n%a{idx} = matmul %m{idx}, %up{idx}\n\
             %b{idx} = gelu %a{idx}\n%down{idx} = weight {{name=\"down{idx}\", shape=[64, 128]}}\n\
             %c{idx} = matmul %b{idx}, %down{idx}\n%d{idx} = add %h{idx}, %c{idx}\n\
             %x{next} = scatter %x{idx}, %d{idx}, %set{idx}"
        );
    }
    let gates: String = (0..n).map(|idx| format!(", decision {idx} = %gate{idx}")).collect();
    let _ = writeln!(text, "%logits = matmul %x{n}, %table\n return logits = %logits{gates}\n}}");
    text
}

#[test]
fn layers_that_differ_in_names_alone_are_one_source() {
    let graph = graph(&layers(12));
    let regions = region::regions(&graph);
    assert_eq!(regions.len(), 12 + 1, "the first layer has the embedding, too; the head is one of its own");
    let sources: Vec<_> = regions.iter().map(|region| region::region(&graph, region, |_| 0.25).0).collect();
    assert!(sources[1..12].iter().all(|source| *source == sources[1]));
    assert_ne!(sources[12], sources[1]);
}

#[test]
fn a_layer_has_no_normed_tensor_and_one_gather_of_the_stream() {
    let after = run(graph(&layers(3)), &default_pipeline(), &Options::default(), &mut |_, _| {});
    let text = after.expect("passes run").to_string();
    assert!(!text.contains("rms_norm"), "{text}");
    assert_eq!(text.matches("= inv_rms").count(), 3, "one scale a layer, gathered where rows are\n{text}");
}

#[test]
fn the_node_limit_is_passed_by_little() {
    let all: Vec<&Rule> = rules::all().collect();
    let source = whole(&graph(&layers(24)));
    let everything =
        saturate::saturate(&source, &all, Limits { nodes: 1_000_000, rounds: 6 }).expect("types are kept");
    let n_source = saturate::saturate(&source, &[], Limits::default()).expect("no rule").egraph.total_size();
    for nodes in [n_source + 50, n_source + 200, n_source + 600] {
        assert!(everything.egraph.total_size() > nodes);
        let limited = saturate::saturate(&source, &all, Limits { nodes, rounds: 6 }).expect("types are kept");
        let size = limited.egraph.total_size();
        assert!(!limited.is_complete && (size as f64) < nodes as f64 * 1.2, "{size} of {nodes}");
    }
}

#[test]
fn the_rounds_of_a_layer_end_by_themselves() {
    let all: Vec<&Rule> = rules::all().collect();
    let source = whole(&graph(&layers(1)));
    let saturated = saturate::saturate(&source, &all, Limits::default()).expect("types are kept");
    println!("{} of {} nodes", saturated.egraph.total_size(), Limits::default().nodes);
    assert!(saturated.is_complete);
}

/// A chain that nothing cuts is no region of its own kind: it is left alone, and no stack overflows over it.
#[test]
fn deep_and_wide_graphs_come_through() {
    let mut deep = String::from(
        "graph \"deep\" {\n %t = input {port=tokens}\n %table = weight {name=\"table\", shape=[4, 2]}\n %x0 = embed %table, %t\n",
    );
    for idx in 0..20_000 {
        let _ = writeln!(deep, "%x{} = gelu %x{idx}", idx + 1);
    }
    deep.push_str("return logits = %x20000\n}");
    let mut wide = String::from(
        "graph \"wide\" {\n %t = input {port=tokens}\n %table = weight {name=\"table\", shape=[4, 2]}\n %x = embed %table, %t\n",
    );
    for idx in 0..300 {
        let _ = writeln!(
            wide,
            "%w{idx} = weight {{name=\"w{idx}\", shape=[2, 2]}}\n%y{idx} = matmul %x, %w{idx}"
        );
    }
    let outputs: Vec<String> = (0..300).map(|idx| format!("result \"o{idx}\" = %y{idx}")).collect();
    let _ = writeln!(wide, "return {}\n}}", outputs.join(", "));
    for text in [deep, wide] {
        let graph = graph(&text);
        let facts = verify(&graph).expect("well-formed");
        edits(&graph, &facts, &Options::default()).expect("no rule is at fault");
    }
}
