//! Published methods that make a dense family skip, a row each: how their checkpoints are recognised, what their settings
//! mean as a spec, and what they call the tensors that the family does not have.
//!
//! What a method's own code computes and a spec cannot say is refused, or said in a note.

mod d_llm;
mod flexidepth;
mod recursions;
mod router_tuning;
mod skipgpt;

use super::config::Config;
use super::naming::{Recursion, RouterNames};
use super::skip::Skips;
use crate::frontend::language::ast::{Entry, Table, ValueKind};
use crate::frontend::language::read::Ctx;

pub(super) use d_llm::{D_LLM, FAMILY as D_LLM_FAMILY, d_ff};

/// A published method.
pub(super) struct Method {
    /// As its authors call it.
    pub(super) name: &'static str,
    /// Its own words for `model_type`.
    model_types: &'static [&'static str],
    /// Its own words in `architectures`.
    architectures: &'static [&'static str],
    /// Keys that no other configuration has.
    keys: &'static [&'static str],
    /// What is in names of tensors that no other checkpoint has.
    tensors: &'static [&'static str],
    /// Families that it is known over.
    families: &'static [&'static str],
    /// Its settings, of a model of so many layers. Nothing if something is wrong, which is reported then.
    read: fn(&mut Config<'_>, usize) -> Option<Routed>,
}

/// What a method makes of a family.
pub(super) struct Routed {
    pub(super) names: RouterNames,
    /// The skips of blocks and of what is in them.
    pub(super) skips: Option<Skips>,
    /// Blocks that run several times.
    pub(super) repeats: Option<Repeats>,
}

/// Blocks that run several times, and the decision over each time, as a spec writes it.
pub(super) struct Repeats {
    pub(super) recursion: Recursion,
    pub(super) skip: String,
}

/// All methods that are recognised in a `config.json`.
const METHODS: &[Method] = &[flexidepth::METHOD, skipgpt::METHOD, router_tuning::METHOD, recursions::METHOD];

/// The method of a configuration, else of the tensors of these names.
pub(super) fn recognised(config: &Table, tensors: impl FnOnce() -> Vec<String>) -> Option<&'static Method> {
    let text = |value: &ValueKind| match value {
        ValueKind::Text(text) => vec![text.clone()],
        ValueKind::List(all) => all.iter().filter_map(|one| text_of(&one.kind)).collect(),
        _ => Vec::new(),
    };
    let words = |key: &str| config.get(key).map_or(Vec::new(), |entry| text(&entry.value.kind));
    let (model_type, architectures) = (words("model_type"), words("architectures"));
    let is_given =
        |key: &&str| config.get(key).is_some_and(|entry| !matches!(entry.value.kind, ValueKind::Null));
    let of_config = METHODS.iter().find(|method| {
        model_type.iter().any(|named| method.model_types.contains(&named.as_str()))
            || architectures.iter().any(|named| method.architectures.contains(&named.as_str()))
            || method.keys.iter().any(is_given)
    });
    of_config.or_else(|| {
        let tensors = tensors();
        let has = |part: &&str| tensors.iter().any(|name| name.contains(part));
        METHODS.iter().find(|method| method.tensors.iter().any(&has))
    })
}

fn text_of(value: &ValueKind) -> Option<String> {
    match value {
        ValueKind::Text(text) => Some(text.clone()),
        _ => None,
    }
}

impl Method {
    /// What the method makes of the family. Nothing if something is wrong, which is reported then.
    pub(super) fn routed(&self, c: &mut Config<'_>, n_layers: usize) -> Option<Routed> {
        let family = c.family.model_type;
        if !self.families.contains(&family) {
            let entry = c.entry("model_type")?;
            let what = format!("the family {family} as {} changes it, which is not known", self.name);
            c.unsupported(entry, &what);
            return None;
        }
        if let Some(entry) = c.entry("skip_config")
            && !matches!(entry.value.kind, ValueKind::Null)
        {
            c.unsupported(entry, &format!("routers beside those of {}", self.name));
            return None;
        }
        (self.read)(c, n_layers)
    }
}

/// A list of layers by number.
fn by_number(ctx: &mut Ctx<'_>, entry: &Entry, n_layers: usize) -> Option<Vec<bool>> {
    let mut routed = vec![false; n_layers];
    for value in ctx.list(entry, "layers", "[16, 17]")? {
        let element = Entry { value: value.clone(), ..entry.clone() };
        routed[ctx.count(&element, 0..=n_layers - 1)?] = true;
    }
    Some(routed)
}
