//! The kinds of layers: a file each, with its keys in a spec, the checks, the parameters and the graph.

mod attention;
mod conv;
mod experts;
mod ffn;
mod linear;

pub use attention::{Attention, AttentionBias, Mask, QkNorm, Rotation};
pub use conv::Conv;
pub use experts::{Choosing, Experts, ExpertsFirst, Score};
pub use ffn::{Activation, Ffn};
pub use linear::Linear;

use serde::Serialize;

use super::build::{Build, LayerInput};
use super::language::ast::Table;
use super::language::read::{Ctx, Fields, list};
use super::language::words::{Word, text};
use super::stream::{Rope, Stream, StreamInput};

/// What sub-layers need to know of the model. `None` where the model itself is wrong.
#[derive(Clone, Copy)]
pub(super) struct Surroundings {
    pub(super) d_model: Option<usize>,
    /// Whether positions are rotary, and how.
    pub(super) rope: Option<Option<Rope>>,
    /// What the model takes.
    pub(super) input: StreamInput,
    /// Which positions the queries of layers see that do not say it.
    pub(super) mask: Mask,
}

/// Keys that every kind of layer has.
const SHARED_KEYS: [&str; 3] = ["kind", "norms", "skip"];

/// What is to be said of a kind of layer.
trait LayerKind: Sized {
    /// What messages call it, such as "an ffn layer".
    const WHAT: &'static str;
    /// All keys of its table, in the order of the documentation: `kind` first, `norms` and `skip` last.
    const KEYS: &'static [&'static str];
    /// Whether a token's result depends on other tokens.
    const MIXES_TOKENS: bool = false;

    /// What of it looks at later tokens, so that the model cannot generate: the key that says so, and what it asks for.
    fn looks_ahead(&self) -> Option<(&'static str, &'static str)> {
        None
    }

    /// Reads its table, of which the keys are checked; `None` if something is wrong and reported.
    fn read(ctx: &mut Ctx<'_>, fields: Fields<'_>, around: Surroundings) -> Option<Self>;

    /// Its settings as they are written in a model with this stream, without `kind`, `norms` and `skip`. Those that most
    /// models leave alone are written only if they are not.
    fn settings(&self, stream: &Stream) -> Vec<(&'static str, String)>;

    /// What the layer makes of the stream, `[rows, D]`, behind the norm `pre` if there is one. Its tensors are under `name`.
    fn build<B: Build>(
        &self,
        b: &mut B,
        name: &str,
        pre: Option<&str>,
        input: LayerInput<B::Value>,
    ) -> Result<B::Value, B::Error>;
}

macro_rules! layer_kinds {
    ($($Kind:ident = $word:literal),+ $(,)?) => {
        /// A sub-layer: what it computes, without the residual.
        #[derive(Clone, Copy, Debug, PartialEq, Serialize)]
        #[serde(tag = "kind", rename_all = "lowercase")]
        pub enum Layer {
            $(#[doc = concat!("`kind = \"", $word, "\"`.")] $Kind($Kind)),+
        }

        /// The choices of `kind`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Kind {
            $($Kind),+
        }

        impl Word for Kind {
            const WORDS: &'static [(&'static str, Kind)] = &[$(($word, Kind::$Kind)),+];
        }

        impl Kind {
            fn keys(self) -> &'static [&'static str] {
                match self {
                    $(Kind::$Kind => $Kind::KEYS),+
                }
            }

            fn read(self, ctx: &mut Ctx<'_>, table: &Table, around: Surroundings) -> Option<Layer> {
                match self {
                    $(Kind::$Kind => {
                        let fields = Fields { table, what: $Kind::WHAT, keys: $Kind::KEYS };
                        ctx.check_keys(fields, |key| self.elsewhere(key));
                        $Kind::read(ctx, fields, around).map(Layer::$Kind)
                    }),+
                }
            }
        }

        impl Layer {
            fn kind(&self) -> Kind {
                match self {
                    $(Layer::$Kind(_) => Kind::$Kind),+
                }
            }

            /// Whether a token's result depends on other tokens.
            pub fn mixes_tokens(&self) -> bool {
                match self {
                    $(Layer::$Kind(_) => $Kind::MIXES_TOKENS),+
                }
            }

            /// What of it looks at later tokens, so that the model cannot generate: the key that says so, and what it asks for.
            pub fn looks_ahead(&self) -> Option<(&'static str, &'static str)> {
                match self {
                    $(Layer::$Kind(layer) => layer.looks_ahead()),+
                }
            }

            /// Its table in a spec, without the braces and `skip`.
            pub(super) fn print(&self, stream: &Stream) -> String {
                let settings = match self {
                    $(Layer::$Kind(layer) => layer.settings(stream)),+
                };
                let kind = ("kind", text(self.kind().word()));
                let all = std::iter::once(kind).chain(settings).map(|(key, value)| format!("{key} = {value}"));
                all.collect::<Vec<_>>().join(", ")
            }

            /// What the layer makes of the stream, `[rows, D]`, behind the norm `pre` if there is one. Its tensors are
            /// under `name`.
            pub(super) fn build<B: Build>(
                &self,
                b: &mut B,
                name: &str,
                pre: Option<&str>,
                input: LayerInput<B::Value>,
            ) -> Result<B::Value, B::Error> {
                match self {
                    $(Layer::$Kind(layer) => layer.build(b, name, pre, input)),+
                }
            }
        }
    };
}

layer_kinds! {
    Attention = "attention",
    Ffn = "ffn",
    Experts = "experts",
    Conv = "conv",
    Linear = "linear",
}

/// Reads one element of `layers`, without its skip.
pub(super) fn read(ctx: &mut Ctx<'_>, table: &Table, around: Surroundings) -> Option<Layer> {
    // Which keys it may have depends on its kind.
    let any = Fields { table, what: "a layer", keys: &[] };
    let entry = ctx.required(any, "kind", "kind = \"attention\"")?;
    let kind: Kind = ctx.word(entry)?;
    kind.read(ctx, table, around)
}

impl Kind {
    /// Where a key belongs that layers of this kind do not have.
    fn elsewhere(self, key: &str) -> Option<String> {
        let own = |kind: Kind| -> Vec<&str> {
            kind.keys().iter().copied().filter(|key| !SHARED_KEYS.contains(key)).collect()
        };
        let others = Kind::WORDS.iter().filter(|(_, kind)| *kind != self);
        let mut having =
            others.map(|(word, kind)| (word, own(*kind))).filter(|(_, keys)| keys.contains(&key));
        let (word, keys) = having.next()?;
        let belong = if keys.len() == 1 { "belongs" } else { "belong" };
        Some(format!("{} {belong} to `kind = \"{word}\"`", list(&keys)))
    }
}
