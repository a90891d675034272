"""How far float32 and bfloat16 runs of the reference itself are from float64, on a golden case.

    python bf16_error.py CASE_DIR...       measures each case again and prints the figures

`measure` gives what make_case.py stores in case.json:
f32_max_error    largest |difference| of a logit in float32 from float64
bf16_rmse        root of the mean squared difference of the logits in bfloat16 from float64, with the decisions of the
                 float32 run replayed; a compiled bf16 model is compared with this
bf16_flips       decisions that a free bfloat16 run takes otherwise than float32 did, of `decisions` in all
"""
import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch

from rows import run
from skiplayer import load_model, load_spec


@torch.no_grad()
def measure(model, arrays):
    """The figures above for a float32 model and the arrays of its case."""
    tokens = arrays["tokens"].astype(np.int64) if "tokens" in arrays else arrays["patches"]
    lengths = arrays.get("lengths")
    exact, low = copy.deepcopy(model).double(), copy.deepcopy(model).bfloat16()
    truth = run(exact, tokens, lengths)
    unclear = (truth.gates != arrays["gates"]).any()
    if "generate_gates" in arrays:
        unclear |= (run(exact, tokens, lengths, generating=True).gates != arrays["generate_gates"]).any()
    if unclear:
        raise SystemExit("float64 decides otherwise than float32: the case is not clear of rounding")
    more = int(model.spec.cls_token)
    real = np.ones((len(tokens), tokens.shape[1] + more), bool)
    if lengths is not None:
        real = np.arange(real.shape[1]) < lengths[:, None] + more
    free = run(low, tokens, lengths).gates
    error = (run(low, tokens, lengths, forced=arrays["gates"]).logits.double() - truth.logits)
    error = error if model.spec.head == "pooled" else error[torch.from_numpy(real)]
    return {
        "f32_max_error": float(f"{np.abs(arrays['logits'] - truth.logits.numpy()).max():.3g}"),
        "bf16_rmse": float(f"{error.square().mean().sqrt():.4g}"),
        "bf16_flips": int((free != arrays["gates"]).sum()),
        "decisions": int(len(arrays["gates"]) * real.sum()),
    }


def main():
    for folder in map(Path, sys.argv[1:]):
        case = json.loads((folder / "case.json").read_text())
        arrays = {path.stem: np.load(path) for path in folder.glob("*.npy")}
        model = load_model(load_spec(folder / case["spec"]), folder / case["weights"])
        print(folder.name, json.dumps(measure(model, arrays)))


if __name__ == "__main__":
    main()
