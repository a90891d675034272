"""Replaces a feed-forward layer that tokens may skip, in a program of PyTorch, by a compiled one."""

import torch
from torch import nn

import skipc
import skipc.torch

WIDTH, HIDDEN = 64, 256
SPEC = f"""
[model]
name = "layer"
input = "rows"
final_norm = false
d_model = {WIDTH}
max_positions = 512
positions = "none"

[block.a]
skip = {{ router = "sigmoid", density = 0.25, bias = true }}
layers = [{{ kind = "ffn", d_ff = {HIDDEN}, activation = "gelu" }}]

[[stack]]
blocks = ["a"]
"""


class SkippedLayer(nn.Module):
    """Computes the layer for every token, and keeps the result where the router says so."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(WIDTH, eps=1e-5)
        self.up = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.down = nn.Linear(HIDDEN, WIDTH, bias=False)
        self.router = nn.Linear(WIDTH, 1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        normed = self.norm(rows)
        executes = torch.sigmoid(self.router(normed)) >= 0.5
        changed = rows + self.down(nn.functional.gelu(self.up(normed), approximate="tanh"))
        return torch.where(executes, changed, rows)


torch.manual_seed(1)
masked = SkippedLayer()
with torch.no_grad():
    masked.router.bias.fill_(-0.4)
weights = {
    "blocks.0.layers.0.norm.weight": masked.norm.weight,
    "blocks.0.layers.0.up_proj.weight": masked.up.weight,
    "blocks.0.layers.0.down_proj.weight": masked.down.weight,
    "blocks.0.router.weight": masked.router.weight,
    "blocks.0.router.bias": masked.router.bias,
}
layer = skipc.torch.Layer(skipc.load(skipc.compile(SPEC, weights=weights)))


@torch.compile(fullgraph=True, backend="aot_eager")
def program(rows: torch.Tensor) -> torch.Tensor:
    return layer(rows * 2.0).mean(dim=1)


rows = torch.randn(4, 32, WIDTH)
with torch.no_grad():
    distance = (layer(rows) - masked(rows)).abs().max()
    together = (program(rows) - masked(rows * 2.0).mean(dim=1)).abs().max()
_, _, counts = layer.score(rows)
print(f"{int(counts.sum())} of {rows.shape[0] * rows.shape[1]} tokens executed the layer")
print(f"it differs from PyTorch by at most {max(distance, together):.1e}")
assert max(distance, together) < 1e-4
