//! Rotary positions in a spec: `rope_theta` and `rope_scaling`, in `[model]` and on a layer.

use skipc_ir::{F64, RopeScaling};

use super::language::ast::{Entry, Table};
use super::language::limits;
use super::language::read::{Ctx, Fields};
use super::language::words::words;

const EXAMPLE: &str = "rope_scaling = { kind = \"linear\", factor = 8.0 }";
const LINEAR: &[&str] = &["kind", "factor"];
const LLAMA3: &[&str] = &["kind", "factor", "low_freq_factor", "high_freq_factor", "original_max_positions"];

/// The choices of `kind`, without their settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Linear,
    Llama3,
}

words! {
    Kind { Linear = "linear", Llama3 = "llama3" }
}

/// The base of the frequencies.
pub(super) fn theta(ctx: &mut Ctx<'_>, entry: &Entry) -> Option<f64> {
    ctx.number(entry, "from 1.0 to 1e12", |number| (1.0..=1e12).contains(&number))
}

/// What changes the frequencies.
pub(super) fn scaling(ctx: &mut Ctx<'_>, entry: &Entry) -> Option<RopeScaling> {
    let table = ctx.table("rope_scaling", &entry.value, EXAMPLE)?;
    let any = Fields { table, what: "rope_scaling", keys: LLAMA3 };
    let kind = ctx.required(any, "kind", EXAMPLE).and_then(|entry| ctx.word(entry))?;
    let keys = match kind {
        Kind::Linear => LINEAR,
        Kind::Llama3 => LLAMA3,
    };
    ctx.check_keys(Fields { keys, ..any }, |_| None);
    let factor = factor(ctx, any, "factor");
    let scaling = match kind {
        Kind::Linear => RopeScaling::Linear { factor: factor? },
        Kind::Llama3 => llama3(ctx, any, factor)?,
    };
    if let Some(fault) = scaling.fault() {
        let at = (&entry.value, "has no meaning");
        ctx.wrong("spec::out_of_range", format!("`rope_scaling` {fault}"), at, format!("as in `{EXAMPLE}`"));
        return None;
    }
    Some(scaling)
}

fn llama3(ctx: &mut Ctx<'_>, fields: Fields<'_>, scale: Option<F64>) -> Option<RopeScaling> {
    let low = factor(ctx, fields, "low_freq_factor");
    let high = factor(ctx, fields, "high_freq_factor");
    let original = ctx.required(fields, "original_max_positions", "original_max_positions = 8192");
    let original = original.and_then(|entry| ctx.count(entry, 1..=limits::POSITIONS));
    Some(RopeScaling::Llama3 {
        factor: scale?,
        low_freq_factor: low?,
        high_freq_factor: high?,
        original_max_positions: u32::try_from(original?).ok()?,
    })
}

fn factor(ctx: &mut Ctx<'_>, fields: Fields<'_>, key: &str) -> Option<F64> {
    let entry = ctx.required(fields, key, &format!("{key} = 8.0"))?;
    let number = ctx.number(entry, "above 0.0, at most 1e6", |number| number > 0.0 && number <= 1e6)?;
    Some(F64::from(number))
}

/// A scaling as its table in a spec.
pub(super) fn print(scaling: RopeScaling) -> String {
    match scaling {
        RopeScaling::Linear { factor } => format!("{{ kind = \"linear\", factor = {:?} }}", factor.0),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => format!(
            "{{ kind = \"llama3\", factor = {:?}, low_freq_factor = {:?}, high_freq_factor = {:?}, original_max_positions = {original_max_positions} }}",
            factor.0, low_freq_factor.0, high_freq_factor.0
        ),
    }
}

/// Reports settings of rotations where there are none.
pub(super) fn refuse(ctx: &mut Ctx<'_>, table: &Table, keys: &[&'static str], why: &str) -> bool {
    let mut fits = true;
    for key in keys {
        if let Some(entry) = table.get(key) {
            let message = format!("`{key}` is for rotary positions only");
            let help = format!("remove `{key}`, or write `positions = \"rope\"` in `[model]`");
            ctx.wrong("spec::unused_setting", message, (&entry.value, why), help);
            fits = false;
        }
    }
    fits
}
