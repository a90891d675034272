//! Random models: every option of a spec, sizes at their edges.

use skipc::frontend::layer::{Activation, Attention, Ffn, Layer, Linear};
use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::node::{Block, Node, Route};
use skipc::frontend::spec::skip::{BranchScale, Decide, Input, Kv, Overflow, Skip};
use skipc::frontend::spec::skip_table::{GenerateKind, Router, SkipTable};
use skipc::frontend::stream::{Norm, NormKind, Positions, Stream};
use skipc_testkit::random::Rng;

/// Sub-layers of a model, at most: about 40 ops that compute something.
const MAX_LAYERS: usize = 4;

const DENSITIES: [f64; 8] = [0.0, 0.125, 0.25, 0.5, 0.5, 0.75, 0.9, 1.0];
const ROUTERS: [Router; 11] = [
    Router::Gumbel,
    Router::Gumbel,
    Router::Sigmoid,
    Router::Sigmoid,
    Router::TopK,
    Router::TopK,
    Router::Random,
    Router::Hash,
    Router::Highway,
    Router::Always,
    Router::Never,
];

/// One of a list that is not empty.
pub(crate) fn one_of<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.below(from.len())]
}

/// A model that the frontend accepts. `longest` is the longest sequence that it will see.
pub(crate) fn model(rng: &mut Rng, longest: usize) -> Model {
    let positions = match rng.below(4) {
        0 | 1 => Positions::Rope { theta: one_of(rng, &[1.5, 100.0, 10_000.0]) },
        2 => Positions::Learned,
        _ => Positions::None,
    };
    let kind = if rng.one_in(2) { NormKind::LayerNorm } else { NormKind::RmsNorm };
    let d_model = 2 + rng.below(15);
    let mut blocks: Vec<Block> = Vec::new();
    let mut n_layers = 0;
    for idx in 0..one_of(rng, &[1, 1, 1, 2, 2, 3]) {
        let room = MAX_LAYERS - n_layers;
        if room == 0 {
            break;
        }
        // A block that stands twice in the stack.
        let again = blocks.last().filter(|last| last.body.n_layers() <= room).cloned();
        let block = match again {
            Some(block) if rng.one_in(5) => block,
            _ => {
                let n_layers = room.min(1 + rng.below(3));
                block(rng, idx, n_layers, positions)
            }
        };
        n_layers += block.body.n_layers();
        blocks.push(block);
    }
    Model {
        name: "generated".to_owned(),
        stream: Stream {
            vocab_size: 3 + rng.below(9),
            d_model,
            max_positions: longest.max(1) + one_of(rng, &[0, 0, 1, 7]),
            norm: Norm { kind, eps: one_of(rng, &[1e-5, 1e-5, 1e-3, 0.1]) },
            positions,
            tie_embeddings: rng.one_in(2),
        },
        blocks,
    }
}

fn block(rng: &mut Rng, idx: usize, n_layers: usize, positions: Positions) -> Block {
    let mut layers: Vec<Node> = (0..n_layers).map(|_| Node::Residual(layer(rng, positions))).collect();
    let name = format!("b{idx}");
    let body = match rng.below(8) {
        0 => Node::Sequence(layers),
        1..=4 => routed(skip(rng, true), Node::Sequence(layers)),
        _ => {
            for layer in &mut layers {
                if !rng.one_in(4) {
                    *layer = routed(skip(rng, false), layer.clone());
                }
            }
            Node::Sequence(layers)
        }
    };
    Block { name, body }
}

fn routed(skip: Skip, executed: Node) -> Node {
    Node::Route(Route { skip, executed: Box::new(executed) })
}

/// The model with other skips; what `change` gives none for is no longer skipped.
pub(crate) fn map_skips(model: &Model, change: &mut dyn FnMut(&Skip) -> Option<Skip>) -> Model {
    let mut model = model.clone();
    for block in &mut model.blocks {
        block.body = map_node(&block.body, change);
    }
    model
}

fn map_node(node: &Node, change: &mut dyn FnMut(&Skip) -> Option<Skip>) -> Node {
    match node {
        Node::Sequence(nodes) => Node::Sequence(nodes.iter().map(|node| map_node(node, change)).collect()),
        Node::Residual(layer) => Node::Residual(*layer),
        Node::Route(route) => {
            let skip = change(&route.skip);
            let executed = map_node(&route.executed, change);
            skip.map_or(executed.clone(), |skip| routed(skip, executed))
        }
    }
}

/// A node with another list of layers.
pub(crate) fn map_layers(node: &Node, change: impl FnOnce(&mut Vec<Node>)) -> Node {
    match node {
        Node::Sequence(nodes) => {
            let mut nodes = nodes.clone();
            change(&mut nodes);
            Node::Sequence(nodes)
        }
        Node::Route(route) => routed(route.skip, map_layers(&route.executed, change)),
        Node::Residual(_) => panic!("the body of a block is a sequence, or a route around one"),
    }
}

fn layer(rng: &mut Rng, positions: Positions) -> Layer {
    if rng.one_in(8) {
        Layer::Linear(Linear { bias: rng.one_in(2) })
    } else if rng.one_in(2) {
        let heads = one_of(rng, &[1, 2, 2, 3, 4]);
        let divisors: Vec<usize> = (1..=heads).filter(|count| usize::is_multiple_of(heads, *count)).collect();
        let kv_heads = one_of(rng, &divisors);
        let head_dim = match positions {
            Positions::Rope { .. } => one_of(rng, &[2, 2, 4, 6]),
            _ => 1 + rng.below(6),
        };
        Layer::Attention(Attention { heads, kv_heads, head_dim })
    } else {
        let activations =
            [Activation::Gelu, Activation::Relu, Activation::Relu2, Activation::SwiGlu, Activation::GeGlu];
        Layer::Ffn(Ffn { d_ff: 1 + rng.below(24), activation: one_of(rng, &activations) })
    }
}

fn skip(rng: &mut Rng, of_block: bool) -> Skip {
    let router = one_of(rng, &ROUTERS);
    let mut skip = SkipTable::of_router(router);
    skip.density = if rng.one_in(4) { rng.below(1000) as f64 / 1000.0 } else { one_of(rng, &DENSITIES) };
    if skip.skip().scorer().is_some() {
        skip.input = if rng.one_in(2) { Input::Raw } else { Input::Normed };
        skip.bias = rng.one_in(2);
        if !of_block {
            skip.decide = if rng.one_in(2) { Decide::Entry } else { Decide::Here };
        }
    }
    if router != Router::Highway {
        skip.kv = if rng.one_in(2) { Kv::Active } else { Kv::All };
        skip.gate = if rng.one_in(3) { BranchScale::Probability } else { BranchScale::One };
        capacity(rng, &mut skip);
    }
    if router == Router::TopK && rng.one_in(2) {
        skip.generate = GenerateKind::Threshold;
    }
    if router == Router::Sigmoid || skip.generate == GenerateKind::Threshold {
        skip.threshold = one_of(rng, &[0.5, 0.5, 0.25, 0.6, 0.01]);
    }
    if [Router::Random, Router::Hash].contains(&router) {
        // Few seeds, so that two routers of one block may decide alike.
        skip.seed = one_of(rng, &[0, 0, 1, 12_345_678_901_234]);
    }
    skip.skip()
}

fn capacity(rng: &mut Rng, skip: &mut SkipTable) {
    if !rng.one_in(3) {
        return;
    }
    skip.group_size = one_of(rng, &[1, 2, 3, 4, 5, 8, 1000]);
    skip.capacity_factor = one_of(rng, &[0.1, 0.5, 1.0, 1.25, 1.25, 3.0]);
    skip.overflow = if rng.one_in(2) { Overflow::Score } else { Overflow::Position };
}
