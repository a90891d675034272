#!/usr/bin/env python3
"""Makes the directories of published methods beside this file: tiny random checkpoints with the names, shapes and settings of
their releases, and what the published rule of each computes, in float64.

    make_routed.py [NAME…]

Each has its configuration and weights in bf16, tokens.npy [rows, tokens], logits.npy [rows, tokens, vocabulary], gates.npy
[routers, rows, tokens], and greedy.npy [rows, new tokens]. Nothing here is taken from skipc: layers are written from the papers and
from what the repositories of the methods compute. Seeds are drawn until every router has tokens that run and tokens that do not,
and no decision and no token is chosen by a margin that rounding could turn.
"""
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn.functional import gelu, linear, sigmoid, silu, softmax

HERE = Path(__file__).parent
D, HEADS, KV, F, VOCAB, ROWS, LENGTH, NEW, MARGIN = 16, 4, 2, 32, 61, 2, 16, 6, 2e-3


class Llama:
    """The layers of a decoder of the Llama kind, over one sequence [tokens, D]. `w` has tensors by the names of transformers."""

    def __init__(self, w, head_dim=D // HEADS, eps=1e-6, theta=1e4, qk_norm=False, window=None, gemma=None, neighbours=False):
        self.w, self.head_dim, self.eps, self.theta, self.qk_norm, self.window = w, head_dim, eps, theta, qk_norm, window
        self.gemma, self.neighbours = gemma, neighbours
        self.margin = math.inf

    def norm(self, x, name):
        gain = self.w[name + ".weight"] + (1 if self.gemma else 0)
        return self.rms(x, gain)

    def rms(self, x, gain):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * gain

    def linear(self, x, name):
        return linear(x, self.w[name + ".weight"], self.w.get(name + ".bias"))

    def turned(self, x, positions):
        """Rotates heads [tokens, heads, head_dim] by position: halves against each other, or neighbours."""
        half = self.head_dim // 2
        angles = positions[:, None].double() * self.theta ** (-torch.arange(half).double() / half)
        if self.neighbours:
            numbers = torch.view_as_complex(x.reshape(*x.shape[:-1], half, 2).contiguous())
            return torch.view_as_real(numbers * torch.polar(torch.ones_like(angles), angles)[:, None]).flatten(-2)
        cos, sin = torch.cos(angles)[:, None], torch.sin(angles)[:, None]
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def keys(self, u, at, positions):
        k = self.linear(u, at + "k_proj").reshape(len(u), KV, -1)
        if self.qk_norm:
            k = self.norm(k, at + "k_norm")
        return self.turned(k, positions), self.linear(u, at + "v_proj").reshape(len(u), KV, -1)

    def attention(self, u, at, positions, kv, seen):
        """What the rows `u` get of keys and values, of which row q sees k where `seen[q, k]`."""
        q = self.linear(u, at + "q_proj").reshape(len(u), HEADS, -1)
        if self.qk_norm:
            q = self.norm(q, at + "q_norm")
        q, (k, v) = self.turned(q, positions), (part.repeat_interleave(HEADS // KV, 1) for part in kv)
        scores = torch.einsum("qhd,khd->hqk", q, k) * (self.gemma["scale"] if self.gemma else self.head_dim ** -0.5)
        if self.gemma:
            scores = self.gemma["cap"] * torch.tanh(scores / self.gemma["cap"])
        p = softmax(scores.masked_fill(~seen, -math.inf), -1).nan_to_num(0)
        return self.linear(torch.einsum("hqk,khd->qhd", p, v).flatten(1), at + "o_proj")

    def causal(self, n, window=None):
        gap = torch.arange(n)[:, None] - torch.arange(n)
        return (gap >= 0) & (gap < (window or n))

    def attend(self, x, layer, seen=None):
        """Attention of a layer over all tokens, without the residual."""
        at, positions = f"model.layers.{layer}.", torch.arange(len(x))
        window = self.window if not self.gemma or layer % 2 == 0 else None
        u = self.norm(x, at + "input_layernorm")
        mask = self.causal(len(x), window) if seen is None else self.causal(len(x), window) & seen
        y = self.attention(u, at + "self_attn.", positions, self.keys(u, at + "self_attn.", positions), mask)
        return self.norm(y, at + "post_attention_layernorm") if self.gemma else y

    def mlp(self, x, layer):
        """The FFN of a layer with its norms, without the residual."""
        at = f"model.layers.{layer}."
        if not self.gemma:
            return self.gated(self.norm(x, at + "post_attention_layernorm"), at + "mlp.")
        return self.norm(self.gated(self.norm(x, at + "pre_feedforward_layernorm"), at + "mlp."), at + "post_feedforward_layernorm")

    def gated(self, u, at):
        function = (lambda x: gelu(x, approximate="tanh")) if self.gemma else silu
        return self.linear(function(self.linear(u, at + "gate_proj")) * self.linear(u, at + "up_proj"), at + "down_proj")

    def layer(self, x, layer):
        h = x + self.attend(x, layer)
        return h + self.mlp(h, layer)

    def embed(self, tokens):
        return self.w["model.embed_tokens.weight"][tokens] * (D ** 0.5 if self.gemma else 1)

    def head(self, x):
        x = self.norm(x, "model.norm")
        logits = linear(x, self.w.get("lm_head.weight", self.w["model.embed_tokens.weight"]))
        return self.gemma["logits"] * torch.tanh(logits / self.gemma["logits"]) if self.gemma else logits

    def clear(self, margins):
        """Remembers the least distance of a score from where it would decide otherwise."""
        self.margin = min(self.margin, float(margins.abs().min()))


def dense(rng, layers, head_dim=D // HEADS, f=F, qk_norm=False, qkv_bias=False, gemma=False, names=None):
    """Random tensors of a dense model."""
    w = {}

    def add(name, *shape):
        gain = len(shape) == 1 and not name.endswith("bias")
        w[name] = (0.0 if gemma or not gain else 1.0) + (0.2 if gain else 0.25) * torch.randn(shape, generator=rng)

    add("model.embed_tokens.weight", VOCAB, D)
    for layer in range(layers) if names is None else names:
        at = f"model.layers.{layer}."
        for name, rows in (("q", HEADS * head_dim), ("k", KV * head_dim), ("v", KV * head_dim)):
            add(f"{at}self_attn.{name}_proj.weight", rows, D)
            if qkv_bias:
                add(f"{at}self_attn.{name}_proj.bias", rows)
        add(f"{at}self_attn.o_proj.weight", D, HEADS * head_dim)
        if qk_norm:
            add(f"{at}self_attn.q_norm.weight", head_dim), add(f"{at}self_attn.k_norm.weight", head_dim)
        add(f"{at}mlp.gate_proj.weight", f, D), add(f"{at}mlp.up_proj.weight", f, D), add(f"{at}mlp.down_proj.weight", D, f)
        norms = ["input_layernorm", "post_attention_layernorm"] + ["pre_feedforward_layernorm", "post_feedforward_layernorm"] * gemma
        for norm in norms:
            add(f"{at}{norm}.weight", D)
    add("model.norm.weight", D)
    if not gemma:
        add("lm_head.weight", VOCAB, D)
    return w


def rounded(w):
    return {name: tensor.bfloat16() for name, tensor in w.items()}


def double(w):
    return {name: tensor.double() for name, tensor in w.items()}


CONFIG = dict(hidden_size=D, num_attention_heads=HEADS, num_key_value_heads=KV, intermediate_size=F, vocab_size=VOCAB,
              max_position_embeddings=64, rms_norm_eps=1e-6, rope_theta=1e4, hidden_act="silu", tie_word_embeddings=False,
              torch_dtype="bfloat16", bos_token_id=1, eos_token_id=2)


class FlexiDepth:
    """arXiv:2503.23798; modeling_ddllama.py and modeling_ddqwen3.py of the checkpoints."""

    def __init__(self, rng, qwen3):
        self.layers, self.routed = 4, [1, 2, 3]
        head_dim = 8 if qwen3 else D // HEADS
        w = dense(rng, self.layers, head_dim, qk_norm=qwen3)
        for layer in self.routed:
            at = f"model.layers.{layer}."
            for name, shape in (("enc", (D // 4, D)), ("dec", (D, D // 4)), ("head", (1, D))):
                w[f"{at}router.router_{name}.weight"] = 0.6 * torch.randn(shape, generator=rng)
            w[f"{at}router.router_norm.weight"] = 1 + 0.2 * torch.randn(D // 4, generator=rng)
            if qwen3:
                w[f"{at}router.router_head.bias"] = 0.3 * torch.randn(1, generator=rng)
            for name, shape in (("gate", (F // 8, D)), ("down", (F // 8, D)), ("up", (D, F // 8))):
                w[f"{at}router_proj.{name}_proj.weight"] = 0.4 * torch.randn(shape, generator=rng)
        self.stored = rounded(w)
        self.llama = Llama(double(self.stored), head_dim, qk_norm=qwen3)
        self.config = CONFIG | dict(num_hidden_layers=self.layers, routing_layers=self.routed, router_reduction_factor=4,
                                    proj_reduction_factor=8)
        if qwen3:
            self.config |= dict(model_type="ddqwen3", architectures=["DDQwen3ForCausalLM"], head_dim=head_dim,
                                router_gate_mode="ste_hard", router_head_bias_init=0.0)
        else:
            self.config |= dict(model_type="ddllama", architectures=["DDLlamaForCausalLM"],
                                auto_map={"AutoModelForCausalLM": "modeling_ddllama.DDLlamaForCausalLM"})

    def forward(self, tokens, prompt=None):
        m, gates = self.llama, []
        x = m.embed(tokens)
        for layer in range(self.layers):
            if layer not in self.routed:
                x = m.layer(x, layer)
                continue
            at = f"model.layers.{layer}."
            u = m.norm(x, at + "input_layernorm")
            z = m.linear(m.linear(torch.tanh(m.rms(m.linear(u, at + "router.router_enc"), m.w[at + "router.router_norm.weight"])),
                                  at + "router.router_dec"), at + "router.router_head")
            m.clear(z)
            weight = sigmoid(z)
            run = weight > 0.5
            h = x + run * m.attend(x, layer)
            v = m.norm(h, at + "post_attention_layernorm")
            proj = m.linear(silu(m.linear(v, at + "router_proj.gate_proj")) * m.linear(v, at + "router_proj.down_proj"),
                            at + "router_proj.up_proj")
            x = h + torch.where(run, weight * m.gated(v, at + "mlp."), (1 - weight) * proj)
            gates.append(run[:, 0])
        return m.head(x), gates


class SkipGPT:
    """arXiv:2506.04179; router_attn_mlp.py of EIT-NLP/SkipGPT, without its noise: the first logit executes where it is the
    greater one."""

    def __init__(self, rng, gemma):
        self.layers = 3
        w = dense(rng, self.layers, gemma=gemma)
        for layer in range(self.layers):
            for router in ("router_attention", "router_mlp"):
                at = f"model.layers.{layer}.{router}."
                w[at + "hidden_layer.weight"] = torch.randn(D // 4, D, generator=rng)
                w[at + "hidden_layer.bias"] = 0.2 * torch.randn(D // 4, generator=rng)
                w[at + "weight_predictor.weight"] = torch.randn(2, D // 4, generator=rng)
                w[at + "weight_predictor.bias"] = 0.2 * torch.randn(2, generator=rng)
        stored = rounded(w)
        options = dict(scale=24 ** -0.5, cap=2.0, logits=3.0) if gemma else None
        self.llama = Llama(double(stored), gemma=options, window=6 if gemma else None)
        # The layers of the family lie in `block`.
        self.stored = {}
        for name, tensor in stored.items():
            parts = name.split(".")
            if name.startswith("model.layers.") and not parts[3].startswith("router_"):
                parts.insert(3, "block")
            self.stored[".".join(parts)] = tensor
        self.config = CONFIG | dict(num_hidden_layers=self.layers)
        if gemma:
            self.config |= dict(model_type="gemma2", architectures=["Gemma2MoDForCausalLM"], hidden_activation="gelu_pytorch_tanh",
                                sliding_window=6, query_pre_attn_scalar=24, attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
                                head_dim=D // HEADS, tie_word_embeddings=True)
        else:
            # Known by its tensors alone: releases have the configuration of the family.
            self.config |= dict(model_type="llama", architectures=["LlamaForCausalLM"])

    def forward(self, tokens, prompt=None):
        m, gates = self.llama, []
        x = m.embed(tokens)
        for layer in range(self.layers):
            decisions = []
            for router in ("router_attention", "router_mlp"):
                at = f"model.layers.{layer}.{router}."
                z = m.linear(torch.relu(m.linear(x, at + "hidden_layer")), at + "weight_predictor")
                m.clear(z[:, 0] - z[:, 1])
                decisions.append(z[:, :1] > z[:, 1:])
            x = x + m.attend(x, layer) * decisions[0]
            x = x + m.mlp(x, layer) * decisions[1]
            gates += [decision[:, 0] for decision in decisions]
        return m.head(x), gates


class RouterTuning:
    """arXiv:2410.13184; utils/model/model_patch.py of CASE-Lab-UMD/Router-Tuning-Mixture-of-Depths. Tokens that are generated keep
    what was decided of their prompt, as the paper has it."""

    def __init__(self, rng, granularity, model_type):
        self.layers, self.granularity, self.threshold = 3, granularity, 0.45
        self.is_mod = [False, True, True]
        w = dense(rng, self.layers, qkv_bias=model_type == "qwen2")
        for layer in range(self.layers):
            if self.is_mod[layer]:
                w[f"model.layers.{layer}.router.weight"] = 1.5 * torch.randn(1, D, generator=rng)
        self.stored = rounded(w)
        self.llama = Llama(double(self.stored), window=6 if model_type == "mistral" else None)
        self.config = CONFIG | dict(num_hidden_layers=self.layers, model_type=model_type, is_mod=self.is_mod, mod_capacity=0.5,
                                    granularity=granularity, threshold=self.threshold, gradient_scale=0.0)
        if model_type == "mistral":
            self.config |= dict(sliding_window=6)

    def forward(self, tokens, prompt=None):
        m, gates = self.llama, []
        x = m.embed(tokens)
        border = math.log(self.threshold / (1 - self.threshold))
        for layer in range(self.layers):
            if not self.is_mod[layer]:
                x = m.layer(x, layer)
                continue
            at = f"model.layers.{layer}."
            u = m.norm(x, at + "input_layernorm")
            if "token" not in self.granularity:
                u = u[:prompt].mean(0, keepdim=True).expand(len(u), -1)
            z = m.linear(u, at + "router")
            m.clear(z - border)
            run = sigmoid(z) - self.threshold >= 0
            block = x
            h = x + m.attend(x, layer) * (run if "attn" in self.granularity else 1)
            y = h + m.mlp(h, layer) * (run if "mlp" in self.granularity else 1)
            x = block + (y - block) * run if "block" in self.granularity else y
            gates.append(run[:, 0])
        return m.head(x), gates


class DLlm:
    """NeurIPS 2024; llama/model.py of Jyk-122/D-LLM, with Meta's names and rotation."""

    def __init__(self, rng):
        self.layers, self.start, self.first, hidden = 4, 1, 2, 6
        # Two thirds of four times the width, rounded up to a multiple of 8.
        self.f = 8 * ((2 * 4 * D // 3 + 7) // 8)
        w = dense(rng, self.layers, f=self.f)
        for layer in range(self.start, self.layers):
            at = f"model.layers.{layer}.router."
            w[at + "linear_1.weight"] = torch.randn(hidden, D, generator=rng)
            w[at + "linear_1.bias"] = 0.2 * torch.randn(hidden, generator=rng)
            w[at + "norm.weight"] = 1 + 0.2 * torch.randn(hidden, generator=rng)
            w[at + "linear_2.weight"] = torch.randn(2, hidden, generator=rng)
            w[at + "linear_2.bias"] = 0.2 * torch.randn(2, generator=rng)
        stored = rounded(w)
        self.llama = Llama(double(stored), eps=1e-5, neighbours=True)
        meta = [("model.embed_tokens", "tok_embeddings"), ("model.norm", "norm"), ("lm_head", "output"), ("model.layers", "layers"),
                ("self_attn.q_proj", "attention.wq"), ("self_attn.k_proj", "attention.wk"), ("self_attn.v_proj", "attention.wv"),
                ("self_attn.o_proj", "attention.wo"), ("mlp.gate_proj", "feed_forward.w1"), ("mlp.down_proj", "feed_forward.w2"),
                ("mlp.up_proj", "feed_forward.w3"), ("input_layernorm", "attention_norm"), ("post_attention_layernorm", "ffn_norm")]
        self.stored = {}
        for name, tensor in stored.items():
            for theirs, ours in meta:
                name = name.replace(theirs, ours)
            self.stored[name] = tensor
        self.config = dict(dim=D, n_layers=self.layers, n_heads=HEADS, n_kv_heads=KV, vocab_size=VOCAB, multiple_of=8,
                           ffn_dim_multiplier=None, norm_eps=1e-5, max_batch_size=32, max_seq_len=64, lora_rank=8,
                           dynamic_active_target=0.5, dynamic_start_layer=self.start, dynamic_router_hdim=hidden,
                           dynamic_reserve_initials=self.first)

    def forward(self, tokens, prompt=None):
        m, gates = self.llama, []
        x = m.embed(tokens)
        for layer in range(self.layers):
            if layer < self.start:
                x = m.layer(x, layer)
                continue
            at = f"model.layers.{layer}.router."
            z = m.linear(silu(m.rms(m.linear(x, at + "linear_1"), m.w[at + "norm.weight"])), at + "linear_2")
            m.clear((z[:, 0] - z[:, 1])[self.first:])
            run = softmax(z, -1)[:, 1:] >= 0.5
            run[:self.first] = True
            # A token that does not execute is no key for others.
            h = x + m.attend(x, layer, run[:, 0].expand(len(x), -1))
            out = h + m.mlp(h, layer)
            x = torch.where(run, out, x)
            gates.append(run[:, 0])
        return m.head(x), gates


class MoR:
    """arXiv:2507.10524; model/mor_model/expert_choice_router.py of raymin0223/mixture_of_recursions. Where tokens are generated, those
    run whose trained probability is at least a half."""

    def __init__(self, rng, shared):
        self.shared, self.alpha = shared, 0.1
        self.outer, self.blocks, self.repeat = (0, 2, 2) if shared else (1, 2, 3)
        self.capacity = [1.0, 0.55] if shared else [(3 - r) / 3 for r in range(3)]
        own = range(self.outer * 2 + self.blocks)
        w = dense(rng, 0, names=own)
        router = {}
        for r in range(self.repeat):
            if shared:
                for name in ("mor_router", "mlp_router"):
                    router[f"{r}.{name}.router.0.weight"] = 0.7 * torch.randn(2 * D, D, generator=rng)
                    router[f"{r}.{name}.router.2.weight"] = 0.7 * torch.randn(1, 2 * D, generator=rng)
            else:
                router[f"{r}.mor_router.router.weight"] = 1.5 * torch.randn(1, D, generator=rng)
        stored, router = rounded(w), rounded(router)
        self.llama, self.router = Llama(double(stored)), double(router)
        self.stored = {f"model.layers.{self.outer + int(name[0])}.{name[2:]}": tensor for name, tensor in router.items()}
        for name, tensor in stored.items():
            if not name.startswith("model.layers."):
                self.stored[name] = tensor
                continue
            _, _, layer, rest = name.split(".", 3)
            block = int(layer) - self.outer
            if 0 <= block < self.blocks:
                # Every recursion has the blocks again, as a state dict has them.
                for r in range(self.repeat):
                    self.stored[f"model.layers.{self.outer + r}.block.{block}.{rest}"] = tensor.clone()
            else:
                self.stored[f"model.layers.{0 if block < 0 else self.outer + self.repeat}.{rest}"] = tensor
        self.config = CONFIG | dict(
            num_hidden_layers=2 * self.outer + self.blocks * self.repeat, model_type="llama", architectures=["MoRLlamaForCausalLM"],
            recursive=dict(enable=True, num_recursion=self.repeat, sharing="cycle" if shared else "middle_cycle"),
            kv_sharing=dict(enable=shared, update_cache=False),
            mor=dict(enable=True, type="expert", capacity="1.0,0.55" if shared else None, router_type="mlp" if shared else "linear",
                     rand_router=False, temp=1.0, expert=dict(router_func="sigmoid", alpha=self.alpha, gating="weighted",
                                                              sampling="aux_router" if shared else "aux_loss")))

    def score(self, x, r, name):
        if self.shared:
            return linear(gelu(linear(x, self.router[f"{r}.{name}.router.0.weight"])), self.router[f"{r}.{name}.router.2.weight"])[:, 0]
        return linear(x, self.router[f"{r}.{name}.router.weight"])[:, 0]

    def selected(self, z, x, r, before, prompt):
        """The positions that run, of those that ran before."""
        if prompt is not None:
            by = self.score(x, r, "mlp_router") if self.shared else z
            self.llama.clear(by[before])
            return before[by[before] >= 0]
        k = max(1, int(self.capacity[r] * len(x)))
        best = z[before].topk(min(k + 1, len(before)))
        if len(best.values) > k:
            self.llama.clear(best.values[k - 1] - best.values[k])
        return before[best.indices[:k]].sort().values

    def forward(self, tokens, prompt=None):
        m, gates = self.llama, []
        x = m.embed(tokens)
        if self.outer:
            x = m.layer(x, 0)
        n, kept = len(x), {}
        before = torch.arange(n)
        for r in range(self.repeat):
            z = self.score(x, r, "mor_router")
            chosen = self.selected(z, x, r, before, prompt)
            state = x.clone()
            for block in range(self.outer, self.outer + self.blocks):
                at = f"model.layers.{block}."
                u = m.norm(state, at + "input_layernorm")
                if self.shared:
                    # Keys and values of all tokens, of the first recursion.
                    if r == 0:
                        kept[block] = m.keys(u, at + "self_attn.", torch.arange(n))
                    kv, others = kept[block], torch.arange(n)
                else:
                    kv, others = m.keys(u[chosen], at + "self_attn.", chosen), chosen
                a = m.attention(u[chosen], at + "self_attn.", chosen, kv, m.causal(n)[chosen][:, others])
                h = state[chosen] + a
                state[chosen] = h + m.mlp(h, block)
            x = x.clone()
            x[chosen] += self.alpha * sigmoid(z[chosen])[:, None] * state[chosen]
            gates.append(torch.zeros(n, dtype=torch.bool).scatter(0, chosen, True))
            before = chosen
        if self.outer:
            x = m.layer(x, self.outer + self.blocks)
        return m.head(x), gates


CASES = {
    "flexidepth": lambda rng: FlexiDepth(rng, False),
    "flexidepth-qwen3": lambda rng: FlexiDepth(rng, True),
    "skipgpt": lambda rng: SkipGPT(rng, False),
    "skipgpt-gemma2": lambda rng: SkipGPT(rng, True),
    "mindskip": lambda rng: RouterTuning(rng, "attn_sequence", "llama"),
    "router-tuning-mlp": lambda rng: RouterTuning(rng, "mlp_token", "qwen2"),
    "router-tuning-block": lambda rng: RouterTuning(rng, "block_token", "mistral"),
    "d-llm": DLlm,
    "mor": lambda rng: MoR(rng, False),
    "mor-shared-kv": lambda rng: MoR(rng, True),
}


def greedy(method, tokens):
    """New tokens of a row, and the least margin by which one was chosen."""
    least, prompt, row = math.inf, len(tokens), tokens
    for _ in range(NEW):
        best = method.forward(row, prompt)[0][-1].topk(2)
        least = min(least, float(best.values[0] - best.values[1]))
        row = torch.cat([row, best.indices[:1]])
    return row[prompt:], least


def make(name):
    for seed in range(1, 2000):
        method = CASES[name](torch.Generator().manual_seed(seed))
        tokens = torch.from_numpy(np.random.default_rng(seed).integers(0, VOCAB, (ROWS, LENGTH)))
        results = [method.forward(row) for row in tokens]
        gates = torch.stack([torch.stack(of_row) for _, of_row in results], 1)
        shares = gates.double().mean((1, 2))
        # The first recursion takes all tokens.
        shares = shares[1:] if name.startswith("mor") else shares
        if method.llama.margin < MARGIN or not ((shares > 0.2) & (shares < 0.8)).all():
            continue
        new = [greedy(method, row) for row in tokens]
        if min(least for _, least in new) > MARGIN and method.llama.margin > MARGIN:
            break
    else:
        raise SystemExit(f"{name}: no seed has clear margins")
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    configuration = "model_args.json" if name == "d-llm" else "config.json"
    (folder / configuration).write_text(json.dumps(method.config, indent=1) + "\n")
    save_file({name: tensor.contiguous() for name, tensor in method.stored.items()}, folder / "model.safetensors")
    np.save(folder / "tokens.npy", tokens.numpy().astype(np.int32))
    np.save(folder / "logits.npy", torch.stack([logits for logits, _ in results]).numpy().astype(np.float32))
    np.save(folder / "gates.npy", gates.numpy().astype(np.uint8))
    np.save(folder / "greedy.npy", torch.stack([row for row, _ in new]).numpy().astype(np.int32))
    print(name, f"seed {seed}, margin {method.llama.margin:.1e}, executed {[round(float(share), 2) for share in gates.double().mean((1, 2))]}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in sys.argv[1:] or CASES:
        make(case)
