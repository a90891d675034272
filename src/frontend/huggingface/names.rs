//! What families call the tensors of a model: a row for each of their modules.

/// The names of a family.
pub(super) struct Names {
    /// What may stand in front of all names.
    pub(super) prefix: &'static str,
    /// What stands in front of a block's number.
    pub(super) block: &'static str,
    /// Modules outside of blocks, and in a block.
    pub(super) outside: &'static [Row],
    pub(super) inside: &'static [&'static [Row]],
    /// The modules of a block that have routers of their own, by sub-layer.
    pub(super) routed: [&'static str; 2],
    /// Ends of names in a block that are no weights.
    pub(super) masks: &'static [&'static str],
}

/// A module of theirs with the modules of ours that lie in it one below the other, by rows.
pub(super) struct Row {
    pub(super) theirs: &'static str,
    pub(super) ours: &'static [&'static str],
    /// Its weight is `[in, out]`.
    pub(super) transposed: bool,
    /// It is no module, but the tensor itself.
    pub(super) is_tensor: bool,
}

/// Where a tensor of ours lies.
#[derive(Debug, PartialEq)]
pub(super) struct Place {
    /// The name of their tensor, without [`Names::prefix`].
    pub(super) theirs: String,
    /// Our tensors in it, in the order of rows.
    pub(super) parts: Vec<String>,
    pub(super) transposed: bool,
    /// It belongs to a router, whose rows may be swapped.
    pub(super) is_router: bool,
}

const fn row(theirs: &'static str, ours: &'static [&'static str]) -> Row {
    Row { theirs, ours, transposed: false, is_tensor: false }
}

const fn conv(theirs: &'static str, ours: &'static [&'static str]) -> Row {
    Row { theirs, ours, transposed: true, is_tensor: false }
}

const fn tensor(theirs: &'static str, ours: &'static [&'static str]) -> Row {
    Row { theirs, ours, transposed: false, is_tensor: true }
}

const OUTSIDE: &[Row] =
    &[row("model.embed_tokens", &["embed"]), row("model.norm", &["norm"]), row("lm_head", &["lm_head"])];

const ATTENTION: &[Row] = &[
    row("self_attn.q_proj", &["layers.0.q_proj"]),
    row("self_attn.k_proj", &["layers.0.k_proj"]),
    row("self_attn.v_proj", &["layers.0.v_proj"]),
    row("self_attn.o_proj", &["layers.0.o_proj"]),
    row("self_attn.q_norm", &["layers.0.q_norm"]),
    row("self_attn.k_norm", &["layers.0.k_norm"]),
];

const GATED: &[Row] = &[
    row("mlp.gate_proj", &["layers.1.gate_proj"]),
    row("mlp.up_proj", &["layers.1.up_proj"]),
    row("mlp.down_proj", &["layers.1.down_proj"]),
];

const OF_EXPERTS: &[Row] = &[
    row("mlp.gate", &["layers.1.router"]),
    row("mlp.experts.*.gate_proj", &["layers.1.experts.*.gate_proj"]),
    row("mlp.experts.*.up_proj", &["layers.1.experts.*.up_proj"]),
    row("mlp.experts.*.down_proj", &["layers.1.experts.*.down_proj"]),
    row("mlp.shared_expert.gate_proj", &["layers.1.shared.gate_proj"]),
    row("mlp.shared_expert.up_proj", &["layers.1.shared.up_proj"]),
    row("mlp.shared_expert.down_proj", &["layers.1.shared.down_proj"]),
    row("mlp.shared_expert_gate", &["layers.1.shared_gate"]),
];

/// The second is the FFN's pre-norm in spite of its name.
const PRE_NORMS: &[Row] =
    &[row("input_layernorm", &["layers.0.norm"]), row("post_attention_layernorm", &["layers.1.norm"])];

pub(super) const LLAMA: Names = Names {
    prefix: "",
    block: "model.layers.",
    outside: OUTSIDE,
    inside: &[PRE_NORMS, ATTENTION, GATED],
    routed: ["self_attn", "mlp"],
    masks: &[".rotary_emb.inv_freq"],
};

pub(super) const GEMMA2: Names = Names {
    inside: &[
        &[
            row("input_layernorm", &["layers.0.norm"]),
            row("post_attention_layernorm", &["layers.0.post_norm"]),
            row("pre_feedforward_layernorm", &["layers.1.norm"]),
            row("post_feedforward_layernorm", &["layers.1.post_norm"]),
        ],
        ATTENTION,
        GATED,
    ],
    ..LLAMA
};

pub(super) const OLMO2: Names = Names {
    inside: &[
        &[
            row("post_attention_layernorm", &["layers.0.post_norm"]),
            row("post_feedforward_layernorm", &["layers.1.post_norm"]),
        ],
        ATTENTION,
        GATED,
    ],
    ..LLAMA
};

pub(super) const EXPERTS: Names = Names { inside: &[PRE_NORMS, ATTENTION, GATED, OF_EXPERTS], ..LLAMA };

pub(super) const MIXTRAL: Names = Names {
    inside: &[
        PRE_NORMS,
        ATTENTION,
        &[
            row("block_sparse_moe.gate", &["layers.1.router"]),
            row("block_sparse_moe.experts.*.w1", &["layers.1.experts.*.gate_proj"]),
            row("block_sparse_moe.experts.*.w2", &["layers.1.experts.*.down_proj"]),
            row("block_sparse_moe.experts.*.w3", &["layers.1.experts.*.up_proj"]),
        ],
    ],
    ..LLAMA
};

pub(super) const PHI: Names = Names {
    outside: &[
        row("model.embed_tokens", &["embed"]),
        row("model.final_layernorm", &["norm"]),
        row("lm_head", &["lm_head"]),
    ],
    inside: &[&[
        row("input_layernorm", &["layers.0.norm"]),
        row("self_attn.q_proj", &["layers.0.q_proj"]),
        row("self_attn.k_proj", &["layers.0.k_proj"]),
        row("self_attn.v_proj", &["layers.0.v_proj"]),
        row("self_attn.dense", &["layers.0.o_proj"]),
        row("self_attn.q_layernorm", &["layers.0.q_norm"]),
        row("self_attn.k_layernorm", &["layers.0.k_norm"]),
        row("mlp.fc1", &["layers.1.up_proj"]),
        row("mlp.fc2", &["layers.1.down_proj"]),
    ]],
    ..LLAMA
};

pub(super) const PHI3: Names = Names {
    inside: &[
        PRE_NORMS,
        &[
            row("self_attn.qkv_proj", &["layers.0.q_proj", "layers.0.k_proj", "layers.0.v_proj"]),
            row("self_attn.o_proj", &["layers.0.o_proj"]),
            row("mlp.gate_up_proj", &["layers.1.gate_proj", "layers.1.up_proj"]),
            row("mlp.down_proj", &["layers.1.down_proj"]),
        ],
    ],
    ..LLAMA
};

pub(super) const GPT2: Names = Names {
    prefix: "transformer.",
    block: "h.",
    outside: &[
        row("wte", &["embed"]),
        row("wpe", &["positions"]),
        row("ln_f", &["norm"]),
        row("lm_head", &["lm_head"]),
    ],
    inside: &[&[
        row("ln_1", &["layers.0.norm"]),
        conv("attn.c_attn", &["layers.0.q_proj", "layers.0.k_proj", "layers.0.v_proj"]),
        conv("attn.c_proj", &["layers.0.o_proj"]),
        row("ln_2", &["layers.1.norm"]),
        conv("mlp.c_fc", &["layers.1.up_proj"]),
        conv("mlp.c_proj", &["layers.1.down_proj"]),
    ]],
    routed: ["attn", "mlp"],
    masks: &[".attn.bias", ".attn.masked_bias"],
};

/// The weight of the patches' projection, whose shape is that of a convolution, `[D, channels, patch, patch]`.
pub(super) const PATCHES: &str = "vit.embeddings.patch_embeddings.projection.weight";

/// Tensors of one matrix, with a dimension of 1 in front.
pub(super) const SINGLE: [&str; 2] = ["vit.embeddings.cls_token", "vit.embeddings.position_embeddings"];

pub(super) const VIT: Names = Names {
    prefix: "",
    block: "vit.encoder.layer.",
    outside: &[
        row("vit.embeddings.patch_embeddings.projection", &["patch_embed"]),
        tensor("vit.embeddings.cls_token", &["cls"]),
        tensor("vit.embeddings.position_embeddings", &["positions"]),
        row("vit.layernorm", &["norm"]),
        row("classifier", &["head"]),
    ],
    inside: &[&[
        row("layernorm_before", &["layers.0.norm"]),
        row("attention.attention.query", &["layers.0.q_proj"]),
        row("attention.attention.key", &["layers.0.k_proj"]),
        row("attention.attention.value", &["layers.0.v_proj"]),
        row("attention.output.dense", &["layers.0.o_proj"]),
        row("layernorm_after", &["layers.1.norm"]),
        row("intermediate.dense", &["layers.1.up_proj"]),
        row("output.dense", &["layers.1.down_proj"]),
    ]],
    routed: ["attention", "mlp"],
    masks: &[],
};

impl Names {
    /// Where a tensor of ours lies; nothing if the family has no name for it.
    pub(super) fn place(&self, ours: &str) -> Option<Place> {
        let (module, kind) = ours.rsplit_once('.')?;
        let Some((block, inside)) = module.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'))
        else {
            return Some(place("", "", kind, find(self.outside, module)?));
        };
        let (front, blocks) = (format!("{}{block}.", self.block), format!("blocks.{block}."));
        if let Some((module, is_router)) = self.choice(inside) {
            let theirs = format!("{front}{module}.{kind}");
            return Some(Place { theirs, parts: vec![ours.to_owned()], transposed: false, is_router });
        }
        let (module, number) = numbered(inside);
        let row = self.inside.iter().find_map(|rows| find(rows, &module))?;
        Some(place(&front, &blocks, kind, row).of_expert(number))
    }

    /// Their name of a module of a choice, and whether it is the last weight of its router.
    fn choice(&self, inside: &str) -> Option<(String, bool)> {
        if let Some(layer) = inside.strip_prefix("otherwise.0.") {
            return Some((format!("skip_adapter.{layer}"), false));
        }
        let routers = [
            ("router", "skip_router".to_owned()),
            ("layer_routers.0", format!("{}.skip_router", self.routed[0])),
            ("layer_routers.1", format!("{}.skip_router", self.routed[1])),
        ];
        routers.into_iter().find_map(|(ours, theirs)| {
            let rest = inside.strip_prefix(ours)?;
            let is_step = rest.starts_with(".steps.") || rest.starts_with(".predictor");
            (rest.is_empty() || is_step).then(|| (theirs + rest, rest.is_empty()))
        })
    }

    /// Whether a tensor of theirs is none of the model's weights: masks and frequencies that some files have.
    pub(super) fn is_no_weight(&self, theirs: &str) -> bool {
        theirs.starts_with(self.block) && self.masks.iter().any(|end| theirs.ends_with(end))
    }
}

impl Place {
    /// That of one expert, whose number stands for the `*` in names.
    fn of_expert(self, number: Option<&str>) -> Place {
        let Some(number) = number else { return self };
        let numbered = |name: String| name.replacen('*', number, 1);
        Place { theirs: numbered(self.theirs), parts: self.parts.into_iter().map(numbered).collect(), ..self }
    }
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

fn place(front: &str, blocks: &str, kind: &str, row: &Row) -> Place {
    Place {
        theirs: if row.is_tensor { row.theirs.to_owned() } else { format!("{front}{}.{kind}", row.theirs) },
        parts: row.ours.iter().map(|part| format!("{blocks}{part}.{kind}")).collect(),
        transposed: row.transposed && kind == "weight",
        is_router: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_theirs() {
        let theirs = |names: &Names, ours: &str| names.place(ours).map(|place| place.theirs);
        let of = |name: &str| Some(name.to_owned());
        assert_eq!(theirs(&LLAMA, "embed.weight"), of("model.embed_tokens.weight"));
        assert_eq!(
            theirs(&LLAMA, "blocks.12.layers.1.norm.weight"),
            of("model.layers.12.post_attention_layernorm.weight")
        );
        assert_eq!(
            theirs(&GEMMA2, "blocks.0.layers.0.post_norm.weight"),
            of("model.layers.0.post_attention_layernorm.weight")
        );
        assert_eq!(theirs(&GPT2, "blocks.3.layer_routers.0.bias"), of("h.3.attn.skip_router.bias"));
        assert_eq!(theirs(&PHI, "blocks.3.router.weight"), of("model.layers.3.skip_router.weight"));
        assert_eq!(
            theirs(&GPT2, "blocks.3.layer_routers.1.steps.2.bias"),
            of("h.3.mlp.skip_router.steps.2.bias")
        );
        assert_eq!(
            theirs(&LLAMA, "blocks.3.otherwise.0.up_proj.weight"),
            of("model.layers.3.skip_adapter.up_proj.weight")
        );
        assert_eq!(theirs(&VIT, "cls.weight"), of("vit.embeddings.cls_token"));
        assert_eq!(theirs(&VIT, "patch_embed.bias"), of("vit.embeddings.patch_embeddings.projection.bias"));
        assert_eq!(
            theirs(&VIT, "blocks.7.layers.1.down_proj.weight"),
            of("vit.encoder.layer.7.output.dense.weight")
        );
        let is_router = |name: &str| LLAMA.place(name).is_some_and(|place| place.is_router);
        assert!(is_router("blocks.1.router.weight") && !is_router("blocks.1.router.steps.0.weight"));
        assert_eq!(theirs(&LLAMA, "blocks.0.router_of.weight"), None);
        assert_eq!(theirs(&LLAMA, "blocks.0.layers.7.up_proj.weight"), None);
        assert_eq!(
            theirs(&MIXTRAL, "blocks.2.layers.1.experts.13.down_proj.weight"),
            of("model.layers.2.block_sparse_moe.experts.13.w2.weight")
        );
        assert_eq!(
            theirs(&EXPERTS, "blocks.0.layers.1.shared_gate.weight"),
            of("model.layers.0.mlp.shared_expert_gate.weight")
        );
        let c_attn = GPT2.place("blocks.1.layers.0.v_proj.weight").unwrap();
        assert!(c_attn.transposed && c_attn.theirs == "h.1.attn.c_attn.weight");
        assert_eq!(c_attn.parts[1], "blocks.1.layers.0.k_proj.weight");
        assert!(!GPT2.place("blocks.1.layers.0.v_proj.bias").unwrap().transposed);
    }

    #[test]
    fn masks_are_no_weights() {
        assert!(LLAMA.is_no_weight("model.layers.0.self_attn.rotary_emb.inv_freq"));
        assert!(GPT2.is_no_weight("h.0.attn.bias") && !GPT2.is_no_weight("h.0.attn.c_attn.bias"));
        assert!(!LLAMA.is_no_weight("model.layers.0.attn.bias"));
    }
}
