//! Where the tensors of a model lie in a checkpoint: the names of its family, and those of what makes it skip.

use super::names::{Names, PATCHES, Row, RowKind, SINGLE};

/// What a checkpoint calls its tensors.
#[derive(Clone, Copy)]
pub(super) struct Naming {
    pub(super) names: &'static Names,
    /// The model is the part of a larger one that reads text.
    pub(super) is_part: bool,
    /// Rows of routers are swapped.
    pub(super) swaps_rows: bool,
    /// Channels, rows and columns of a patch, of a model that takes these.
    pub(super) patch: Option<[usize; 3]>,
    /// Rows of a head whose neighbours turn together.
    pub(super) head_dim: Option<usize>,
    /// What makes it skip.
    pub(super) routers: RouterNames,
    /// How many experts a layer has, where they lie in one tensor.
    pub(super) n_fused: Option<usize>,
}

/// What routers and other branches are called.
#[derive(Clone, Copy)]
pub(super) enum RouterNames {
    /// `skip_router` and `skip_adapter`, as `skip_config` has them.
    OfConfig,
    /// Those of a release.
    Released(&'static Released),
    /// Those of a release whose blocks lie in modules of a recursion.
    Recursive(&'static Released, Recursion),
}

/// The modules with which a release makes a family skip.
pub(super) struct Released {
    /// What stands between a block's number and the family's own modules.
    pub(super) inner: &'static str,
    /// The modules beside these, in a block.
    pub(super) rows: &'static [Row],
}

/// Blocks that run several times, each time as a module with a number of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Recursion {
    /// Blocks before the first module, and as many behind the last.
    pub(super) outer: usize,
    /// Blocks of a module.
    pub(super) blocks: usize,
    /// How many modules there are; all have the weights of the first.
    pub(super) repeat: usize,
}

/// Where a tensor of ours lies.
#[derive(Debug, PartialEq)]
pub(super) struct TensorPlace {
    /// The name of their tensor, without [`Names::prefix`].
    pub(super) theirs: String,
    /// Our tensors in it, in the order of rows.
    pub(super) parts: Vec<String>,
    pub(super) kind: RowKind,
    /// It is the last weight of a router, or its bias, whose rows may be swapped.
    pub(super) is_router: bool,
    /// It has a dimension in front, for experts.
    pub(super) n_experts: Option<usize>,
}

impl Naming {
    /// A name of the tables as files have it.
    pub(super) fn written(&self, bare: &str) -> String {
        if self.is_part { format!("language_model.{bare}") } else { format!("{}{bare}", self.names.prefix) }
    }

    /// The shape of their tensor that is a matrix of ours: of a projection of patches, of one with a 1 in front, and of
    /// experts.
    pub(super) fn written_shape(&self, place: &TensorPlace, matrix: Vec<usize>) -> Vec<usize> {
        match (self.patch, place.n_experts, matrix.as_slice()) {
            (_, Some(n), [rows, columns]) => vec![n, rows / n, *columns],
            (Some(patch), _, [d, _]) if place.theirs == PATCHES => [&[*d][..], &patch].concat(),
            (Some(_), _, shape) if SINGLE.contains(&place.theirs.as_str()) => [&[1][..], shape].concat(),
            _ => matrix,
        }
    }

    /// Where a tensor of ours lies; nothing if the checkpoint has no name for it.
    pub(super) fn place(&self, ours: &str) -> Option<TensorPlace> {
        let (module, kind) = ours.rsplit_once('.')?;
        if let Some(of_stack) = module.strip_prefix("stacks.") {
            return self.of_stack(of_stack, kind);
        }
        let Some((block, inside)) = module.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'))
        else {
            return Some(place("", "", kind, find(self.names.outside, module)?));
        };
        let front = self.front(block.parse().ok()?);
        let (blocks, inner) = (format!("blocks.{block}."), self.inner());
        if let Some(found) = self.choice(&front, &blocks, (inside, kind)) {
            return Some(found);
        }
        let (module, number) = numbered(inside);
        let row = self.names.inside.iter().find_map(|rows| find(rows, &module))?;
        let found = place(&(front + inner), &blocks, kind, row);
        Some(match (number, self.n_fused) {
            (Some(_), Some(n)) if !row.theirs.contains('*') => found.of_all_experts(n),
            (Some(number), _) => found.of_expert(number),
            (None, _) => found,
        })
    }

    /// What stands in front of the modules of the block with these weights.
    fn front(&self, block: usize) -> String {
        let front = self.names.block;
        match self.routers {
            RouterNames::Recursive(_, Recursion { outer, blocks, repeat }) if block >= outer => {
                match block - outer {
                    at if at < blocks => format!("{front}{outer}.block.{at}."),
                    at => format!("{front}{}.", outer + repeat + at - blocks),
                }
            }
            _ => format!("{front}{block}."),
        }
    }

    fn inner(&self) -> &'static str {
        match self.routers {
            RouterNames::OfConfig => "",
            RouterNames::Released(released) | RouterNames::Recursive(released, _) => released.inner,
        }
    }

    /// A module of a choice in a block.
    fn choice(&self, front: &str, blocks: &str, (inside, kind): (&str, &str)) -> Option<TensorPlace> {
        let is_router = ["router", "layer_routers.0", "layer_routers.1"].contains(&inside);
        let found = match self.routers {
            RouterNames::OfConfig => {
                let theirs = format!("{front}{}.{kind}", of_config(self.names, inside)?);
                let parts = vec![format!("{blocks}{inside}.{kind}")];
                TensorPlace { theirs, parts, kind: RowKind::Plain, is_router, n_experts: None }
            }
            RouterNames::Released(released) | RouterNames::Recursive(released, _) => {
                place(front, blocks, kind, find(released.rows, inside)?)
            }
        };
        Some(TensorPlace { is_router, ..found })
    }

    /// A module of the decision over a repetition: `<stack>.routers.<repetition>…`.
    fn of_stack(&self, module: &str, kind: &str) -> Option<TensorPlace> {
        let RouterNames::Recursive(released, recursion) = self.routers else { return None };
        let (stack, rest) = module.split_once(".routers.")?;
        let (number, inside) = rest.split_once('.').map_or((rest, ""), |(number, inside)| (number, inside));
        let inside = if inside.is_empty() { "router".to_owned() } else { format!("router.{inside}") };
        let row = find(released.rows, &inside)?;
        let number: usize = number.parse().ok()?;
        let theirs = format!("{}{}.{}.{kind}", self.names.block, recursion.outer + number, row.theirs);
        let parts = vec![format!("stacks.{stack}.routers.{rest}.{kind}")];
        let is_router = inside == "router";
        Some(TensorPlace { theirs, parts, kind: RowKind::Plain, is_router, n_experts: None })
    }

    /// The name in the first module of a recursion of a tensor that a later one has again.
    pub(super) fn first_of_copies(&self, bare: &str) -> Option<String> {
        let RouterNames::Recursive(_, Recursion { outer, repeat, .. }) = self.routers else { return None };
        let (number, rest) = bare.strip_prefix(self.names.block)?.split_once('.')?;
        let number: usize = number.parse().ok()?;
        let is_copy = (outer + 1..outer + repeat).contains(&number) && rest.starts_with("block.");
        is_copy.then(|| format!("{}{outer}.{rest}", self.names.block))
    }

    /// Whether a tensor of theirs is none of the model's weights: masks and frequencies that some files have.
    pub(super) fn is_no_weight(&self, theirs: &str) -> bool {
        theirs.starts_with(self.names.block) && self.names.masks.iter().any(|end| theirs.ends_with(end))
    }
}

impl TensorPlace {
    /// That of one expert, whose number stands for the `*` in names.
    fn of_expert(self, number: &str) -> TensorPlace {
        let numbered = |name: String| name.replacen('*', number, 1);
        TensorPlace {
            theirs: numbered(self.theirs),
            parts: self.parts.into_iter().map(numbered).collect(),
            ..self
        }
    }

    /// That of all experts, one below the other.
    fn of_all_experts(self, n: usize) -> TensorPlace {
        let of = |number: usize| {
            let number = number.to_string();
            self.parts.iter().map(move |part| part.replacen('*', &number, 1)).collect::<Vec<String>>()
        };
        TensorPlace { parts: (0..n).flat_map(of).collect(), n_experts: Some(n), ..self }
    }
}

/// What `skip_config` calls a module of a choice.
fn of_config(names: &Names, inside: &str) -> Option<String> {
    if let Some(layer) = inside.strip_prefix("otherwise.0.") {
        return Some(format!("skip_adapter.{layer}"));
    }
    let routers = [
        ("router", "skip_router".to_owned()),
        ("layer_routers.0", format!("{}.skip_router", names.routed[0])),
        ("layer_routers.1", format!("{}.skip_router", names.routed[1])),
    ];
    routers.into_iter().find_map(|(ours, theirs)| {
        let rest = inside.strip_prefix(ours)?;
        let is_step = rest.starts_with(".steps.") || rest.starts_with(".predictor");
        (rest.is_empty() || is_step).then(|| theirs + rest)
    })
}

/// The name of a module of ours with `*` for the number of an expert, and that number.
fn numbered(module: &str) -> (String, Option<&str>) {
    let Some((layer, rest)) = module.split_once(".experts.") else { return (module.to_owned(), None) };
    match rest.split_once('.') {
        Some((number, part)) => (format!("{layer}.experts.*.{part}"), Some(number)),
        None => (module.to_owned(), None),
    }
}

fn find(rows: &'static [Row], module: &str) -> Option<&'static Row> {
    rows.iter().find(|row| row.ours.contains(&module))
}

fn place(front: &str, blocks: &str, kind: &str, row: &Row) -> TensorPlace {
    let whole = row.kind == RowKind::Tensor;
    TensorPlace {
        theirs: if whole {
            format!("{front}{}", row.theirs)
        } else {
            format!("{front}{}.{kind}", row.theirs)
        },
        parts: row.ours.iter().map(|part| format!("{blocks}{part}.{kind}")).collect(),
        // Only weights have columns, and only they turn.
        kind: if kind == "weight" { row.kind } else { RowKind::Plain },
        is_router: false,
        n_experts: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::{EXPERTS, FUSED_NAMES, GEMMA2, GPT2, LLAMA, META, MIXTRAL, PHI, VIT, row};
    use super::*;

    fn naming(names: &'static Names, routers: RouterNames) -> Naming {
        let (is_part, swaps_rows, patch) = (false, false, None);
        Naming { names, is_part, swaps_rows, patch, head_dim: None, routers, n_fused: None }
    }

    #[track_caller]
    fn check(naming: &Naming, ours: &str, theirs: &str) {
        assert_eq!(naming.place(ours).map(|place| place.theirs).as_deref(), Some(theirs), "{ours}");
    }

    fn of(names: &'static Names) -> Naming {
        naming(names, RouterNames::OfConfig)
    }

    #[test]
    fn names_are_theirs() {
        check(&of(&LLAMA), "embed.weight", "model.embed_tokens.weight");
        let norm = "model.layers.12.post_attention_layernorm.weight";
        check(&of(&LLAMA), "blocks.12.layers.1.norm.weight", norm);
        let norm = "model.layers.0.post_attention_layernorm.weight";
        check(&of(&GEMMA2), "blocks.0.layers.0.post_norm.weight", norm);
        check(&of(&VIT), "cls.weight", "vit.embeddings.cls_token");
        check(&of(&VIT), "patch_embed.bias", "vit.embeddings.patch_embeddings.projection.bias");
        check(&of(&VIT), "blocks.7.layers.1.down_proj.weight", "vit.encoder.layer.7.output.dense.weight");
        let expert = "model.layers.2.block_sparse_moe.experts.13.w2.weight";
        check(&of(&MIXTRAL), "blocks.2.layers.1.experts.13.down_proj.weight", expert);
        let gate = "model.layers.0.mlp.shared_expert_gate.weight";
        check(&of(&EXPERTS), "blocks.0.layers.1.shared_gate.weight", gate);
        assert_eq!(of(&LLAMA).place("blocks.0.layers.7.up_proj.weight"), None);
        let c_attn = of(&GPT2).place("blocks.1.layers.0.v_proj.weight").unwrap();
        assert!(c_attn.kind == RowKind::Transposed && c_attn.theirs == "h.1.attn.c_attn.weight");
        assert_eq!(c_attn.parts[1], "blocks.1.layers.0.k_proj.weight");
        assert!(of(&GPT2).place("blocks.1.layers.0.v_proj.bias").unwrap().kind == RowKind::Plain);
        let turned = of(&META).place("blocks.1.layers.0.k_proj.weight").unwrap();
        assert!(turned.kind == RowKind::Interleaved && turned.theirs == "layers.1.attention.wk.weight");
    }

    #[test]
    fn routers_have_names_of_the_configuration() {
        check(&of(&GPT2), "blocks.3.layer_routers.0.bias", "h.3.attn.skip_router.bias");
        check(&of(&PHI), "blocks.3.router.weight", "model.layers.3.skip_router.weight");
        check(&of(&GPT2), "blocks.3.layer_routers.1.steps.2.bias", "h.3.mlp.skip_router.steps.2.bias");
        let adapter = "model.layers.3.skip_adapter.up_proj.weight";
        check(&of(&LLAMA), "blocks.3.otherwise.0.up_proj.weight", adapter);
        let is_router = |name: &str| of(&LLAMA).place(name).is_some_and(|place| place.is_router);
        assert!(is_router("blocks.1.router.weight") && !is_router("blocks.1.router.steps.0.weight"));
        assert_eq!(of(&LLAMA).place("blocks.0.router_of.weight"), None);
        assert_eq!(of(&LLAMA).place("stacks.0.routers.1.weight"), None);
    }

    #[test]
    fn experts_lie_one_below_the_other() {
        let fused = Naming { n_fused: Some(2), ..of(&FUSED_NAMES) };
        let place = fused.place("blocks.3.layers.1.experts.1.up_proj.weight").unwrap();
        assert_eq!(place.theirs, "model.layers.3.mlp.experts.gate_up_proj");
        let parts = ["0.gate_proj", "0.up_proj", "1.gate_proj", "1.up_proj"];
        assert_eq!(place.parts, parts.map(|part| format!("blocks.3.layers.1.experts.{part}.weight")));
        assert_eq!(fused.written_shape(&place, vec![20, 8]), [2, 10, 8]);
        check(&fused, "blocks.3.layers.1.router.weight", "model.layers.3.mlp.gate.weight");
    }

    #[test]
    fn blocks_of_a_recursion_lie_in_its_modules() {
        static RELEASED: Released =
            Released { inner: "", rows: &[row("r.router", &["router"]), row("r.0", &["router.steps.0"])] };
        let recursion = Recursion { outer: 1, blocks: 2, repeat: 3 };
        let mor = naming(&LLAMA, RouterNames::Recursive(&RELEASED, recursion));
        let q_proj = |block: usize| format!("blocks.{block}.layers.0.q_proj.weight");
        check(&mor, &q_proj(0), "model.layers.0.self_attn.q_proj.weight");
        check(&mor, &q_proj(1), "model.layers.1.block.0.self_attn.q_proj.weight");
        check(&mor, &q_proj(2), "model.layers.1.block.1.self_attn.q_proj.weight");
        check(&mor, &q_proj(3), "model.layers.4.self_attn.q_proj.weight");
        check(&mor, "stacks.1.routers.2.weight", "model.layers.3.r.router.weight");
        check(&mor, "stacks.1.routers.0.steps.0.weight", "model.layers.1.r.0.weight");
        let first = |name: &str| mor.first_of_copies(name);
        assert_eq!(first("model.layers.3.block.1.x").as_deref(), Some("model.layers.1.block.1.x"));
        assert_eq!(first("model.layers.1.block.1.x"), None);
        assert_eq!(first("model.layers.4.block.1.x"), None);
        assert_eq!(first("model.layers.3.r.router.weight"), None);
    }

    #[test]
    fn masks_are_no_weights() {
        assert!(of(&LLAMA).is_no_weight("model.layers.0.self_attn.rotary_emb.inv_freq"));
        assert!(of(&GPT2).is_no_weight("h.0.attn.bias") && !of(&GPT2).is_no_weight("h.0.attn.c_attn.bias"));
        assert!(!of(&LLAMA).is_no_weight("model.layers.0.attn.bias"));
    }
}
