//! Random models with the ends of an encoder: patches in place of token ids, attention to all tokens, scores of whole sequences.

use skipc::frontend::language::words::Word as _;
use skipc::frontend::layer::{Choosing, Layer, Mask};
use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::node::{Node, SubLayer};
use skipc::frontend::spec::skip::{Decider, Skip};
use skipc::frontend::stream::{Head, Patches, Pool, Pooled, StreamInput};
use skipc_testkit::random::Rng;

use crate::model::{map_bodies, map_sub_layers, one_of};

/// The first seed whose subjects have such ends. Those below have none, so that they stay what they were.
pub(crate) const FIRST_SEED: u64 = 1 << 51;

/// The model with other ends, and its attention to all tokens in some blocks.
pub(crate) fn with_ends(rng: &mut Rng, model: &Model) -> Model {
    let mut model = map_bodies(model, &mut |body| match rng.one_in(3) {
        true => body.clone(),
        false => map_sub_layers(body, &mut with_full_mask),
    });
    let of_layers = model.blocks.iter().any(|block| node_takes_ids(&block.body));
    let takes_ids = of_layers || model.skips().any(skip_takes_ids);
    let stream = &mut model.stream;
    if !takes_ids && !rng.one_in(4) {
        stream.input = StreamInput::Patches;
        stream.patches = Some(Patches { dim: 1 + rng.below(9), class_token: rng.one_in(2) });
        stream.vocab_size = 0;
        stream.embed_scale = one_of(rng, &[1.0, 1.0, 2.25]);
    }
    let scores_tokens = stream.input == StreamInput::Tokens && rng.one_in(4);
    if !scores_tokens {
        (stream.tie_embeddings, stream.logit_softcap) = (false, None);
        let is_pooled = !rng.one_in(4);
        stream.head = if is_pooled { Head::Pooled } else { Head::Rows };
        let pool = one_of(rng, &[Pool::Mean, Pool::First, Pool::Last]);
        stream.pooled = is_pooled.then(|| Pooled { pool, classes: 1 + rng.below(6) });
        stream.head_bias = is_pooled && rng.one_in(2);
    } else if stream.head != Head::Tokens {
        stream.head = Head::Tokens;
    }
    model
}

fn skip_takes_ids(skip: &Skip) -> bool {
    matches!(skip.decider(), Some(Decider::Hash { .. }))
}

/// Whether a layer of these takes experts by the ids of tokens.
fn node_takes_ids(node: &Node) -> bool {
    match node {
        Node::Sequence(nodes) | Node::Parallel(nodes) => nodes.iter().any(node_takes_ids),
        Node::Residual(of) => {
            matches!(of.layer, Layer::Experts(experts) if experts.choose == Choosing::Hash)
        }
        Node::Route(route) => {
            node_takes_ids(&route.executed) || route.otherwise.as_deref().is_some_and(node_takes_ids)
        }
    }
}

fn with_full_mask(of: &SubLayer) -> SubLayer {
    let mut layer = of.layer;
    if let Layer::Attention(attention) = &mut layer {
        attention.mask = Mask::Full;
    }
    SubLayer { layer, ..*of }
}

/// What the options of [`options`] begin with.
pub(crate) const OPTION: &str = "ends: ";

/// What is said of the ends of a model, as `ends: option = value`.
pub(crate) fn options(model: &Model) -> Vec<String> {
    let stream = &model.stream;
    let pool = stream.pooled.map_or("none", |pooled| pooled.pool.word());
    let class_token = stream.patches.map_or("no patches".to_owned(), |of| of.class_token.to_string());
    let mut found = vec![
        format!("input = {}", stream.input.word()),
        format!("head = {}", stream.head.word()),
        format!("pool = {pool}"),
        format!("head_bias = {} ({})", stream.head_bias, stream.head.word()),
        format!("cls_token = {class_token}"),
    ];
    for layer in model.layers() {
        if let Layer::Attention(attention) = layer {
            let has_window = attention.window.is_some();
            found.push(format!("mask = {}, window = {has_window}", attention.mask.word()));
        }
    }
    found.into_iter().map(|option| format!("{OPTION}{option}")).collect()
}
