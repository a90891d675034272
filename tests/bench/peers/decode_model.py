"""The model that all peers decode: weights for it, and the same weights as Hugging Face and llama.cpp read them.

A token is followed by one and the same other token, whatever stands before it: the head has the embeddings in another
order, and an embedding is a large part of the stream at its end. So the likeliest token stands out in every precision, and
peers that compute the same model give the same tokens; how near their numbers are is seen in the logits.

Tokens fall into classes. A token of a class executes so many blocks, drawn for each token, and is followed by a token of
its class: the first token of a prompt decides how much of a continuation is skipped. Decisions are made by the routers: bit
B of a token is a channel of its embedding, 2 or -2, that no layer writes into and that the router of block B reads.
"""

import json
import tomllib
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

# Share of the blocks that tokens of each class execute.
DENSITIES = [0.125, 0.25, 0.5, 1.0]


class DecodeModel:
    """A spec of one kind of block, which is that of a Llama under one decision, with weights."""

    def __init__(self, spec, seed=0):
        model = tomllib.loads(Path(spec).read_text())
        sizes, (block,), (stack,) = model["model"], model["block"].values(), model["stack"]
        attention, ffn = block["layers"]
        assert (sizes["norm"], sizes["positions"], ffn["activation"]) == ("rmsnorm", "rope", "swiglu"), "not a Llama"
        self.spec = Path(spec)
        self.d, self.vocab, self.eps = sizes["d_model"], sizes["vocab_size"], sizes["norm_eps"]
        self.theta, self.positions = sizes["rope_theta"], sizes["max_positions"]
        self.heads, self.kv_heads, self.width = (attention[key] for key in ("heads", "kv_heads", "head_dim"))
        self.d_ff, self.blocks = ffn["d_ff"], stack["repeat"]
        self.rng = np.random.default_rng(seed)
        self.weights = self.draw()

    def draw(self):
        """Numbers of bf16 by the names of skipc, routers included; f16 has them, too, but for the smallest."""
        weights = {
            "embed.weight": self.embedding(),
            "norm.weight": self.gain(),
        }
        # The row of a token is the embedding of the one before it.
        weights["lm_head.weight"] = weights["embed.weight"][np.argsort(self.following())] * 0.25
        weights["lm_head.weight"][:, : self.blocks] = 0
        for idx in range(self.blocks):
            router = np.zeros((2, self.d))
            router[:, idx] = [-1, 1]
            attention, ffn = f"blocks.{idx}.layers.0", f"blocks.{idx}.layers.1"
            wide, narrow = self.heads * self.width, self.kv_heads * self.width
            weights |= {
                f"blocks.{idx}.router.weight": router,
                f"{attention}.norm.weight": self.gain(),
                f"{attention}.q_proj.weight": self.normal(wide, self.d),
                f"{attention}.k_proj.weight": self.normal(narrow, self.d),
                f"{attention}.v_proj.weight": self.normal(narrow, self.d),
                f"{attention}.o_proj.weight": self.to_stream(wide),
                f"{ffn}.norm.weight": self.gain(),
                f"{ffn}.gate_proj.weight": self.normal(self.d_ff, self.d),
                f"{ffn}.up_proj.weight": self.normal(self.d_ff, self.d),
                f"{ffn}.down_proj.weight": self.to_stream(self.d_ff),
            }
        return {name: torch.from_numpy(array.astype(np.float32)).bfloat16() for name, array in weights.items()}

    def normal(self, rows, columns):
        return self.rng.standard_normal((rows, columns)) * columns**-0.5

    def to_stream(self, columns):
        weight = self.normal(self.d, columns) * 0.5
        weight[: self.blocks] = 0
        return weight

    def gain(self):
        return 1 + 0.1 * self.rng.standard_normal(self.d)

    def class_of(self, token):
        return token * len(DENSITIES) // self.vocab

    def embedding(self):
        embedding = self.rng.standard_normal((self.vocab, self.d))
        embedding[:, : self.blocks] = -2
        for token in range(self.vocab):
            count = round(DENSITIES[self.class_of(token)] * self.blocks)
            embedding[token, self.rng.permutation(self.blocks)[:count]] = 2
        return embedding

    def following(self):
        """The token after each: one cycle through each class."""
        if not hasattr(self, "cycle"):
            size = self.vocab // len(DENSITIES)
            self.cycle = np.empty(self.vocab, np.int64)
            for first in range(0, self.vocab, size):
                order = first + self.rng.permutation(size)
                self.cycle[order] = np.roll(order, -1)
        return self.cycle

    def prompt(self, density, length):
        """Tokens of a class, in the order in which they follow each other."""
        tokens = [DENSITIES.index(density) * self.vocab // len(DENSITIES)]
        while len(tokens) < length:
            tokens.append(int(self.following()[tokens[-1]]))
        return tokens

    def without_routers(self):
        return {name: weight for name, weight in self.weights.items() if "router" not in name}

    def save(self, folder):
        """Spec and weights for skipc: `skip` and `dense`. The second has no decisions."""
        (folder / "skip.toml").write_text(self.spec.read_text())
        lines = [line for line in self.spec.read_text().splitlines() if not line.startswith("skip =")]
        (folder / "dense.toml").write_text("\n".join(lines) + "\n")
        save_file(self.weights, folder / "skip.safetensors")
        save_file(self.without_routers(), folder / "dense.safetensors")

    def save_hugging_face(self, folder):
        """A directory that `transformers` loads as a Llama."""
        folder.mkdir()
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.d,
            "intermediate_size": self.d_ff,
            "num_hidden_layers": self.blocks,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.width,
            "vocab_size": self.vocab,
            "max_position_embeddings": self.positions,
            "rms_norm_eps": self.eps,
            "rope_theta": self.theta,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "attention_bias": False,
            "mlp_bias": False,
            "torch_dtype": "bfloat16",
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2))
        names = {hugging_face(name): weight for name, weight in self.without_routers().items()}
        save_file(names, folder / "model.safetensors", metadata={"format": "pt"})

    def save_gguf(self, path, kind):
        """A file that llama.cpp loads, with matrices as `F16`, `BF16` or `Q8_0`; it has no texts of tokens."""
        kind = gguf.GGMLQuantizationType[kind]
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_context_length(self.positions)
        writer.add_embedding_length(self.d)
        writer.add_block_count(self.blocks)
        writer.add_feed_forward_length(self.d_ff)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_key_length(self.width)
        writer.add_value_length(self.width)
        writer.add_rope_dimension_count(self.width)
        writer.add_rope_freq_base(self.theta)
        writer.add_layer_norm_rms_eps(self.eps)
        writer.add_vocab_size(self.vocab)
        writer.add_tokenizer_model("none")
        for name, weight in self.without_routers().items():
            array = weight.float().numpy()
            if array.ndim == 1:
                writer.add_tensor(llama_cpp(name), array)
                continue
            for part, heads in (("q_proj", self.heads), ("k_proj", self.kv_heads)):
                if part in name:
                    array = interleaved(array, heads)
            writer.add_tensor(llama_cpp(name), gguf.quants.quantize(array, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def interleaved(array, heads):
    """llama.cpp turns neighbouring columns of a head together, all others its two halves."""
    return array.reshape(heads, 2, len(array) // heads // 2, -1).swapaxes(1, 2).reshape(array.shape)


def hugging_face(name):
    ends = {"embed.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}
    if not name.startswith("blocks."):
        return ends.get(name, name)
    _, block, _, layer, part, _ = name.split(".")
    norm = "input_layernorm" if layer == "0" else "post_attention_layernorm"
    place = norm if part == "norm" else f"{'self_attn' if layer == '0' else 'mlp'}.{part}"
    return f"model.layers.{block}.{place}.weight"


def llama_cpp(name):
    ends = {"embed.weight": "token_embd", "norm.weight": "output_norm", "lm_head.weight": "output"}
    if not name.startswith("blocks."):
        return f"{ends[name]}.weight"
    _, block, _, layer, part, _ = name.split(".")
    parts = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
    parts |= {f"{which}_proj": f"ffn_{which}" for which in ("gate", "up", "down")}
    parts["norm"] = "attn_norm" if layer == "0" else "ffn_norm"
    return f"blk.{block}.{parts[part]}.weight"
