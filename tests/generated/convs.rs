//! Convolutions in random models: alone and with other layers, skipped, in stacks, beside experts.

use skipc::frontend::function::ElementFunction;
use skipc::frontend::language::words::Word as _;
use skipc::frontend::layer::{Conv, Layer};
use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::node::{Node, SubLayer};
use skipc::frontend::spec::skip_table::SkipTable;
use skipc_testkit::random::Rng;

use crate::model::{map_bodies, map_sub_layers, one_of};

/// The first seed whose subjects have convolutions. Those below have none, so that they stay what they were.
pub(crate) const FIRST_SEED: u64 = 1 << 52;

/// Taps: the token alone, few, about as many as a short sequence has tokens, more than any has.
const KERNELS: [usize; 8] = [1, 2, 3, 4, 4, 7, 9, 50];

const ACTIVATIONS: [ElementFunction; 8] = [
    ElementFunction::None,
    ElementFunction::None,
    ElementFunction::Relu,
    ElementFunction::Relu2,
    ElementFunction::Gelu,
    ElementFunction::GeluErf,
    ElementFunction::Silu,
    ElementFunction::Tanh,
];

/// The model with convolutions in place of most of its layers, but for those of experts.
pub(crate) fn with_convs(rng: &mut Rng, model: &Model) -> Model {
    map_bodies(model, &mut |body| {
        map_sub_layers(body, &mut |of| match of.layer {
            Layer::Experts(_) => *of,
            _ if rng.one_in(3) => *of,
            _ => SubLayer { layer: Layer::Conv(conv(rng)), ..*of },
        })
    })
}

fn conv(rng: &mut Rng) -> Conv {
    Conv { kernel: one_of(rng, &KERNELS), activation: one_of(rng, &ACTIVATIONS), bias: rng.one_in(2) }
}

/// What the options of [`options`] begin with.
pub(crate) const OPTION: &str = "convs: ";

/// What is said of the convolutions of a model, as `convs: option = value`.
pub(crate) fn options(model: &Model) -> Vec<String> {
    let mut found = Vec::new();
    for block in &model.blocks {
        of_node(&block.body, "none", &mut found);
    }
    for stack in model.stacks.iter().filter(|stack| stack.repeat > 1) {
        let of_stack = stack.skips.first().map_or("none", |skip| SkipTable::of(skip).kv.word());
        found.push(format!("keys of a repetition = {of_stack}"));
    }
    let has_convs = !found.is_empty() && model.layers().any(|layer| matches!(layer, Layer::Conv(_)));
    found.retain(|_| has_convs);
    found.into_iter().map(|option| format!("{OPTION}{option}")).collect()
}

/// The options of a part, whose nearest skip has these `keys`.
fn of_node(node: &Node, keys: &str, found: &mut Vec<String>) {
    match node {
        Node::Sequence(nodes) | Node::Parallel(nodes) => {
            let layers = || nodes.iter().filter_map(Node::first_layer).map(|of| &of.layer);
            if layers().any(|layer| matches!(layer, Layer::Conv(_))) {
                let is_parallel = matches!(node, Node::Parallel(_));
                found.push(format!("layers = {}, parallel = {is_parallel}", nodes.len()));
                let has_experts = layers().any(|layer| matches!(layer, Layer::Experts(_)));
                found.push(format!("beside experts = {has_experts}"));
            }
            nodes.iter().for_each(|node| of_node(node, keys, found));
        }
        Node::Residual(of) => {
            let Layer::Conv(Conv { kernel, activation, bias }) = of.layer else { return };
            found.push(format!("kernel = {kernel}"));
            found.push(format!("activation = {}", activation.word()));
            found.push(format!("bias = {bias}"));
            found.push(format!("norms = {}", of.norms().word()));
            found.push(format!("keys = {keys}"));
        }
        Node::Route(route) => {
            of_node(&route.executed, SkipTable::of(&route.skip).kv.word(), found);
            if let Some(other) = &route.otherwise {
                of_node(other, "those of another branch", found);
            }
        }
    }
}
