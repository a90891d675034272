"""The operator of PyTorch, eager and compiled. Skipped where PyTorch is not installed."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import SMALL

import skipc

torch = pytest.importorskip("torch")

import skipc.torch  # noqa: E402  (it needs PyTorch)


def test_tensors_in_and_out(small: skipc.Model) -> None:
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    scores = small.score(tokens)
    assert np.array_equal(scores.logits, small.score(tokens.numpy()).logits)
    logits = torch.from_dlpack(scores.logits)
    assert logits.data_ptr() == scores.logits.ctypes.data
    assert small.score(tokens.t().contiguous().t()).logits.tobytes() == scores.logits.tobytes()


def test_the_operator_is_sound(small: skipc.Model) -> None:
    scorer = skipc.torch.Scorer(small)
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    gates = torch.from_numpy(small.score(tokens).gates)
    arguments = [
        (tokens, None, None),
        (tokens[0], None, None),
        (tokens, torch.tensor([3, 1]), None),
    ]
    arguments.append((tokens, None, gates))
    for given in arguments:
        torch.library.opcheck(skipc.torch.score, (*given, scorer.model_name))


def test_a_model_inside_a_compiled_program(small: skipc.Model) -> None:
    scorer = skipc.torch.Scorer(small)
    head = torch.nn.Linear(8, 3)

    def program(tokens: torch.Tensor) -> torch.Tensor:
        logits, gates, counts = scorer.score(tokens)
        share = counts.sum() / gates.numel()
        return head(torch.softmax(logits * 2, dim=-1)).sum(dim=1) + share

    compiled = torch.compile(program, fullgraph=True, backend="aot_eager")
    for shape in ((2, 5), (3, 7), (1, 9)):
        tokens = torch.randint(0, 8, shape, generator=torch.Generator().manual_seed(1))
        assert torch.equal(compiled(tokens), program(tokens))
    compiled(tokens).sum().backward()
    assert head.weight.grad is not None and head.weight.grad.abs().sum() > 0


def test_weights_of_a_program_in_pytorch() -> None:
    """Names and shapes are the model's own: from the error for none."""
    with pytest.raises(skipc.InputError) as caught:
        skipc.compile(SMALL, weights={})
    names = [finding.message.split("`")[1] for finding in caught.value.findings]
    shapes = {"embed.weight": (8, 16)}
    assert "embed.weight" in names, names
    half = torch.ones(shapes["embed.weight"], dtype=torch.bfloat16, requires_grad=True)
    with pytest.raises(skipc.InputError) as caught:
        skipc.compile(SMALL, weights={"embed.weight": half})
    assert not any("embed.weight" in finding.message for finding in caught.value.findings)


LAYER = """
[model]
name = "layer"
input = "rows"
final_norm = false
d_model = 16
max_positions = 32

[block.a]
skip = { router = "sigmoid", density = 0.5, input = "raw", bias = true }
layers = [{ kind = "ffn", d_ff = 32, activation = "relu" }]

[[stack]]
blocks = ["a"]
"""


def test_a_layer_alone() -> None:
    """Equals the layer as PyTorch computes it, for narrower floats, too; skipped rows keep their bytes."""
    generator = torch.Generator().manual_seed(2)
    up, down = (torch.randn(shape, generator=generator) / 4 for shape in ((32, 16), (16, 32)))
    router, bias = torch.randn((1, 16), generator=generator), torch.tensor([0.1])
    weights = {
        "blocks.0.layers.0.norm.weight": torch.ones(16),
        "blocks.0.layers.0.up_proj.weight": up,
        "blocks.0.layers.0.down_proj.weight": down,
        "blocks.0.router.weight": router,
        "blocks.0.router.bias": bias,
    }
    layer = skipc.torch.Layer(skipc.load(skipc.compile(LAYER, weights=weights)))
    assert (layer.model.row_columns, layer.model.columns, layer.model.vocab_size) == (16, 16, 0)
    rows = torch.randn((3, 9, 16), generator=generator)
    executes = rows @ router.T + bias >= 0
    assert 0 < executes.sum() < executes.numel()
    normed = torch.nn.functional.rms_norm(rows, (16,), eps=1e-5)
    wanted = torch.where(executes, rows + torch.relu(normed @ up.T) @ down.T, rows)
    got = layer(rows)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(got[~executes[..., 0]], rows[~executes[..., 0]])
    assert layer(rows.bfloat16()).dtype == torch.bfloat16
    compiled = torch.compile(lambda rows: layer(rows) + 1, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(rows), got + 1)
    for given in ((rows, None), (rows[0], None), (rows, torch.tensor([9, 0, 4]))):
        torch.library.opcheck(skipc.torch.score, (*given, None, layer.model_name))
    with pytest.raises(skipc.Error, match="rows of 16 numbers"):
        layer.model.score(np.zeros((4, 15), np.float32))
    with pytest.raises(skipc.Error, match="float32"):
        layer.model.score(np.zeros((4, 16)))


def test_a_layer_takes_rows(small: skipc.Model) -> None:
    with pytest.raises(TypeError, match="token ids"):
        skipc.torch.Layer(small)


def test_models_are_not_kept_for_ever() -> None:
    scorer = skipc.torch.Scorer(skipc.load(skipc.compile(SMALL, weights=skipc.RandomWeights())))
    name = scorer.model_name
    assert name in skipc.torch._MODELS
    del scorer
    assert name not in skipc.torch._MODELS
