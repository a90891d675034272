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

/// A module of theirs with the modules of ours that lie in it one below the other, by rows. With `*` in ours and none in
/// theirs, those of one expert lie below those of the expert before.
pub(super) struct Row {
    pub(super) theirs: &'static str,
    pub(super) ours: &'static [&'static str],
    pub(super) kind: RowKind,
}

/// What is in a module of theirs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum RowKind {
    Plain,
    /// Its weight is `[in, out]`.
    Transposed,
    /// It is no module, but the tensor itself.
    Tensor,
    /// Its rows are those of heads whose neighbours turn together, `2j` with `2j + 1`; ours are half-split.
    Interleaved,
}

pub(super) const fn row(theirs: &'static str, ours: &'static [&'static str]) -> Row {
    Row { theirs, ours, kind: RowKind::Plain }
}

const fn conv(theirs: &'static str, ours: &'static [&'static str]) -> Row {
    Row { theirs, ours, kind: RowKind::Transposed }
}

const fn tensor(theirs: &'static str, ours: &'static [&'static str]) -> Row {
    Row { theirs, ours, kind: RowKind::Tensor }
}

const fn interleaved(theirs: &'static str, ours: &'static [&'static str]) -> Row {
    Row { theirs, ours, kind: RowKind::Interleaved }
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

/// The experts of a layer in two tensors `[experts, rows, columns]`, as transformers 5 holds them and can save them.
const FUSED_EXPERTS: &[Row] = &[
    row("mlp.gate", &["layers.1.router"]),
    tensor("mlp.experts.gate_up_proj", &["layers.1.experts.*.gate_proj", "layers.1.experts.*.up_proj"]),
    tensor("mlp.experts.down_proj", &["layers.1.experts.*.down_proj"]),
    row("mlp.shared_expert.gate_proj", &["layers.1.shared.gate_proj"]),
    row("mlp.shared_expert.up_proj", &["layers.1.shared.up_proj"]),
    row("mlp.shared_expert.down_proj", &["layers.1.shared.down_proj"]),
    row("mlp.shared_expert_gate", &["layers.1.shared_gate"]),
];

/// What a name of experts in one tensor has in it.
pub(super) const FUSED: &str = ".mlp.experts.gate_up_proj";

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

/// The names of all families of experts, where the experts of a layer are in one tensor.
pub(super) const FUSED_NAMES: Names =
    Names { inside: &[PRE_NORMS, ATTENTION, GATED, FUSED_EXPERTS], ..LLAMA };

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

/// As Meta's own files have them.
pub(super) const META: Names = Names {
    prefix: "",
    block: "layers.",
    outside: &[row("tok_embeddings", &["embed"]), row("norm", &["norm"]), row("output", &["lm_head"])],
    inside: &[&[
        row("attention_norm", &["layers.0.norm"]),
        interleaved("attention.wq", &["layers.0.q_proj"]),
        interleaved("attention.wk", &["layers.0.k_proj"]),
        row("attention.wv", &["layers.0.v_proj"]),
        row("attention.wo", &["layers.0.o_proj"]),
        row("ffn_norm", &["layers.1.norm"]),
        row("feed_forward.w1", &["layers.1.gate_proj"]),
        row("feed_forward.w2", &["layers.1.down_proj"]),
        row("feed_forward.w3", &["layers.1.up_proj"]),
    ]],
    routed: ["attention", "feed_forward"],
    masks: &[],
};
