//! Layers of experts: each token takes some of several feed-forward layers, and counts them by a score.
//!
//! A row's choices stand in ascending order. For each place in that order the rows are cut into segments by the expert that
//! stands there, so that one matmul has all experts, and what experts give a row is added in their order. A choice for which
//! its expert has no place is in no segment; experts that choose are places of every row, of which most are empty.

use serde::Serialize;
use skipc_ir::attr::F64;
use skipc_ir::{Binary, Op, Ranking, Unary};

use super::{Activation, Ffn, LayerKind, Surroundings};
use crate::frontend::build::{Build, LayerInput, TensorRole};
use crate::frontend::language::limits;
use crate::frontend::language::read::{Ctx, Fields};
use crate::frontend::language::words::{Word, text, words};
use crate::frontend::stream::{Stream, StreamInput};

/// Experts, then choices that give nothing, then choices that give the layer's normed input.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Experts {
    /// How many experts.
    pub experts: usize,
    /// How many choices a token takes.
    pub top_k: usize,
    /// Inner width of an expert.
    pub d_ff: usize,
    /// Between the projections of an expert.
    pub activation: Activation,
    /// All projections have a bias.
    pub bias: bool,
    /// What makes scores of the router's logits.
    pub score: Score,
    /// The scores that a token takes are divided by their sum.
    pub normalise: bool,
    /// What they are multiplied with then.
    pub routed_scale: f64,
    /// The router has a bias.
    pub router_bias: bool,
    /// There is a bias of scores where they are ranked, and nowhere else.
    pub select_bias: bool,
    /// Choices that give nothing.
    pub zero: usize,
    /// Choices that give the normed input.
    pub copy: usize,
    /// Inner width of an expert for every token; 0 if there is none.
    pub shared_d_ff: usize,
    /// What it gives is multiplied with a number of each token.
    pub shared_gate: bool,
    /// Who chooses.
    pub choose: Choosing,
    /// Seed of [`Choosing::Hash`].
    pub seed: u64,
    /// Consecutive tokens of one sequence that share the places of experts; 0: where tokens choose there is no limit, and
    /// where experts do, a sequence is a group.
    pub group_size: usize,
    /// Places of an expert over its even share of a group's choices.
    pub capacity_factor: f64,
    /// Who gets the places.
    pub overflow: ExpertsFirst,
}

/// Who chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choosing {
    /// Each token takes the experts with the highest scores.
    Token,
    /// Each expert takes the tokens of a group with the highest scores.
    Expert,
    /// A hash of a token's id names its expert.
    Hash,
}

/// Which choices of an expert come first where it has too few places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertsFirst {
    /// Those of earlier tokens.
    Position,
    /// First choices of tokens before second ones.
    Choice,
    /// Those with the higher score.
    Score,
}

words! { Choosing { Token = "token", Expert = "expert", Hash = "hash" } }
words! { ExpertsFirst { Position = "position", Choice = "choice", Score = "score" } }

/// What makes scores of a router's logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// Softmax over all choices.
    Softmax,
    /// Sigmoid of each.
    Sigmoid,
}

words! { Score { Softmax = "softmax", Sigmoid = "sigmoid" } }

/// Choices of a layer, at most.
const CHOICES: usize = 1024;

impl LayerKind for Experts {
    const WHAT: &'static str = "an experts layer";
    const KEYS: &'static [&'static str] = &[
        "kind",
        "experts",
        "top_k",
        "d_ff",
        "activation",
        "bias",
        "score",
        "normalise",
        "routed_scale",
        "router_bias",
        "select_bias",
        "zero",
        "copy",
        "shared_d_ff",
        "shared_gate",
        "choose",
        "seed",
        "group_size",
        "capacity_factor",
        "overflow",
        "norms",
        "skip",
    ];

    fn looks_ahead(&self) -> Option<(&'static str, &'static str)> {
        match (self.choose, self.overflow) {
            (Choosing::Expert, _) => Some(("choose", "the choice of tokens by experts")),
            (Choosing::Token, ExpertsFirst::Score) if self.is_limited() => {
                Some(("overflow", "a capacity by score"))
            }
            (Choosing::Token, ExpertsFirst::Choice) if self.is_limited() && self.top_k > 1 => {
                Some(("overflow", "a capacity for first choices before second ones"))
            }
            _ => None,
        }
    }

    fn read(ctx: &mut Ctx<'_>, fields: Fields<'_>, around: Surroundings) -> Option<Experts> {
        let experts = ctx.required(fields, "experts", "experts = 8");
        let experts = experts.and_then(|entry| ctx.count(entry, 1..=CHOICES));
        let d_ff = ctx.required(fields, "d_ff", "d_ff = 384");
        let d_ff = d_ff.and_then(|entry| ctx.count(entry, 1..=limits::WIDTH));
        let activation = ctx.optional(fields, "activation", Activation::Gelu, Ctx::word);
        let flag = |ctx: &mut Ctx<'_>, key: &str| ctx.optional(fields, key, false, Ctx::flag);
        let [bias, normalise, router_bias, select_bias, shared_gate] =
            ["bias", "normalise", "router_bias", "select_bias", "shared_gate"].map(|key| flag(ctx, key));
        let score = ctx.optional(fields, "score", Score::Softmax, Ctx::word);
        let routed_scale = ctx.optional(fields, "routed_scale", 1.0, |ctx, entry| {
            ctx.number(entry, "other than 0", |scale| scale != 0.0)
        });
        let [zero, copy] = ["zero", "copy"]
            .map(|key| ctx.optional(fields, key, 0, |ctx, entry| ctx.count(entry, 0..=CHOICES)));
        let shared_d_ff =
            ctx.optional(fields, "shared_d_ff", 0, |ctx, entry| ctx.count(entry, 0..=limits::WIDTH));
        let choose = ctx.optional(fields, "choose", Choosing::Token, Ctx::word);
        let seed = ctx.optional(fields, "seed", 0, Ctx::seed);
        let group_size =
            ctx.optional(fields, "group_size", 0, |ctx, entry| ctx.count(entry, 0..=limits::POSITIONS));
        let capacity_factor = ctx.optional(fields, "capacity_factor", 1.25, |ctx, entry| {
            ctx.number(entry, "above 0.0, at most 1e6", |factor| factor > 0.0 && factor <= 1e6)
        });
        let overflow = ctx.optional(fields, "overflow", ExpertsFirst::Position, Ctx::word);
        let (choose, group_size) = (choose?, group_size?);
        check_used(ctx, fields, choose, group_size)?;
        if choose == Choosing::Hash && around.input != StreamInput::Tokens {
            let at = fields.table.get("choose").map(|entry| &entry.value)?;
            let message = "`choose = \"hash\"` takes experts by token ids, which this model does not take";
            let help = "write `choose = \"token\"`, or `input = \"tokens\"` in `[model]`".to_owned();
            ctx.wrong("spec::no_tokens", message.to_owned(), (at, "by token ids"), help);
            return None;
        }
        let (experts, zero, copy, shared_d_ff) = (experts?, zero?, copy?, shared_d_ff?);
        let n = experts + zero + copy;
        let top_k = ctx.optional(fields, "top_k", 1, |ctx, entry| ctx.count(entry, 1..=n));
        if n > CHOICES {
            let message = format!("{n} choices, with those of `zero` and `copy`, are too many");
            let at = fields.table.get("experts").map(|entry| &entry.value)?;
            ctx.wrong("spec::limit", message, (at, "of these"), format!("at most {CHOICES} can be"));
            return None;
        }
        if let Some(entry) =
            fields.table.get("shared_gate").filter(|_| shared_gate == Some(true) && shared_d_ff == 0)
        {
            let message = "`shared_gate` scales what the shared expert gives, and there is none".to_owned();
            let help =
                "give the shared expert a width, `shared_d_ff = 384`, or remove `shared_gate`".to_owned();
            ctx.wrong("spec::unused_setting", message, (&entry.value, "would have no effect"), help);
            return None;
        }
        Some(Experts {
            experts,
            top_k: top_k?,
            d_ff: d_ff?,
            activation: activation?,
            bias: bias?,
            score: score?,
            normalise: normalise?,
            routed_scale: routed_scale?,
            router_bias: router_bias?,
            select_bias: select_bias?,
            zero,
            copy,
            shared_d_ff,
            shared_gate: shared_gate?,
            choose,
            seed: seed?,
            group_size,
            capacity_factor: capacity_factor?,
            overflow: overflow?,
        })
    }

    fn settings(&self, _: &Stream) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("experts", self.experts.to_string()),
            ("d_ff", self.d_ff.to_string()),
            ("activation", text(self.activation.word())),
        ];
        if self.choose != Choosing::Hash {
            settings.insert(1, ("top_k", self.top_k.to_string()));
        }
        let flags = [
            ("bias", self.bias),
            ("normalise", self.normalise),
            ("router_bias", self.router_bias),
            ("select_bias", self.select_bias),
            ("shared_gate", self.shared_gate),
        ];
        settings
            .extend(flags.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| (key, "true".to_owned())));
        if self.score != Score::Softmax {
            settings.push(("score", text(self.score.word())));
        }
        if self.routed_scale != 1.0 {
            settings.push(("routed_scale", format!("{:?}", self.routed_scale)));
        }
        let counts = [("zero", self.zero), ("copy", self.copy), ("shared_d_ff", self.shared_d_ff)];
        settings
            .extend(counts.into_iter().filter(|(_, count)| *count > 0).map(|(key, n)| (key, n.to_string())));
        settings.extend(self.who_chooses());
        settings
    }

    fn build<B: Build>(
        &self,
        b: &mut B,
        name: &str,
        pre: Option<&str>,
        input: LayerInput<B::Value>,
    ) -> Result<B::Value, B::Error> {
        let u = b.pre_norm(input.rows.stream, pre)?;
        let chosen = self.choose(b, name, u, input)?;
        b.report_choices(self.choices(), (chosen.index, chosen.first_index, self.places() as u32), input)?;
        let mut sum = b.add(Unary::Scale(F64::from(0.0)), &[u])?;
        let [first_copy, n] = [self.experts + self.zero, self.choices()].map(|index| index as u32);
        for place in 0..self.places() as u32 {
            let weight = b.add(Op::Slice { start: place, len: 1 }, &[chosen.weights])?;
            let index = b.add(Op::Slice { start: chosen.first_index + place, len: 1 }, &[chosen.index])?;
            let experts = Op::Partition { set: b.fresh_set(), first: 0, parts: self.experts as u32 };
            let experts = b.add(experts, &[index])?;
            let rows = b.add(Op::Gather {}, &[u, experts])?;
            let made = self.of_experts(b, name, (rows, experts))?;
            sum = added(b, sum, (made, weight), experts)?;
            if first_copy < n {
                let copies = Op::Partition { set: b.fresh_set(), first: first_copy, parts: n - first_copy };
                let copies = b.add(copies, &[index])?;
                let rows = b.add(Op::Gather {}, &[u, copies])?;
                sum = added(b, sum, (rows, weight), copies)?;
            }
        }
        match self.shared(b, name, u)? {
            Some(shared) => b.add(Binary::Add, &[sum, shared]),
            None => Ok(sum),
        }
    }
}

/// What rows have chosen.
struct Chosen<V> {
    /// Its first columns are what each choice counts.
    weights: V,
    /// Its columns from `first_index` on are which it is.
    index: V,
    first_index: u32,
}

/// Settings that have no effect beside others are wrong.
fn check_used(ctx: &mut Ctx<'_>, fields: Fields<'_>, choose: Choosing, group_size: usize) -> Option<()> {
    let mut is_fine = Some(());
    for key in Experts::KEYS {
        let Some(entry) = fields.table.get(key) else { continue };
        let (who, why, help) = match (choose, *key) {
            (
                Choosing::Expert,
                "zero" | "copy" | "normalise" | "routed_scale" | "capacity_factor" | "overflow",
            ) => (
                "experts that choose take",
                "each takes its share of the tokens, by their scores alone",
                "remove the setting, or write `choose = \"token\"`",
            ),
            (
                Choosing::Hash,
                "top_k" | "score" | "normalise" | "routed_scale" | "router_bias" | "select_bias"
                | "group_size" | "capacity_factor" | "overflow",
            ) => (
                "a choice by hash takes",
                "it is one expert with a weight of 1, without a router",
                "remove the setting, or write `choose = \"token\"`",
            ),
            (Choosing::Token | Choosing::Expert, "seed") => (
                "a choice by scores takes",
                "it is not random",
                "remove the setting, or write `choose = \"hash\"`",
            ),
            (Choosing::Token, "capacity_factor" | "overflow") if group_size == 0 => (
                "a choice without a limit takes",
                "there are no groups",
                "set `group_size` as well, or remove the setting",
            ),
            _ => continue,
        };
        let message = format!("{who} no `{key}`: {why}");
        ctx.wrong("spec::unused_setting", message, (&entry.value, "would have no effect"), help.to_owned());
        is_fine = None;
    }
    is_fine
}

impl Experts {
    /// All choices of a token.
    pub fn choices(&self) -> usize {
        self.experts + self.zero + self.copy
    }

    /// Choices that a token can have at once.
    pub fn places(&self) -> usize {
        match self.choose {
            Choosing::Token => self.top_k,
            Choosing::Expert => self.experts,
            Choosing::Hash => 1,
        }
    }

    /// Whether experts have places for some tokens of a group only.
    pub fn is_limited(&self) -> bool {
        match self.choose {
            Choosing::Token => self.group_size > 0,
            Choosing::Expert => true,
            Choosing::Hash => false,
        }
    }

    /// Places of an expert in each group: its even share of a whole group's choices, times the factor.
    pub fn slots(&self) -> usize {
        let even = (self.group_size * self.top_k) as f64 / self.choices() as f64;
        (even * self.capacity_factor).ceil() as usize
    }

    /// The settings of who chooses and of places.
    fn who_chooses(&self) -> Vec<(&'static str, String)> {
        let mut settings = Vec::new();
        if self.choose != Choosing::Token {
            settings.push(("choose", text(self.choose.word())));
        }
        match self.choose {
            Choosing::Token if self.group_size > 0 => settings.extend([
                ("group_size", self.group_size.to_string()),
                ("capacity_factor", format!("{:?}", self.capacity_factor)),
                ("overflow", text(self.overflow.word())),
            ]),
            Choosing::Expert if self.group_size > 0 => {
                settings.push(("group_size", self.group_size.to_string()));
            }
            Choosing::Hash => settings.push(("seed", self.seed.to_string())),
            Choosing::Token | Choosing::Expert => {}
        }
        settings
    }

    /// What rows choose in ascending order, with what each choice counts.
    fn choose<B: Build>(
        &self,
        b: &mut B,
        name: &str,
        u: B::Value,
        input: LayerInput<B::Value>,
    ) -> Result<Chosen<B::Value>, B::Error> {
        if self.choose == Choosing::Hash {
            let n_ids = b.stream().vocab_size as u32;
            let ids = b.ids(input.rows.set)?;
            let hash = Op::HashChoice {
                experts: self.choices() as u32,
                seed: self.seed,
                block: input.block as u32,
                n_ids,
            };
            let chosen = b.add(hash, &[ids])?;
            return Ok(Chosen { weights: chosen, index: chosen, first_index: 1 });
        }
        let ranks = match (self.choose, self.overflow) {
            (Choosing::Token, _) if !self.is_limited() => None,
            (Choosing::Token, ExpertsFirst::Position) => None,
            (Choosing::Token, ExpertsFirst::Choice) => Some(Ranking::Turn),
            _ => Some(Ranking::Score),
        };
        let replayed = b.replayed_choices(self.choices(), self.places(), input.rows.set)?;
        let chosen = self.by_score(b, name, (u, replayed), ranks)?;
        let k = self.places() as u32;
        if !self.is_limited() {
            return Ok(Chosen { weights: chosen, index: chosen, first_index: k });
        }
        let mut index = b.add(Op::Slice { start: k, len: k }, &[chosen])?;
        let ranks = ranks.map(|_| b.add(Op::Slice { start: 2 * k, len: k }, &[chosen])).transpose()?;
        if let Some(executed) = input.executed {
            index = only_of(b, index, executed)?;
        }
        let [all_positions, all_sequences] = b.all_places();
        let (positions, sequences) = (input.rows.positions, input.rows.sequences.unwrap_or(all_sequences));
        let group_size = self.group_size as u32;
        let index = match (self.choose, ranks) {
            (Choosing::Expert, Some(ranks)) => {
                let top_k = self.top_k as u32;
                let share = Op::ShareChoices { top_k, group_size: (group_size > 0).then_some(group_size) };
                b.add(share, &[index, ranks, positions, sequences, all_positions, all_sequences])?
            }
            _ => {
                let (slots, experts) = (u32::try_from(self.slots()).unwrap_or(u32::MAX), self.experts as u32);
                let places = [index, positions, sequences];
                // What looks ahead is refused before: of ranks those of a first choice alone are left, which are equal.
                match b.choices_so_far(index, input.rows.set)? {
                    Some(so_far) => {
                        let limit = Op::LimitChoicesAfter { group_size, slots, experts };
                        b.add(limit, &[&places[..], &so_far].concat())?
                    }
                    None => {
                        let limit = Op::LimitChoices { group_size, slots, experts };
                        let operands: Vec<B::Value> = places.into_iter().chain(ranks).collect();
                        b.add(limit, &operands)?
                    }
                }
            }
        };
        Ok(Chosen { weights: chosen, index, first_index: 0 })
    }

    /// The scores of each row's choices in ascending order, behind them which those are, and what they rank by.
    fn by_score<B: Build>(
        &self,
        b: &mut B,
        name: &str,
        (u, replayed): (B::Value, B::Value),
        ranks: Option<Ranking>,
    ) -> Result<B::Value, B::Error> {
        let (n, d) = (self.choices(), b.stream().d_model);
        let weight = b.parameter(&format!("{name}.router.weight"), TensorRole::Projection, &[n, d])?;
        let mut logits = b.add(Op::RouterLogits {}, &[u, weight])?;
        if self.router_bias {
            let bias = b.parameter(&format!("{name}.router.bias"), TensorRole::Shift, &[n])?;
            logits = b.add(Op::AddBias {}, &[logits, bias])?;
        }
        let mut operands = vec![logits, replayed];
        if self.select_bias {
            operands.push(b.parameter(&format!("{name}.router.select_bias"), TensorRole::Shift, &[n])?);
        }
        let choose = Op::ChooseOrReplay {
            k: self.places() as u32,
            sigmoid: self.score == Score::Sigmoid,
            normalise: self.normalise,
            scale: F64::from(self.routed_scale),
            ranks,
        };
        b.add(choose, &operands)
    }

    /// What its expert makes of each row of a partition.
    fn of_experts<B: Build>(
        &self,
        b: &mut B,
        name: &str,
        (rows, experts): (B::Value, B::Value),
    ) -> Result<B::Value, B::Error> {
        let d = b.stream().d_model;
        let project = |b: &mut B, x, which: &str, role, shape: [usize; 2]| {
            let name = format!("{name}.experts.*.{which}_proj");
            let weight = b.stack(&format!("{name}.weight"), role, self.experts, &shape)?;
            let mut operands = vec![x, weight, experts];
            if self.bias {
                let role = if role == TensorRole::ToStream { role } else { TensorRole::Shift };
                operands.push(b.stack(&format!("{name}.bias"), role, self.experts, &shape[..1])?);
            }
            b.add(Op::GroupedMatmul {}, &operands)
        };
        let wide = [self.d_ff, d];
        let up = project(b, rows, "up", TensorRole::Projection, wide)?;
        let (is_gated, function) = self.activation.function();
        let inner = if is_gated {
            let gate = project(b, rows, "gate", TensorRole::Projection, wide)?;
            let gate = b.add(function, &[gate])?;
            b.add(Binary::Mul, &[gate, up])?
        } else {
            b.add(function, &[up])?
        };
        project(b, inner, "down", TensorRole::ToStream, [d, self.d_ff])
    }

    /// What the expert for every token gives, if there is one.
    fn shared<B: Build>(&self, b: &mut B, name: &str, u: B::Value) -> Result<Option<B::Value>, B::Error> {
        if self.shared_d_ff == 0 {
            return Ok(None);
        }
        let ffn = Ffn { d_ff: self.shared_d_ff, activation: self.activation, bias: self.bias };
        let shared = ffn.of_normed(b, &format!("{name}.shared"), u)?;
        if !self.shared_gate {
            return Ok(Some(shared));
        }
        let d = b.stream().d_model;
        let name = format!("{name}.shared_gate.weight");
        let weight = b.parameter(&name, TensorRole::Projection, &[1, d])?;
        let gate = b.add(Op::RouterLogits {}, &[u, weight])?;
        let gate = b.add(Unary::Sigmoid, &[gate])?;
        b.add(Op::ScaleRows {}, &[shared, gate]).map(Some)
    }
}

/// The choices of the rows of a set, and none of others.
fn only_of<B: Build>(b: &mut B, index: B::Value, set: B::Value) -> Result<B::Value, B::Error> {
    let zero = b.add(Unary::Scale(F64::from(0.0)), &[index])?;
    let one = b.add(Unary::OneMinus, &[zero])?;
    let none = b.add(Unary::Scale(F64::from(-1.0)), &[one])?;
    let rows = b.add(Op::Gather {}, &[index, set])?;
    b.add(Op::Scatter {}, &[none, rows, set])
}

/// `sum` with rows of a partition added, each times its weight.
fn added<B: Build>(
    b: &mut B,
    sum: B::Value,
    (rows, weight): (B::Value, B::Value),
    partition: B::Value,
) -> Result<B::Value, B::Error> {
    let weight = b.add(Op::Gather {}, &[weight, partition])?;
    let rows = b.add(Op::ScaleRows {}, &[rows, weight])?;
    let before = b.add(Op::Gather {}, &[sum, partition])?;
    let rows = b.add(Binary::Add, &[before, rows])?;
    b.add(Op::Scatter {}, &[sum, rows, partition])
}
