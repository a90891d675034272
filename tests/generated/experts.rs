//! Layers of experts in random models, and where rounding decides which of them a row takes.

use skipc::frontend::language::words::Word as _;
use skipc::frontend::layer::{Choosing, Experts, ExpertsFirst, Layer, Score};
use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::node::SubLayer;
use skipc::frontend::stream::StreamInput;
use skipc_ir::interp::functions;
use skipc_ir::{Graph, Op, Ranking, Value};
use skipc_testkit::random::Rng;

use crate::bounded::Bounded;
use crate::model::{ACTIVATIONS, map_bodies, map_sub_layers, one_of};
use crate::subject::Tensors;

/// The first seed whose subjects have experts. Those below have none, so that they stay what they were.
pub(crate) const FIRST_SEED: u64 = 1 << 49;

/// The model with experts in place of most of its feed-forward layers.
pub(crate) fn with_experts(rng: &mut Rng, model: &Model) -> Model {
    let takes_ids = model.stream.input == StreamInput::Tokens;
    map_bodies(model, &mut |body| {
        map_sub_layers(body, &mut |of| match of.layer {
            Layer::Ffn(_) if !rng.one_in(4) => {
                SubLayer { layer: Layer::Experts(experts(rng, takes_ids)), ..*of }
            }
            _ => *of,
        })
    })
}

/// Few experts, so that some have many tokens and some none.
fn experts(rng: &mut Rng, takes_ids: bool) -> Experts {
    let experts = 1 + rng.below(5);
    let [zero, copy] = [0, 1].map(|_| one_of(rng, &[0, 0, 0, 1, 2]));
    let n = experts + zero + copy;
    let some = 1 + rng.below(n);
    let shared_d_ff = if rng.one_in(3) { 1 + rng.below(9) } else { 0 };
    let made = Experts {
        experts,
        top_k: one_of(rng, &[1, 1, n, some]),
        d_ff: 1 + rng.below(12),
        activation: one_of(rng, &ACTIVATIONS),
        bias: rng.one_in(4),
        score: one_of(rng, &[Score::Softmax, Score::Sigmoid]),
        normalise: rng.one_in(2),
        routed_scale: one_of(rng, &[1.0, 1.0, 2.5]),
        router_bias: rng.one_in(4),
        select_bias: rng.one_in(4),
        zero,
        copy,
        shared_d_ff,
        shared_gate: shared_d_ff > 0 && rng.one_in(2),
        choose: Choosing::Token,
        seed: 0,
        group_size: 0,
        capacity_factor: 1.25,
        overflow: ExpertsFirst::Position,
    };
    match rng.below(8) {
        0 | 1 => made,
        2 if takes_ids => Experts {
            choose: Choosing::Hash,
            seed: one_of(rng, &[0, 1, 12_345_678_901_234]),
            top_k: 1,
            score: Score::Softmax,
            normalise: false,
            routed_scale: 1.0,
            router_bias: false,
            select_bias: false,
            ..made
        },
        3 | 4 => Experts {
            choose: Choosing::Expert,
            top_k: 1 + rng.below(experts),
            group_size: one_of(rng, &[0, 0, 1, 3, 4, 1000]),
            normalise: false,
            routed_scale: 1.0,
            zero: 0,
            copy: 0,
            ..made
        },
        _ => Experts {
            group_size: one_of(rng, &[1, 2, 3, 4, 5, 8, 1000]),
            capacity_factor: one_of(rng, &[0.1, 0.5, 1.0, 1.25, 3.0]),
            overflow: one_of(rng, &[ExpertsFirst::Position, ExpertsFirst::Choice, ExpertsFirst::Score]),
            ..made
        },
    }
}

/// What the options of [`options`] begin with.
pub(crate) const OPTION: &str = "experts: ";

/// What is said of the experts of a model, as `experts: option = value`.
pub(crate) fn options(experts: &Experts) -> Vec<String> {
    let taken = match experts.top_k {
        1 => "one",
        k if k == experts.choices() => "all",
        _ => "some",
    };
    let is_limited = experts.choose == Choosing::Token && experts.group_size > 0;
    let is_hashed = experts.choose == Choosing::Hash;
    let numbers = [
        (experts.group_size > 0).then(|| format!("group_size = {}", experts.group_size)),
        is_limited.then(|| format!("capacity_factor = {}", experts.capacity_factor)),
        is_hashed.then(|| format!("seed = {}", experts.seed)),
    ];
    let found = [
        format!("top_k = {taken}"),
        format!("activation = {}", experts.activation.word()),
        format!("bias = {}", experts.bias),
        format!("score = {}", experts.score.word()),
        format!("normalise = {}", experts.normalise),
        format!("routed_scale = {}", experts.routed_scale),
        format!("router_bias = {}", experts.router_bias),
        format!("select_bias = {}", experts.select_bias),
        format!("zero = {}", experts.zero),
        format!("copy = {}", experts.copy),
        format!("shared = {}", experts.shared_d_ff > 0),
        format!("shared_gate = {}", experts.shared_gate),
        format!("choose = {}, in groups = {}", experts.choose.word(), experts.group_size > 0),
        match experts.choose {
            Choosing::Token if experts.group_size > 0 => format!("overflow = {}", experts.overflow.word()),
            _ => "overflow = none".to_owned(),
        },
    ];
    found.into_iter().chain(numbers.into_iter().flatten()).map(|option| format!("{OPTION}{option}")).collect()
}

/// A choice of experts in a graph.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    /// Of how many.
    pub(crate) n: usize,
    k: usize,
    sigmoid: bool,
    /// The tensor that scores are ranked with.
    bias: Option<String>,
    /// What choices rank by among those of other rows.
    ranks: Option<Ranking>,
}

impl Chosen {
    /// The choices of a graph, each with the logits that it is made from.
    pub(crate) fn all(graph: &Graph) -> Vec<(Chosen, Value)> {
        let chosen = |value: Value| {
            let (k, sigmoid, ranks, bias_at) = if let Op::Choose { k, sigmoid, ranks, .. } = *graph.op(value)
            {
                (k, sigmoid, ranks, 1)
            } else if let Op::ChooseOrReplay { k, sigmoid, ranks, .. } = *graph.op(value) {
                (k, sigmoid, ranks, 2)
            } else {
                return None;
            };
            let operands = graph.operands(value);
            let name = |bias: &Value| {
                let Op::Weight { name, .. } = graph.op(*bias) else { return None };
                Some(name.0.to_string())
            };
            let bias = operands.get(bias_at).and_then(name);
            let n = graph.ty(operands[0]).cols() as usize;
            Some((Chosen { n, k: k as usize, sigmoid, bias, ranks }, operands[0]))
        };
        graph.order().into_iter().filter_map(chosen).collect()
    }

    /// Whether rounding may decide which experts rows of these logits take: two numbers that are compared are nearer to each
    /// other than their errors, of which so many count.
    pub(crate) fn is_near(&self, logits: &[Bounded], weights: &Tensors, slack: f64) -> bool {
        let bias = self.bias.as_ref().and_then(|name| weights.get(name));
        let bias = |choice: usize| bias.map_or(0.0, |bias| f64::from(bias[choice]));
        let rows: Vec<&[Bounded]> = logits.chunks_exact(self.n).collect();
        let ranks: Vec<Vec<Bounded>> = rows
            .iter()
            .map(|logits| {
                let mut ranks = logits.to_vec();
                functions::scores(&mut ranks, self.sigmoid);
                let biased = |(choice, rank): (usize, Bounded)| match bias(choice) {
                    0.0 => rank,
                    bias => rank.plus(bias),
                };
                ranks.into_iter().enumerate().map(biased).collect()
            })
            .collect();
        let apart = |a: &Bounded, b: &Bounded| (a.value - b.value).abs() > slack * (a.error + b.error);
        let in_row = |row: usize| {
            let (logits, ranks) = (rows[row], &ranks[row]);
            // The lower index is taken of what is equal for certain.
            let certain = |a: usize, b: usize| {
                apart(&ranks[a], &ranks[b]) || (logits[a].is_exactly(&logits[b]) && bias(a) == bias(b))
            };
            let mut order: Vec<usize> = (0..self.n).collect();
            order.sort_by(|a, b| ranks[*b].value.total_cmp(&ranks[*a].value));
            let (taken, left) = order.split_at(self.k.min(self.n));
            let in_turn = self.ranks == Some(Ranking::Turn);
            let turns = taken.windows(2).any(|pair| in_turn && !certain(pair[0], pair[1]));
            turns || taken.iter().any(|a| left.iter().any(|b| !certain(*a, *b)))
        };
        // Rows that are computed alike are equal in every form, and the earlier one comes first.
        let of_expert = |expert: usize| {
            let mut ranks: Vec<Bounded> = ranks.iter().map(|row| row[expert]).collect();
            ranks.sort_by(|a, b| a.value.total_cmp(&b.value));
            ranks.windows(2).any(|pair| pair[0] != pair[1] && !apart(&pair[0], &pair[1]))
        };
        (0..rows.len()).any(in_row) || (self.ranks == Some(Ranking::Score) && (0..self.n).any(of_expert))
    }
}
