//! The resolved model as a spec again, every default written out. It reads back to an equal model.

use std::collections::BTreeSet;
use std::fmt;

use super::model::{Block, Layer, LayerKind, Model, Positions, Skip};
use super::skip::refusal;
use super::words::Word;

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[model]")?;
        writeln!(f, "name = {}", text(&self.name))?;
        writeln!(f, "vocab_size = {}", self.vocab_size)?;
        writeln!(f, "d_model = {}", self.d_model)?;
        writeln!(f, "max_positions = {}", self.max_positions)?;
        writeln!(f, "norm = {}", text(self.norm.kind.word()))?;
        writeln!(f, "norm_eps = {:?}", self.norm.eps)?;
        match self.positions {
            Positions::Rope { theta } => writeln!(f, "positions = \"rope\"\nrope_theta = {theta:?}")?,
            Positions::Learned => writeln!(f, "positions = \"learned\"")?,
            Positions::None => writeln!(f, "positions = \"none\"")?,
        }
        writeln!(f, "tie_embeddings = {}", self.tie_embeddings)?;
        let mut printed = BTreeSet::new();
        for block in &self.blocks {
            if printed.insert(&block.name) {
                print_block(f, block)?;
            }
        }
        print_stack(f, &self.blocks)
    }
}

fn print_block(f: &mut fmt::Formatter<'_>, block: &Block) -> fmt::Result {
    writeln!(f, "\n[block.{}]", toml_edit::Key::new(&block.name).display_repr())?;
    if let Some(skip) = &block.skip {
        writeln!(f, "skip = {}", skip_table(skip, true))?;
    }
    writeln!(f, "layers = [")?;
    for layer in &block.layers {
        writeln!(f, "  {},", layer_table(layer))?;
    }
    writeln!(f, "]")
}

fn print_stack(f: &mut fmt::Formatter<'_>, blocks: &[Block]) -> fmt::Result {
    let names: Vec<&str> = blocks.iter().map(|block| block.name.as_str()).collect();
    let period = period(&names);
    let shown: Vec<String> = names.iter().take(period).map(|name| text(name)).collect();
    writeln!(f, "\n[[stack]]\nblocks = [{}]", shown.join(", "))?;
    writeln!(f, "repeat = {}", names.len().checked_div(period).unwrap_or(0))
}

/// Length of the shortest prefix of which `names` is a whole number of repetitions.
fn period(names: &[&str]) -> usize {
    let len = names.len();
    let repeats = |period: &usize| len.is_multiple_of(*period) && names[*period..] == names[..len - *period];
    (1..=len).find(repeats).unwrap_or(0)
}

fn layer_table(layer: &Layer) -> String {
    let settings = match layer.kind {
        LayerKind::Attention { heads, kv_heads, head_dim } => {
            format!("kind = \"attention\", heads = {heads}, kv_heads = {kv_heads}, head_dim = {head_dim}")
        }
        LayerKind::Ffn { d_ff, activation } => {
            format!("kind = \"ffn\", d_ff = {d_ff}, activation = {}", text(activation.word()))
        }
    };
    match &layer.skip {
        None => format!("{{ {settings} }}"),
        Some(skip) => format!("{{ {settings}, skip = {} }}", skip_table(skip, false)),
    }
}

/// Every setting that the router takes; `decide` means nothing for a block.
fn skip_table(skip: &Skip, of_block: bool) -> String {
    let settings: [(&str, String); 13] = [
        ("router", text(skip.router.word())),
        ("density", format!("{:?}", skip.density)),
        ("input", text(skip.input.word())),
        ("decide", text(skip.decide.word())),
        ("bias", skip.bias.to_string()),
        ("kv", text(skip.kv.word())),
        ("gate", text(skip.gate.word())),
        ("threshold", format!("{:?}", skip.threshold)),
        ("generate", text(skip.generate.word())),
        ("group_size", skip.group_size.to_string()),
        ("capacity_factor", format!("{:?}", skip.capacity_factor)),
        ("overflow", text(skip.overflow.word())),
        ("seed", skip.seed.to_string()),
    ];
    let shown =
        settings.iter().filter(|(key, _)| refusal(skip, key).is_none() && !(of_block && *key == "decide"));
    let shown: Vec<String> = shown.map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{{ {} }}", shown.join(", "))
}

/// A TOML string.
fn text(value: &str) -> String {
    toml_edit::Value::from(value).to_string()
}
