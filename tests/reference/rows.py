"""Runs a model on a batch whose rows may differ in length, and listens to its routers."""
import copy
from dataclasses import dataclass, field

import numpy as np
import torch

from skiplayer import Experts, Router


@dataclass
class Run:
    """What one run computes. Tensors are [..., B, T]; past the length of a row all is 0."""
    logits: torch.Tensor                                # [B, T, V], or [B, classes]
    gates: np.ndarray                                   # uint8 [R, B, T], 1 where the token executed
    wanted: np.ndarray                                  # uint8 [R, B, T], 1 where it would without a capacity
    experts: np.ndarray | None = None                   # uint8 [layers, B, T, choices], which each token got; None without layers
    pieces: list = field(default_factory=list)          # a list of (p, skip, score, wanted) of each router, one each piece


@torch.no_grad()
def run(model, tokens, lengths=None, generating=False, forced=None):
    """tokens int [B, T] or patches float [B, T, P], lengths [B] or None, forced uint8 [R, B, T] or None: decisions to take.
    A class token is a token of gates and decisions, and not of lengths."""
    tokens = torch.as_tensor(tokens)
    spec, more = model.spec, int(model.spec.cls_token)
    b, t = len(tokens), tokens.shape[1] + more
    shape = (b, spec.classes) if spec.head == "pooled" else (b, t, spec.vocab_size)
    routers = [m for m in model.modules() if isinstance(m, Router)]
    n_decisions = len(model(tokens[:1, :1], generating)[1])
    out = Run(torch.zeros(shape, dtype=next(model.parameters()).dtype),
              *(np.zeros((n_decisions, b, t), np.uint8) for _ in range(2)))
    for rows, batch in pieces(tokens, lengths):
        n = batch.shape[1] + more
        replayed = None if forced is None else [torch.from_numpy(gate[rows, :n]).expand(len(batch), n) for gate in forced]
        for router in routers:
            router.forced = replayed
        heard, hooks = listen(routers)
        took = []
        hooks += [layer.register_forward_hook(lambda layer, *_: took.append(layer.taken))
                  for layer in model.modules() if isinstance(layer, Experts)]
        logits, stats = model(batch, generating)
        for hook in hooks:
            hook.remove()
        # of a row that was repeated, the last
        kept = slice(None) if rows == slice(0, b) else slice(-1, None)
        if spec.head == "pooled":
            out.logits[rows] = logits[kept]
        else:
            out.logits[rows, :n] = logits[kept]
        for i, (gate, _, _, _) in enumerate(stats):
            out.gates[i, rows, :n] = (gate > 0)[kept].numpy()
            out.wanted[i, rows, :n] = (heard[i] > 0)[kept].numpy()
        if took:
            widest = max(layer.shape[-1] for layer in took)
            if out.experts is None:
                out.experts = np.zeros((len(took), b, t, widest), np.uint8)
            for i, layer in enumerate(took):
                out.experts[i, rows, :n, :layer.shape[-1]] = layer[kept].numpy()
        out.pieces.append([(p[kept], skip, None if score is None else score[kept], (heard[i] > 0)[kept])
                           for i, (_, p, skip, score) in enumerate(stats)])
    for router in routers:
        router.forced = None
    return out


def pieces(tokens, lengths):
    """Batches that can be run: the whole, or each row cut to its length, as often as its index says: the random router
    looks at the index, so row i is the last of i + 1 copies."""
    if lengths is None:
        return [(slice(0, len(tokens)), tokens)]
    return [(slice(i, i + 1), tokens[i:i + 1, :n].repeat(i + 1, *[1] * (tokens.dim() - 1))) for i, n in enumerate(lengths) if n]


def listen(routers):
    """Lets each router also decide without its capacity. Gives the list of these decisions, and hooks to remove."""
    heard = []

    def hook(router, args, _):
        (kept, forced), router.cfg = (router.cfg, router.forced), copy.copy(router.cfg)
        router.cfg.group_size, router.forced = 0, None
        heard.append(router.forward(*args)[0])
        router.cfg, router.forced = kept, forced

    return heard, [router.register_forward_hook(hook) for router in routers]
