"""What all peers run: a model spec, weights for it, and tokens that execute an exact share of its layers.

A token's id is its decisions: bit J of the id is written into channel J of the embedding, as 1 or -1; no layer writes
into that channel, and the router of block B reads it for J = B mod (number of bits). So routers run as any other, with a
full row of weights and no bias, decide alike whatever the order of a peer's sums, and any set of rows can be had for
each bit. To keep channels to themselves, projections back into the stream have rows of zeros for them, which costs as
much as any other rows.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


@dataclass(frozen=True)
class Block:
    """Sizes of a block; `heads` is 0 where it has no attention."""

    heads: int
    d_ff: int


class Workload:
    """A model from its spec, and how many tokens in sequences of which length it runs."""

    def __init__(self, name, spec, tokens, seed=0):
        model = tomllib.loads(Path(spec).read_text())
        self.name, self.spec, self.tokens = name, Path(spec), tokens
        sizes = model["model"]
        self.d, self.vocab, self.eps = sizes["d_model"], sizes["vocab_size"], sizes["norm_eps"]
        self.length = min(tokens, sizes["max_positions"])
        self.rope_theta = sizes["rope_theta"] if sizes["positions"] == "rope" else None
        self.blocks = [
            block_of(model["block"][named])
            for stack in model["stack"]
            for named in stack["blocks"] * stack.get("repeat", 1)
        ]
        self.bits = self.vocab.bit_length() - 1
        assert self.vocab == 1 << self.bits and tokens % self.length == 0
        self.weights = self.draw(np.random.default_rng(seed))

    def draw(self, rng):
        """Random weights by the names that skipc gives them."""
        d, bits = self.d, self.bits

        def normal(rows, columns, scale=1.0):
            return (rng.standard_normal((rows, columns)) * scale * columns**-0.5).astype(np.float32)

        def to_stream(columns):
            weight = normal(d, columns, scale=0.5)
            weight[:bits] = 0
            return weight

        def gain():
            return (1 + 0.1 * rng.standard_normal(d)).astype(np.float32)

        embedding = rng.standard_normal((self.vocab, d)).astype(np.float32)
        ids = np.arange(self.vocab)[:, None]
        embedding[:, :bits] = 2.0 * (ids >> np.arange(bits) & 1) - 1
        weights = {"embed.weight": embedding, "norm.weight": gain(), "lm_head.weight": normal(self.vocab, d)}
        for idx, block in enumerate(self.blocks):
            at = f"blocks.{idx}"
            router = np.zeros((2, d), np.float32)
            router[:, idx % bits] = [-1, 1]
            weights[f"{at}.router.weight"] = router
            layer = 0
            if block.heads:
                weights[f"{at}.layers.0.norm.weight"] = gain()
                for part in "qkv":
                    weights[f"{at}.layers.0.{part}_proj.weight"] = normal(d, d)
                weights[f"{at}.layers.0.o_proj.weight"] = to_stream(d)
                layer = 1
            weights[f"{at}.layers.{layer}.norm.weight"] = gain()
            weights[f"{at}.layers.{layer}.up_proj.weight"] = normal(block.d_ff, d)
            weights[f"{at}.layers.{layer}.down_proj.weight"] = to_stream(block.d_ff)
        return weights

    def rows(self, density):
        """How many tokens execute each block."""
        return round(density * self.tokens)

    def input(self, density, seed):
        """Tokens of which exactly `rows(density)` execute each block."""
        rng = np.random.default_rng([seed, self.rows(density)])
        decisions = np.zeros((self.bits, self.tokens), np.int64)
        for bit in decisions:
            bit[rng.permutation(self.tokens)[: self.rows(density)]] = 1
        return (decisions << np.arange(self.bits)[:, None]).sum(0)

    def save(self, path):
        save_file(self.weights, path)


def block_of(block):
    kinds = {layer["kind"]: layer for layer in block["layers"]}
    attention, ffn = kinds.get("attention"), kinds["ffn"]
    assert ffn["activation"] == "gelu", "the peers know GELU"
    return Block(heads=attention["heads"] if attention else 0, d_ff=ffn["d_ff"])
