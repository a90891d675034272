"""Writes a golden case from a spec: random (or given) weights and tokens, and what the reference computes from them.

    python make_case.py SPEC.toml --out DIR [--weights W.safetensors] [--batch 2] [--tokens 100] [--seed 0] [--new 32]
                        [--dtype bf16]

What DIR gets is told in ../golden/README.md. Logits and gates are float32 arithmetic on the CPU, from the weights as
stored. Random weights and tokens are redrawn until no score is nearer than --near to its border and no greedy choice
nearer than --gap to its rival, so that rounding cannot flip a decision; given ones that fail this are an error.
"""
import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import bf16_error
from rows import run
from skiplayer import SkipLM, Steps, load_model, load_spec

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
NEAR, GAP = 1e-4, 1e-3


def init(model, seed, dtype):
    """Random parameters, rounded to the type in which they will be stored."""
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if p.dim() == 2:
            p.data = torch.randn(p.shape, generator=g) * (0.3 if "embed" in name else p.shape[1] ** -0.5)
            if "router" in name:
                p.data *= 2.0
        elif "norm" in name and name.endswith("weight"):
            p.data = 1 - model.spec.norm_offset + 0.2 * torch.randn(p.shape, generator=g)
        else:
            p.data = 0.2 * torch.randn(p.shape, generator=g)
        p.data = p.data.to(DTYPES[dtype]).float()


def margins(pieces, generating=False):
    """Smallest distance of a score to what decides about it: its threshold, the k-th score, or the last slot of a group."""
    near = []
    for p, s, score, wanted in (router for piece in pieces for router in piece):
        p = p.mean(-1) if p.dim() == 3 else p
        if s.router == "gumbel":
            near.append(float(score.abs().min()))
        elif s.router == "sigmoid" or (s.router == "topk" and generating):
            near.append(float((p - s.threshold).abs().min()))
        elif s.router == "topk":
            score = score.reshape(1, -1) if s.scope == "batch" else score
            k = max(1, int(np.ceil(s.density * score.shape[1])))
            top = score.sort(dim=1, descending=True).values
            # Where fewer may execute than could, nothing is compared.
            gaps = (top[:, k - 1] - top[:, k])[top[:, k - 1].isfinite()] if k < score.shape[1] else score[:0]
            near += [float(gaps.min())] if gaps.numel() else []
        elif s.router == "depth":
            near.append(float(score.min()))
        if s.group_size and s.overflow == "score" and score is not None:
            slots = int(np.ceil(s.group_size * s.density * s.capacity_factor))
            for row, want in zip(score, wanted):
                for i in range(0, len(row), s.group_size):
                    top = row[i:i + s.group_size][want[i:i + s.group_size]].sort(descending=True).values
                    near += [float(top[slots - 1] - top[slots])] if len(top) > slots > 0 else []
    return min(near, default=1.0)


def expert_margin(model):
    """Smallest distance of a chosen expert's score from the next one's, in the last run."""
    return min((layer.near for layer in model.modules() if hasattr(layer, "near")), default=1.0)


def continue_greedily(model, tokens, new):
    """(the `new` tokens that follow row 0, smallest margin of a score on the way, smallest lead of a chosen logit)."""
    row, near, gap = tokens[:1], 1.0, float("inf")
    steps = [module for module in model.modules() if isinstance(module, Steps)]
    for each in steps:
        each.prompt = tokens.shape[1]
    for _ in range(new):
        ran = run(model, row, generating=True)
        best = ran.logits[0, -1].topk(2)
        near = min(near, margins(ran.pieces, True), expert_margin(model))
        gap = min(gap, float(best.values[0] - best.values[1]))
        row = torch.cat([row, best.indices[:1][None]], 1)
    for each in steps:
        each.prompt = None
    return row[0, tokens.shape[1]:], near, gap if new else None


def evaluate(model, tokens, new, lengths=None):
    """All that a case stores of one run: arrays by file name, and the figures of case.json."""
    patches = model.spec.input == "patches"
    tokens = torch.from_numpy(tokens if patches else np.atleast_2d(tokens).astype(np.int64))
    if lengths is not None:
        lengths = np.array(lengths, np.int32)
        tokens[torch.arange(tokens.shape[1]) >= torch.from_numpy(lengths)[:, None]] = 0
    ran = run(model, tokens, lengths)
    experts_near = expert_margin(model)
    greedy, near, gap = continue_greedily(model, tokens if lengths is None else tokens[:, :lengths[0]], new)
    near = min(near, margins(ran.pieces), experts_near)
    arrays = {
        **({"patches": tokens.numpy()} if patches else {"tokens": tokens.numpy().astype(np.int32)}),
        "logits": ran.logits.numpy(),
        "gates": ran.gates,
        "greedy": greedy.numpy().astype(np.int32),
    }
    if ran.experts is not None:
        arrays["experts"] = ran.experts
    if lengths is not None:
        arrays["lengths"] = lengths
    skips = [router[1] for router in ran.pieces[0]]
    if any(s.group_size for s in skips):
        over = ran.wanted.astype(np.int32) - ran.gates
        if over.min() < 0:
            raise SystemExit("a capacity lets tokens execute that did not want to")
        arrays["overflow"] = over.sum((1, 2), dtype=np.int32)
    if any(s.generate not in ("", "prefill") for s in skips):       # a prompt that is run as a whole decides as in training
        generated = run(model, tokens, lengths, generating=True)
        near = min(near, margins(generated.pieces, True))
        arrays |= {"generate_logits": generated.logits.numpy(), "generate_gates": generated.gates}
    rows = len(tokens)
    count = rows * tokens.shape[1] if lengths is None else int(lengths.sum())
    count += rows * int(model.spec.cls_token)
    figures = {
        "nearest_score": near,
        "nearest_greedy_logit": gap,
        "density": [round(float(g.sum() / count), 4) for g in ran.gates],
    }
    return arrays, figures


def decided(figures, near, gap):
    lead = figures["nearest_greedy_logit"]
    return figures["nearest_score"] > near and (lead is None or lead > gap)


def write(out, arrays, figures, model):
    """Writes the arrays and case.json, with the errors of the run measured against float64."""
    for name, array in arrays.items():
        np.save(out / f"{name}.npy", array)
    if model.spec.head == "pooled":
        figures = {"pool": model.spec.pool} | figures
    figures = figures | bf16_error.measure(model, arrays)
    (out / "case.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(out.name, json.dumps(figures))


def random_case(spec_path, out, *, batch=2, tokens=100, seed=0, new=0, dtype="bf16", lengths=None, near=NEAR,
                gap=GAP):
    """A case with weights and tokens of its own."""
    spec = load_spec(spec_path)
    for attempt in range(500):
        model = SkipLM(spec).eval()
        init(model, seed * 1000 + attempt, dtype)
        rng = np.random.default_rng(seed * 1000 + attempt)
        if spec.input == "patches":
            data = rng.standard_normal((batch, tokens, spec.patch_dim)).astype(np.float32)
        else:
            data = rng.integers(0, spec.vocab_size, (batch, tokens))
        arrays, figures = evaluate(model, data, new, lengths)
        if decided(figures, near, gap):
            break
    else:
        raise SystemExit(f"{out}: no draw keeps its decisions clear of rounding; try fewer tokens")
    save_file({k: v.to(DTYPES[dtype]).contiguous() for k, v in model.state_dict().items()}, out / "weights.safetensors")
    where = {"spec": os.path.relpath(spec_path, out), "weights": "weights.safetensors", "dtype": dtype}
    write(out, arrays, where | figures, model)


def given_case(spec_path, weights, tokens, out, *, new=0, near=NEAR, gap=GAP):
    """A case of shipped weights on given tokens."""
    model = load_model(load_spec(spec_path), weights)
    arrays, figures = evaluate(model, tokens, new)
    if not decided(figures, near, gap):
        raise SystemExit(f"{out}: these tokens leave a decision to rounding: {figures}")
    dtype = {v: k for k, v in DTYPES.items()}[next(iter(load_file(weights).values())).dtype]
    where = {"spec": os.path.relpath(spec_path, out), "weights": os.path.relpath(weights, out), "dtype": dtype}
    write(out, arrays, where | figures, model)


def agreeing_case(out, *, new=0, tolerance=1e-4):
    """A case whose arrays another implementation computed: refused if ours differ, else told what ours measures beside them."""
    spec, weights = out / "spec.toml", out / "weights.safetensors"
    model = load_model(load_spec(spec), weights)
    given = {path.stem: np.load(path) for path in out.glob("*.npy")}
    inputs = given["patches"] if "patches" in given else given["tokens"]
    arrays, figures = evaluate(model, inputs, new)
    for name in given:
        got, wanted = arrays[name], given[name]
        if got.size == wanted.size == 0:
            continue
        same = np.abs(got - wanted).max() <= tolerance if name.endswith("logits") else np.array_equal(got, wanted)
        if got.shape != wanted.shape or not same:
            raise SystemExit(f"{out}: {name}.npy is not what the reference computes")
    dtype = {v: k for k, v in DTYPES.items()}[next(iter(load_file(weights).values())).dtype]
    where = {"spec": "spec.toml", "weights": "weights.safetensors", "dtype": dtype}
    write(out, arrays | given, where | figures, model)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("spec"), a.add_argument("--out", required=True, type=Path), a.add_argument("--weights")
    a.add_argument("--batch", type=int, default=2), a.add_argument("--tokens", type=int, default=100)
    a.add_argument("--seed", type=int, default=0), a.add_argument("--new", type=int, default=0)
    a.add_argument("--dtype", choices=DTYPES, default="bf16")
    a.add_argument("--near", type=float, default=NEAR, help="required distance of every score to its border")
    a.add_argument("--gap", type=float, default=GAP, help="required lead of every greedy choice")
    a.add_argument("--token-file", help="int .npy instead of random tokens; needs --weights")
    o = a.parse_args()
    o.out.mkdir(parents=True, exist_ok=True)
    margin = {"new": o.new, "near": o.near, "gap": o.gap}
    if o.weights and o.token_file:
        given_case(o.spec, o.weights, np.load(o.token_file), o.out, **margin)
    elif o.weights or o.token_file:
        a.error("--weights and --token-file go together")
    else:
        random_case(o.spec, o.out, batch=o.batch, tokens=o.tokens, seed=o.seed, dtype=o.dtype, **margin)


if __name__ == "__main__":
    main()
