//! Wrong compilations on purpose: each has to be caught, and a table says by which checks.

mod choices;
mod convs;
mod ends;
mod experts;
mod graphs;
mod plans;
mod repetitions;
mod steps;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use skipc::frontend::lower::Skipping;
use skipc::frontend::spec::model::Model;
use skipc::verify::steps::Piece;
use skipc_ir::{Graph, Op, Role, Value, text};
use skipc_plan::Plan;
use skipc_plan::kernel::Kernel;

use crate::campaign::check_caught;
use crate::forms::{Compiler, Honest, Until};
use crate::run::Masks;
use crate::subject::Subject;

/// Subjects that a fault may be tried on before it counts as missed.
const TRIES: u64 = 1200;

/// Subjects to which a fault applies that go into the table.
const SHOWN: usize = 3;

/// What a fault does, at one stage.
enum Does {
    /// To the model of the gathered form.
    Model(fn(&mut Model)),
    /// To both lowered graphs, so that all forms agree.
    Lowered(fn(&mut Graph)),
    /// To the graph after the passes.
    Passed(fn(&mut Graph)),
    /// To the plan.
    Plan(fn(&mut Plan)),
    /// To what steps are told of their tokens and of the caches.
    Pieces(fn(&mut [Piece])),
    /// To the decisions from which is known what waits behind a step.
    Decided(fn(&mut [Vec<bool>])),
}

struct Fault {
    name: &'static str,
    /// The first seed that it is tried on.
    from: u64,
    does: Does,
    applied: AtomicBool,
}

impl Fault {
    fn new(name: &'static str, from: u64, does: Does) -> Fault {
        Fault { name, from, does, applied: AtomicBool::new(false) }
    }

    fn tamper<T: Clone + PartialEq>(&self, thing: T, does: impl FnOnce(&mut T)) -> T {
        let mut changed = thing.clone();
        does(&mut changed);
        if changed != thing {
            self.applied.store(true, Ordering::Relaxed);
        }
        changed
    }

    fn tamper_graph(&self, graph: Graph, does: fn(&mut Graph)) -> Graph {
        let before = text::print(&graph);
        let mut changed = graph;
        does(&mut changed);
        if text::print(&changed) != before {
            self.applied.store(true, Ordering::Relaxed);
        }
        changed
    }
}

impl Compiler for Fault {
    fn model(&self, model: &Model, form: Skipping) -> Model {
        match (&self.does, form) {
            (Does::Model(does), Skipping::Gathered) => self.tamper(model.clone(), *does),
            _ => model.clone(),
        }
    }

    fn lowered(&self, graph: Graph, _: Skipping) -> Graph {
        match self.does {
            Does::Lowered(does) => self.tamper_graph(graph, does),
            _ => graph,
        }
    }

    fn passed(&self, graph: Graph) -> Graph {
        match self.does {
            Does::Passed(does) => self.tamper_graph(graph, does),
            _ => graph,
        }
    }

    fn planned(&self, plan: Plan) -> Plan {
        match self.does {
            Does::Plan(does) => self.tamper(plan, does),
            _ => plan,
        }
    }

    fn decided(&self, gates: Masks) -> Masks {
        match self.does {
            Does::Decided(does) => self.tamper(gates, |gates| does(gates)),
            _ => gates,
        }
    }

    fn pieces(&self, pieces: Vec<Piece>) -> Vec<Piece> {
        match self.does {
            Does::Pieces(does) => self.tamper(pieces, |pieces| does(pieces)),
            _ => pieces,
        }
    }
}

fn faults() -> Vec<Fault> {
    let of_all = [
        graphs::faults(),
        plans::faults(),
        steps::faults(),
        choices::faults(),
        experts::faults(),
        repetitions::faults(),
        convs::faults(),
        ends::faults(),
    ];
    of_all.into_iter().flatten().collect()
}

/// An input of the graph.
fn input(graph: &Graph, role: &Role) -> Option<Value> {
    graph.values().find(|value| matches!(graph.op(*value), Op::Input { port } if port.role == *role))
}

/// Replaces every node that `new` has another form of.
fn rewrite(graph: &mut Graph, new: &dyn Fn(&mut Graph, Value) -> Option<Value>) {
    for value in graph.order() {
        if let Some(new) = new(graph, value) {
            graph.replace(value, new).expect("of the same type");
            graph.remove_unused(value);
        }
    }
}

/// Edits the text of a graph.
fn edit(graph: &mut Graph, change: &dyn Fn(&str) -> String) {
    let lines: Vec<String> = text::print(graph).lines().map(change).collect();
    *graph = text::parse(&lines.join("\n")).expect("an edited graph reads back");
}

/// The line with another number behind `key`.
fn with_number(line: &str, key: &str, change: &dyn Fn(&str) -> String) -> String {
    let Some(at) = line.find(key) else { return line.to_owned() };
    let (head, rest) = line.split_at(at + key.len());
    let end = rest.find([',', '}']).unwrap_or(rest.len());
    format!("{head}{}{}", change(&rest[..end]), &rest[end..])
}

fn kernels(plan: &mut Plan) -> impl Iterator<Item = &mut Kernel> {
    plan.kernels.iter_mut().map(|(_, kernel)| kernel)
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    fault: String,
    /// The first subjects on which it was caught.
    seeds: Vec<u64>,
    /// Subjects that it changed before them without a difference that a check could see.
    unseen: u64,
    /// The checks that caught it.
    caught_by: BTreeSet<String>,
}

/// Tries a fault on these subjects until it was caught often enough.
fn plant(fault: &Fault, seeds: impl IntoIterator<Item = u64>) -> Row {
    let mut row =
        Row { fault: fault.name.to_owned(), seeds: Vec::new(), unseen: 0, caught_by: BTreeSet::new() };
    for seed in seeds {
        let subject = Subject::of(seed);
        if subject.is_long() {
            continue;
        }
        fault.applied.store(false, Ordering::Relaxed);
        let tally = check_caught(fault, &subject, Until::Kernels);
        if !fault.applied.load(Ordering::Relaxed) {
            assert!(tally.findings.is_empty(), "{}: seed {seed}: {:?}", fault.name, tally.findings);
            continue;
        }
        if tally.findings.is_empty() {
            row.unseen += 1;
            continue;
        }
        row.seeds.push(seed);
        let checks =
            tally.findings.iter().map(|finding| finding.check.split(" (").next().unwrap_or_default());
        row.caught_by.extend(checks.map(str::to_owned));
        if row.seeds.len() == SHOWN {
            break;
        }
    }
    row
}

/// The subjects of the table are right without a fault, in every form.
fn expect_clean(rows: &[Row]) {
    let seeds: BTreeSet<u64> = rows.iter().flat_map(|row| row.seeds.iter().copied()).collect();
    seeds.into_par_iter().for_each(|seed| {
        let twin = check_caught(&Honest, &Subject::of(seed), Until::Code);
        assert!(twin.findings.is_empty(), "seed {seed} without a fault: {:?}", twin.findings);
    });
}

fn table() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ledger/planted.json")
}

/// Looks for subjects with `BLESS=1` alone, which takes minutes; else each fault is tried on those that the table has.
#[test]
fn every_planted_fault_is_caught_and_the_table_says_by_what() {
    let faults = faults();
    let text = |rows: &[Row]| serde_json::to_string_pretty(rows).expect("a table") + "\n";
    if std::env::var_os("BLESS").is_some() {
        let rows: Vec<Row> =
            faults.par_iter().map(|fault| plant(fault, fault.from..fault.from + TRIES)).collect();
        std::fs::write(table(), text(&rows)).expect("the table can be written");
    }
    let known = std::fs::read_to_string(table()).expect("a table");
    let known: Vec<Row> = serde_json::from_str(&known).expect("rows");
    let names = |rows: &[Row]| rows.iter().map(|row| row.fault.clone()).collect::<Vec<String>>();
    let of_faults: Vec<String> = faults.iter().map(|fault| fault.name.to_owned()).collect();
    assert_eq!(names(&known), of_faults, "the table has other faults: BLESS=1");
    let missed: Vec<Row> = known.iter().filter(|row| row.seeds.is_empty()).cloned().collect();
    assert!(missed.is_empty(), "not caught: {:?}", names(&missed));
    let again = faults.par_iter().zip(&known).map(|(fault, row)| {
        let found = plant(fault, row.seeds.iter().copied());
        Row { unseen: row.unseen + found.unseen, ..found }
    });
    let again: Vec<Row> = again.collect();
    assert!(
        again == known,
        "{}\nIf this is right: BLESS=1, and read the diff before you commit.",
        text(&again)
    );
    expect_clean(&known);
}
