//! How a function flows: its blocks, its loops, and which warps run which of them.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::dominators::{Dominators, simple_fast};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use serde::Serialize;

use crate::listing::{Function, Instruction};

/// Which warps of a block run some code, in kernels whose warps share out registers anew (`setmaxnreg`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// All of them.
    All,
    /// Those that give registers away, and copy operands.
    Producers,
    /// Those that take them, and compute.
    Consumers,
}

/// Code in which nothing else repeats: a loop without those inside of it, or what lies before, between and behind those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    /// The label of the innermost loop that it is in.
    pub(crate) of: Option<String>,
    /// How many loops it is in.
    pub(crate) depth: u32,
    /// Whether it is all of that loop, so that its end is followed by its beginning.
    pub(crate) is_whole_loop: bool,
    /// How many inner loops of the same loop lie before it.
    pub(crate) behind: u32,
    pub(crate) role: Role,
    /// Indices of its instructions, ascending.
    pub(crate) instructions: Vec<usize>,
}

/// A natural loop: all blocks from which its first one is reached again without leaving it.
struct Loop {
    header: NodeIndex,
    blocks: BTreeSet<NodeIndex>,
}

/// Instructions of a loop that only waits, at most.
const WAITING_LOOP: usize = 12;

/// The regions of a function, in the order in which they lie. Loops that only wait for a barrier or for registers are none, and
/// what leads from them back into the code is in none.
pub(crate) fn regions(function: &Function) -> Vec<Region> {
    let graph = blocks(function);
    let Some(entry) = graph.node_indices().next() else { return Vec::new() };
    let dominators = simple_fast(&graph, entry);
    let loops = loops(&graph, &dominators);
    let (waiting, loops): (Vec<Loop>, Vec<Loop>) =
        loops.into_iter().partition(|found| only_waits(function, &graph, found));
    let in_waiting: BTreeSet<NodeIndex> = waiting.iter().flat_map(|found| found.blocks.clone()).collect();
    let role_of = roles(function, &graph, &dominators);
    let mut regions: BTreeMap<(Option<usize>, u32, u8), Region> = BTreeMap::new();
    for block in graph.node_indices() {
        let from_waiting = |block| {
            let mut before = graph.neighbors_directed(block, petgraph::Incoming).peekable();
            before.peek().is_some() && before.all(|before| in_waiting.contains(&before))
        };
        let is_reached = block == entry || dominators.immediate_dominator(block).is_some();
        let only_returns = graph[block].len() <= 2 && from_waiting(block);
        if in_waiting.contains(&block) || !is_reached || only_returns {
            continue;
        }
        let around = |found: &&(usize, &Loop)| found.1.blocks.contains(&block);
        let innermost =
            loops.iter().enumerate().filter(|found| around(&found)).min_by_key(|found| found.1.blocks.len());
        let first = |found: &Loop| graph[found.header].first().copied();
        let inside = |found: &&Loop| match innermost {
            Some((_, outer)) => {
                found.blocks.len() < outer.blocks.len() && found.blocks.is_subset(&outer.blocks)
            }
            None => true,
        };
        let behind = loops.iter().filter(inside).filter(|found| first(found) < graph[block].first().copied());
        let (behind, role) = (behind.count() as u32, role_of(block));
        let is_whole_loop = innermost.is_some() && !loops.iter().any(|found| inside(&found));
        let region =
            regions.entry((innermost.map(|(idx, _)| idx), behind, role as u8)).or_insert_with(|| Region {
                of: innermost.and_then(|(_, found)| label(function, first(found)?)),
                depth: loops.iter().filter(|found| found.blocks.contains(&block)).count() as u32,
                is_whole_loop,
                behind,
                role,
                instructions: Vec::new(),
            });
        region.instructions.extend(graph[block].iter().copied());
    }
    let mut regions: Vec<Region> = regions.into_values().collect();
    regions.sort_by_key(|region| region.instructions.first().copied());
    regions
}

/// Runs of instructions that are entered at the first and left at the last, and which follows which.
fn blocks(function: &Function) -> DiGraph<Vec<usize>, ()> {
    let n = function.instructions.len();
    let ends = |instruction: &Instruction| {
        matches!(instruction.name(), "BRA" | "BRX" | "JMP" | "CALL" | "EXIT" | "RET")
    };
    let mut leaders: BTreeSet<usize> = function.labels.values().copied().filter(|at| *at < n).collect();
    leaders.insert(0);
    leaders.extend((1..n).filter(|at| ends(&function.instructions[at - 1])));
    let leaders: Vec<usize> = leaders.into_iter().filter(|at| *at < n).collect();
    let mut graph = DiGraph::new();
    for (idx, first) in leaders.iter().enumerate() {
        let end = leaders.get(idx + 1).copied().unwrap_or(n);
        graph.add_node((*first..end).collect::<Vec<_>>());
    }
    let block_of = |at: usize| NodeIndex::new(leaders.partition_point(|first| *first <= at) - 1);
    for block in graph.node_indices().collect::<Vec<_>>() {
        let Some(last) = graph[block].last().copied() else { continue };
        let instruction = &function.instructions[last];
        let is_left = instruction.guard.is_none()
            && matches!(instruction.name(), "BRA" | "BRX" | "JMP" | "EXIT" | "RET");
        if !is_left && last + 1 < n {
            graph.update_edge(block, block_of(last + 1), ());
        }
        let target = instruction.target().and_then(|label| function.labels.get(label)).filter(|at| **at < n);
        if let Some(at) = target {
            graph.update_edge(block, block_of(*at), ());
        }
    }
    graph
}

fn loops(graph: &DiGraph<Vec<usize>, ()>, dominators: &Dominators<NodeIndex>) -> Vec<Loop> {
    let mut found: BTreeMap<NodeIndex, BTreeSet<NodeIndex>> = BTreeMap::new();
    for edge in graph.edge_references() {
        let (tail, header) = (edge.source(), edge.target());
        let returns = dominators.dominators(tail).is_some_and(|mut above| above.any(|block| block == header));
        if !returns {
            continue;
        }
        let body = found.entry(header).or_default();
        body.insert(header);
        let mut open = vec![tail];
        while let Some(block) = open.pop() {
            if body.insert(block) {
                open.extend(graph.neighbors_directed(block, petgraph::Incoming));
            }
        }
    }
    found.into_iter().map(|(header, blocks)| Loop { header, blocks }).collect()
}

/// Whether a loop does nothing but wait: for a barrier in shared memory, for registers, or for ever.
fn only_waits(function: &Function, graph: &DiGraph<Vec<usize>, ()>, found: &Loop) -> bool {
    let instructions: Vec<&Instruction> =
        found.blocks.iter().flat_map(|block| &graph[*block]).map(|at| &function.instructions[*at]).collect();
    let waits = |instruction: &&Instruction| {
        instruction.name() == "NANOSLEEP" || instruction.has("TRYWAIT") || instruction.has("TRY_ALLOC")
    };
    instructions.len() == 1 || instructions.len() <= WAITING_LOOP && instructions.iter().any(waits)
}

/// Which warps run a block, by the change of registers that lies before it on every way.
fn roles<'a>(
    function: &'a Function,
    graph: &'a DiGraph<Vec<usize>, ()>,
    dominators: &'a Dominators<NodeIndex>,
) -> impl Fn(NodeIndex) -> Role + 'a {
    move |block| {
        let above = dominators.dominators(block).into_iter().flatten();
        let mut changes = above.flat_map(|block| &graph[block]).filter_map(|at| {
            let instruction = &function.instructions[*at];
            match instruction.name() == "USETMAXREG" {
                true if instruction.has("DEALLOC") => Some(Role::Producers),
                true => Some(Role::Consumers),
                false => None,
            }
        });
        changes.next().unwrap_or(Role::All)
    }
}

/// The label that stands before an instruction.
fn label(function: &Function, at: usize) -> Option<String> {
    function
        .labels
        .iter()
        .find(|(_, place)| **place == at)
        .map(|(label, _)| label.trim_start_matches('.').to_owned())
}
