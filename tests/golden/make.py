"""Makes every golden case again with the reference: python tests/golden/make.py [NAME...]

Needs torch, numpy and safetensors (see ../reference/README.md). Weights, tokens, gates and greedy continuations come
out the same everywhere; the last bits of logits depend on the machine, so commit only what you meant to change.
"""
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "reference"))
import make_case  # noqa: E402

MODELS = HERE.parent.parent / "models"
EXAMPLE = "kjv-12l-d25"

RAGGED = {"batch": 4, "tokens": 40, "lengths": [17, 0, 40, 1]}

# Cases with a spec.toml of their own, random weights and random tokens; what is not said is in `TYPICAL`.
# `new` is 0 where generation is refused.
RANDOM = {
    "gumbel": {},
    "gumbel-raw-active": {"tokens": 37, "dtype": "f32"},
    "gumbel-active-rope": {"tokens": 43},
    "random": {},
    "random-none": {"tokens": 33, "dtype": "f32"},
    "random-all": {"tokens": 33, "dtype": "f32"},
    "highway": {"dtype": "f32"},
    "highway-raw": {"tokens": 29},
    "always": {"dtype": "f32"},
    "never": {"dtype": "f32"},
    "wrap-attention": {},
    "wrap-ffn": {"dtype": "f32"},
    "wrap-both-here": {},
    "wrap-both-entry": {"dtype": "f32"},
    "wrap-both-active": {"tokens": 31},
    "wrap-ffn-first": {"dtype": "f32"},
    "wrap-mixed-routers": {"dtype": "f32"},
    "odd-sizes": {"batch": 3, "tokens": 41, "dtype": "f16"},
    "one-token": {"batch": 3, "tokens": 1, "dtype": "f32", "new": 6},
    "five-rows": {"batch": 5, "tokens": 13},
    "small-sparse": {},
    "small-dense": {},
    "small-random": {},
    "small-highway": {},
    "squared-relu": {},
    "sigmoid": {},
    "sigmoid-raw-active": {"tokens": 37},
    "topk": {"tokens": 41, "new": 0},
    "topk-one": {"tokens": 29, "new": 0},
    "topk-raw-active": {"tokens": 33, "new": 0},
    "topk-generate": {},
    "scaled-gumbel": {},
    "scaled-sigmoid": {"tokens": 31},
    "scaled-topk": {},
    "scaled-random": {"tokens": 33},
    "scaled-sublayers": {"tokens": 35},
    "capacity-gumbel-position": {},
    "capacity-gumbel-score": {"new": 0},
    "capacity-sigmoid-position": {},
    "capacity-sigmoid-score": {"new": 0},
    "capacity-topk-position": {},
    "capacity-topk-score": {"new": 0},
    "capacity-random-position": {},
    "capacity-random-score": {},
    "capacity-always-position": {},
    "capacity-always-score": {},
    "capacity-scaled": {},
    "capacity-none": {"tokens": 20},
    "entry-topk": {},
    "entry-capacity": {"new": 0},
    "ragged-gumbel": RAGGED,
    "ragged-topk": RAGGED,
    "ragged-capacity": RAGGED | {"new": 0},
    "ragged-random": RAGGED,
    "decider-steps": {"tokens": 43},
    "decider-apart": {"tokens": 37},
    "otherwise-adapter": {"tokens": 41},
    "otherwise-either": {"tokens": 33, "dtype": "f32"},
    "otherwise-sum": {"tokens": 35},
    "combine-add": {"tokens": 31, "dtype": "f32"},
    "hash": {"dtype": "f32"},
    "capacity-hash": {},
    "ragged-hash": RAGGED,
    "linear": {"dtype": "f32"},
    "linear-layernorm": {},
    "norms-window-cap": {"dtype": "f32"},
    "parallel": {},
    "scaled-rope": {},
    "experts": {"dtype": "f32", "tokens": 30},
    "experts-sigmoid": {"tokens": 24},
    "experts-capacity": {"dtype": "f32", "tokens": 30},
    "experts-choice": {"tokens": 33, "new": 0},
    "vision": {"tokens": 36, "dtype": "f32", "new": 0},
    "vision-mean": {"batch": 4, "tokens": 30, "lengths": [17, 1, 30, 8], "new": 0},
    "encoder": {"batch": 4, "tokens": 40, "lengths": [17, 1, 40, 15], "new": 0},
    "channels": {"tokens": 33, "dtype": "f32"},
    "highway-carry": {"tokens": 29},
    "topk-batch": {"batch": 3, "tokens": 21},
    "force-first": {"tokens": 27, "dtype": "f32"},
    "pooled": RAGGED | {"new": 0},
    "mindskip": {"tokens": 23, "dtype": "f32"},
    "recursion": {"tokens": 33},
    "recursion-first": {"tokens": 37, "dtype": "f32"},
    "recursion-shared": {"tokens": 35},
    "recursion-random": RAGGED,
    "early-exit": {"tokens": 41},
    "conv": {"tokens": 43},
    "conv-active": {"tokens": 33, "dtype": "f32"},
    "topk-round-down": RAGGED,
}
TYPICAL = {"batch": 2, "tokens": 40, "new": 12}

# Bytes of genesis.txt for the example model: NAME -> (count, first byte). A start that leaves a decision to rounding
# is refused by `given_case`; these do not.
LENGTHS = {f"{EXAMPLE}-t{count}": (count, start)
           for count, start in [(1, 0), (2, 0), (127, 367), (128, 367), (129, 367), (1000, 51)]}
# What `make demo` continues.
DEMO = f"{EXAMPLE}-demo"
PROMPT = b"In the beginning God created the heaven and the earth. And"


# Cases whose arrays another implementation of the same rules computed: what stands there stays, and the reference has to
# agree with it. NAME -> tokens of the continuation.
FAMILY = {
    "family-attention": 12,
    "family-conv": 12,
    "family-dllm": 12,
    "family-early-exit": 12,
    "family-expert-choice": 0,
    "family-flexidepth": 12,
    "family-lightheavy": 0,
    "family-mindskip": 14,
    "family-moe": 12,
    "family-recursion": 12,
    "family-recursion-kv": 12,
    "family-skipgpt": 12,
    "family-ties": 0,
    "family-vision": 0,
}


def family_cases(chosen):
    for name, new in FAMILY.items():
        if chosen(name):
            make_case.agreeing_case(HERE / name, new=new)


def random_cases(chosen):
    for seed, (name, said) in enumerate(RANDOM.items()):
        if chosen(name):
            make_case.random_case(HERE / name / "spec.toml", HERE / name, seed=seed, **TYPICAL | said)


def example_cases(chosen):
    """The shipped model on the rows that tokens.npy already holds, and on one row of each length."""
    spec, weights = MODELS / f"{EXAMPLE}.toml", MODELS / f"{EXAMPLE}.safetensors"
    if chosen(EXAMPLE):
        rows = np.load(HERE / EXAMPLE / "tokens.npy")
        make_case.given_case(spec, weights, rows, HERE / EXAMPLE, new=96)
    text = (HERE / "genesis.txt").read_bytes()
    pieces = {name: (text[start:start + count], 8) for name, (count, start) in LENGTHS.items()}
    for name, (piece, new) in (pieces | {DEMO: (PROMPT, 96)}).items():
        if chosen(name):
            (HERE / name).mkdir(exist_ok=True)
            make_case.given_case(spec, weights, np.frombuffer(piece, np.uint8), HERE / name, new=new)


def main():
    names = sys.argv[1:]
    unknown = set(names) - {EXAMPLE, DEMO, *RANDOM, *LENGTHS, *FAMILY}
    if unknown:
        raise SystemExit(f"no such case: {', '.join(sorted(unknown))}")
    chosen = (lambda name: name in names) if names else (lambda name: True)
    random_cases(chosen)
    example_cases(chosen)
    family_cases(chosen)


if __name__ == "__main__":
    main()
