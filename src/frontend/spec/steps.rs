//! The steps of a decider: what stands between what a router reads and its last weight. All are over f32.

use serde::Serialize;

use crate::frontend::function::ElementFunction;
use crate::frontend::language::ast::{Entry, Table, Value, ValueKind};
use crate::frontend::language::limits;
use crate::frontend::language::read::{Ctx, Fields};
use crate::frontend::language::words::{Word, text, words};
use crate::frontend::stream::NormKind;

/// Steps of a decider, at most. Published ones have four.
pub const MAX_STEPS: usize = 8;

/// One step of a decider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", untagged)]
pub enum Step {
    /// `W · h`, and a bias if there is one.
    Linear {
        /// Rows of the weight `[linear, width so far]`.
        linear: usize,
        /// It has a bias.
        bias: bool,
    },
    /// A norm over all columns, with the model's `norm_eps` and never its `norm_offset`.
    Norm {
        /// Which.
        norm: NormKind,
    },
    /// One row of a sequence for all of its tokens, so that they get one decision.
    Pool {
        /// Which.
        pool: Pool,
    },
    /// A function of each element.
    Activation {
        /// Which.
        activation: ElementFunction,
    },
}

/// What a sequence's rows become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Their mean.
    Mean,
}

words! {
    Pool { Mean = "mean" }
}

/// Steps in order, at most [`MAX_STEPS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps([Option<Step>; MAX_STEPS]);

impl Steps {
    /// These steps; `None` if they are too many.
    pub fn of(steps: &[Step]) -> Option<Steps> {
        let mut all = Steps::default();
        let places = all.0.get_mut(..steps.len())?;
        places.iter_mut().zip(steps).for_each(|(place, step)| *place = Some(*step));
        Some(all)
    }

    /// The steps in order.
    pub fn iter(&self) -> impl Iterator<Item = Step> + '_ {
        self.0.iter().copied().flatten()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0[0].is_none()
    }

    /// Columns behind the steps of what has `width` columns before them.
    pub fn width(&self, width: usize) -> usize {
        self.iter().fold(width, |width, step| match step {
            Step::Linear { linear, .. } => linear,
            Step::Norm { .. } | Step::Pool { .. } | Step::Activation { .. } => width,
        })
    }

    /// Whether all tokens of a sequence get one decision.
    pub fn is_pooled(&self) -> bool {
        self.iter().any(|step| matches!(step, Step::Pool { .. }))
    }

    /// As a spec writes them.
    pub(in crate::frontend) fn print(&self) -> String {
        let steps = self.iter().map(|step| match step {
            Step::Linear { linear, bias: false } => format!("{{ linear = {linear} }}"),
            Step::Linear { linear, bias: true } => format!("{{ linear = {linear}, bias = true }}"),
            Step::Norm { norm } => format!("{{ norm = {} }}", text(norm.word())),
            Step::Pool { pool } => format!("{{ pool = {} }}", text(pool.word())),
            Step::Activation { activation } => format!("{{ activation = {} }}", text(activation.word())),
        });
        format!("[{}]", steps.collect::<Vec<_>>().join(", "))
    }
}

impl Serialize for Steps {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

const EXAMPLE: &str = "[{ linear = 32 }, { norm = \"rmsnorm\" }, { activation = \"silu\" }]";

const KEYS: &[&str] = &["linear", "bias", "norm", "pool", "activation"];

/// Reads the value of `decider` or `predictor`.
pub(in crate::frontend) fn read(ctx: &mut Ctx<'_>, entry: &Entry) -> Option<Steps> {
    if matches!(&entry.value.kind, ValueKind::List(values) if values.is_empty()) {
        return Some(Steps::default());
    }
    let example = format!("{} = {EXAMPLE}", entry.key);
    let values = ctx.list(entry, "steps", &example)?;
    let steps: Vec<Option<Step>> = values
        .iter()
        .map(|value| {
            let table = ctx.table("a step", value, EXAMPLE)?;
            step(ctx, table, value)
        })
        .collect();
    let steps: Vec<Step> = steps.into_iter().collect::<Option<_>>()?;
    let all = Steps::of(&steps);
    if all.is_none() {
        let message = format!("{} steps stand before a router's weight", steps.len());
        let label = format!("at most {MAX_STEPS}");
        ctx.wrong("spec::limit", message, (&entry.value, &label), "use fewer steps".to_owned());
    }
    all
}

fn step(ctx: &mut Ctx<'_>, table: &Table, value: &Value) -> Option<Step> {
    let fields = Fields { table, what: "a step", keys: KEYS };
    let n_before = ctx.found.iter().count();
    ctx.check_keys(fields, |_| None);
    let kinds: Vec<&Entry> =
        ["linear", "norm", "pool", "activation"].iter().filter_map(|key| table.get(key)).collect();
    let [kind] = kinds[..] else {
        if ctx.found.iter().count() == n_before {
            let message = match kinds.len() {
                0 => "a step says nothing",
                _ => "a step says more than one thing",
            };
            let at = (value, "this one");
            let help =
                format!("write one of `linear`, `norm`, `pool` and `activation` in each, as in `{EXAMPLE}`");
            ctx.wrong("spec::bad_value", message.to_owned(), at, help);
        }
        return None;
    };
    let bias = ctx.optional(fields, "bias", false, Ctx::flag)?;
    if let Some(entry) = table.get("bias").filter(|_| kind.key != "linear") {
        let message = format!("a step with `{}` takes no `bias`", kind.key);
        let at = (&entry.value, "would have no effect");
        ctx.wrong("spec::unused_setting", message, at, "write it beside `linear`, or remove it".to_owned());
        return None;
    }
    Some(match kind.key.as_str() {
        "linear" => Step::Linear { linear: ctx.count(kind, 1..=limits::WIDTH)?, bias },
        "norm" => Step::Norm { norm: ctx.word(kind)? },
        "pool" => Step::Pool { pool: ctx.word(kind)? },
        _ => Step::Activation { activation: ctx.word(kind)? },
    })
}
