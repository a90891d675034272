//! Passes on random graphs, checked by the interpreter.

use std::collections::{BTreeMap, BTreeSet};

use skipc_ir::interp::{Datum, Free};
use skipc_ir::ops::table;
use skipc_ir::text::{parse, print};
use skipc_ir::{Graph, SetSym, Training, verify};
use skipc_passes::{Options, default_pipeline, plain_pipeline, run, run_reported};
use skipc_testkit::check_pass::{
    Masks, check_pass, check_rounding_pass, close, outputs, random_batch, same_bits,
};
use skipc_testkit::random::Rng;
use skipc_testkit::random_graph::{NOT_DRAWN, random_graph, random_layer};

/// How many random graphs each pass sees.
const N_GRAPHS: u64 = 120;

const EDITING: [&str; 4] = ["canonicalize", "merge_routes", "cse", "dce"];

const CHECKED: Options =
    Options { verify_each: true, fuel: None, keep_rows: false, densities: BTreeMap::new() };

fn run_checked(graph: Graph, passes: &[impl AsRef<str>], options: &Options) -> Graph {
    let shown = print(&graph);
    run(graph, passes, options, &mut |_, _| {}).unwrap_or_else(|error| panic!("{error}\nbefore: {shown}"))
}

#[test]
fn random_graphs_are_well_formed_and_their_text_reads_back() {
    for seed in 0..N_GRAPHS {
        let graph = random_graph(seed);
        let text = print(&graph);
        assert!(verify(&graph).is_ok(), "{text}");
        assert_eq!(print(&parse(&text).expect("printed")), text);
    }
}

#[test]
fn random_graphs_have_all_ops_but_those_that_are_said() {
    let graphs: Vec<Graph> = (0..N_GRAPHS).map(random_graph).collect();
    let drawn = graphs.iter().flat_map(|graph| graph.values().map(|value| graph.op(value).name()));
    let drawn: BTreeSet<&str> = drawn.collect();
    let training: BTreeSet<&str> = Training::rows().map(|info| info.name).collect();
    let expected = table().into_iter().map(|info| info.name);
    let expected = expected.filter(|name| !training.contains(name) && !NOT_DRAWN.contains(name));
    assert_eq!(drawn, expected.collect());
}

/// States that nothing comes of would not be tested by what follows.
#[test]
fn random_graphs_carry_states() {
    let mut counts = BTreeMap::from([
        ("add_rows", 0),
        ("store_rows", 0),
        ("cached_attention", 0),
        ("limit_first_after", 0),
    ]);
    for graph in (0..N_GRAPHS).map(random_graph) {
        for value in graph.values() {
            counts.entry(graph.op(value).name()).and_modify(|n| *n += 1);
        }
        let n_results = graph.results().filter(|(role, _)| role.state_name().is_some()).count();
        assert_eq!(n_results, graph.signature().states.len(), "{graph}");
    }
    assert!(counts.values().all(|n| *n > N_GRAPHS / 4), "{counts:?}");
}

#[test]
fn every_pass_keeps_every_bit() {
    for pass in EDITING {
        let (mut n_changed, mut n_nodes) = (0, 0);
        for seed in 0..N_GRAPHS {
            let before = random_graph(seed);
            let after = check_pass(&before, |graph| run_checked(graph, &[pass], &CHECKED));
            n_changed += u64::from(print(&before) != print(&after));
            n_nodes += before.len() as i64 - after.len() as i64;
        }
        // A pass that random graphs give nothing to do is not tested by them.
        assert!(n_changed > N_GRAPHS / 4, "{pass} changed {n_changed} of {N_GRAPHS} graphs");
        assert!(pass == "merge_routes" || n_nodes > 0, "{pass} removed {n_nodes} nodes");
    }
}

#[test]
fn saturation_keeps_every_value_where_nothing_rounds() {
    let mut n_changed = 0;
    for seed in 0..N_GRAPHS {
        let before = random_graph(seed);
        let after = check_rounding_pass(&before, |graph| run_checked(graph, &["saturate"], &CHECKED));
        n_changed += u64::from(print(&before) != print(&after));
    }
    assert!(n_changed > N_GRAPHS / 4, "{n_changed} of {N_GRAPHS} graphs changed");
}

#[test]
fn the_pipelines_keep_every_value() {
    for seed in 0..N_GRAPHS {
        let before = random_graph(seed);
        check_pass(&before, |graph| run_checked(graph, &plain_pipeline(), &CHECKED));
        check_rounding_pass(&before, |graph| run_checked(graph, &default_pipeline(), &CHECKED));
    }
}

#[test]
fn the_pipeline_settles() {
    for (passes, most_runs) in [(plain_pipeline(), 1), (default_pipeline(), 4)] {
        for seed in 0..N_GRAPHS {
            let mut text = print(&run_checked(random_graph(seed), &passes, &CHECKED));
            let mut n_runs = 1;
            loop {
                let again = run_checked(parse(&text).expect("printed"), &passes, &CHECKED);
                let again = print(&again);
                if again == text {
                    break;
                }
                (text, n_runs) = (again, n_runs + 1);
                assert!(n_runs <= most_runs, "{n_runs} runs of {passes:?} still change graph {seed}\n{text}");
            }
        }
    }
}

#[test]
fn any_amount_of_fuel_leaves_a_right_graph() {
    for seed in 0..12 {
        let before = random_graph(seed);
        let all = run_reported(before.clone(), &default_pipeline(), &CHECKED, &mut |_, _| {})
            .expect("passes run")
            .1;
        let n_edits: u64 = all.passes.iter().flat_map(|pass| pass.edits.values()).sum();
        for fuel in 0..=n_edits {
            let options = Options { fuel: Some(fuel), ..CHECKED };
            let ran = run_reported(before.clone(), &default_pipeline(), &options, &mut |_, _| {});
            let (after, report) =
                ran.unwrap_or_else(|error| panic!("fuel {fuel}: {error}\nbefore: {before}"));
            let spent: u64 = report.passes.iter().flat_map(|pass| pass.edits.values()).sum();
            assert_eq!(spent, fuel);
            check_rounding_pass(&before, |_| after);
        }
    }
}

/// Values of the outputs `input`, `dense` and `layer` of a random layer whose set is forced.
fn layer(graph: &Graph, mask: &dyn Fn(usize) -> bool) -> [Datum<f64>; 3] {
    let batch = random_batch(7, &[6, 1, 4]);
    let mask = (0..batch.tokens.len()).map(mask).collect();
    let masks = Masks(BTreeMap::from([(SetSym(0), mask)]));
    let values: Vec<Datum<f64>> =
        outputs(graph, &batch, &masks).into_iter().map(|(_, value)| value).collect();
    values.try_into().expect("three outputs")
}

fn row(value: &Datum<f64>, row: usize) -> &[f64] {
    let (cols, data) = value.real().expect("numbers");
    &data[row * cols..][..cols]
}

#[test]
fn a_layer_that_all_rows_execute_is_the_dense_layer() {
    for (seed, active) in (0..100).flat_map(|seed| [(seed, false), (seed, true)]) {
        let graph = random_layer(seed, active);
        let [_, dense, layer_rows] = layer(&graph, &|_| true);
        assert!(same_bits(&dense, &layer_rows), "{graph}");
        // The dense layer and the skipped one may get other forms.
        let graph = run_checked(graph, &default_pipeline(), &CHECKED);
        let [_, dense, layer_rows] = layer(&graph, &|_| true);
        assert!(close(&dense, &layer_rows), "{graph}");
    }
}

#[test]
fn a_layer_that_no_row_executes_is_the_identity() {
    for (seed, active) in (0..100).flat_map(|seed| [(seed, false), (seed, true)]) {
        let graph = random_layer(seed, active);
        for graph in [graph.clone(), run_checked(graph, &default_pipeline(), &CHECKED)] {
            let [input, _, layer] = layer(&graph, &|_| false);
            assert!(same_bits(&input, &layer), "{graph}");
        }
    }
}

#[test]
fn rows_are_those_of_the_dense_layer_or_keep_their_bytes() {
    for seed in 0..100 {
        let graph = random_layer(seed, false);
        let mut rng = Rng::new(seed);
        let mask: Vec<bool> = (0..11).map(|_| rng.one_in(2)).collect();
        let [input, dense, layer] = layer(&graph, &|row| mask[row]);
        for (idx, executes) in mask.iter().enumerate() {
            let wanted = row(if *executes { &dense } else { &input }, idx);
            assert_eq!(row(&layer, idx), wanted, "row {idx}\n{graph}");
        }
    }
}

#[test]
fn the_router_of_a_layer_decides_for_some_rows_and_not_for_others() {
    // What the tests above force has to be what routers can do.
    let mut counts = [0usize; 2];
    for seed in 0..20 {
        let graph = random_layer(seed, false);
        let batch = random_batch(seed, &[9]);
        let values = outputs(&graph, &batch, &Free);
        for idx in 0..9 {
            counts[usize::from(row(&values[0].1, idx) == row(&values[2].1, idx))] += 1;
        }
    }
    assert!(counts.iter().all(|count| *count > 20), "{counts:?}");
}
