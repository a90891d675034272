//! Stacks in random models: blocks that run several times, with weights of their own or shared, and decisions over their
//! repetitions.

use skipc::frontend::language::words::Word as _;
use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::node::{Block, Node};
use skipc::frontend::spec::skip::{Combine, Decider, Either, Kv, Skip};
use skipc::frontend::spec::skip_table::{Router, SkipTable};
use skipc::frontend::spec::stack::Stack;
use skipc::frontend::stream::StreamInput;
use skipc_testkit::random::Rng;

use crate::choices;
use crate::model::{DENSITIES, one_of, skip as of_block};

/// The first seed whose subjects have stacks. Those below have none, so that they stay what they were.
pub(crate) const FIRST_SEED: u64 = 1 << 50;

/// Sub-layers of all repetitions, at most.
const MAX_LAYERS: usize = 8;

/// The model with some of its blocks in a stack that repeats them. Blocks before and behind it run once.
pub(crate) fn with_stacks(rng: &mut Rng, model: &Model) -> Model {
    let n_blocks = model.blocks.len();
    let from = rng.below(n_blocks);
    let to = from + 1 + rng.below(n_blocks - from);
    let of_all = |blocks: &[Block]| blocks.iter().map(|block| block.body.n_layers()).sum::<usize>();
    let once = of_all(&model.blocks) - of_all(&model.blocks[from..to]);
    let most = MAX_LAYERS.saturating_sub(once) / of_all(&model.blocks[from..to]).max(1);
    let repeat = (2 + rng.below(2)).min(most.max(2));
    let share = rng.one_in(2);
    let decides = !share || !rng.one_in(4);
    let mut repeated: Vec<Block> = model.blocks[from..to].to_vec();
    for block in &mut repeated {
        // What stands in a stack may not look like a block elsewhere that has the name.
        block.name = format!("r-{}", block.name);
        if decides {
            block.body = without_skips(&block.body);
        }
    }
    let skips = match decides {
        true => {
            let has_norm = repeated[0].body.first_layer().is_some_and(|layer| layer.pre.is_some());
            let takes_ids = model.stream.input == StreamInput::Tokens;
            skips(rng, (has_norm, takes_ids), (repeat, share))
        }
        false => Vec::new(),
    };
    let plain = |blocks: usize| Stack { blocks, repeat: 1, share: false, skips: Vec::new() };
    let all = [plain(from), Stack { blocks: to - from, repeat, share, skips }, plain(n_blocks - to)];
    let repeated = vec![repeated; repeat].concat();
    let blocks = [&model.blocks[..from], &repeated, &model.blocks[to..]].concat();
    let stacks = all.into_iter().filter(|stack| stack.blocks > 0).collect();
    Model { blocks, stacks, ..model.clone() }
}

fn without_skips(node: &Node) -> Node {
    match node {
        Node::Sequence(nodes) => Node::Sequence(nodes.iter().map(without_skips).collect()),
        Node::Parallel(nodes) => Node::Parallel(nodes.iter().map(without_skips).collect()),
        Node::Residual(layer) => Node::Residual(*layer),
        Node::Route(route) => without_skips(&route.executed),
    }
}

/// The decision over each repetition.
fn skips(rng: &mut Rng, (has_norm, takes_ids): (bool, bool), (repeat, share): (usize, bool)) -> Vec<Skip> {
    let drawn = loop {
        let drawn = of_block(rng, true, has_norm);
        if takes_ids || Router::of(&drawn) != Router::Hash {
            break drawn;
        }
    };
    let drawn = if rng.one_in(2) { choices::skip(rng, &drawn, false) } else { drawn };
    let mut table = SkipTable::of(&drawn);
    if rng.one_in(4) {
        table = depth(rng, &table, has_norm);
    }
    if table.router != Router::Highway {
        table.nested = table.router != Router::Depth && rng.one_in(2);
        table.kv = if share && rng.one_in(3) { Kv::First } else { table.kv };
    }
    let each = table.skip().has_density() && rng.one_in(2);
    (0..repeat)
        .map(|repetition| {
            let mut table = table;
            if each {
                table.density = one_of(rng, &DENSITIES);
            }
            of_repetition(&table.skip(), repeat, repetition)
        })
        .collect()
}

/// The same choice, made once for all repetitions.
fn depth(rng: &mut Rng, of: &SkipTable, has_norm: bool) -> SkipTable {
    use skipc::frontend::spec::skip::{BranchScale, Input};
    let base = SkipTable::of_router(Router::Depth);
    let gate = if of.gate == BranchScale::Score { BranchScale::One } else { of.gate };
    SkipTable {
        input: if has_norm && rng.one_in(2) { Input::Normed } else { Input::Raw },
        bias: rng.one_in(2),
        decider: if of.decider.is_pooled() { base.decider } else { of.decider },
        kv: of.kv,
        gate,
        gate_factor: if gate == BranchScale::One { 1.0 } else { of.gate_factor },
        combine: of.combine,
        ..base
    }
}

/// What a stack's skip says of one repetition.
fn of_repetition(skip: &Skip, repetitions: usize, repetition: usize) -> Skip {
    let Combine::Either(either @ Either { decider: Decider::Depth { scorer, .. }, .. }) = skip.combine else {
        return *skip;
    };
    let decider = Decider::Depth { scorer, repetitions, repetition };
    let density = (repetitions - repetition) as f64 / repetitions as f64;
    Skip { density, combine: Combine::Either(Either { decider, ..either }) }
}

/// What the options of [`options`] begin with.
pub(crate) const OPTION: &str = "stack: ";

/// What is said of the stacks of a model, as `stack: option = value`.
pub(crate) fn options(model: &Model) -> Vec<String> {
    let mut found = Vec::new();
    for (idx, stack) in model.stacks.iter().enumerate().filter(|(_, stack)| stack.repeat > 1) {
        found.push(format!("repeat = {}", stack.repeat));
        found.push(format!("share = {}", stack.share));
        found.push(format!("behind others = {}", idx > 0));
        let Some(skip) = stack.skips.first().map(SkipTable::of) else {
            found.push("router = none".to_owned());
            continue;
        };
        let router = skip.router.word();
        found.push(format!("router = {router}"));
        found.push(format!("kv = {}", skip.kv.word()));
        found.push(format!("combine = {}", skip.combine.word()));
        found.push(format!("gate = {}", skip.gate.word()));
        let densities = stack.skips.iter().map(|skip| skip.density);
        let differ = skip.router != Router::Depth && densities.clone().any(|density| density != skip.density);
        found.push(format!("list of densities = {differ}"));
        if ![Router::Highway, Router::Depth].contains(&skip.router) {
            found.push(format!("nested = {} ({router})", skip.nested));
        }
    }
    found.into_iter().map(|option| format!("{OPTION}{option}")).collect()
}
