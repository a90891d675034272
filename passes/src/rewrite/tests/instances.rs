//! Every rule on small instances of its left side: all that the e-graph then holds for one value has one value, where
//! nothing rounds.

use std::collections::BTreeMap;

use skipc_ir::Domain;
use skipc_ir::interp::{Gf61, Ring32};

use super::{graph, whole};
use crate::rewrite::extract::{Prices, Problem};
use crate::rewrite::language::Node;
use crate::rewrite::prove::{Dag, Standalone};
use crate::rewrite::rules::{self, Rule};
use crate::rewrite::saturate::{self, Limits, Saturated};

/// Inputs that each rule is tried on.
const N_INPUTS: usize = 10_000;

/// Sizes that they are spread over.
const N_SHAPES: usize = 10;

/// What every instance begins with: a stream `%x`, rows `%g` of it, sums of squares `%r`, a second stream `%y`.
const HEAD: &str = r#"
  %t = input {port=tokens}
  %p = input {port=positions}
  %s = input {port=sequences}
  %table = weight {name="table", shape=[2, D]}
  %x = embed %table, %t
  %other = weight {name="other", shape=[2, D]}
  %y = embed %other, %t
  %wr = weight {name="router", shape=[1, D]}
  %z = router_logits %x, %wr
  %set = route %z {set=c0, at_least=0.0}
  %g = gather %x, %set
  %h = gelu %g
  %r = inv_rms %x {eps=0.5}
  %a = weight {name="a", shape=[O, D]}
  %b = weight {name="b", shape=[K, D]}
  %gain = weight {name="gain", shape=[D]}
"#;

/// An instance of the left side of each rule, with sizes `D`, `O` and `K`.
const INSTANCES: &[(&str, &str)] = &[
    ("gather_out", "%g2 = gather %y, %set\n %m = mul %g, %g2\n %out = matmul %m, %a"),
    ("gather_in", "%m = add %x, %y\n %n = matmul %m, %a\n %out = gather %n, %set"),
    (
        "gather_out_of_queries",
        "%gp = gather %p, %set\n %gs = gather %s, %set\n %out = attention %g, %x, %y, %gp, %gs, %p, %s {heads=1, kv_heads=1}",
    ),
    (
        "gather_into_queries",
        "%all = attention %x, %x, %y, %p, %s, %p, %s {heads=1, kv_heads=1}\n %out = gather %all, %set",
    ),
    ("gather_of_scatter", "%u = scatter %y, %h, %set\n %out = gather %u, %set"),
    ("scatter_of_gather", "%out = scatter %x, %g, %set"),
    ("scatter_over_scatter", "%u = scatter %y, %h, %set\n %out = scatter %u, %g, %set"),
    (
        "scatter_out",
        "%u = scatter %y, %h, %set\n %v = scatter %x, %g, %set\n %m = mul %u, %v\n %out = matmul %m, %a",
    ),
    (
        "norm_into_weight",
        "%n = rms_norm %x, %gain {eps=0.25}\n %o = matmul %n, %a\n %q = router_logits %n, %wr\n %out = scale_rows %o, %q",
    ),
    ("row_scale_out", "%n = scale_rows %x, %r\n %out = matmul %n, %a"),
    (
        "linear_into_linear",
        "%wide = weight {name=\"wide\", shape=[5, D]}\n %last = weight {name=\"last\", shape=[O, 5]}\n %m = router_logits %x, %wide\n %out = router_logits %m, %last",
    ),
    (
        "biased_linear_into_linear",
        "%wide = weight {name=\"wide\", shape=[5, D]}\n %c = weight {name=\"c\", shape=[5]}\n %last = weight {name=\"last\", shape=[O, 5]}\n %m = router_logits %x, %wide\n %n = add_bias %m, %c\n %out = router_logits %n, %last",
    ),
    (
        "bias_on_folded_bias",
        "%c = weight {name=\"c\", shape=[5]}\n %last = weight {name=\"last\", shape=[O, 5]}\n %e = fold_bias %last, %c\n %d = weight {name=\"d\", shape=[O]}\n %m = router_logits %x, %a\n %n = add_bias %m, %e\n %out = add_bias %n, %d",
    ),
    (
        "slice_in",
        "%m = sub %x, %y\n %n = scale_rows %m, %r\n %o = silu %n\n %out = slice %o {start=LAST, len=1}",
    ),
    (
        "slice_of_slice",
        "%w = weight {name=\"w\", shape=[5, D]}\n %m = matmul %x, %w\n %n = slice %m {start=1, len=4}\n %out = slice %n {start=LAST, len=1}",
    ),
    ("slice_of_all", "%out = slice %x {start=0, len=D}"),
    (
        "slice_into_weight",
        "%w = weight {name=\"w\", shape=[5, D]}\n %m = matmul %x, %w\n %n = slice %m {start=LAST, len=2}\n %q = router_logits %x, %w\n %u = slice %q {start=LAST, len=1}\n %out = scale_rows %n, %u",
    ),
];

/// The instance of a rule of this name with sizes that depend on its number.
pub(super) fn instance(rule: &str, number: usize) -> String {
    with_body(body_of(rule), number)
}

/// What the instances of a rule compute.
pub(super) fn body_of(rule: &str) -> &'static str {
    let body = INSTANCES.iter().find(|(name, _)| *name == rule);
    body.unwrap_or_else(|| panic!("no instance of `{rule}`")).1
}

/// An instance with this body and sizes that depend on its number.
pub(super) fn with_body(body: &str, number: usize) -> String {
    with_sizes(body, [0, 1, 2].map(|place| number / 4usize.pow(place) % 4 + 1))
}

/// An instance with this body and the sizes `D`, `O` and `K`; `LAST` is a column of the first four, the last of as many.
pub(super) fn with_sizes(body: &str, [d, o, k]: [usize; 3]) -> String {
    let text = format!("graph \"instance\" {{{HEAD}  {body}\n  return result \"out\" = %out\n}}");
    let sizes = [("LAST", (d - 1) % 4), ("D", d), ("O", o), ("K", k)];
    // Sizes stand alone between brackets, commas and equals signs.
    sizes.iter().fold(text, |text, (name, size)| {
        ["[", "=", " "].iter().fold(text, |text, before| {
            [",", "]", "}"].iter().fold(text, |text, after| {
                text.replace(&format!("{before}{name}{after}"), &format!("{before}{size}{after}"))
            })
        })
    })
}

/// Whether nodes of one class have different values.
fn disagree<N: Domain>(graph: &Standalone, seed: u64) -> bool {
    let values = graph.values::<N>(seed).expect("it can be evaluated");
    values.as_chunks::<2>().0.iter().any(|[a, b]| a.1 != b.1)
}

/// All nodes cost the same.
struct Alike;

impl Prices for Alike {
    fn node(&self, _: &Node) -> u64 {
        1
    }

    fn kernel(&self, _: egg::Id) -> u64 {
        0
    }
}

/// A graph of which each two outputs that follow one another are to be equal: a node, and another of its class.
pub(super) fn pairs(saturated: &Saturated) -> Standalone {
    let egraph = &saturated.egraph;
    let ids: Vec<egg::Id> = egraph.classes().map(|class| class.id).collect();
    let problem = Problem::new(egraph, &ids, &Alike);
    let choice = problem.greedy();
    let order = problem.order(&choice).expect("what came from a graph can be computed");
    let (mut nodes, mut place) = (Vec::new(), BTreeMap::new());
    let mut push = |node: &Node, place: &BTreeMap<usize, usize>| {
        let number = |class: &egg::Id| problem.number(egraph.find(*class)).expect("all classes have one");
        let operands = node.operands.iter().map(|operand| place[&number(operand)]).collect();
        nodes.push((node.head.clone(), operands));
        nodes.len() - 1
    };
    for class in order {
        let Some(node) = &problem.chosen(&choice, class).expect("it is chosen").node else { continue };
        let idx = push(node, &place);
        place.insert(class, idx);
    }
    let mut roots = Vec::new();
    for class in egraph.classes() {
        let known = problem.number(egraph.find(class.id)).expect("all classes have one");
        for node in &class.nodes {
            roots.extend([place[&known], push(node, &place)]);
        }
    }
    Standalone::new(Dag { nodes: &nodes, roots: &roots }).expect("it has types")
}

/// Applies a rule to an instance. `None` if it has nothing to say or makes what does not type, else whether it is
/// refuted.
pub(super) fn is_refuted(rule: &Rule, text: &str, seed: u64) -> Option<bool> {
    let source = whole(&graph(text));
    let limits = Limits { nodes: 10_000, rounds: 4 };
    let n_source = {
        let before = saturate::saturate(&source, &[], limits).expect("no rule, no fault");
        before.egraph.total_number_of_nodes()
    };
    let Ok(saturated) = saturate::saturate(&source, &[rule], limits) else { return Some(true) };
    let n_unions = saturated.egraph.total_number_of_nodes() - saturated.egraph.number_of_classes();
    if n_unions == 0 && saturated.egraph.total_number_of_nodes() == n_source {
        return None;
    }
    let pairs = pairs(&saturated);
    Some(disagree::<Ring32>(&pairs, seed) || disagree::<Gf61>(&pairs, seed))
}

#[test]
fn every_rule_holds_on_instances_of_all_small_sizes() {
    for rule in rules::all() {
        let mut n_applied = 0;
        // All sizes from 1 to 4.
        for number in 0..64 {
            let text = instance(rule.name, number);
            match is_refuted(rule, &text, number as u64) {
                Some(true) => panic!("`{}` is refuted by instance {number}\n{text}", rule.name),
                Some(false) => n_applied += 1,
                None => {}
            }
        }
        assert!(n_applied >= 16, "`{}` applied to {n_applied} instances", rule.name);
    }
}

/// One e-graph, many numbers: the sizes are those of the instance, the numbers are new each time.
#[test]
fn every_rule_holds_on_ten_thousand_random_inputs() {
    for rule in rules::all() {
        for shape in 0..N_SHAPES {
            let source = whole(&graph(&instance(rule.name, shape * 11 % 64)));
            let limits = Limits { nodes: 10_000, rounds: 4 };
            let pairs = pairs(&saturate::saturate(&source, &[rule], limits).expect("types are kept"));
            for seed in 0..(N_INPUTS / N_SHAPES) as u64 {
                let differ = match seed % 2 {
                    0 => disagree::<Gf61>(&pairs, seed),
                    _ => disagree::<Ring32>(&pairs, seed),
                };
                assert!(!differ, "`{}`, shape {shape}, seed {seed}", rule.name);
            }
        }
    }
}

#[test]
fn all_rules_together_hold_on_instances() {
    let all: Vec<&Rule> = rules::all().collect();
    for rule in rules::all() {
        for number in [0, 21, 27, 63] {
            let source = whole(&graph(&instance(rule.name, number)));
            let saturated = saturate::saturate(&source, &all, Limits::default()).expect("types are kept");
            let pairs = pairs(&saturated);
            assert!(!disagree::<Gf61>(&pairs, 5), "`{}`, instance {number}", rule.name);
            assert!(!disagree::<Ring32>(&pairs, 5), "`{}`, instance {number}", rule.name);
        }
    }
}

#[test]
fn rules_have_names_and_reasons() {
    let mut names: Vec<&str> = rules::all().map(|rule| rule.name).collect();
    assert!(rules::all().all(|rule| rule.says.contains('=') && !rule.condition.is_empty()));
    let n = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), n);
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it has a root");
    for rule in rules::all() {
        let (file, line) = rule.place;
        let text = std::fs::read_to_string(root.join(file)).expect("the file is there");
        let row = text.lines().nth(line as usize - 1).unwrap_or_default();
        assert!(row.trim_start().starts_with(&format!("{}: ", rule.name)), "{file}:{line}: {row}");
    }
}
