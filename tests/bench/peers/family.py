"""Models that choose in other ways than by whole blocks of a language model, in skipc and in PyTorch, on the CPU, in turns.

    experts    one layer, 2,048 tokens, d 512: 8 experts 2,048 wide of which a token takes one, beside one feed-forward layer of that
               width. PyTorch: `loop` (tokens sorted by expert, a pair of matmuls for each), `grouped` (`torch._grouped_mm`
               over the same order), `masked` (every expert for every token)
    recursion  one block of attention and feed-forward, 512 tokens, d 512, three times with the same weights: all tokens each time,
               and all, two thirds and one third of them, each among those before
    vision     ViT-S/16 (d 384, 12 blocks), 8 images of 197 tokens: all blocks dense, and in every other block the half of an
               image's tokens that a router scores highest, the class token among them (IdleViT)

PyTorch's forms run eager and through `torch.compile`; those that choose k tokens gather them into a tensor of that size, which is
all that compiling can ask for. All forms of one model have the same weights and are compared before they are timed.

    python family.py [--only experts] [--rounds 30] [--threads 2]

Writes family.json and family.md beside the other results.
"""

import argparse
import json
import math
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from ours import Worker, compile_to, skipc

RESULTS = Path(__file__).resolve().parent.parent / "results" / "peers"

EXPERTS = """[model]
name = "experts"
vocab_size = 32
d_model = 512
max_positions = 2048
positions = "none"
[block.b]
layers = [{{ kind = {kind}, d_ff = 2048, activation = "gelu" }}]
[[stack]]
blocks = ["b"]
"""

RECURSION = """[model]
name = "recursion"
vocab_size = 32
d_model = 512
max_positions = 512
positions = "none"
[block.b]
layers = [{{ kind = "attention", heads = 8 }}, {{ kind = "ffn", d_ff = 2048, activation = "gelu" }}]
[[stack]]
blocks = ["b"]
repeat = 3
share = true
{skip}
"""

NESTED = f'skip = {{ router = "topk", density = [1.0, {2 / 3!r}, {1 / 3!r}], nested = true, input = "raw", kv = "active" }}'

VISION = """[model]
name = "vit-s16"
input = "patches"
patch_dim = 768
cls_token = true
d_model = 384
max_positions = 197
norm = "layernorm"
norm_eps = 1e-6
positions = "learned"
mask = "full"
head = "pooled"
pool = "first"
classes = 1000
head_bias = true
[block.dense]
layers = [{layers}]
[block.idle]
{skip}
layers = [{layers}]
[[stack]]
blocks = ["dense", "idle"]
repeat = 6
"""

VIT_LAYERS = (
    '{ kind = "attention", heads = 6, bias = "all" }, '
    '{ kind = "ffn", d_ff = 1536, activation = "gelu_erf", bias = true }'
)

IDLE = 'skip = { router = "topk", density = 0.5, force_first = 1, kv = "active" }'


class Ours:
    """A spec, compiled and loaded, on one batch."""

    def __init__(self, worker, folder, name, spec, batch, threads):
        self.path, self.weights = folder / f"{name}.toml", folder / f"{name}.safetensors"
        self.path.write_text(spec)
        skipc("init", self.path, "-o", self.weights)
        tokens = sum(batch["lengths"])
        compile_to(self.path, self.weights, folder / f"{name}.skp", tokens)
        self.worker, self.out = worker, folder / "logits.f32"
        self.session = worker.ask("load", artefact=str(folder / f"{name}.skp"), threads=threads)["session"]
        self.batch = worker.ask("batch", **batch)["batch"]

    def ms(self):
        return self.worker.ask("run", session=self.session, batch=self.batch)["ms"]

    def logits(self, rows, cols):
        """The rows of these numbers, which the runtime gives for every token."""
        self.worker.ask("run", session=self.session, batch=self.batch, logits=str(self.out))
        return torch.from_numpy(np.fromfile(self.out, np.float32).reshape(-1, cols))[rows]

    def tensors(self):
        return load_file(self.weights)


class Theirs:
    """A function of PyTorch, eager or compiled."""

    def __init__(self, run, compiled=False):
        self.run = torch.compile(run, dynamic=False) if compiled else run

    def ms(self):
        begin = time.perf_counter()
        self.run()
        return (time.perf_counter() - begin) * 1e3


def norm(x, w, name):
    d, bias = x.shape[-1], w.get(f"{name}.bias")
    return F.rms_norm(x, (d,), w[f"{name}.weight"], 1e-5) if bias is None else F.layer_norm(x, (d,), w[f"{name}.weight"], bias, 1e-6)


def linear(x, w, name):
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def block(x, w, name, heads, causal, gelu):
    """Attention and a feed-forward layer over the rows of `x` [B, T, D]."""
    u = norm(x, w, f"{name}.layers.0.norm")
    q, k, v = (linear(u, w, f"{name}.layers.0.{p}_proj").unflatten(-1, (heads, -1)).transpose(1, 2) for p in "qkv")
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    x = x + linear(mixed.transpose(1, 2).flatten(2), w, f"{name}.layers.0.o_proj")
    u = norm(x, w, f"{name}.layers.1.norm")
    return x + linear(F.gelu(linear(u, w, f"{name}.layers.1.up_proj"), approximate=gelu), w, f"{name}.layers.1.down_proj")


def best(x, score, k):
    """The rows [B, k, D] of the k highest scores [B, T], in their order, and where they were."""
    at = score.topk(k).indices.sort().values[..., None].expand(-1, -1, x.shape[-1])
    return x.gather(1, at), at


def experts_of(w, tokens, form):
    """A layer of experts over all tokens, as the spec has it."""
    x = w["embed.weight"][tokens]
    u = norm(x, w, "blocks.0.layers.0.norm")
    if form == "dense":
        y = linear(F.gelu(linear(u, w, "blocks.0.layers.0.up_proj"), approximate="tanh"), w, "blocks.0.layers.0.down_proj")
        return norm(x + y, w, "norm") @ w["embed.weight"].T
    one = lambda e, u: F.gelu(u @ w["up"][e].T, approximate="tanh") @ w["down"][e].T
    weight, expert = (u @ w["blocks.0.layers.0.router.weight"].T).softmax(-1).max(-1)
    if form == "masked":
        y = torch.zeros_like(u)
        for e in range(len(w["up"])):
            y = torch.where((expert == e)[:, None], weight[:, None] * one(e, u), y)
        return norm(x + y, w, "norm") @ w["embed.weight"].T
    order = expert.argsort(stable=True)
    ends, rows, y = torch.bincount(expert, minlength=len(w["up"])).cumsum(0), u[order], torch.empty_like(u)
    if form == "loop":
        begins = [0, *ends.tolist()]
        made = torch.cat([one(e, rows[begins[e] : begins[e + 1]]) for e in range(len(w["up"]))])
    else:
        ends = ends.to(torch.int32)
        inner = F.gelu(torch._grouped_mm(rows, w["up_t"], offs=ends), approximate="tanh")
        made = torch._grouped_mm(inner, w["down_t"], offs=ends)
    y[order] = weight[order][:, None] * made
    return norm(x + y, w, "norm") @ w["embed.weight"].T


def experts(worker, folder, threads):
    ids = [(i * 37 + i // 11) % 32 for i in range(2048)]
    batch, tokens = {"tokens": ids, "lengths": [2048]}, torch.tensor(ids)
    dense = Ours(worker, folder, "dense", EXPERTS.format(kind='"ffn"'), batch, threads)
    one = Ours(worker, folder, "experts", EXPERTS.format(kind='"experts", experts = 8'), batch, threads)
    w, wide = dense.tensors(), one.tensors()
    for name in ("up", "down"):
        wide[name] = torch.stack([wide[f"blocks.0.layers.0.experts.{e}.{name}_proj.weight"] for e in range(8)])
        # As the grouped matmul takes them, [experts, in, out].
        wide[f"{name}_t"] = wide[name].transpose(1, 2).contiguous()
    forms = {"skipc, one feed-forward layer": dense, "skipc, one of 8 experts": one}
    forms["PyTorch, one feed-forward layer"] = Theirs(lambda: experts_of(w, tokens, "dense"))
    agree("dense", dense.logits(slice(None), 32), experts_of(w, tokens, "dense"))
    wanted = one.logits(slice(None), 32)
    for form in ("masked", "loop", "grouped"):
        agree(form, wanted, experts_of(wide, tokens, form))
        # torch.compile knows the grouped matmul in bf16 alone.
        for compiled in (False,) if form == "grouped" else (False, True):
            how = "compiled" if compiled else "eager"
            forms[f"PyTorch, {form}, {how}"] = Theirs(lambda form=form: experts_of(wide, tokens, form), compiled)
    return forms


def recursion_of(w, tokens, shares):
    x = w["embed.weight"][tokens][None]
    length, inside, where = x.shape[1], x, []
    for repetition, share in enumerate(shares):
        if share < 1:
            score = (inside @ w[f"stacks.0.routers.{repetition}.weight"].T)[..., 0]
            inside, at = best(inside, score, math.ceil(share * length))
            where.append((x, at))
        x = inside = block(inside, w, "blocks.0", 8, True, "tanh")
    for outer, at in reversed(where):
        x = outer.scatter(1, at, x)
    return norm(x[0], w, "norm") @ w["embed.weight"].T


def recursion(worker, folder, threads):
    ids = [(i * 37 + i // 11) % 32 for i in range(512)]
    batch, tokens = {"tokens": ids, "lengths": [512]}, torch.tensor(ids)
    forms = {}
    for name, skip, shares in (("all, all, all", "", [1, 1, 1]), ("1, 2/3, 1/3", NESTED, [1, 2 / 3, 1 / 3])):
        ours = Ours(worker, folder, f"recursion-{len(forms)}", RECURSION.format(skip=skip), batch, threads)
        w = ours.tensors()
        agree(name, ours.logits(slice(None), 32), recursion_of(w, tokens, shares))
        forms[f"skipc, {name}"] = ours
        for compiled in (False, True):
            how = "compiled" if compiled else "eager"
            forms[f"PyTorch, {name}, {how}"] = Theirs(lambda w=w, shares=shares: recursion_of(w, tokens, shares), compiled)
    return forms


def vision_of(w, patches, form):
    x = linear(patches, w, "patch_embed")
    x = torch.cat([w["cls.weight"].expand(len(x), 1, -1), x], 1) + w["positions.weight"]
    run = lambda x, b: block(x, w, f"blocks.{b}", 6, False, "none")
    for b in range(12):
        if form == "dense" or b % 2 == 0:
            x = run(x, b)
            continue
        score = linear(norm(x, w, f"blocks.{b}.layers.0.norm"), w, f"blocks.{b}.router")[..., 0]
        score = torch.cat([torch.full_like(score[:, :1], math.inf), score[:, 1:]], 1)
        inside, at = best(x, score, math.ceil(0.5 * x.shape[1]))
        x = x.scatter(1, at, run(inside, b))
    return linear(norm(x[:, 0], w, "norm"), w, "head")


def vision(worker, folder, threads):
    patches = torch.randn(8, 196, 768, generator=torch.Generator().manual_seed(1))
    rows = torch.cat([torch.zeros(8, 1, 768), patches], 1)
    path = folder / "rows.f32"
    rows.numpy().tofile(path)
    batch, forms = {"rows": str(path), "lengths": [197] * 8}, {}
    for name, skip in (("dense", ""), ("half of the tokens in half of the blocks", IDLE)):
        ours = Ours(worker, folder, f"vision-{len(forms)}", VISION.format(layers=VIT_LAYERS, skip=skip), batch, threads)
        w = ours.tensors()
        form = "idle" if skip else "dense"
        agree(name, ours.logits(slice(0, None, 197), 1000), vision_of(w, patches, form))
        forms[f"skipc, {name}"] = ours
        for compiled in (False, True):
            how = "compiled" if compiled else "eager"
            forms[f"PyTorch, {name}, {how}"] = Theirs(lambda w=w, form=form: vision_of(w, patches, form), compiled)
    return forms


def agree(what, ours, theirs):
    """An error unless most rows are the same but for rounding: which token is the k-th best may hang on it."""
    off = (ours - theirs).abs().amax(-1) / theirs.abs().amax()
    if (off > 1e-3).float().mean() > 0.25:
        raise SystemExit(f"{what}: skipc and PyTorch give other numbers, by {float(off.max()):.2e} of the largest")


def measure(forms, rounds):
    """Median and least time of each form, in milliseconds; all take turns."""
    times = {name: [] for name in forms}
    for name, form in forms.items():
        for _ in range(3):
            form.ms()
    for _ in range(rounds):
        for name, form in forms.items():
            times[name].append(form.ms())
    return {name: {"median": round(statistics.median(all), 2), "least": round(min(all), 2)} for name, all in times.items()}


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--only", choices=["experts", "recursion", "vision"])
    a.add_argument("--rounds", type=int, default=30)
    a.add_argument("--threads", type=int, default=2)
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    worker, found = Worker(), {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for workload in (experts, recursion, vision):
            if o.only in (None, workload.__name__):
                found[workload.__name__] = measure(workload(worker, Path(folder), o.threads), o.rounds)
                for name, ms in found[workload.__name__].items():
                    print(f"{workload.__name__:10} {name:62} {ms['median']:8.2f} ms (median), {ms['least']:8.2f} (least)", flush=True)
    if o.only:
        return
    about = {"machine": platform.processor() or platform.machine(), "threads": o.threads, "torch": torch.__version__, "rounds": o.rounds}
    (RESULTS / "family.json").write_text(json.dumps(about | {"ms": found}, indent=1) + "\n")
    lines = [f"f32, {o.threads} threads, {o.rounds} rounds in turns, torch {torch.__version__}; `python tests/bench/peers/family.py`", ""]
    for workload, forms in found.items():
        lines += [f"| {workload} | ms, median | least |", "| --- | --- | --- |"]
        lines += [f"| {name} | {ms['median']} | {ms['least']} |" for name, ms in forms.items()] + [""]
    (RESULTS / "family.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
