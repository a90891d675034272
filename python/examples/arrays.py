"""Compiles a model whose weights are NumPy arrays, and replays its decisions with one layer switched off."""

import numpy as np

import skipc

SPEC = """
[model]
name = "two-layers"
vocab_size = 16
d_model = 32
max_positions = 64
norm = "rmsnorm"
positions = "rope"
tie_embeddings = true

[block.a]
skip = { router = "sigmoid", density = 0.5 }
layers = [{ kind = "ffn", d_ff = 64, activation = "swiglu" }]

[[stack]]
blocks = ["a", "a"]
"""

model = skipc.load(skipc.compile(SPEC, weights=skipc.RandomWeights(7)))
tokens = np.arange(48).reshape(3, 16) % 16
scores = model.score(tokens)
print(f"logits {scores.logits.shape}, executed by router {scores.counts} of {tokens.size} tokens")

without = scores.gates.copy()
without[1] = 0
replayed = model.score(tokens, routing=without)
distance = np.abs(replayed.logits - scores.logits).max()
print(f"without the second layer logits differ by up to {distance:.4f}")
