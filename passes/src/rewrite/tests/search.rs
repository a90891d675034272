//! Joint choices.

use super::{graph, whole};
use crate::rewrite::cost::Target;
use crate::rewrite::extract::{Choice, Problem};
use crate::rewrite::language::Node;
use crate::rewrite::region::Region;
use crate::rewrite::rules::{self, Rule};
use crate::rewrite::saturate::{self, Limits, Saturated};
use crate::rewrite::{AtDensities, PriceList};

/// A processor on which starting a kernel is what costs: it pays there to do more in fewer kernels.
const SLOW_START: Target = Target {
    launch: 5_000.0,
    gemm_mac: 0.001,
    dot_mac: 0.001,
    attention_mac: 0.001,
    attention_row_mac: 0.001,
    attention_key: 1.0,
    element: 0.001,
    weight: 0.001,
    exp: 0.001,
    gathered: 0.001,
};

/// Keys of all rows, and queries of some, which are cheaper by themselves.
const SIBLINGS: &str = r#"graph "siblings" {
  %t = input {port=tokens}
  %table = weight {name="table", shape=[8, 64]}
  %x = embed %table, %t
  %p = input {port=positions}
  %s = input {port=sequences}
  %set = route_random %p, %s {set=c0, seed=1, block=0, limit=1073741824}
  %keys = weight {name="keys", shape=[8, 64]}
  %queries = weight {name="queries", shape=[8, 64]}
  %k = matmul %x, %keys
  %g = gather %x, %set
  %q = matmul %g, %queries
  return result "k" = %k, result "q" = %q
}"#;

fn saturated(source: &Region) -> Saturated {
    let all: Vec<&Rule> = rules::all().collect();
    saturate::saturate(source, &all, Limits::default()).expect("types are kept")
}

fn problem(source: &Region, saturated: &Saturated, target: &Target) -> Problem {
    let counts = AtDensities(source);
    let roots: Vec<egg::Id> = source.roots.iter().map(|root| saturated.classes[*root]).collect();
    Problem::new(&saturated.egraph, &roots, &PriceList { egraph: &saturated.egraph, target, counts: &counts })
}

fn n_kernels(problem: &Problem, choice: &Choice) -> usize {
    let order = problem.order(choice).expect("a whole choice");
    problem.kernels().filter(|kernel| order.contains(kernel)).count()
}

/// Queries of all rows cost more than those of some, but for the kernel that they share with the keys.
#[test]
fn greedy_alone_never_lets_matmuls_share_a_kernel() {
    let source = whole(&graph(SIBLINGS));
    let saturated = saturated(&source);
    let problem = problem(&source, &saturated, &SLOW_START);
    let greedy = problem.greedy();
    assert_eq!(n_kernels(&problem, &greedy), 2);
    let found = problem.search(greedy.clone(), 100_000).expect("the start is whole");
    assert_eq!(n_kernels(&problem, &found.choice), 1);
    assert!(found.is_proved && found.cost < problem.cost(&greedy).expect("a whole choice"));
}

/// All choices, one after the other.
fn cheapest_of_all(problem: &Problem) -> u64 {
    let sizes: Vec<usize> = (0..problem.len()).map(|class| problem.n_alternatives(class)).collect();
    let mut choice: Choice = vec![Some(0); sizes.len()];
    let mut best = u64::MAX;
    loop {
        best = best.min(problem.cost(&choice).unwrap_or(u64::MAX));
        let next = (0..sizes.len()).find(|class| choice[*class].is_some_and(|idx| idx + 1 < sizes[*class]));
        let Some(next) = next else { return best };
        choice[..next].fill(Some(0));
        choice[next] = choice[next].map(|idx| idx + 1);
    }
}

#[test]
fn what_is_proved_is_the_cheapest_of_all() {
    let texts = [
        "%w = weight {name=\"w\", shape=[4, 4]}\n %m = rms_norm %x, %gain {eps=1e-3}\n %out = matmul %m, %w",
        "%m = add %x, %y\n %n = gather %m, %set\n %o = mul %n, %h\n %out = scatter %x, %o, %set",
        "%m = scatter %x, %h, %set\n %n = gelu %m\n %out = gather %n, %set",
    ];
    for text in texts {
        let source = whole(&graph(&super::instances::with_body(text, 63)));
        let saturated = saturated(&source);
        let problem = problem(&source, &saturated, &crate::rewrite::CPU);
        let n_choices = (0..problem.len()).map(|class| problem.n_alternatives(class) as f64).product::<f64>();
        assert!((2.0..1e6).contains(&n_choices), "{n_choices} choices");
        let found = problem.search(problem.greedy(), 100_000).expect("the start is whole");
        assert!(found.is_proved);
        assert_eq!(found.cost, cheapest_of_all(&problem), "{text}");
    }
}

#[test]
fn the_search_does_not_depend_on_the_run() {
    let source = whole(&graph(SIBLINGS));
    let run = || {
        let saturated = saturated(&source);
        let problem = problem(&source, &saturated, &SLOW_START);
        let found = problem.search(problem.greedy(), 1_000).expect("the start is whole");
        let order = problem.order(&found.choice).expect("a whole choice");
        let nodes = order.into_iter().filter_map(|class| problem.chosen(&found.choice, class));
        nodes.filter_map(|chosen| chosen.node.clone()).collect::<Vec<Node>>()
    };
    assert_eq!(run(), run());
}
