//! The families of checkpoints, a row each: what a missing key means, and what the family is made of.
//!
//! Defaults are those of each family's own configuration class. Files hold only what differs from them.

use super::names::{self, Names};

/// A family of models, named by `model_type`.
pub(super) struct Family {
    pub(super) model_type: &'static str,
    pub(super) keys: &'static Keys,
    pub(super) names: &'static Names,
    /// Missing `num_key_value_heads`; nothing: as many as there are heads.
    pub(super) kv_heads: Option<usize>,
    /// Missing `head_dim`; nothing: the stream's width by the heads.
    pub(super) head_dim: Option<usize>,
    pub(super) tie: bool,
    pub(super) eps: f64,
    pub(super) positions: Positions,
    pub(super) max_positions: usize,
    /// As a spec writes them.
    pub(super) norm: &'static str,
    pub(super) norms: &'static str,
    pub(super) layout: &'static str,
    /// Missing activation.
    pub(super) activation: &'static str,
    /// The FFN has a gate.
    pub(super) gated: bool,
    pub(super) bias: Bias,
    pub(super) mlp_bias: MlpBias,
    /// Layers of experts, and what a missing key means of them.
    pub(super) experts: Option<Experts>,
    pub(super) qk_norm: QkNorm,
    pub(super) windows: Windows,
    /// Gains are 1 + weight, embeddings are scaled by √d.
    pub(super) is_gemma: bool,
    /// Reads `query_pre_attn_scalar`, and caps of scores and logits with these defaults.
    pub(super) caps: Option<[Option<f64>; 2]>,
    pub(super) head_bias: bool,
    /// It takes the patches of images and scores each as a whole.
    pub(super) images: Option<Images>,
}

/// What a missing key means of images.
pub(super) struct Images {
    /// Pixels along a side.
    pub(super) image_size: usize,
    /// Pixels along a side of a patch.
    pub(super) patch_size: usize,
    /// Numbers of a pixel.
    pub(super) channels: usize,
    /// Scores of an image.
    pub(super) classes: usize,
}

/// How positions enter.
pub(super) enum Positions {
    Rope {
        theta: f64,
        /// Of the layers with a window, where they have another.
        local_theta: Option<f64>,
        /// Share of a head that turns.
        share: f64,
        /// `no_rope_layers` says which layers have none.
        switched: bool,
    },
    Learned,
}

/// Biases of attention's projections.
pub(super) enum Bias {
    /// Of all, if `attention_bias` says so.
    Configured,
    None,
    Qkv,
    All,
}

/// Biases of the FFN.
pub(super) enum MlpBias {
    /// If `mlp_bias` says so.
    Configured,
    None,
    All,
}

/// Experts in place of the FFN.
pub(super) struct Experts {
    /// Missing `num_experts`, which some call `num_local_experts`.
    pub(super) count: usize,
    /// Missing `num_experts_per_tok`.
    pub(super) top_k: usize,
    /// The key of their width, and what it means if it is missing; nothing: it has to be there.
    pub(super) d_ff: (&'static str, Option<usize>),
    /// The weights that a token takes sum to 1; nothing: if `norm_topk_prob` says so.
    pub(super) normalise: Option<bool>,
    /// There is an expert for every token, with a gate, as wide as `shared_expert_intermediate_size`, or this.
    pub(super) shared: Option<usize>,
    /// `decoder_sparse_step` and `mlp_only_layers` say which layers have a plain FFN instead.
    pub(super) some_layers: bool,
}

/// Norms of queries and keys.
pub(super) enum QkNorm {
    None,
    Head,
    Full,
    /// By heads, if `qk_layernorm` says so.
    Configured,
}

/// Which layers see a window.
pub(super) enum Windows {
    None,
    /// All, of `sliding_window`; what a missing one means.
    All(Option<usize>),
    /// Where `use_sliding_window` is set, those from `max_window_layers` on.
    Switched,
    /// Every other one, from the first on.
    Alternating,
    /// All but every `sliding_window_pattern`-th.
    Pattern,
    /// None, and a configuration that switches them on is refused.
    Refused,
}

/// What families call their sizes.
pub(super) struct Keys {
    pub(super) d_model: &'static str,
    pub(super) layers: &'static str,
    pub(super) heads: &'static str,
    pub(super) kv_heads: &'static str,
    pub(super) d_ff: &'static str,
    pub(super) max_positions: &'static str,
    pub(super) eps: &'static str,
    pub(super) activation: &'static str,
}

const KEYS: Keys = Keys {
    d_model: "hidden_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    kv_heads: "num_key_value_heads",
    d_ff: "intermediate_size",
    max_positions: "max_position_embeddings",
    eps: "rms_norm_eps",
    activation: "hidden_act",
};

const GPT2_KEYS: Keys = Keys {
    d_model: "n_embd",
    layers: "n_layer",
    heads: "n_head",
    kv_heads: "num_key_value_heads",
    d_ff: "n_inner",
    max_positions: "n_positions",
    eps: "layer_norm_epsilon",
    activation: "activation_function",
};

/// The window of families that have one and whose file does not say how long it is.
pub(super) const WINDOW: usize = 4096;

const fn rope(theta: f64) -> Positions {
    Positions::Rope { theta, local_theta: None, share: 1.0, switched: false }
}

pub(super) const LLAMA: Family = Family {
    model_type: "llama",
    keys: &KEYS,
    names: &names::LLAMA,
    kv_heads: None,
    head_dim: None,
    tie: false,
    eps: 1e-6,
    positions: rope(1e4),
    max_positions: 2048,
    norm: "rmsnorm",
    norms: "pre",
    layout: "sequence",
    activation: "silu",
    gated: true,
    bias: Bias::Configured,
    mlp_bias: MlpBias::Configured,
    experts: None,
    qk_norm: QkNorm::None,
    windows: Windows::None,
    is_gemma: false,
    caps: None,
    head_bias: false,
    images: None,
};

const GEMMA: Family = Family {
    model_type: "gemma",
    kv_heads: Some(16),
    head_dim: Some(256),
    tie: true,
    max_positions: 8192,
    activation: "gelu_pytorch_tanh",
    mlp_bias: MlpBias::None,
    is_gemma: true,
    ..LLAMA
};

const GEMMA2: Family = Family {
    model_type: "gemma2",
    names: &names::GEMMA2,
    kv_heads: Some(4),
    norms: "both",
    windows: Windows::Alternating,
    caps: Some([Some(50.0), Some(30.0)]),
    ..GEMMA
};

/// All families that are read.
pub(super) const FAMILIES: &[Family] = &[
    LLAMA,
    Family { model_type: "skiplayer", ..LLAMA },
    Family {
        model_type: "mistral",
        kv_heads: Some(8),
        max_positions: 131_072,
        bias: Bias::None,
        mlp_bias: MlpBias::None,
        windows: Windows::All(Some(WINDOW)),
        ..LLAMA
    },
    Family {
        model_type: "qwen2",
        kv_heads: Some(32),
        max_positions: 32_768,
        bias: Bias::Qkv,
        mlp_bias: MlpBias::None,
        windows: Windows::Switched,
        ..LLAMA
    },
    Family {
        model_type: "qwen3",
        kv_heads: Some(32),
        head_dim: Some(128),
        max_positions: 32_768,
        mlp_bias: MlpBias::None,
        qk_norm: QkNorm::Head,
        windows: Windows::Switched,
        ..LLAMA
    },
    Family {
        model_type: "smollm3",
        kv_heads: Some(4),
        tie: true,
        positions: Positions::Rope { theta: 2e6, local_theta: None, share: 1.0, switched: true },
        max_positions: 32_768,
        ..LLAMA
    },
    GEMMA,
    GEMMA2,
    Family {
        model_type: "gemma3_text",
        positions: Positions::Rope { theta: 1e6, local_theta: Some(1e4), share: 1.0, switched: false },
        max_positions: 131_072,
        qk_norm: QkNorm::Head,
        windows: Windows::Pattern,
        caps: Some([None, None]),
        ..GEMMA2
    },
    Family {
        model_type: "phi",
        keys: &Keys { eps: "layer_norm_eps", ..KEYS },
        names: &names::PHI,
        eps: 1e-5,
        positions: Positions::Rope { theta: 1e4, local_theta: None, share: 0.5, switched: false },
        norm: "layernorm",
        layout: "parallel_one_norm",
        activation: "gelu_new",
        gated: false,
        bias: Bias::All,
        mlp_bias: MlpBias::All,
        qk_norm: QkNorm::Configured,
        head_bias: true,
        ..LLAMA
    },
    Family {
        model_type: "phi3",
        names: &names::PHI3,
        eps: 1e-5,
        max_positions: 4096,
        bias: Bias::None,
        mlp_bias: MlpBias::None,
        windows: Windows::All(None),
        ..LLAMA
    },
    Family {
        model_type: "olmo2",
        names: &names::OLMO2,
        eps: 1e-5,
        norms: "post",
        mlp_bias: MlpBias::None,
        qk_norm: QkNorm::Full,
        ..LLAMA
    },
    Family {
        model_type: "mixtral",
        names: &names::MIXTRAL,
        kv_heads: Some(8),
        eps: 1e-5,
        positions: rope(1e6),
        max_positions: 131_072,
        bias: Bias::None,
        mlp_bias: MlpBias::None,
        experts: Some(Experts {
            count: 8,
            top_k: 2,
            d_ff: ("intermediate_size", None),
            normalise: Some(true),
            shared: None,
            some_layers: false,
        }),
        windows: Windows::All(None),
        ..LLAMA
    },
    Family {
        model_type: "qwen2_moe",
        names: &names::EXPERTS,
        kv_heads: Some(16),
        max_positions: 32_768,
        bias: Bias::Qkv,
        mlp_bias: MlpBias::None,
        experts: Some(Experts {
            count: 60,
            top_k: 4,
            d_ff: ("moe_intermediate_size", Some(1408)),
            normalise: None,
            shared: Some(5632),
            some_layers: true,
        }),
        windows: Windows::Refused,
        ..LLAMA
    },
    Family {
        model_type: "qwen3_moe",
        names: &names::EXPERTS,
        kv_heads: Some(4),
        max_positions: 32_768,
        mlp_bias: MlpBias::None,
        experts: Some(Experts {
            count: 128,
            top_k: 8,
            d_ff: ("moe_intermediate_size", Some(768)),
            normalise: None,
            shared: None,
            some_layers: true,
        }),
        qk_norm: QkNorm::Head,
        windows: Windows::Refused,
        ..LLAMA
    },
    Family {
        model_type: "olmoe",
        names: &names::EXPERTS,
        eps: 1e-5,
        max_positions: 4096,
        mlp_bias: MlpBias::None,
        experts: Some(Experts {
            count: 64,
            top_k: 8,
            d_ff: ("intermediate_size", None),
            normalise: None,
            shared: None,
            some_layers: false,
        }),
        qk_norm: QkNorm::Full,
        ..LLAMA
    },
    Family {
        model_type: "gpt2",
        keys: &GPT2_KEYS,
        names: &names::GPT2,
        tie: true,
        eps: 1e-5,
        positions: Positions::Learned,
        max_positions: 1024,
        norm: "layernorm",
        activation: "gelu_new",
        gated: false,
        bias: Bias::All,
        mlp_bias: MlpBias::All,
        ..LLAMA
    },
    Family {
        model_type: "vit",
        keys: &Keys { eps: "layer_norm_eps", ..KEYS },
        names: &names::VIT,
        eps: 1e-12,
        positions: Positions::Learned,
        norm: "layernorm",
        activation: "gelu",
        gated: false,
        bias: Bias::All,
        mlp_bias: MlpBias::All,
        head_bias: true,
        images: Some(Images { image_size: 224, patch_size: 16, channels: 3, classes: 2 }),
        ..LLAMA
    },
];

/// Words for `model_type` of methods that extend a family, each with that family's.
pub(super) const EXTENDED: &[(&str, &str)] = &[("ddllama", "llama"), ("ddqwen3", "qwen3")];

/// Keys without a meaning at inference.
pub(super) const HARMLESS: &[&str] = &[
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_pdrop",
    "auto_map",
    "bos_token_id",
    "cache_implementation",
    "dtype",
    "embd_pdrop",
    "encoder_stride",
    "eos_token_id",
    "hidden_dropout_prob",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "model_type",
    "n_ctx",
    "output_router_logits",
    "pad_token_id",
    "pooler_act",
    "pooler_output_size",
    "pretraining_tp",
    "reorder_and_upcast_attn",
    "resid_pdrop",
    "rope_interleaved",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unsloth_version",
    "use_cache",
];

/// Flags with which a model would compute what skipc does not: the value that is read, and what the other one means.
pub(super) const SWITCHES: &[(&str, bool, &str)] = &[
    ("add_cross_attention", false, "attention to another sequence"),
    ("qkv_bias", true, "queries, keys and values without a bias"),
    ("is_encoder_decoder", false, "an encoder beside the decoder"),
    ("scale_attn_by_inverse_layer_idx", false, "scores that are scaled by the layer"),
    ("scale_attn_weights", true, "scores that are not scaled"),
    ("use_bidirectional_attention", false, "attention to later tokens"),
];
