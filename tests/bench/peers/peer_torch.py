"""PyTorch, eager and compiled: with every row computed and thrown away where it was skipped, and with gathered rows."""

import torch
import torch._inductor.config
import torch.nn.functional as F

torch._dynamo.config.capture_dynamic_output_shape_ops = True


class Model:
    """A workload in PyTorch, as one would write it; `gathered` picks the form."""

    def __init__(self, workload, gathered):
        self.gathered, self.d, self.eps, self.length = gathered, workload.d, workload.eps, workload.length
        self.sequences = workload.tokens // workload.length
        weights = {name: torch.from_numpy(array) for name, array in workload.weights.items()}
        self.embedding, self.gain, self.head = (
            weights[name] for name in ("embed.weight", "norm.weight", "lm_head.weight")
        )
        self.blocks = [(block, of_block(weights, idx, block.heads)) for idx, block in enumerate(workload.blocks)]
        self.positions = torch.arange(self.length).repeat(self.sequences)
        if workload.rope_theta:
            half = self.d // workload.blocks[0].heads // 2
            frequency = workload.rope_theta ** (-torch.arange(half, dtype=torch.float32) / half)
            angle = self.positions.float()[:, None, None] * frequency
            self.turn = angle.cos(), angle.sin()

    def __call__(self, tokens):
        x = F.embedding(tokens, self.embedding)
        block = self.gathered_block if self.gathered else self.masked_block
        for sizes, weights in self.blocks:
            x = block(x, sizes, weights)
        return F.linear(self.norm(x, self.gain), self.head)

    def norm(self, x, gain):
        return F.rms_norm(x, (self.d,), gain, self.eps)

    def ffn(self, h, w):
        return F.linear(F.gelu(F.linear(h, w["up_proj"]), approximate="tanh"), w["down_proj"])

    def rotate(self, x, cos, sin):
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def keys_and_values(self, u, w, heads):
        """For every token; [sequences, heads, length, columns of a head]."""
        k, v = (F.linear(u, w[name]).view(len(u), heads, -1) for name in ("k_proj", "v_proj"))
        k = self.rotate(k, *self.turn)
        return (z.view(self.sequences, self.length, heads, -1).transpose(1, 2) for z in (k, v))

    def masked_block(self, x, sizes, w):
        u = self.norm(x, w["first_norm"])
        z = F.linear(u, w["router"])
        y = x
        if sizes.heads:
            k, v = self.keys_and_values(u, w, sizes.heads)
            q = self.rotate(F.linear(u, w["q_proj"]).view(len(u), sizes.heads, -1), *self.turn)
            q = q.view(self.sequences, self.length, sizes.heads, -1).transpose(1, 2)
            seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            y = y + F.linear(seen.transpose(1, 2).reshape(len(u), -1), w["o_proj"])
            u = self.norm(y, w["norm"])
        return torch.where((z[:, 1] >= z[:, 0])[:, None], y + self.ffn(u, w), x)

    def gathered_block(self, x, sizes, w):
        u = self.norm(x, w["first_norm"])
        z = F.linear(u, w["router"])
        rows = (z[:, 1] >= z[:, 0]).nonzero().squeeze(1)
        y, h = x.index_select(0, rows), u.index_select(0, rows)
        if sizes.heads:
            k, v = self.keys_and_values(u, w, sizes.heads)
            turn = (table.index_select(0, rows) for table in self.turn)
            q = self.rotate(F.linear(h, w["q_proj"]).view(len(rows), sizes.heads, -1), *turn)
            y = y + F.linear(self.ragged_attention(q, k, v, rows), w["o_proj"])
            h = self.norm(y, w["norm"])
        return x.index_copy(0, rows, y + self.ffn(h, w))

    def ragged_attention(self, q, k, v, rows):
        """Sequence by sequence, because each has another number of queries."""
        seen = []
        for idx in range(self.sequences):
            of_this = rows // self.length == idx
            mask = torch.arange(self.length)[None, :] <= (rows[of_this] % self.length)[:, None]
            queries = q[of_this].transpose(0, 1)[None]
            found = F.scaled_dot_product_attention(queries, k[idx][None], v[idx][None], attn_mask=mask)
            seen.append(found[0].transpose(0, 1).flatten(1))
        return torch.cat(seen)


def of_block(weights, idx, has_attention):
    at = f"blocks.{idx}"
    first, last = f"{at}.layers.0", f"{at}.layers.{1 if has_attention else 0}"
    names = {"router": f"{at}.router", "first_norm": f"{first}.norm", "norm": f"{last}.norm"}
    names |= {name: f"{last}.{name}" for name in ("up_proj", "down_proj")}
    if has_attention:
        names |= {name: f"{first}.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
    return {name: weights[f"{path}.weight"] for name, path in names.items()}


class Torch:
    """One form, as the harness calls it."""

    def __init__(self, workload, threads, gathered, compiled):
        self.threads = threads
        torch.set_num_threads(threads)
        # Generated code has the number of threads in it.
        torch._inductor.config.cpp.threads = threads
        model = Model(workload, gathered)
        self.call = torch.compile(model.__call__, dynamic=gathered) if compiled else model

    def prepare(self, tokens):
        return torch.from_numpy(tokens)

    def run(self, tokens):
        torch.set_num_threads(self.threads)
        with torch.inference_mode():
            return self.call(tokens)

    def logits(self, tokens):
        return self.run(tokens).numpy()


def versions():
    return {"torch": torch.__version__}
