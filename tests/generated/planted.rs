//! Wrong compilations on purpose: each has to be caught, and a table says by which checks.

mod repetitions;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use skipc::frontend::lower::Skipping;
use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::skip::{BranchScale, Carry, Kv, Skip};
use skipc::frontend::spec::skip_table::SkipTable;
use skipc::verify::steps::Piece;
use skipc_artifact::program::{Arg, Extent};
use skipc_ir::attr::F64;
use skipc_ir::interp::FlatBatch;
use skipc_ir::{Graph, Op, Role, Unary, Value, text};
use skipc_plan::Plan;
use skipc_plan::kernel::{Body, Compact, Kernel, RankOrder, Rows, Rowwise, Select, View};
use skipc_plan::pointwise::{Binary, Inst, Pointwise};

use crate::campaign::check_caught;
use crate::forms::{Compiler, Honest, Until};
use crate::model::map_skips;
use crate::run::Masks;
use crate::subject::Subject;
use crate::{choices, experts};

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
    let of = |name, does| Fault { name, from: 0, does, applied: AtomicBool::new(false) };
    let of_all = vec![
        of("no causal mask", Does::Lowered(|graph| attention(graph, [4, 4, 6, 6]))),
        of("other sequences in sight", Does::Lowered(|graph| attention(graph, [3, 3, 5, 5]))),
        of("threshold > instead of >=", Does::Lowered(strict_thresholds)),
        of("capacity counted in the wrong groups", Does::Lowered(wider_groups)),
        of(
            "keys of skipped tokens lost",
            Does::Model(|model| {
                let active = |skip: &Skip| Some(SkipTable { kv: Kv::Active, ..SkipTable::of(skip) }.skip());
                *model = map_skips(model, &mut { active });
            }),
        ),
        of("random router with the seed of another", Does::Passed(other_seed)),
        of("gate and up projection swapped", Does::Passed(swapped_projections)),
        of("base not kept for skipped rows", Does::Passed(lost_base)),
        of("norm over the wrong operand", Does::Passed(wrong_norm)),
        of("softmax scale missing", Does::Passed(unscaled_scores)),
        of("window one position too wide", Does::Passed(wider_windows)),
        of("scores without their cap", Does::Passed(|graph| without_attribute(graph, "cap"))),
        of("frequencies not scaled", Does::Passed(|graph| without_attribute(graph, "scaling"))),
        of("all columns of a head turned", Does::Passed(|graph| without_attribute(graph, "turned"))),
        of("offset of a gain forgotten", Does::Passed(forgotten_offset)),
        of("compacted index used as position", Does::Plan(compacted_positions)),
        of("gate probability of the wrong row", Does::Plan(wrong_probability)),
        of("last row of a tail left out", Does::Plan(short_tail)),
        of("one row of a set dropped", Does::Plan(one_slot_less)),
        of("two living buffers overlap", Does::Plan(stale_buffer)),
        of("rows of another set scattered", Does::Plan(wrong_rows)),
        of("residual of an epilogue dropped", Does::Plan(lost_residual)),
        of("a step that is needed removed", Does::Plan(lost_step)),
        of("ranked by position instead of score", Does::Plan(wrong_order)),
        of("steps: keys of the step itself unseen", Does::Lowered(stale_keys)),
        of("steps: random decisions by the step's own numbers", Does::Lowered(renumbered_requests)),
        of("steps: capacity begins anew", Does::Lowered(forgotten_capacity)),
        of("steps: positions begin anew", Does::Pieces(restarted_positions)),
        of("steps: one token too many is in the cache", Does::Pieces(shifted_places)),
        of("steps: the table names a stale page", Does::Pieces(stale_page)),
        of("steps: two sequences write into a page", Does::Pieces(shared_page)),
        of("steps: what waits is taken as computed", Does::Decided(forgotten_rows)),
    ];
    of_all
        .into_iter()
        .chain(faults_of_choices())
        .chain(faults_of_experts())
        .chain(repetitions::faults())
        .collect()
}

fn faults_of_choices() -> Vec<Fault> {
    let choice =
        |name, does| Fault { name, from: choices::FIRST_SEED, does, applied: AtomicBool::new(false) };
    vec![
        choice("choices: the other branch takes all tokens", Does::Plan(incomplete_complement)),
        choice("choices: one forced token too many", Does::Passed(one_more_forced)),
        choice("choices: the other branch scaled by p", Does::Passed(not_one_minus)),
        choice(
            "choices: the whole branch scaled instead of its last layer",
            Does::Model(|model| with_gate(model, BranchScale::ProbabilityLast, BranchScale::Probability)),
        ),
        choice(
            "choices: scaled by the probability instead of the logit",
            Does::Model(|model| with_gate(model, BranchScale::Score, BranchScale::Probability)),
        ),
        choice("choices: forced tokens beside the best and not among them", Does::Passed(forced_beside)),
        choice("choices: drawn tokens without the forced ones", Does::Passed(without_first)),
        choice("choices: forced in the first sequences instead of positions", Does::Passed(forced_sequences)),
        choice("choices: the best of each sequence instead of the batch", Does::Passed(best_of_sequences)),
        choice("choices: the first channel decides", Does::Passed(first_channel_decides)),
        choice("choices: all channels scaled by the first", Does::Passed(scaled_by_first)),
        choice(
            "choices: a highway carries on what its branch leaves",
            Does::Model(|model| {
                let coupled = |skip: &Skip| match SkipTable::of(skip) {
                    table if table.carry == Carry::Own => {
                        Some(SkipTable { carry: Carry::Coupled, ..table }.skip())
                    }
                    _ => Some(*skip),
                };
                *model = map_skips(model, &mut { coupled });
            }),
        ),
        choice(
            "choices: the bias of a highway with the other sign",
            Does::Model(|model| {
                let other = |skip: &Skip| {
                    let table = SkipTable::of(skip);
                    Some(SkipTable { carry_bias: -table.carry_bias, ..table }.skip())
                };
                *model = map_skips(model, &mut { other });
            }),
        ),
        choice(
            "choices: the factor of a gate forgotten",
            Does::Model(|model| {
                let plain = |skip: &Skip| Some(SkipTable { gate_factor: 1.0, ..SkipTable::of(skip) }.skip());
                *model = map_skips(model, &mut { plain });
            }),
        ),
    ]
}

fn faults_of_experts() -> Vec<Fault> {
    let of_experts =
        |name, does| Fault { name, from: experts::FIRST_SEED, does, applied: AtomicBool::new(false) };
    vec![
        of_experts("experts: the weights of the next expert", Does::Passed(next_expert)),
        of_experts("experts: weighed by another sum", Does::Passed(other_shares)),
        of_experts("experts: chosen without their bias", Does::Passed(unbiased_choice)),
        of_experts("experts: places of a wider group", Does::Passed(wider_places)),
        of_experts("experts: ranked by position instead of score", Does::Plan(positions_first)),
        of_experts("experts: second choices before first ones", Does::Passed(turned_ranks)),
        of_experts("experts: dropped choices count", Does::Passed(unlimited)),
    ]
}

fn with_gate(model: &mut Model, from: BranchScale, to: BranchScale) {
    let other = |skip: &Skip| {
        let table = SkipTable::of(skip);
        Some(SkipTable { gate: if table.gate == from { to } else { table.gate }, ..table }.skip())
    };
    *model = map_skips(model, &mut { other });
}

/// What another set leaves out is all rows.
fn incomplete_complement(plan: &mut Plan) {
    for kernel in kernels(plan) {
        if let Body::Compact(compact) = &mut kernel.body
            && let Select::NotIn(executed) = &mut compact.select
        {
            *executed = compact.forced;
        }
    }
}

fn one_more_forced(graph: &mut Graph) {
    edit(graph, &|line| {
        with_number(line, "{first=", &|number| (number.parse::<u32>().expect("a number") + 1).to_string())
    });
}

/// The best of all scores, and the forced tokens on top of them.
fn forced_beside(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let (Op::RouteTopK { set, share, round }, operands) =
            (graph.op(value).clone(), graph.operands(value))
        else {
            return None;
        };
        let Op::ForceFirst { first } = *graph.op(operands[0]) else { return None };
        let (forced, origin) = (graph.operands(operands[0]), graph.origin(value).clone());
        let mut own = operands.clone();
        own[0] = forced[0];
        let best = Op::RouteTopK { set: graph.fresh_set(), share, round };
        let best = graph.add(best, &own, &origin).ok()?;
        graph.add(Op::WithFirst { set, first }, &[best, forced[1]], &origin).ok()
    });
}

fn without_first(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::WithFirst { set, .. } = *graph.op(value) else { return None };
        let (chosen, origin) = (graph.operands(value)[0], graph.origin(value).clone());
        let op = graph.op(chosen).with_set(set);
        graph.add(op, &graph.operands(chosen), &origin).ok()
    });
}

/// An input of the graph.
fn input(graph: &Graph, role: &Role) -> Option<Value> {
    graph.values().find(|value| matches!(graph.op(*value), Op::Input { port } if port.role == *role))
}

fn forced_sequences(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let (Op::ForceFirst { .. } | Op::WithFirst { .. }) = graph.op(value) else { return None };
        let (op, origin) = (graph.op(value).clone(), graph.origin(value).clone());
        let operands = [graph.operands(value)[0], input(graph, &Role::Sequences)?];
        graph.add(op, &operands, &origin).ok()
    });
}

fn best_of_sequences(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let (Op::RouteTopK { .. }, &[scores]) = (graph.op(value), graph.operands(value).as_slice()) else {
            return None;
        };
        let (op, origin) = (graph.op(value).clone(), graph.origin(value).clone());
        graph.add(op, &[scores, input(graph, &Role::Sequences)?], &origin).ok()
    });
}

/// What is summed over a constant of ones is the first column, so many times.
fn first_channel_decides(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let (Op::RouterLogits {}, operands) = (graph.op(value), graph.operands(value)) else { return None };
        let Op::Fill { .. } = graph.op(operands[1]) else { return None };
        let origin = graph.origin(value).clone();
        let first = graph.add(Op::Slice { start: 0, len: 1 }, &[operands[0]], &origin).ok()?;
        let times = f64::from(graph.ty(operands[0]).cols());
        graph.add(Unary::Scale(F64::from(times)).into(), &[first], &origin).ok()
    });
}

fn scaled_by_first(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::ScaleElements {} = graph.op(value) else { return None };
        let (operands, origin) = (graph.operands(value), graph.origin(value).clone());
        let first = graph.add(Op::Slice { start: 0, len: 1 }, &[operands[1]], &origin).ok()?;
        graph.add(Op::ScaleRows {}, &[operands[0], first], &origin).ok()
    });
}

fn not_one_minus(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::Unary(Unary::OneMinus) = graph.op(value) else { return None };
        graph.operands(value).first().copied()
    });
}

fn other_seed(graph: &mut Graph) {
    edit(graph, &|line| {
        with_number(line, "{set=c0, seed=", &|number| {
            (number.parse::<u64>().expect("a number") + 1).to_string()
        })
    });
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

/// Gives attention other operands as positions and sequences.
fn attention(graph: &mut Graph, pick: [usize; 4]) {
    rewrite(graph, &|graph, value| {
        let Op::Attention { .. } = graph.op(value) else { return None };
        let (op, origin) = (graph.op(value).clone(), graph.origin(value).clone());
        let mut operands = graph.operands(value);
        let old = operands.clone();
        // Missing: the sequence in place of the position. In sight: the position in place of the sequence.
        let places = if pick[0] == 4 { [3, 3, 5, 5] } else { [4, 4, 6, 6] };
        for (place, from) in places.into_iter().zip(pick) {
            operands[place] = old[from];
        }
        graph.add(op, &operands, &origin).ok()
    });
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

fn wider_windows(graph: &mut Graph) {
    edit(graph, &|line| {
        with_number(line, "window=", &|number| (number.parse::<u32>().expect("a number") + 1).to_string())
    });
}

/// Leaves an attribute out wherever it may be.
fn without_attribute(graph: &mut Graph, name: &str) {
    edit(graph, &|line| {
        let key = format!(", {name}=");
        let Some(at) = line.find(&key) else { return line.to_owned() };
        let (head, rest) = (&line[..at], &line[at + key.len()..]);
        let end = rest.find([',', '}']).unwrap_or(rest.len());
        format!("{head}{}", &rest[end..])
    });
}

fn forgotten_offset(graph: &mut Graph) {
    edit(graph, &|line| {
        if !line.contains("offset_gain") {
            return line.to_owned();
        }
        with_number(line, "by=", &|_| "0.0".to_owned())
    });
}

fn strict_thresholds(graph: &mut Graph) {
    edit(graph, &|line| {
        with_number(line, "at_least=", &|number| {
            format!("{:?}", number.parse::<f64>().expect("a number").next_up())
        })
    });
}

fn wider_groups(graph: &mut Graph) {
    edit(graph, &|line| {
        with_number(line, "group_size=", &|number| (number.parse::<u32>().expect("a number") + 1).to_string())
    });
}

fn swapped_projections(graph: &mut Graph) {
    if !text::print(graph).contains("gate_proj") {
        return;
    }
    edit(graph, &|line| {
        let is_gated = line.contains("up_proj") || line.contains("gate_proj");
        match is_gated {
            true => line
                .replace("gate_proj", "none_proj")
                .replace("up_proj", "gate_proj")
                .replace("none_proj", "up_proj"),
            false => line.to_owned(),
        }
    });
}

fn lost_base(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::Scatter {} = graph.op(value) else { return None };
        let (operands, origin) = (graph.operands(value), graph.origin(value).clone());
        let zero = graph.add(Binary::Sub.into(), &[operands[0], operands[0]], &origin).ok()?;
        graph.add(Op::Scatter {}, &[zero, operands[1], operands[2]], &origin).ok()
    });
}

/// The last norm of all rows, or what it scales them by, reads the embedding.
fn wrong_norm(graph: &mut Graph) {
    let order = graph.order();
    let Some(embed) = order.iter().find(|value| matches!(graph.op(**value), Op::Embed {})).copied() else {
        return;
    };
    let is_norm = |value: &&Value| {
        matches!(graph.op(**value), Op::RmsNorm { .. } | Op::LayerNorm { .. } | Op::InvRms { .. })
            && graph.operands(**value).first().is_some_and(|x| graph.ty(*x) == graph.ty(embed))
    };
    let Some(norm) = order.iter().rev().find(is_norm).copied() else { return };
    let (op, origin) = (graph.op(norm).clone(), graph.origin(norm).clone());
    let mut operands = graph.operands(norm);
    if operands[0] != embed {
        operands[0] = embed;
        let new = graph.add(op, &operands, &origin).expect("of the same type");
        graph.replace(norm, new).expect("of the same type");
        graph.remove_unused(norm);
    }
}

/// Rows go to the segment of the expert before theirs, but for those of the first.
fn next_expert(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::Partition { set, first, parts } = *graph.op(value) else { return None };
        let (operands, origin) = (graph.operands(value), graph.origin(value).clone());
        graph.add(Op::Partition { set, first: first + 1, parts }, &operands, &origin).ok()
    });
}

/// Weights are divided by their sum where they are not to be, and the other way round.
fn other_shares(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::Choose { k, sigmoid, normalise, scale, ranks } = *graph.op(value) else { return None };
        let (operands, origin) = (graph.operands(value), graph.origin(value).clone());
        let op = Op::Choose { k, sigmoid, normalise: !normalise, scale, ranks };
        graph.add(op, &operands, &origin).ok()
    });
}

fn unbiased_choice(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::Choose { .. } = graph.op(value) else { return None };
        let (op, origin) = (graph.op(value).clone(), graph.origin(value).clone());
        let operands = graph.operands(value);
        (operands.len() == 2).then(|| graph.add(op, &operands[..1], &origin).ok())?
    });
}

fn wider_places(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::LimitChoices { group_size, slots, experts } = *graph.op(value) else { return None };
        let (operands, origin) = (graph.operands(value), graph.origin(value).clone());
        graph.add(Op::LimitChoices { group_size: group_size + 1, slots, experts }, &operands, &origin).ok()
    });
}

/// What ranks choices among those of other rows is turned round: second choices come before first ones.
fn turned_ranks(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::LimitChoices { .. } = graph.op(value) else { return None };
        let (op, origin) = (graph.op(value).clone(), graph.origin(value).clone());
        let mut operands = graph.operands(value);
        let ranks = operands.get_mut(3)?;
        *ranks = graph.add(Unary::Scale(F64::from(-1.0)).into(), &[*ranks], &origin).ok()?;
        graph.add(op, &operands, &origin).ok()
    });
}

/// No choice is dropped: what found no place counts.
fn unlimited(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::LimitChoices { .. } = graph.op(value) else { return None };
        graph.operands(value).first().copied()
    });
}

/// Choices of one expert all have one rank, its index: earlier rows come first.
fn positions_first(plan: &mut Plan) {
    for kernel in kernels(plan) {
        if let Body::Rowwise(Rowwise::Limit(limit)) = &mut kernel.body
            && let Some(ranks) = &mut limit.ranks
        {
            *ranks = limit.index;
        }
    }
}

fn unscaled_scores(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::Attention { heads, .. } = *graph.op(value) else { return None };
        let (op, origin) = (graph.op(value).clone(), graph.origin(value).clone());
        let mut operands = graph.operands(value);
        let skipc_ir::Type::Tensor { dims, .. } = graph.ty(operands[0]) else { return None };
        let skipc_ir::Dim::Fixed(cols) = *dims.get(1)? else { return None };
        let by = F64::from(f64::from(cols / heads).sqrt());
        operands[0] = graph.add(Unary::Scale(by).into(), &[operands[0]], &origin).ok()?;
        if by.0 == 1.0 { None } else { graph.add(op, &operands, &origin).ok() }
    });
}

/// Attention over the caches as the step found them.
fn stale_keys(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::CachedAttention { .. } = graph.op(value) else { return None };
        let (op, origin) = (graph.op(value).clone(), graph.origin(value).clone());
        let mut operands = graph.operands(value);
        for operand in &mut operands[1..3] {
            if let Op::StoreRows {} = graph.op(*operand) {
                *operand = graph.operands(*operand)[0];
            }
        }
        graph.add(op, &operands, &origin).ok()
    });
}

/// Draws for the sequence's number in the step, not for that of its request.
fn renumbered_requests(graph: &mut Graph) {
    let order = graph.order();
    let input = |role: Role| {
        let is_it = |value: &&Value| matches!(graph.op(**value), Op::Input { port } if port.role == role);
        order.iter().find(is_it).copied()
    };
    let (Some(requests), Some(sequences)) = (input(Role::Requests), input(Role::Sequences)) else { return };
    rewrite(graph, &|graph, value| {
        let Op::RouteRandom { .. } = graph.op(value) else { return None };
        let (op, origin) = (graph.op(value).clone(), graph.origin(value).clone());
        let mut operands = graph.operands(value);
        let place = operands.iter().position(|operand| *operand == requests)?;
        operands[place] = sequences;
        graph.add(op, &operands, &origin).ok()
    });
}

/// A group that goes on in a step has all its slots again.
fn forgotten_capacity(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::LimitFirstAfter { set, group_size, slots } = *graph.op(value) else { return None };
        let (operands, origin) = (graph.operands(value), graph.origin(value).clone());
        graph.add(Op::LimitFirst { set, group_size, slots }, &operands[..3], &origin).ok()
    });
}

fn forgotten_rows(gates: &mut [Vec<bool>]) {
    gates.iter_mut().for_each(|mask| mask.fill(true));
}

fn restarted_positions(pieces: &mut [Piece]) {
    for FlatBatch { positions, sequences, .. } in pieces.iter_mut().map(|piece| &mut piece.batch) {
        let mut first: Option<(i64, i64)> = None;
        for (position, sequence) in positions.iter_mut().zip(sequences.iter()) {
            let begin = match first {
                Some((of, begin)) if of == *sequence => begin,
                _ => *position,
            };
            first = Some((*sequence, begin));
            *position -= begin;
        }
    }
}

/// Tokens after the first step lie one place further on.
fn shifted_places(pieces: &mut [Piece]) {
    for Piece { batch, cached, .. } in pieces {
        for (place, position) in cached.places.iter_mut().zip(&batch.positions) {
            *place += u32::from(*position > 0);
        }
    }
}

/// The first page of each sequence is one that nobody wrote, once it has been written.
fn stale_page(pieces: &mut [Piece]) {
    let n_used = pieces.iter().flat_map(|piece| &piece.cached.places).max().map_or(0, |last| last / 16 + 1);
    for Piece { batch, cached, .. } in pieces {
        let n_sequences = batch.sequences.iter().max().map_or(0, |last| last + 1) as usize;
        let n_pages = cached.pages.len() / n_sequences.max(1);
        for (idx, sequence) in batch.sequences.iter().enumerate() {
            if batch.positions[idx] > 0 {
                cached.pages[*sequence as usize * n_pages] = n_used;
            }
        }
    }
}

/// All sequences have the pages of the first.
fn shared_page(pieces: &mut [Piece]) {
    let Some(first) = pieces.first().and_then(|piece| piece.cached.pages.first().copied()) else { return };
    for Piece { cached, .. } in pieces {
        cached.places.iter_mut().for_each(|place| *place = first * 16 + *place % 16);
        cached.pages.iter_mut().filter(|page| **page != u32::MAX).for_each(|page| *page = first);
    }
}

fn kernels(plan: &mut Plan) -> impl Iterator<Item = &mut Kernel> {
    plan.kernels.iter_mut().map(|(_, kernel)| kernel)
}

fn compacted_positions(plan: &mut Plan) {
    for kernel in kernels(plan) {
        let views: Vec<&mut View> = match &mut kernel.body {
            Body::Attention(attention) => vec![&mut attention.q_pos],
            Body::Rowwise(Rowwise::Rope { positions, .. }) => vec![positions],
            _ => Vec::new(),
        };
        views.into_iter().for_each(|view| view.rows = Rows::Dense);
    }
}

fn programs(plan: &mut Plan) -> impl Iterator<Item = &mut Pointwise> {
    kernels(plan).flat_map(|kernel| match &mut kernel.body {
        Body::Gemm(gemm) => gemm.parts.iter_mut().map(|part| &mut part.epilogue).collect(),
        Body::Rowwise(Rowwise::Map { program, .. }) => vec![program],
        _ => Vec::new(),
    })
}

fn wrong_probability(plan: &mut Plan) {
    for inst in programs(plan).flat_map(|program| &mut program.code) {
        if let Inst::LoadRow(view) = inst {
            view.rows = Rows::Dense;
        }
    }
}

fn lost_residual(plan: &mut Plan) {
    for kernel in kernels(plan) {
        let Body::Gemm(gemm) = &mut kernel.body else { continue };
        for Pointwise { code, stores } in gemm.parts.iter_mut().map(|part| &mut part.epilogue) {
            for store in stores {
                if let Some(Inst::Binary(Binary::Add, a, b)) = code.get(store.value.0 as usize).copied() {
                    let is_sum = matches!(code.get(a.0 as usize), Some(Inst::Acc(_)));
                    store.value = if is_sum { a } else { b };
                }
            }
        }
    }
}

fn short_tail(plan: &mut Plan) {
    let rows = plan.function.max_tokens;
    for kernel in kernels(plan) {
        if let (Body::Gemm(_), Extent::Counted { at_most, .. }) = (&kernel.body, kernel.extent)
            && at_most == rows
        {
            kernel.extent = Extent::Fixed(rows - 1);
        }
    }
}

fn one_slot_less(plan: &mut Plan) {
    for kernel in kernels(plan) {
        if let Body::Compact(Compact { select: Select::Ranked(ranked), .. }) = &mut kernel.body
            && let skipc_plan::kernel::Keep::Slots(slots) = &mut ranked.keep
        {
            *slots = slots.saturating_sub(1);
        }
    }
}

fn wrong_order(plan: &mut Plan) {
    for kernel in kernels(plan) {
        if let Body::Compact(Compact { select: Select::Ranked(ranked), .. }) = &mut kernel.body {
            ranked.order = RankOrder::Position;
        }
    }
}

/// The two widest buffers that live together lie in one place.
fn stale_buffer(plan: &mut Plan) {
    let buffers = &plan.function.buffers;
    let lives = |idx: usize| {
        buffers[idx].live.filter(|_| buffers[idx].place().is_some_and(|place| place.row_offset > 0))
    };
    let pairs = (0..buffers.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
    let together = |(a, b): &(usize, usize)| match (lives(*a), lives(*b)) {
        (Some(a), Some(b)) => a.0.max(b.0) < a.1.min(b.1),
        _ => false,
    };
    let widest = pairs.filter(together).max_by_key(|(a, b)| buffers[*a].cols.min(buffers[*b].cols));
    if let Some((a, b)) = widest {
        plan.function.buffers[b].storage = plan.function.buffers[a].storage;
    }
}

/// The last step that reads a row list reads that of another set.
fn wrong_rows(plan: &mut Plan) {
    let lists: BTreeSet<u32> = plan
        .function
        .steps
        .iter()
        .filter_map(|step| match &plan.kernels[step.kernel as usize].1.body {
            Body::Compact(compact) => match step.args[compact.rows.0 as usize] {
                Arg::Buffer(buffer) => Some(buffer),
                Arg::Constant(_) => None,
            },
            _ => None,
        })
        .collect();
    let (Some(first), Some(last)) = (lists.first(), lists.last()) else { return };
    for step in &mut plan.function.steps {
        if !matches!(plan.kernels[step.kernel as usize].1.body, Body::Compact(_)) {
            for arg in step.args.iter_mut().filter(|arg| **arg == Arg::Buffer(*last)) {
                *arg = Arg::Buffer(*first);
            }
        }
    }
}

fn lost_step(plan: &mut Plan) {
    let n_steps = plan.function.steps.len();
    if n_steps > 3 {
        plan.function.steps.remove(n_steps - 3);
    }
}

/// A row of the table.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
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

fn plant(fault: &Fault) -> Row {
    let mut row =
        Row { fault: fault.name.to_owned(), seeds: Vec::new(), unseen: 0, caught_by: BTreeSet::new() };
    for seed in fault.from..fault.from + TRIES {
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
        let twin = check_caught(&Honest, &subject, Until::Code);
        assert!(twin.findings.is_empty(), "seed {seed} without a fault: {:?}", twin.findings);
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

fn table() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ledger/planted.json")
}

#[test]
fn every_planted_fault_is_caught_and_the_table_says_by_what() {
    let faults = faults();
    let rows: Vec<Row> = faults.iter().map(plant).collect();
    let missed: Vec<&str> =
        rows.iter().filter(|row| row.seeds.is_empty()).map(|row| row.fault.as_str()).collect();
    let text = serde_json::to_string_pretty(&rows).expect("a table") + "\n";
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(table(), &text).expect("the table can be written");
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
    let known = std::fs::read_to_string(table()).unwrap_or_default();
    assert!(known == text, "{text}\nIf this is right: BLESS=1, and read the diff before you commit.");
}
