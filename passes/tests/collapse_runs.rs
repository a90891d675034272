//! Runs of layers of any length and kind, before and after their routers read what comes to the first.

use std::fmt::Write;

use skipc_ir::text::parse;
use skipc_ir::{Dim, Graph, Op};
use skipc_passes::{Options, run};
use skipc_testkit::check_pass::check_pass;
use skipc_testkit::random::Rng;

/// Layers, of which some are dense, look at all rows, or decide by two columns.
fn layers(seed: u64) -> String {
    let mut rng = Rng::new(seed);
    let n = 1 + rng.below(21);
    let mut text = String::from(
        r#"graph "g" {
  %ids = input {port=tokens}
  %table = weight {name="embed", shape=[7, 4]}
  %x0 = embed %table, %ids
"#,
    );
    let mut results = vec![format!("result \"x\" = %x{n}")];
    for layer in 0..n {
        let next = layer + 1;
        let mut line = |line: String| {
            let _ = writeln!(text, "  {line}");
        };
        line(format!("%m{layer} = weight {{name=\"layer.{layer}\", shape=[4, 4]}}"));
        if rng.below(9) == 0 {
            line(format!("%x{next} = matmul %x{layer}, %m{layer}"));
            continue;
        }
        if rng.below(7) == 0 {
            line(format!("%all{layer} = matmul %x{layer}, %m{layer}"));
            results.push(format!("result \"all {layer}\" = %all{layer}"));
        }
        let columns = 1 + rng.below(2);
        line(format!("%w{layer} = weight {{name=\"router.{layer}\", shape=[{columns}, 4]}}"));
        let from = match rng.below(3) {
            0 => format!("%x{layer}"),
            _ => {
                line(format!("%gain{layer} = weight {{name=\"norm.{layer}\", shape=[4]}}"));
                line(format!("%normed{layer} = rms_norm %x{layer}, %gain{layer} {{eps=1e-5}}"));
                format!("%normed{layer}")
            }
        };
        line(format!("%z{layer} = router_logits {from}, %w{layer}"));
        if columns == 2 {
            line(format!("%a{layer} = slice %z{layer} {{start=0, len=1}}"));
            line(format!("%b{layer} = slice %z{layer} {{start=1, len=1}}"));
            line(format!("%d{layer} = sub %b{layer}, %a{layer}"));
        } else {
            line(format!("%d{layer} = sigmoid %z{layer}"));
        }
        line(format!("%s{layer} = route %d{layer} {{set=c{layer}, at_least=0.0}}"));
        line(format!("%g{layer} = gather %x{layer}, %s{layer}"));
        line(format!("%y{layer} = matmul %g{layer}, %m{layer}"));
        line(format!("%x{next} = scatter %x{layer}, %y{layer}, %s{layer}"));
        results.push(format!("decision {layer} = %e{layer}"));
        line(format!("%e{layer} = executed %s{layer}"));
    }
    let _ = writeln!(text, "  return {}\n}}", results.join(", "));
    text
}

fn collapsed(graph: Graph) -> Graph {
    let options = Options { verify_each: true, ..Options::default() };
    run(graph, &["collapse_runs", "cse", "dce"], &options, &mut |_, _| {}).expect("it passes")
}

#[test]
fn runs_of_layers_keep_every_bit() {
    let mut n_changed = 0;
    for seed in 0..120 {
        let text = layers(seed);
        let graph = parse(&text).unwrap_or_else(|errors| panic!("{}\n{text}", errors[0]));
        let after = check_pass(&graph, collapsed);
        n_changed += u64::from(after.to_string() != graph.to_string());
    }
    assert!(n_changed > 60, "{n_changed}");
}

/// A layer that executes reads the weights of later routers again, but not those of all layers of a deep model.
#[test]
fn runs_end() {
    let mut text = String::from(
        r#"graph "g" {
  %ids = input {port=tokens}
  %table = weight {name="embed", shape=[7, 4]}
  %x0 = embed %table, %ids
  %m = weight {name="layer", shape=[4, 4]}
"#,
    );
    for layer in 0..24 {
        let next = layer + 1;
        let _ = write!(
            text,
            "  %w{layer} = weight {{name=\"router.{layer}\", shape=[1, 4]}}
  %z{layer} = router_logits %x{layer}, %w{layer}
  %s{layer} = route %z{layer} {{set=c{layer}, at_least=0.0}}
  %g{layer} = gather %x{layer}, %s{layer}
  %y{layer} = matmul %g{layer}, %m
  %x{next} = scatter %x{layer}, %y{layer}, %s{layer}
"
        );
    }
    let _ = writeln!(text, "  return result \"x\" = %x24\n}}");
    let after = collapsed(parse(&text).expect("a graph"));
    let is_logits = |value: &skipc_ir::Value| matches!(after.op(*value), Op::RouterLogits {});
    let of_all_rows = after.values().filter(is_logits).filter(|value| after.ty(*value).rows() == Dim::Tokens);
    let streams: std::collections::BTreeSet<_> = of_all_rows.map(|value| after.operands(value)[0]).collect();
    assert_eq!(streams.len(), 3, "three runs of eight");
    // Behind each layer of a run the routers that are left: 7 + 6 + … + 1.
    assert_eq!(after.values().filter(is_logits).count(), 3 * (8 + 28));
}
