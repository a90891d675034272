"""A compiled model inside a program of PyTorch that is compiled as one graph."""

import torch

import skipc
import skipc.torch

artifact = skipc.compile("models/kjv-12l-d25.toml", weights="models/kjv-12l-d25.safetensors")
scorer = skipc.torch.Scorer(skipc.load(artifact))


@torch.compile(fullgraph=True, backend="aot_eager")
def surprise(tokens: torch.Tensor) -> torch.Tensor:
    """Nats of each byte after those before it."""
    logits = scorer(tokens)[:, :-1]
    return torch.nn.functional.cross_entropy(logits.mT, tokens[:, 1:], reduction="none")


text = "And God said, Let there be light: and there was light."
nats = surprise(torch.tensor([list(text.encode())]))
print(f"{nats.mean() / torch.tensor(2.0).log():.2f} bits a byte")
