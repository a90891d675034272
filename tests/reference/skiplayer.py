"""Reference SkipLayer language model in PyTorch: the numerical oracle and the peer of the benchmarks.

It reads the same TOML model spec as the compiler and the same safetensors weights, and computes in plain,
slow, obvious operations. It knows nothing of the compiler; where the two differ, find out which is wrong.

Shapes: B rows, T tokens a row, D = d_model, V = vocab_size, R = outputs of a router.
"""
from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file


# ---------------------------------------------------------------- spec

@dataclass
class Skip:
    router: str = "gumbel"          # gumbel | sigmoid | topk | random | hash | highway | always | never | depth (stacks)
    density: float | list = 0.5     # target share of executed tokens; of a stack also one for each repetition
    input: str = "normed"           # normed: through the pre-norm of the (first) wrapped sub-layer | raw
    decide: str = "here"            # sub-layer only. here: from the stream as it reaches it | entry: from the block's entry
    bias: bool = False
    kv: str = "all"                 # all | active | first (stacks with share: keys and values of repetition 0)
    nested: bool = False            # stacks: only tokens that executed the last repetition may execute this one
    gate: str = "binary"            # binary | scaled (the change of the executed branch is multiplied by the router probability)
                                    # | scaled_last (that of its last layer) | raw (by the one logit)
    gate_factor: float = 1.0        # and by this
    combine: str = "either"         # either | sum (the other branch for all, and the change of the executed one) | add (x + w * F(x))
    decider: list = field(default_factory=list)     # steps before the router's weight
    predictor: list = field(default_factory=list)   # steps of generate = "predictor"
    force_first: int = 0            # the first tokens of a sequence rank above all others
    channels: bool = False          # highway, sigmoid, topk: a logit for each channel; the mean of their sigmoids decides
    carry: str = "coupled"          # highway: coupled | own (the share of the stream has a weight of its own)
    carry_bias: float = 0.0         # highway: taken from z, or added to what the share of the stream is made of
    scope: str = "sequence"         # topk: sequence | batch (all rows compete)
    round: str = "up"               # topk: which way density * T is rounded (up | down); at least one token
    otherwise: list = field(default_factory=list)   # layers of the tokens that do not execute
    threshold: float = 0.5          # sigmoid router; topk with generate = "threshold"
    generate: str = ""              # topk: "threshold" replaces the selection when generating by sigma(z) >= threshold; "predictor": of another z
    group_size: int = 0             # 0: no capacity (dropless); else consecutive tokens of one sequence
    capacity_factor: float = 1.25   # slots of every group, short ones too: ceil(group_size * density * factor)
    overflow: str = "position"      # position: first come, first served (causal) | score: highest score first
    seed: int = 0                   # random and hash routers
    repetition: int = 0             # of a stack, which of `repeat` this is; set by `repetitions`
    repeat: int = 1

    def __post_init__(self):
        if self.router == "highway" and self.gate != "binary":
            raise ValueError("gate has no meaning with the highway router")


@dataclass
class Layer:
    kind: str                       # attention | ffn | experts | conv | linear
    norms: str = ""                 # pre | post | both; empty: the model's
    bias: bool | str = False        # attention: none | qkv | all
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    qk_norm: str = "none"           # none | head | full: of queries and keys, before they turn
    rope_theta: float = 0.0         # 0: the model's
    rope_scaling: dict | None = None
    rotary_dim: int = -1            # the first channels of a head that turn; -1: all
    scale: float = 0.0              # of q.k; 0: 1/sqrt(head_dim)
    softcap: float = 0.0            # c * tanh(score / c); 0: none
    mask: str = ""                  # causal | full: later positions are in sight, too; empty: the model's
    window: int = 0                 # positions in sight (on each side of the own), the own included; 0: all
    d_ff: int = 0
    activation: str = ""            # ffn, experts: gelu (if nothing is said) | gelu_erf | silu | relu | relu2 | swiglu | geglu; conv: a step's, or none
    kernel: int = 0                 # conv: positions in a token's window, the last its own
    experts: int = 0
    top_k: int = 1
    score: str = "softmax"          # softmax | sigmoid
    normalise: bool = False         # the chosen scores are divided by their sum
    routed_scale: float = 1.0
    router_bias: bool = False
    select_bias: bool = False       # a bias where scores are ranked, and nowhere else
    zero: int = 0                   # choices that give nothing
    copy: int = 0                   # choices that give the normed input
    shared_d_ff: int = 0            # an expert for every token
    shared_gate: bool = False
    choose: str = "token"           # token | expert (each takes its share of a group's tokens) | hash (of the token id)
    group_size: int = 0             # consecutive tokens of one sequence; 0: no capacity (token), the whole sequence (expert)
    capacity_factor: float = 1.25   # places of an expert in a group: ceil(group_size * top_k / choices * factor)
    overflow: str = "position"      # which choices come first: position | choice (first choices before second ones) | score
    seed: int = 0                   # hash
    skip: Skip | None = None


@dataclass
class Block:
    layers: list[Layer]
    skip: Skip | None = None
    layout: str = "sequence"        # sequence | parallel | parallel_one_norm


@dataclass
class Stack:
    rounds: list[list[int]]         # the blocks of each repetition, by index; shared ones come again
    skip: Skip | None = None

    def repetitions(self):
        """The skip of each repetition, with its own density."""
        density = lambda r: self.skip.density[r] if isinstance(self.skip.density, list) else self.skip.density
        return [replace(self.skip, density=density(r), repetition=r, repeat=len(self.rounds)) for r in range(len(self.rounds))]


@dataclass
class Spec:
    name: str
    d_model: int
    max_positions: int
    vocab_size: int = 0
    blocks: list[Block] = field(default_factory=list)      # those of a shared stack once
    stacks: list[Stack] = field(default_factory=list)
    norm: str = "rmsnorm"           # rmsnorm | layernorm
    norm_eps: float = 1e-5
    positions: str = "rope"         # rope | learned | none
    rope_theta: float = 10000.0
    tie_embeddings: bool = True
    norms: str = "pre"
    norm_offset: float = 0.0        # added to every gain
    rope_scaling: dict | None = None
    embed_scale: float = 1.0
    head_bias: bool = False
    logit_softcap: float = 0.0
    mask: str = "causal"
    input: str = "tokens"           # tokens | patches: float [B, T, patch_dim] in place of ids
    patch_dim: int = 0
    cls_token: bool = False         # a learned row in front of the patches, at position 0
    head: str = "tokens"            # tokens | pooled: scores of each row of the batch, [B, classes]
    pool: str = "mean"              # mean | first | last, behind the norm
    classes: int = 0


def load_spec(path: str | Path) -> Spec:
    raw = tomllib.loads(Path(path).read_text())
    model = raw["model"]

    def skip(d):
        if d is None:
            return None
        out = Skip(**d)
        out.otherwise = [layer(x) for x in out.otherwise]
        return out

    def layer(d):
        d = dict(d)
        s = skip(d.pop("skip", None))
        out = Layer(**d, skip=s)
        out.norms = out.norms or model.get("norms", "pre")
        out.activation = out.activation or ("none" if out.kind == "conv" else "gelu")
        if out.kind == "attention":
            out.bias = out.bias or "none"
            out.mask = out.mask or model.get("mask", "causal")
            out.rope_theta = out.rope_theta or model.get("rope_theta", Spec.rope_theta)
            out.rope_scaling = out.rope_scaling or model.get("rope_scaling")
            out.kv_heads = out.kv_heads or out.heads
            out.head_dim = out.head_dim or model["d_model"] // out.heads
            out.rotary_dim = out.head_dim if out.rotary_dim < 0 else out.rotary_dim
        return out

    named = {name: Block([layer(x) for x in b["layers"]], skip(b.get("skip")), b.get("layout", "sequence"))
             for name, b in raw["block"].items()}
    spec = Spec(**{k: v for k, v in model.items() if k in Spec.__dataclass_fields__})
    for entry in raw["stack"]:
        rounds = []
        for _ in range(entry.get("repeat", 1)):
            if not rounds or not entry.get("share", False):
                first = len(spec.blocks)
                spec.blocks += [named[n] for n in entry["blocks"]]
            rounds.append(list(range(first, len(spec.blocks))))
        spec.stacks.append(Stack(rounds, skip(entry.get("skip"))))
    return spec


# ---------------------------------------------------------------- layers

def wide(x):
    """x in the type of statistics, softmax and router logits: float32, or float64 in a float64 model."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Norm(nn.Module):
    def __init__(self, spec: Spec, width: int = 0):
        super().__init__()
        self.kind, self.eps, self.offset = spec.norm, spec.norm_eps, spec.norm_offset
        self.weight = nn.Parameter(torch.ones(width or spec.d_model))
        if self.kind == "layernorm":
            self.bias = nn.Parameter(torch.zeros(width or spec.d_model))

    def forward(self, x):
        gain = self.weight + self.offset if self.offset else self.weight
        if self.kind == "layernorm":
            return F.layer_norm(x, x.shape[-1:], gain.to(x.dtype), self.bias.to(x.dtype), self.eps)
        w = wide(x)
        return (w * torch.rsqrt(w.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype) * gain


def frequencies(cfg: Layer):
    """By how much each pair of channels turns from position to position, float32 [rotary_dim / 2]."""
    half = cfg.rotary_dim // 2
    freq = cfg.rope_theta ** (-torch.arange(half, dtype=torch.float32) / half)
    if not cfg.rope_scaling:
        return freq
    said, slow = cfg.rope_scaling, freq / cfg.rope_scaling["factor"]
    if said["kind"] == "linear":
        return slow
    # llama3: turns that a pair makes in the original context
    turns = said["original_max_positions"] * freq / (2 * math.pi)
    low, high = said["low_freq_factor"], said["high_freq_factor"]
    share = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - share) * slow + share * freq


def rotate(x, pos, freq):
    """RoPE, half-split (non-interleaved) convention, of the first channels of each head. x [..., heads, head_dim], pos [...].
    Angles are float32 in every type: their rounding, 6e-5 at position 1000, belongs to the model."""
    half = len(freq)
    ang = (pos.float()[..., None] * freq)[..., None, :]
    ang = ang.to(torch.promote_types(x.dtype, torch.float32))
    cos, sin = ang.cos().to(x.dtype), ang.sin().to(x.dtype)
    a, b, rest = x[..., :half], x[..., half:2 * half], x[..., 2 * half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


class SubLayer(nn.Module):
    """A layer between its norms: post_norm(core(norm(x))), without the residual. `shared` is a norm that it has from another."""

    def __init__(self, spec: Spec, cfg: Layer, shared: bool = False):
        super().__init__()
        self.spec, self.cfg = spec, cfg
        if cfg.norms != "post" and not shared:
            self.norm = Norm(spec)
        if cfg.norms != "pre":
            self.post_norm = Norm(spec)

    def normed(self, x):
        return self.norm(x) if hasattr(self, "norm") else x

    def forward(self, x, *seen, norm=None):
        y = self.core((norm or self.normed)(x), *seen)
        return self.post_norm(y) if hasattr(self, "post_norm") else y


class Attention(SubLayer):
    """Self-attention, causal or of the whole row. A token may see the keys and values of every earlier token
    (kv = "all") or of the executed ones only (kv = "active", through `visible`)."""

    def __init__(self, spec: Spec, cfg: Layer, shared: bool = False):
        super().__init__(spec, cfg, shared)
        self.kept = None                        # a dict in a stack whose repetitions share keys and values of the first
        d, q, kv = spec.d_model, cfg.heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim
        self.q_proj = nn.Linear(d, q, bias=cfg.bias != "none")
        self.k_proj = nn.Linear(d, kv, bias=cfg.bias != "none")
        self.v_proj = nn.Linear(d, kv, bias=cfg.bias != "none")
        self.o_proj = nn.Linear(q, d, bias=cfg.bias == "all")
        if cfg.qk_norm != "none":
            self.q_norm = Norm(spec, cfg.head_dim if cfg.qk_norm == "head" else q)
            self.k_norm = Norm(spec, cfg.head_dim if cfg.qk_norm == "head" else kv)

    def placed(self, x, norm, pos):
        """Queries or keys [B, T, heads * head_dim] as they are compared: behind their norm, turned, [B, T, heads, head_dim]."""
        cfg = self.cfg
        x = norm(x) if cfg.qk_norm == "full" else x
        x = x.unflatten(-1, (-1, cfg.head_dim))
        x = norm(x) if cfg.qk_norm == "head" else x
        turns = self.spec.positions == "rope" and cfg.rotary_dim
        return rotate(x, pos, frequencies(cfg)) if turns else x

    def core(self, h, pos, visible=None):
        """h [B, T, D], pos [T], visible [B, T] bool or None -> [B, T, D]."""
        cfg = self.cfg
        q = self.placed(self.q_proj(h), getattr(self, "q_norm", None), pos)
        k = self.placed(self.k_proj(h), getattr(self, "k_norm", None), pos)
        v = self.v_proj(h).unflatten(-1, (cfg.kv_heads, cfg.head_dim))
        if self.kept is not None:
            k, v = self.kept.setdefault("first", (k, v))
        rep = cfg.heads // cfg.kv_heads
        k, v = k.repeat_interleave(rep, 2), v.repeat_interleave(rep, 2)
        score = torch.einsum("bqhd,bkhd->bhqk", q, k)
        score = score * cfg.scale if cfg.scale else score / math.sqrt(cfg.head_dim)
        if cfg.softcap:
            score = cfg.softcap * torch.tanh(score / cfg.softcap)
        back = pos[:, None] - pos[None, :]
        mask = ((back >= 0) | (cfg.mask == "full"))[None, None]
        if cfg.window:
            mask = mask & (back.abs() < cfg.window)
        if visible is not None:
            mask = mask & visible[:, None, None, :]
        score = score.masked_fill(~mask, float("-inf"))
        # a query that sees no key at all gets zeros
        att = torch.nan_to_num(wide(score).softmax(-1)).to(h.dtype)
        return self.o_proj(torch.einsum("bhqk,bkhd->bqhd", att, v).flatten(2))


class Ffn(SubLayer):
    def __init__(self, spec: Spec, cfg: Layer, shared: bool = False):
        super().__init__(spec, cfg, shared)
        add_projections(self, spec.d_model, cfg.d_ff, cfg)

    def core(self, h):
        return feed_forward(self, h, self.cfg.activation)


class Experts(SubLayer):
    """Choices in order: experts, those that give nothing, those that give the normed input."""

    def __init__(self, spec: Spec, cfg: Layer, shared: bool = False):
        super().__init__(spec, cfg, shared)
        n = cfg.experts + cfg.zero + cfg.copy
        # What the block says before each run: rows that count (None: all), token ids, index of the block.
        self.inside, self.tokens, self.block = None, None, 0
        self.router = nn.Module()
        if cfg.choose != "hash":
            self.router.weight = nn.Parameter(torch.zeros(n, spec.d_model))
        if cfg.router_bias:
            self.router.bias = nn.Parameter(torch.zeros(n))
        if cfg.select_bias:
            self.router.select_bias = nn.Parameter(torch.zeros(n))
        self.experts = nn.ModuleList(nn.Module() for _ in range(cfg.experts))
        for expert in self.experts:
            add_projections(expert, spec.d_model, cfg.d_ff, cfg)
        if cfg.shared_d_ff:
            self.shared = nn.Module()
            add_projections(self.shared, spec.d_model, cfg.shared_d_ff, cfg)
        if cfg.shared_gate:
            self.shared_gate = nn.Linear(spec.d_model, 1, bias=False)

    def weights(self, h):
        """What each choice counts for each token, 0 where the token did not get it: [B, T, choices]."""
        cfg, n = self.cfg, self.cfg.experts + self.cfg.zero + self.cfg.copy
        self.near = 1.0
        inside = torch.ones(h.shape[:2], dtype=torch.bool) if self.inside is None else self.inside
        if cfg.choose == "hash":
            experts = torch.tensor([[mixed(cfg.seed, self.block, 0, int(t)) % n for t in row] for row in self.tokens])
            return F.one_hot(experts.reshape(h.shape[:2]), n).to(wide(h).dtype)
        z = F.linear(wide(h), wide(self.router.weight), wide(self.router.bias) if cfg.router_bias else None)
        score = z.softmax(-1) if cfg.score == "softmax" else z.sigmoid()
        ranked = score + wide(self.router.select_bias) if cfg.select_bias else score
        best = ranked.sort(dim=-1, descending=True, stable=True)
        if cfg.choose == "expert":
            return score * self.places(inside.to(score.dtype)[..., None].expand_as(score), ranked, inside)
        # How near a choice was, for whoever makes cases.
        if cfg.top_k < n:
            self.near = float((best.values[..., cfg.top_k - 1] - best.values[..., cfg.top_k]).min())
        chosen = best.indices[..., :cfg.top_k]
        taken = torch.zeros_like(score).scatter(-1, chosen, 1.0)
        weight = score * taken
        if cfg.normalise:
            weight = weight / weight.sum(-1, keepdim=True)
        if cfg.group_size:
            turn = torch.zeros_like(score).scatter(-1, chosen, -torch.arange(cfg.top_k).to(score).expand_as(chosen))
            order = {"position": torch.zeros_like(score), "choice": turn, "score": ranked}[cfg.overflow]
            weight = weight * self.places(taken * inside[..., None], order, inside)
        return weight * cfg.routed_scale

    def places(self, taken, order, inside):
        """1 where a choice that is taken finds a place: an expert keeps those that come first by `order` (higher first), then
        the earlier ones; choices behind the experts keep all. Groups and their places do not depend on who is inside."""
        cfg, (b, t, n) = self.cfg, taken.shape
        keep = taken.clone()
        size = cfg.group_size or t
        for row in range(b):
            for start in range(0, t, size):
                end = min(start + size, t)
                if cfg.choose == "expert":
                    slots = max(1, math.ceil((end - start) * cfg.top_k / cfg.experts))
                else:
                    slots = math.ceil(cfg.group_size * cfg.top_k / n * cfg.capacity_factor)
                for e in range(cfg.experts):
                    wanted = [i for i in range(start, end) if taken[row, i, e] > 0]
                    wanted.sort(key=lambda i: (-float(order[row, i, e]), i))
                    for i in wanted[slots:]:
                        keep[row, i, e] = 0
                    if 0 < slots < len(wanted) and (cfg.choose == "expert" or cfg.overflow == "score"):
                        gap = float(order[row, wanted[slots - 1], e] - order[row, wanted[slots], e])
                        self.near = min(self.near, gap) if gap > 0 else self.near
        return keep

    def core(self, h):
        cfg, n = self.cfg, self.cfg.experts + self.cfg.zero + self.cfg.copy
        weight = self.weights(h).to(h.dtype)
        # Which choices each token got, for whoever listens.
        self.taken = (weight != 0) if self.inside is None else (weight != 0) & self.inside[..., None]
        out = torch.zeros_like(h)
        for e, expert in enumerate(self.experts):
            out = out + weight[..., e:e + 1] * feed_forward(expert, h, cfg.activation)
        for e in range(cfg.experts + cfg.zero, n):
            out = out + weight[..., e:e + 1] * h
        if cfg.shared_d_ff:
            common = feed_forward(self.shared, h, cfg.activation)
            out = out + (self.shared_gate(h).sigmoid() * common if cfg.shared_gate else common)
        return out


def add_projections(module: nn.Module, d: int, d_ff: int, cfg: Layer):
    """Up, gate (of a gated activation) and down projection."""
    module.up_proj = nn.Linear(d, d_ff, bias=bool(cfg.bias))
    if cfg.activation in ("swiglu", "geglu"):
        module.gate_proj = nn.Linear(d, d_ff, bias=bool(cfg.bias))
    module.down_proj = nn.Linear(d_ff, d, bias=bool(cfg.bias))


def feed_forward(module: nn.Module, h, activation: str):
    up = module.up_proj(h)
    act = {
        "gelu": lambda: F.gelu(up, approximate="tanh"),
        "gelu_erf": lambda: F.gelu(up),
        "silu": lambda: F.silu(up),
        "relu": lambda: F.relu(up),
        "relu2": lambda: F.relu(up) ** 2,
        "swiglu": lambda: F.silu(module.gate_proj(h)) * up,
        "geglu": lambda: F.gelu(module.gate_proj(h), approximate="tanh") * up,
    }[activation]()
    return module.down_proj(act)


class Linear(SubLayer):
    def __init__(self, spec: Spec, cfg: Layer, shared: bool = False):
        super().__init__(spec, cfg, shared)
        self.proj = nn.Linear(spec.d_model, spec.d_model, bias=bool(cfg.bias))

    def core(self, h):
        return self.proj(h)


class Taps(nn.Module):
    """The filters of a convolution, one for each channel; the last of its taps is for the token itself."""

    def __init__(self, d: int, kernel: int, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(d, kernel))
        if bias:
            self.bias = nn.Parameter(torch.zeros(d))


class Conv(SubLayer):
    """A causal convolution over positions: what lies before the sequence counts as 0, and so does a token outside of `visible`."""

    def __init__(self, spec: Spec, cfg: Layer, shared: bool = False):
        super().__init__(spec, cfg, shared)
        self.conv = Taps(spec.d_model, cfg.kernel, bool(cfg.bias))

    def core(self, h, pos, visible=None):
        """h [B, T, D], visible [B, T] bool or None -> [B, T, D]."""
        k, t = self.cfg.kernel, h.shape[1]
        h = h if visible is None else torch.where(visible[..., None], h, torch.zeros_like(h))
        h = F.pad(h, (0, 0, k - 1, 0))
        y = torch.zeros_like(h[:, k - 1:])
        for tap in range(k):
            y = y + h[:, tap:tap + t] * self.conv.weight[:, tap]
        y = y + self.conv.bias if self.cfg.bias else y
        return FUNCTIONS[self.cfg.activation](y)


KINDS = {"attention": Attention, "ffn": Ffn, "experts": Experts, "conv": Conv, "linear": Linear}


# ---------------------------------------------------------------- router

FUNCTIONS = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_erf": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


class Steps(nn.Module):
    """What stands in front of a decider's last weight, in float32 or better. Its norms have the model's eps and no offset."""

    def __init__(self, spec: Spec, steps: list):
        super().__init__()
        self.steps, self.width, self.prompt = steps, spec.d_model, None     # prompt: how many tokens it has, while generating
        for i, step in enumerate(steps):
            module = nn.Module()
            if "linear" in step:
                module = nn.Linear(self.width, step["linear"], bias=step.get("bias", False))
                self.width = step["linear"]
            elif "norm" in step:
                module = Norm(spec, self.width)
                module.kind, module.offset = step["norm"], 0.0
                if module.kind == "layernorm" and not hasattr(module, "bias"):
                    module.bias = nn.Parameter(torch.zeros(self.width))
                elif module.kind == "rmsnorm" and hasattr(module, "bias"):
                    del module.bias
            self.add_module(str(i), module)

    def forward(self, x):
        x = wide(x) if self.steps else x
        for i, step in enumerate(self.steps):
            module = getattr(self, str(i))
            if "linear" in step:
                x = F.linear(x, wide(module.weight), wide(module.bias) if module.bias is not None else None)
            elif "norm" in step:
                x = module(x)
            elif "pool" in step:
                seen = x[:, :self.prompt] if self.prompt else x    # one decision for all tokens of a sequence
                x = seen.mean(1, keepdim=True).expand_as(x)
            else:
                x = FUNCTIONS[step["activation"]](x)
        return x


WEIGHTLESS = ("random", "hash", "always", "never")


class Router(nn.Module):
    """Decides per token whether the wrapped layer runs. weight [R, D]: R = 2 for gumbel (row 0 skips, row 1
    executes), else 1; random, hash, always and never have none. Logits are at least float32, whatever the model's dtype."""

    def __init__(self, spec: Spec, cfg: Skip):
        super().__init__()
        self.cfg = cfg
        self.noise = 1.0                         # scale of the Gumbel noise in training; anneal to 0 to polarise
        self.forced = None                       # decisions [B, T] in {0, 1} taken elsewhere, of all routers in the order in which they run
        rows = spec.d_model if cfg.channels else {"gumbel": 2, "depth": cfg.repeat}.get(cfg.router, 1)
        if cfg.router not in WEIGHTLESS:
            self.steps = Steps(spec, cfg.decider)
            self.weight = nn.Parameter(torch.zeros(rows, self.steps.width))
            if cfg.bias:
                self.bias = nn.Parameter(torch.zeros(rows))
        if cfg.carry == "own":
            self.carry = nn.Linear(self.steps.width, rows, bias=cfg.bias)
        if cfg.generate == "predictor":
            self.predictor = nn.Module()
            self.predictor.steps = Steps(spec, cfg.predictor)
            self.predictor.weight = nn.Parameter(torch.zeros(1, self.predictor.steps.width))

    def forward(self, x, tokens, block_index: int, generating: bool = False, allowed=None):
        """x [B, T, D], tokens [B, T], allowed [B, T] bool (which may execute) or None -> (gate [B, T] in {0, 1}, p [B, T] the probability of executing, score [B, T] or None).
        In training, gate carries the straight-through gradient of the (noisy) probability."""
        cfg, (b, t, _) = self.cfg, x.shape
        replayed = self.forced.pop(0) if self.forced is not None else None
        may = torch.ones(b, t) if allowed is None else allowed.float()
        forced = (torch.arange(t) < cfg.force_first).expand(b, t)
        if cfg.router in WEIGHTLESS:
            p = torch.full((b, t), {"always": 1.0, "never": 0.0}.get(cfg.router, cfg.density))
            if cfg.router == "random":
                hard = random_gate(b, t, cfg, block_index)
            elif cfg.router == "hash":
                hard = hash_gate(tokens, cfg, block_index)
            else:
                hard = p.clone()
            return apply_capacity(hard.masked_fill(forced, 1.0) * may, p, cfg), p, None
        before = wide(self.steps(x))
        logit = F.linear(before, wide(self.weight), wide(self.bias) if cfg.bias else None)
        if cfg.router == "depth":
            last, two = logit.argmax(-1), logit.topk(min(2, cfg.repeat), -1).values       # the lowest index on ties
            p = logit.softmax(-1).gather(-1, last[..., None])[..., 0]
            hard = (last >= cfg.repetition).float() if replayed is None else replayed.float()
            return hard, p, two[..., 0] - two[..., -1] if cfg.repeat > 1 else torch.ones_like(p)
        if cfg.router == "gumbel":
            score = logit[..., 1] - logit[..., 0]
            p = soft = score.sigmoid()
            hard = (logit[..., 1] >= logit[..., 0]).float()              # ties execute
            if self.training:
                u = torch.rand_like(logit).clamp_(1e-9, 1 - 1e-9)
                noisy = logit - self.noise * (-u.log()).log()
                soft = (noisy[..., 1] - noisy[..., 0]).sigmoid()
                hard = (noisy[..., 1] >= noisy[..., 0]).float()
        else:
            if cfg.router == "highway":                                  # has no decision to replay
                if cfg.carry == "own":
                    c = F.linear(before, wide(self.carry.weight), wide(self.carry.bias) if cfg.bias else None)
                    self.shares = logit.sigmoid(), (c + cfg.carry_bias).sigmoid()
                else:
                    branch = (logit - cfg.carry_bias if cfg.carry_bias else logit).sigmoid()
                    self.shares = branch, 1 - branch
                return self.shares[0][..., 0], self.shares[0][..., 0], None
            if cfg.channels:                                             # a probability for each channel, whose mean decides
                p = logit.sigmoid()
                score = soft = p.mean(-1)
            else:
                score = logit[..., 0]
                p = soft = score.sigmoid()
            if cfg.router == "topk" and not (generating and cfg.generate):
                if generating:
                    raise ValueError("top-k looks at the future: generation needs generate = threshold or predictor")
                ranked = score.masked_fill(forced, float("inf")).masked_fill(may == 0, float("-inf"))
                ranked = ranked.reshape(1, -1) if cfg.scope == "batch" else ranked
                wanted = cfg.density * ranked.shape[1]                   # expert choice over each sequence, or over the batch
                k = max(1, math.floor(wanted) if cfg.round == "down" else math.ceil(wanted))
                order = ranked.sort(dim=1, descending=True, stable=True).indices[:, :k]   # the earlier row, then the earlier token on ties
                hard = torch.zeros_like(ranked).scatter_(1, order, 1.0).reshape(b, t)
            else:
                chance = soft
                if generating and cfg.generate == "predictor":
                    chance = F.linear(wide(self.predictor.steps(x)), wide(self.predictor.weight))[..., 0].sigmoid()
                hard = (chance >= cfg.threshold).float()
        if cfg.router != "topk" or (generating and cfg.generate):
            hard = hard.masked_fill(forced, 1.0)
        hard = apply_capacity(hard * may, score.masked_fill(forced, float("inf")), cfg)
        if allowed is not None:                                          # what is not looked at is near no border
            p, score = p.masked_fill(~allowed, 0.0), score.masked_fill(~allowed, float("-inf"))
        if replayed is not None:
            return replayed.to(p.dtype), p, score
        return (hard + soft - soft.detach() if self.training else hard), p, score


def random_gate(b, t, cfg: Skip, block_index: int):
    """A reproducible gate: SplitMix64 of (seed, block, batch row, position) below density * 2^32."""
    return torch.tensor([[drawn(cfg, block_index, i, j) for j in range(t)] for i in range(b)]).reshape(b, t)


def hash_gate(tokens, cfg: Skip, block_index: int):
    """The same for the token's id: SplitMix64 of (seed, block, 0, id), so that a token decides alike wherever it stands."""
    return torch.tensor([[drawn(cfg, block_index, 0, int(t)) for t in row] for row in tokens]).reshape(tokens.shape)


def drawn(cfg: Skip, block_index: int, row: int, number: int):
    """1.0 if the bits of (seed, block, row, number) are below density * 2^32, else 0.0."""
    return float(mixed(cfg.seed, block_index, row, number) < int(cfg.density * 2**32))


def mixed(seed: int, block_index: int, row: int, number: int):
    """The upper half of SplitMix64 of (seed, block, row, number)."""
    z = (seed * 0x9E3779B97F4A7C15 + (block_index << 48) + (row << 32) + number) & (2**64 - 1)
    z = (z + 0x9E3779B97F4A7C15) & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (z ^ (z >> 31)) >> 32


def apply_capacity(hard, score, cfg: Skip):
    """Each group of `group_size` consecutive tokens of one sequence has ceil(group_size * density * capacity_factor)
    slots (products in float64, left to right), a short last group as many as a full one. A token over capacity is skipped.
    Position order is causal: a token executes if fewer than that many earlier tokens of its group did."""
    if not cfg.group_size or cfg.router == "highway":
        return hard
    slots = math.ceil(cfg.group_size * cfg.density * cfg.capacity_factor)
    out = torch.zeros_like(hard)
    for start in range(0, hard.shape[1], cfg.group_size):
        h, q = hard[:, start:start + cfg.group_size], score[:, start:start + cfg.group_size]
        q = q if cfg.overflow == "score" else torch.zeros_like(q)
        rank = torch.where(h > 0, q, torch.full_like(q, float("-inf"))).sort(dim=1, descending=True, stable=True).indices
        keep = torch.zeros_like(h).scatter_(1, rank[:, :slots], 1.0)
        out[:, start:start + cfg.group_size] = h * keep
    return out


# ---------------------------------------------------------------- model

class SkipBlock(nn.Module):
    def __init__(self, spec: Spec, cfg: Block):
        super().__init__()
        if cfg.skip and any(c.skip for c in cfg.layers):
            raise ValueError("skip on a block and on one of its sub-layers at once")
        self.cfg = cfg
        one_norm = cfg.layout == "parallel_one_norm"
        self.layers = nn.ModuleList(KINDS[c.kind](spec, c, one_norm and i > 0) for i, c in enumerate(cfg.layers))
        self.router = Router(spec, cfg.skip) if cfg.skip else None
        self.layer_routers = nn.ModuleList(
            Router(spec, c.skip) if c.skip else None for c in cfg.layers)
        others = lambda skip: nn.ModuleList(KINDS[c.kind](spec, c) for c in (skip.otherwise if skip else []))
        self.otherwise = others(cfg.skip)
        self.layer_otherwise = nn.ModuleList(others(c.skip) for c in cfg.layers)

    def body(self, x, pos, gate, skip: Skip | None, layers, configs, parallel=None):
        """Runs `layers` over every token; those outside of `gate` stay as they are. (what comes out, the state before the
        last layer)"""
        h = before = x
        inside = None if gate is None or skip.router == "highway" else gate > 0
        for layer in layers:
            if isinstance(layer, Experts):
                layer.inside, layer.tokens, layer.block = inside, self.tokens, self.index
        parallel = self.cfg.layout != "sequence" if parallel is None else parallel
        norm = self.layers[0].normed if parallel and self.cfg.layout == "parallel_one_norm" else None
        for layer, cfg in zip(layers, configs):
            seen = x if parallel else h
            before = seen
            if cfg.kind in ("attention", "conv"):
                # a skipped token offers keys, values and inputs of convolutions of the residual stream as it stands
                h = h + layer(seen, pos, gate > 0 if skip and skip.kv == "active" else None, norm=norm)
            else:
                h = h + layer(seen, norm=norm)
            if gate is not None and skip.router != "highway":
                # later layers of the block see skipped tokens unchanged
                h = torch.where((gate > 0)[..., None], h, x)
        return h, before

    def decision_input(self, x, first: nn.Module, skip: Skip):
        if self.cfg.layout == "parallel_one_norm":
            first = self.layers[0]
        return first.norm(x) if skip.input == "normed" else x

    def forward(self, x, pos, tokens, index: int, generating=False):
        """`index` is that of the block in the order in which blocks run."""
        self.tokens, self.index = tokens, index
        stats, tokens = [], (tokens, index)
        if self.router:
            seen = self.decision_input(x, self.layers[0], self.cfg.skip)
            given = (self.router, self.cfg.skip, self.layers, self.cfg.layers, self.otherwise)
            y, decided = self.choose(x, seen, given, pos, tokens, generating)
            return y, [decided]
        entry, parallel = x, self.cfg.layout != "sequence"
        for layer, router, cfg, other in zip(self.layers, self.layer_routers, self.cfg.layers, self.layer_otherwise):
            base = entry if parallel else x
            if router is None:
                y, _ = self.body(base, pos, None, None, [layer], [cfg])
            else:
                seen = entry if cfg.skip.decide == "entry" else base
                seen = self.decision_input(seen, layer, cfg.skip)
                given = (router, cfg.skip, [layer], [cfg], other)
                y, decided = self.choose(base, seen, given, pos, tokens, generating)
                stats.append(decided)
            x = x + (y - base) if parallel else y
        return x, stats

    def choose(self, x, seen, given, pos, tokens, generating):
        """One choice between layers and what stands in `otherwise`: (the stream, what was decided)."""
        router, skip, layers, configs, other = given
        gate, p, score = router(seen, *tokens, generating)
        y, before = self.body(x, pos, gate, skip, layers, configs)
        y = weighted(x, y, before, score if skip.gate == "raw" else p, skip)
        decided = (gate, p, skip, score)
        if not skip.otherwise:
            return mix(x, y, gate, skip, getattr(router, "shares", None)), decided
        if skip.combine == "sum":
            light, _ = self.body(x, pos, None, None, other, skip.otherwise, parallel=False)
            return torch.where((gate > 0)[..., None], light + (y - x), light), decided
        rest = 1 - (gate > 0).to(x.dtype)
        g, before = self.body(x, pos, rest, skip, other, skip.otherwise, parallel=False)
        if skip.gate in ("scaled", "scaled_last"):
            g = weighted(x, g, before, 1 - p, skip)
        return torch.where((gate > 0)[..., None], y, g), decided


def weighted(x, y, before, w, skip: Skip):
    """What a token gets of a branch y, whose last layer began at `before`."""
    if skip.router == "highway" or (skip.gate == "binary" and skip.combine != "add"):
        return y
    if skip.gate == "binary":
        return x + y
    w = column(w, x) * skip.gate_factor
    if skip.combine == "add":
        return x + w * y
    start = before if skip.gate == "scaled_last" else x
    return start + w * (y - start)


def column(w, x):
    """A number for each row [B, T], or for each of its channels [B, T, D], to multiply a stream with."""
    return (w[..., None] if w.dim() == 2 else w).to(x.dtype)


def mix(x, y, gate, skip: Skip, shares=None):
    """Combine the executed branch y with the residual x under the gate, or by the shares of a highway. A skipped row keeps its
    very bytes."""
    if skip.router == "highway":
        branch, rest = (share.to(x.dtype) for share in shares)
        return branch * y + rest * x
    g = column(gate, x)
    if g.requires_grad:                                  # the straight-through path: value y or x, gradient of both
        return torch.where(g > 0, y, x) + (g - g.detach()) * (y - x)
    return torch.where(g > 0, y, x)


class StackRun(nn.Module):
    """Routers of a stack with `skip`, one for each repetition, or one for all of `depth`; its blocks are those of the model."""

    def __init__(self, spec: Spec, stack: Stack):
        super().__init__()
        self.skips = stack.repetitions() if stack.skip else []
        if stack.skip and stack.skip.router == "depth":
            self.router = Router(spec, self.skips[0])
        elif stack.skip:
            self.routers = nn.ModuleList(Router(spec, skip) for skip in self.skips)

    def repetition(self, x, entry, blocks, number, allowed, pos, tokens, index, generating):
        """One repetition, `entry` the stream in front of the first: (the stream, what was decided)."""
        skip = self.skips[number]
        is_depth = skip.router == "depth"
        router = self.router if is_depth else self.routers[number]
        router.cfg = skip
        seen = blocks[0].decision_input(entry if is_depth else x, blocks[0].layers[0], skip)
        gate, p, score = router(seen, tokens, index, generating, allowed)
        y = x
        for block in blocks:
            y, before = block.body(y, pos, gate, skip, block.layers, block.cfg.layers)
        y = weighted(x, y, before, score if skip.gate == "raw" else p, skip)
        return mix(x, y, gate, skip), (gate, p, skip, score)

    def forward(self, x, pos, tokens, rounds, index, generating):
        """rounds: the blocks of each repetition; index: of the first block in the order in which blocks run."""
        stats, entry, allowed = [], x, None
        attention = [layer for block in rounds[0] for layer in block.layers if isinstance(layer, Attention)]
        for layer in attention:
            layer.kept = {} if self.skips and self.skips[0].kv == "first" else None
        for number, blocks in enumerate(rounds):
            if self.skips:
                x, decided = self.repetition(x, entry, blocks, number, allowed, pos, tokens, index, generating)
                stats.append(decided)
                allowed = decided[0] > 0 if self.skips[0].nested else None
            for at, block in enumerate(blocks if not self.skips else []):
                x, own = block(x, pos, tokens, index + at, generating)
                stats += own
            index += len(blocks)
        for layer in attention:
            layer.kept = None
        return x, stats


class SkipLM(nn.Module):
    def __init__(self, spec: Spec):
        super().__init__()
        self.spec = spec
        if spec.input == "tokens":
            self.embed = nn.Embedding(spec.vocab_size, spec.d_model)
        else:
            self.patch_embed = nn.Linear(spec.patch_dim, spec.d_model)
        if spec.cls_token:
            self.cls = nn.Embedding(1, spec.d_model)
        if spec.positions == "learned":
            self.positions = nn.Embedding(spec.max_positions, spec.d_model)
        self.blocks = nn.ModuleList(SkipBlock(spec, b) for b in spec.blocks)
        self.stacks = nn.ModuleList(StackRun(spec, stack) for stack in spec.stacks)
        self.norm = Norm(spec)
        if spec.head == "pooled":
            self.head = nn.Linear(spec.d_model, spec.classes, bias=spec.head_bias)
        elif not spec.tie_embeddings:
            self.lm_head = nn.Linear(spec.d_model, spec.vocab_size, bias=spec.head_bias)
        elif spec.head_bias:
            self.lm_head = nn.Module()
            self.lm_head.bias = nn.Parameter(torch.zeros(spec.vocab_size))

    def forward(self, tokens, generating=False):
        """tokens [B, T] int, or patches -> (logits [B, T, V] or [B, classes], one (gate, p, skip, score) per router, in
        model order)."""
        if self.spec.input == "tokens":
            x = self.embed(tokens)
        else:
            x = self.patch_embed(tokens.to(self.patch_embed.weight.dtype))
        if self.spec.cls_token:
            x = torch.cat([self.cls.weight.expand(len(x), 1, -1), x], 1)
        pos = torch.arange(x.shape[1])
        if self.spec.embed_scale != 1.0:
            x = x * self.spec.embed_scale
        if self.spec.positions == "learned":
            x = x + self.positions(pos)
        stats, index = [], 0
        for stack, run in zip(self.spec.stacks, self.stacks):
            rounds = [[self.blocks[i] for i in blocks] for blocks in stack.rounds]
            x, s = run(x, pos, tokens, rounds, index, generating)
            stats, index = stats + s, index + sum(map(len, rounds))
        x = self.norm(x)
        if self.spec.head == "pooled":
            rows = {"first": x[:, 0], "last": x[:, -1], "mean": x.mean(1)}
            return self.head(rows[self.spec.pool]), stats
        w = self.embed.weight if self.spec.tie_embeddings else self.lm_head.weight
        logits = F.linear(x, w, self.lm_head.bias if self.spec.head_bias else None)
        cap = self.spec.logit_softcap
        return (cap * torch.tanh(logits / cap) if cap else logits), stats


def aux_loss(stats):
    """Sum over routers of (execution rate - target density)^2; the hard rate carries the straight-through gradient.
    Training adds 0.1 of it to the cross entropy."""
    terms = [(g.float().mean() - s.density) ** 2 for g, _, s, _ in stats if s.router in ("gumbel", "sigmoid")]
    return torch.stack(terms).sum() if terms else torch.zeros(())


# ---------------------------------------------------------------- weights

def tensor_names(model: SkipLM) -> dict[str, torch.Tensor]:
    """Names in the safetensors file: the state dict's own (embed.weight, blocks.3.layers.0.q_proj.weight,
    blocks.3.router.weight, blocks.3.layer_routers.1.bias, norm.weight, lm_head.weight ...).
    Linear weights are [out, in]."""
    return model.state_dict()


def load_model(spec: Spec, weights: str | Path) -> SkipLM:
    """The model of `spec` with the weights of a safetensors file, in float32."""
    model = SkipLM(spec).eval()
    model.load_state_dict({k: v.float() for k, v in load_file(weights).items()})
    return model
