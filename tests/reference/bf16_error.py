"""How far float32 and bfloat16 runs of the reference itself are from float64, on a golden case.

    python bf16_error.py CASE_DIR...       measures each case again and prints the figures

`measure` gives what make_case.py stores in case.json:
f32_max_error    largest |difference| of a logit in float32 from float64
bf16_rmse        root of the mean squared difference of the logits in bfloat16 from float64, with the decisions of the
                 float32 run replayed; this is what a compiled bf16 model is judged by
bf16_flips       decisions that a free bfloat16 run takes otherwise than float32 did, of `decisions` in all
"""
import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch

from skiplayer import Router, load_model, load_spec


def replay(model, gates):
    """Makes every router of the model decide as `gates` [R, B, T] say, in model order; None sets them free."""
    for i, router in enumerate(m for m in model.modules() if isinstance(m, Router)):
        router.forced = None if gates is None else torch.from_numpy(gates[i])


@torch.no_grad()
def measure(model, arrays):
    """The figures above for a float32 model and the arrays of its case."""
    tokens = torch.from_numpy(arrays["tokens"].astype(np.int64))
    exact, low = copy.deepcopy(model).double(), copy.deepcopy(model).bfloat16()
    truth, stats = exact(tokens)
    decided = np.stack([(g > 0).numpy() for g, _, _, _ in stats]) if stats else np.zeros_like(arrays["gates"])
    if (decided != arrays["gates"]).any():
        raise SystemExit("float64 decides otherwise than float32: the case is not clear of rounding")
    free = [(g > 0).numpy() for g, _, _, _ in low(tokens)[1]]
    replay(low, arrays["gates"])
    error = low(tokens)[0].double() - truth
    return {
        "f32_max_error": float(f"{np.abs(arrays['logits'] - truth.numpy()).max():.3g}"),
        "bf16_rmse": float(f"{error.square().mean().sqrt():.4g}"),
        "bf16_flips": int(sum((f != g).sum() for f, g in zip(free, arrays["gates"]))),
        "decisions": int(arrays["gates"].size),
    }


def main():
    for folder in map(Path, sys.argv[1:]):
        case = json.loads((folder / "case.json").read_text())
        arrays = {name: np.load(folder / f"{name}.npy") for name in ("tokens", "logits", "gates")}
        model = load_model(load_spec(folder / case["spec"]), folder / case["weights"])
        print(folder.name, json.dumps(measure(model, arrays)))


if __name__ == "__main__":
    main()
