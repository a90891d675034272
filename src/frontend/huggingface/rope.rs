//! Rotations: `rope_parameters` as transformers 5 writes them, `rope_theta` and `rope_scaling` as earlier ones did.

use skipc_ir::{F64, RopeScaling};

use super::config::{Config, unsupported};
use super::families::Positions;
use crate::frontend::language::ast::{Entry, Table, ValueKind};
use crate::frontend::language::limits;
use crate::frontend::language::read::{Ctx, Fields};
use crate::frontend::language::words::{Word, words};
use crate::frontend::rope;

/// How the queries and keys of a layer turn.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rope {
    pub(super) theta: f64,
    pub(super) scaling: Option<RopeScaling>,
    /// The share of a head that turns.
    pub(super) share: f64,
}

/// What layers look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LayerType {
    Full,
    Sliding,
}

words! {
    LayerType { Full = "full_attention", Sliding = "sliding_attention" }
}

/// Kinds of scaling. Some are known and refused.
#[derive(Clone, Copy, PartialEq)]
enum Scaling {
    Default,
    Linear,
    Llama3,
    Refused,
}

impl Word for Scaling {
    const WORDS: &'static [(&'static str, Scaling)] = &[
        ("default", Scaling::Default),
        ("linear", Scaling::Linear),
        ("llama3", Scaling::Llama3),
        ("dynamic", Scaling::Refused),
        ("longrope", Scaling::Refused),
        ("proportional", Scaling::Refused),
        ("su", Scaling::Refused),
        ("yarn", Scaling::Refused),
    ];
}

/// The rotations of layers that see everything and of those with a window. Nothing if something is wrong, none where
/// positions are learned.
pub(super) fn read(c: &mut Config<'_>, max_positions: usize) -> Option<Option<[Rope; 2]>> {
    let Positions::Rope { theta, local_theta, share, .. } = c.family.positions else { return Some(None) };
    let theta = c.value("rope_theta", theta, rope::theta)?;
    let share = c.value("partial_rotary_factor", share, share_of)?;
    let base = Rope { theta, scaling: None, share };
    let table = |ctx: &mut Ctx<'_>, entry: &Entry| ctx.table(&entry.key, &entry.value, "{ … }").cloned();
    let given = c.nullable("rope_parameters", None, table)?;
    let old = c.nullable("rope_scaling", None, table)?;
    let local = match local_theta {
        Some(theta) => Some(c.value("rope_local_base_freq", theta, rope::theta)?),
        None => None,
    };
    let Some(given) = given.filter(|table| !table.entries.is_empty()) else {
        let full =
            old.map_or(Some(base.clone()), |table| scaled(&mut c.ctx, &table, &base, max_positions))?;
        // Their scaling is of the layers that see everything.
        let sliding = local.map_or(full.clone(), |theta| Rope { theta, ..base });
        return Some(Some([full, sliding]));
    };
    let is_by_type = given.entries.iter().any(|entry| matches!(entry.value.kind, ValueKind::Table(_)));
    let mut of = |kind: LayerType| match given.get(kind.word()) {
        Some(entry) if is_by_type => {
            let table = c.ctx.table(kind.word(), &entry.value, "{ … }")?;
            scaled(&mut c.ctx, table, &base, max_positions)
        }
        None if is_by_type => Some(base.clone()),
        _ => scaled(&mut c.ctx, &given, &base, max_positions),
    };
    Some(Some([of(LayerType::Full)?, of(LayerType::Sliding)?]))
}

fn share_of(ctx: &mut Ctx<'_>, entry: &Entry) -> Option<f64> {
    ctx.number(entry, "above 0.0, at most 1.0", |number| number > 0.0 && number <= 1.0)
}

/// What a table of scaling makes of a rotation.
fn scaled(ctx: &mut Ctx<'_>, table: &Table, base: &Rope, max_positions: usize) -> Option<Rope> {
    let fields = Fields { table, what: "a rotation", keys: &[] };
    let theta = ctx.optional(fields, "rope_theta", base.theta, rope::theta)?;
    let share = ctx.optional(fields, "partial_rotary_factor", base.share, share_of)?;
    let named = table.get("rope_type").or_else(|| table.get("type"));
    let kind = named.map_or(Some(Scaling::Default), |entry| ctx.word(entry))?;
    let mut number = |key: &str| {
        let entry = ctx.required(fields, key, &format!("{key:?}: 8.0"))?;
        ctx.number(entry, "above 0.0", |number| number > 0.0).map(F64::from)
    };
    let scaling = match kind {
        Scaling::Default => None,
        Scaling::Linear => Some(RopeScaling::Linear { factor: number("factor")? }),
        Scaling::Llama3 => {
            let factor = number("factor")?;
            let (low_freq_factor, high_freq_factor) =
                (number("low_freq_factor")?, number("high_freq_factor")?);
            let before =
                ctx.optional(fields, "original_max_position_embeddings", max_positions, |ctx, entry| {
                    ctx.count(entry, 1..=limits::POSITIONS)
                })?;
            let original_max_positions = u32::try_from(before).ok()?;
            Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions })
        }
        Scaling::Refused => {
            unsupported(ctx, named?, "a rotation of a kind that is not known");
            return None;
        }
    };
    Some(Rope { theta, scaling, share })
}
