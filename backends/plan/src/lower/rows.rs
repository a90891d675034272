//! Ops that are kernels of their own: norms, embedding, rotary positions, router logits, attention.

use skipc_artifact::interface::Role;
use skipc_artifact::target::DType;
use skipc_ir::{F64, Frequencies, Scoring, Value};

use super::Ctx;
use super::bind::Bind;
use crate::error::PlanError;
use crate::fuse::Group;
use crate::kernel::{
    Access, Attention, Body, CachedAttention, Choice, KeepChoices, Limit, NormKind, Replay, Rowwise, Slot,
};
use crate::op_kind::{self, Single};
use crate::plan::ConstantSource;

impl Ctx<'_> {
    pub(super) fn single(&mut self, group: &Group, value: Value, single: Single) -> Result<(), PlanError> {
        if let Single::Training(op) = single {
            return self.training(group, value, op);
        }
        let mut bind = self.bind(self.graph.ty(value).rows(), value)?;
        let body = match single {
            Single::Embed => Body::Rowwise(self.embed(&mut bind, value)?),
            Single::RmsNorm { eps, groups } => {
                Body::Rowwise(self.rms_norm(&mut bind, value, (eps, groups))?)
            }
            Single::LayerNorm { eps, groups } => {
                Body::Rowwise(self.layer_norm(&mut bind, value, (eps, groups))?)
            }
            Single::Choose { choice, replays } => {
                Body::Rowwise(self.choose(&mut bind, value, choice, replays)?)
            }
            Single::HashChoice { experts, seed, block, n_ids } => {
                let source = ConstantSource::HashChoice { experts, seed, block, n_ids };
                Body::Rowwise(self.hash_choice(&mut bind, value, (source, n_ids))?)
            }
            Single::LimitChoices { group_size, slots, experts } => {
                Body::Rowwise(self.limit_choices(&mut bind, value, group_size, (slots, experts))?)
            }
            Single::LimitChoicesAfter { group_size, slots, experts } => {
                Body::Rowwise(self.limit_choices_after(&mut bind, value, group_size, (slots, experts))?)
            }
            Single::ShareChoices { top_k, group_size } => {
                Body::Rowwise(self.share_choices(&mut bind, value, top_k, group_size)?)
            }
            Single::RowScale { eps } => Body::Rowwise(self.row_scale(&mut bind, value, eps)?),
            Single::Attention { heads, kv_heads, scoring } => {
                Body::Attention(self.attention(&mut bind, value, (heads, kv_heads, scoring))?)
            }
            Single::CachedAttention { heads, kv_heads, scoring } => {
                Body::CachedAttention(self.cached_attention(&mut bind, value, (heads, kv_heads, scoring))?)
            }
            Single::Conv => Body::Along(self.conv(&mut bind, value)?),
            Single::CachedConv => Body::Along(self.cached_conv(&mut bind, value)?),
            Single::SequenceMean => Body::Along(self.sequence_mean(&mut bind, value)?),
            Single::Training(_) => return Err(self.internal("training is in loops", value)),
        };
        self.step(group, bind, body);
        Ok(())
    }

    fn rms_norm(
        &mut self,
        bind: &mut Bind,
        value: Value,
        (eps, groups): (F64, u32),
    ) -> Result<Rowwise, PlanError> {
        let [x, gain] = self.operands(value)?;
        self.norm(bind, value, (NormKind::Rms, eps, groups), (x, gain))
    }

    fn layer_norm(
        &mut self,
        bind: &mut Bind,
        value: Value,
        (eps, groups): (F64, u32),
    ) -> Result<Rowwise, PlanError> {
        let [x, gain, bias] = self.operands(value)?;
        let bias = self.weight(bind, "bias", bias, DType::F32)?;
        self.norm(bind, value, (NormKind::Layer { bias }, eps, groups), (x, gain))
    }

    fn norm(
        &mut self,
        bind: &mut Bind,
        value: Value,
        (kind, eps, groups): (NormKind, F64, u32),
        (x, gain): (Value, Value),
    ) -> Result<Rowwise, PlanError> {
        let cols = self.graph.ty(value).cols();
        let gain = self.weight(bind, "gain", gain, DType::F32)?;
        let x = self.operand(bind, "x", x)?;
        let result = self.result(value)?;
        let out = self.written(bind, "out", result);
        Ok(Rowwise::Norm { kind, eps, cols, groups, x, gain, out })
    }

    fn row_scale(&mut self, bind: &mut Bind, value: Value, eps: F64) -> Result<Rowwise, PlanError> {
        let [x] = self.operands(value)?;
        let cols = self.graph.ty(x).cols();
        let x = self.operand(bind, "x", x)?;
        let result = self.result(value)?;
        let out = self.written(bind, "out", result);
        Ok(Rowwise::RowScale { eps, cols, x, out })
    }

    fn choose(
        &mut self,
        bind: &mut Bind,
        value: Value,
        choice: Choice,
        replays: bool,
    ) -> Result<Rowwise, PlanError> {
        let operands = self.graph.operands(value);
        let (Some(logits), Some(bias)) =
            (operands.first().copied(), operands.get(1 + usize::from(replays)..))
        else {
            return Err(self.internal("an op has the operands of its table", value));
        };
        let replay = match operands.get(1).filter(|_| replays) {
            Some(choices) => {
                let switch = self.port(&Role::UseForcedChoices)?;
                let use_forced = bind.slot("use_forced", self.arg(switch), Access::Read);
                Some(Replay { use_forced, choices: self.operand(bind, "choices", *choices)? })
            }
            None => None,
        };
        let n = self.graph.ty(logits).cols();
        let bias = bias.first().map(|bias| self.weight(bind, "bias", *bias, DType::F32)).transpose()?;
        let logits = self.operand(bind, "logits", logits)?;
        let result = self.result(value)?;
        let out = self.written(bind, "out", result);
        Ok(Rowwise::Choose { n, choice, logits, bias, replay, out })
    }

    /// The rows of a table that is made when the model is compiled.
    fn hash_choice(
        &mut self,
        bind: &mut Bind,
        value: Value,
        (source, n_ids): (ConstantSource, u32),
    ) -> Result<Rowwise, PlanError> {
        let [ids] = self.operands(value)?;
        let ids = self.operand(bind, "ids", ids)?;
        let table = self.constant(bind, "table", source, (DType::F32, n_ids, 2));
        let result = self.result(value)?;
        let out = self.written(bind, "out", result);
        Ok(Rowwise::Embed { cols: 2, ids, n_ids, table, out })
    }

    fn limit_choices(
        &mut self,
        bind: &mut Bind,
        value: Value,
        group_size: u32,
        (slots, experts): (u32, u32),
    ) -> Result<Rowwise, PlanError> {
        let operands = self.graph.operands(value);
        let [index, positions, sequences, ref ranks @ ..] = operands[..] else {
            return Err(self.internal("an op has the operands of its table", value));
        };
        let keep = KeepChoices::Slots { slots, experts };
        self.kept_choices(
            bind,
            value,
            (index, ranks.first().copied()),
            [positions, sequences],
            (Some(group_size), keep),
        )
    }

    fn limit_choices_after(
        &mut self,
        bind: &mut Bind,
        value: Value,
        group_size: u32,
        (slots, experts): (u32, u32),
    ) -> Result<Rowwise, PlanError> {
        let operands = self.graph.operands(value);
        let [index, positions, sequences, before, pages, ref present @ ..] = operands[..] else {
            return Err(self.internal("an op has the operands of its table", value));
        };
        let keep = KeepChoices::Left {
            slots,
            experts,
            before: self.cache(bind, "before", before)?,
            pages: self.cache(bind, "pages", pages)?,
            present: present.first().map(|present| self.cache(bind, "present", *present)).transpose()?,
        };
        self.kept_choices(bind, value, (index, None), [positions, sequences], (Some(group_size), keep))
    }

    fn share_choices(
        &mut self,
        bind: &mut Bind,
        value: Value,
        top_k: u32,
        group_size: Option<u32>,
    ) -> Result<Rowwise, PlanError> {
        let [index, ranks, positions, sequences, all_positions, all_sequences] = self.operands(value)?;
        let extent = self.extent(bind, self.graph.ty(all_positions).rows(), value)?;
        let keep = KeepChoices::Share {
            top_k,
            extent,
            positions: self.operand(bind, "all_positions", all_positions)?,
            sequences: self.operand(bind, "all_sequences", all_sequences)?,
        };
        self.kept_choices(bind, value, (index, Some(ranks)), [positions, sequences], (group_size, keep))
    }

    fn kept_choices(
        &mut self,
        bind: &mut Bind,
        value: Value,
        (index, ranks): (Value, Option<Value>),
        [positions, sequences]: [Value; 2],
        (group_size, keep): (Option<u32>, KeepChoices),
    ) -> Result<Rowwise, PlanError> {
        let result = self.result(value)?;
        Ok(Rowwise::Limit(Limit {
            k: self.graph.ty(value).cols(),
            index: self.operand(bind, "index", index)?,
            ranks: ranks.map(|ranks| self.operand(bind, "ranks", ranks)).transpose()?,
            positions: self.operand(bind, "positions", positions)?,
            sequences: self.operand(bind, "sequences", sequences)?,
            group_size,
            keep,
            out: self.written(bind, "out", result),
        }))
    }

    fn embed(&mut self, bind: &mut Bind, value: Value) -> Result<Rowwise, PlanError> {
        let [table, ids] = self.operands(value)?;
        let n_ids = match self.graph.ty(table).rows() {
            skipc_ir::Dim::Fixed(rows) => rows,
            _ => return Err(self.unsupported("look ids up in token rows", value)),
        };
        let ids = self.operand(bind, "ids", ids)?;
        let table = self.weight(bind, "table", table, self.options.dtype)?;
        let result = self.result(value)?;
        let out = self.written(bind, "out", result);
        Ok(Rowwise::Embed { cols: self.graph.ty(value).cols(), ids, n_ids, table, out })
    }

    pub(super) fn rope(
        &mut self,
        group: &Group,
        value: Value,
        op_kind::Rope { heads, turned, frequencies }: op_kind::Rope,
    ) -> Result<(), PlanError> {
        let mut bind = self.bind(self.graph.ty(value).rows(), value)?;
        let [x, positions] = self.operands(value)?;
        let width = self.graph.ty(value).cols() / heads.max(1);
        let x = self.operand(&mut bind, "x", x)?;
        let positions = self.operand(&mut bind, "positions", positions)?;
        let (cos, sin) = self.angles(&mut bind, frequencies, turned.unwrap_or(width));
        let result = self.result(value)?;
        let out = self.written(&mut bind, "out", result);
        let rope = Rowwise::Rope { heads, width, turned, x, positions, cos, sin, out };
        self.step(group, bind, Body::Rowwise(rope));
        Ok(())
    }

    /// Tables of the cosine and sine of every position's angles, where so many columns of a head turn.
    pub(super) fn angles(&mut self, bind: &mut Bind, frequencies: Frequencies, width: u32) -> (Slot, Slot) {
        let (half, positions) = (width / 2, self.options.max_positions);
        let shape = (DType::F32, positions, half);
        let cos = ConstantSource::RopeCos { frequencies, half, positions };
        let cos = self.constant(bind, "cos", cos, shape);
        let sin = ConstantSource::RopeSin { frequencies, half, positions };
        (cos, self.constant(bind, "sin", sin, shape))
    }

    /// What is added to the scores of each position, of which the first so many are forced.
    pub(super) fn forced(&mut self, bind: &mut Bind, first: u32) -> Slot {
        let positions = self.options.max_positions;
        let forced = ConstantSource::Forced { first, positions };
        self.constant(bind, "forced", forced, (DType::F32, positions, 1))
    }

    /// 1 at position 0, and 0 elsewhere.
    pub(super) fn beginning(&mut self, bind: &mut Bind) -> Slot {
        let positions = self.options.max_positions;
        self.constant(bind, "beginning", ConstantSource::Beginning { positions }, (DType::F32, positions, 1))
    }

    fn cached_attention(
        &mut self,
        bind: &mut Bind,
        value: Value,
        (heads, kv_heads, scoring): (u32, u32, Scoring),
    ) -> Result<CachedAttention, PlanError> {
        let operands = self.graph.operands(value);
        let [q, k, v, q_pos, q_seq, pages, ref present @ ..] = operands[..] else {
            return Err(self.internal("an op has the operands of its table", value));
        };
        let (k, v) = (self.cache(bind, "k", k)?, self.cache(bind, "v", v)?);
        let pages = self.cache(bind, "pages", pages)?;
        let present = present.first().map(|present| self.cache(bind, "present", *present)).transpose()?;
        let result = self.result(value)?;
        Ok(CachedAttention {
            heads,
            kv_heads,
            width: self.graph.ty(value).cols() / heads.max(1),
            scoring,
            q: self.operand(bind, "q", q)?,
            q_pos: self.operand(bind, "q_pos", q_pos)?,
            q_seq: self.operand(bind, "q_seq", q_seq)?,
            k,
            v,
            pages,
            present,
            out: self.written(bind, "out", result),
        })
    }

    fn attention(
        &mut self,
        bind: &mut Bind,
        value: Value,
        (heads, kv_heads, scoring): (u32, u32, Scoring),
    ) -> Result<Attention, PlanError> {
        let [q, k, v, q_pos, q_seq, k_pos, k_seq] = self.operands(value)?;
        let kv_extent = self.extent(bind, self.graph.ty(k).rows(), value)?;
        let result = self.result(value)?;
        Ok(Attention {
            heads,
            kv_heads,
            width: self.graph.ty(value).cols() / heads.max(1),
            scoring,
            q: self.operand(bind, "q", q)?,
            q_pos: self.operand(bind, "q_pos", q_pos)?,
            q_seq: self.operand(bind, "q_seq", q_seq)?,
            kv_extent,
            k: self.operand(bind, "k", k)?,
            v: self.operand(bind, "v", v)?,
            k_pos: self.operand(bind, "k_pos", k_pos)?,
            k_seq: self.operand(bind, "k_seq", k_seq)?,
            out: self.written(bind, "out", result),
        })
    }
}
