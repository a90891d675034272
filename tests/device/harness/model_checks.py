"""The checks on whole models. Each gives what it measured; `RunFailed` says what is wrong."""
import numpy as np

from .models import BF16_COARSE, BF16_FACTOR, F32_TOLERANCE, RunFailed, rms, rmse, same_gates, worst

# Sequences of a batch of three rows: tails of tiles, single tokens, empty sequences, nothing at all.
RAGGED = ((127, 128, 129), (160, 0, 1), (63, 64, 65), (0, 1, 0), (15, 16, 17), (0, 0, 0))
# Cases with fewer tokens are too short to tell routers that decide from routers that are constant.
FORCED_FROM = 8


def within(what, value, allowed):
    if not value <= allowed:
        raise RunFailed(f"{what} is {value:.3e}, allowed {allowed:.3e}")


def reference_f32(runner, label, model, device, golden):
    """Decisions are those of the reference, logits near its own, and a second run gives the same bits."""
    first = runner.run(label, model, device, golden.tokens_file, golden.lengths)
    same_gates(first.gates, golden.gates)
    error, at = worst(first.logits, golden.logits)
    within(f"the distance of logit {at}", error, F32_TOLERANCE)
    second = runner.run(label, model, device, golden.tokens_file, golden.lengths, checked=False)
    if not np.array_equal(first.logits.view(np.uint32), second.logits.view(np.uint32)):
        raise RunFailed("a run over poisoned memory and one over what memory held give different bits")
    return {"error": error, "allowed": F32_TOLERANCE, "seconds": second.seconds}


def reference_bf16(runner, label, model, device, golden):
    """With the reference's decisions replayed, logits are as near as bf16 allows."""
    ran = runner.run(label, model, device, golden.tokens_file, golden.lengths, routing=golden.gates)
    same_gates(ran.gates, golden.gates)
    counted = golden.counted
    error, allowed = rmse(ran.logits[counted], golden.logits[counted]), BF16_FACTOR * golden.figures["bf16_rmse"]
    within("the root mean square error", error, allowed)
    return {"error": error, "allowed": allowed, "seconds": ran.seconds}


def free_bf16(runner, label, model, device, golden):
    """How many decisions bf16 takes otherwise: counted, not checked, but all logits are numbers."""
    ran = runner.run(label, model, device, golden.tokens_file, golden.lengths)
    if ran.gates.shape != golden.gates.shape or not np.isin(ran.gates, (0, 1)).all():
        raise RunFailed("the decisions are not 0 and 1 for each router and token")
    if not np.isfinite(ran.logits).all():
        raise RunFailed("there are logits that are not numbers")
    flips, in_pytorch = int((ran.gates != golden.gates).sum()), golden.figures["bf16_flips"]
    return {"note": f"{flips} of {golden.gates.size} decisions differ from f32, in PyTorch {in_pytorch}"}


def greedy_f32(runner, label, model, device, golden):
    got = runner.greedy(label, model, device, golden)
    if not np.array_equal(got, golden.greedy):
        raise RunFailed(f"continues {got.tolist()}, expected {golden.greedy.tolist()}")
    return {"note": f"{len(got)} tokens"}


def greedy_refused(runner, label, model, device, golden):
    """A model that cannot write text says so."""
    try:
        got = runner.greedy(label, model, device, golden)
    except RunFailed as failure:
        if "run::not-causal" in str(failure):
            return {"note": "it cannot generate"}
        raise
    raise RunFailed(f"continues by {len(got)} tokens, though its decisions depend on later ones")


def greedy_bf16(runner, label, model, device, golden):
    """How far bf16 writes what f32 does: counted, not checked."""
    got = runner.greedy(label, model, device, golden)
    if len(got) != len(golden.greedy):
        raise RunFailed(f"continues by {len(got)} tokens, expected {len(golden.greedy)}")
    same = int(np.cumprod(got == golden.greedy).sum())
    return {"note": f"the first {same} of {len(got)} tokens are those of f32"}


def forced_routing(golden, value):
    """All decisions `value`, but for routers that always decide alike: they may be constants of the program."""
    routing = np.full_like(golden.gates, value)
    routing[:, ~golden.counted] = 0
    flat = golden.gates[:, golden.counted]
    constant = (flat == flat[:, :1]).all(axis=1)
    routing[constant] = golden.gates[constant]
    return routing


def forced(runner, label, models, device, golden, value, dtype):
    """All or no tokens execute: the device gives what the host gives. `models`: for the host and for the device."""
    routing = forced_routing(golden, value)
    host = runner.run(f"{label}.host", models[0], "cpu", golden.tokens_file, golden.lengths, routing=routing)
    ran = runner.run(f"{label}.device", models[1], device, golden.tokens_file, golden.lengths, routing=routing)
    same_gates(ran.gates, routing)
    return like_host(ran, host, dtype)


def ragged(runner, label, models, device, golden, lengths, dtype):
    """Sequences of other lengths: the device gives what the host gives."""
    tokens = golden.tokens[: len(lengths)]
    host = runner.run(f"{label}.host", models[0], "cpu", tokens, lengths=lengths)
    routing = host.gates if dtype == "bf16" else None
    ran = runner.run(f"{label}.device", models[1], device, tokens, lengths=lengths, routing=routing)
    same_gates(ran.gates, host.gates)
    return like_host(ran, host, dtype)


def like_host(ran, host, dtype):
    if dtype == "f32":
        (error, at), allowed = worst(ran.logits, host.logits), F32_TOLERANCE
        within(f"the distance of logit {at} from the host's", error, allowed)
    else:
        error, allowed = rmse(ran.logits, host.logits), BF16_COARSE * rms(host.logits)
        within("the root mean square distance from the host", error, allowed)
    return {"error": error, "allowed": allowed, "seconds": ran.seconds}


def fits(golden, lengths):
    return golden.tokens.shape[0] == len(lengths) and golden.tokens.shape[1] >= max(lengths)
