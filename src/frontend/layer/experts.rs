//! Layers of experts: each token takes some of several feed-forward layers, and counts them by a score.
//!
//! A row's choices stand in ascending order. For each place in that order the rows are cut into segments by the expert that
//! stands there, so that one matmul has all experts, and what experts give a row is added in their order.

use serde::Serialize;
use skipc_ir::attr::F64;
use skipc_ir::{Binary, Op, Unary};

use super::{Activation, Ffn, LayerKind, Surroundings};
use crate::frontend::build::{Build, LayerInput, TensorRole};
use crate::frontend::language::limits;
use crate::frontend::language::read::{Ctx, Fields};
use crate::frontend::language::words::{Word, text, words};
use crate::frontend::stream::Stream;

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
}

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
        "norms",
        "skip",
    ];

    fn read(ctx: &mut Ctx<'_>, fields: Fields<'_>, _: Surroundings) -> Option<Experts> {
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
        })
    }

    fn settings(&self, _: &Stream) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("experts", self.experts.to_string()),
            ("top_k", self.top_k.to_string()),
            ("d_ff", self.d_ff.to_string()),
            ("activation", text(self.activation.word())),
        ];
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
        let chosen = self.choose(b, name, u)?;
        let mut sum = b.add(Unary::Scale(F64::from(0.0)), &[u])?;
        let [first_copy, n] = [self.experts + self.zero, self.choices()].map(|index| index as u32);
        for place in 0..self.top_k as u32 {
            let column = |start: u32| Op::Slice { start, len: 1 };
            let (weight, index) =
                (b.add(column(place), &[chosen])?, b.add(column(place + self.top_k as u32), &[chosen])?);
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

impl Experts {
    /// All choices of a token.
    pub fn choices(&self) -> usize {
        self.experts + self.zero + self.copy
    }

    /// The scores of each row's choices in ascending order, and behind them which those are.
    fn choose<B: Build>(&self, b: &mut B, name: &str, u: B::Value) -> Result<B::Value, B::Error> {
        let (n, d) = (self.choices(), b.stream().d_model);
        let weight = b.parameter(&format!("{name}.router.weight"), TensorRole::Projection, &[n, d])?;
        let mut logits = b.add(Op::RouterLogits {}, &[u, weight])?;
        if self.router_bias {
            let bias = b.parameter(&format!("{name}.router.bias"), TensorRole::Shift, &[n])?;
            logits = b.add(Op::AddBias {}, &[logits, bias])?;
        }
        let mut operands = vec![logits];
        if self.select_bias {
            operands.push(b.parameter(&format!("{name}.router.select_bias"), TensorRole::Shift, &[n])?);
        }
        let choose = Op::Choose {
            k: self.top_k as u32,
            sigmoid: self.score == Score::Sigmoid,
            normalise: self.normalise,
            scale: F64::from(self.routed_scale),
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
