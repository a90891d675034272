"""A layer of experts in PyTorch on the CPU, beside what `cargo bench --features cuda --bench forms -- experts` times of ours.

2,048 tokens, d 512, experts 2,048 wide with GELU, one of 8 a token, f32, two threads; embedding, norm, residual and head of the same
sizes as there. Forms: `dense` (one feed-forward layer for all tokens), `loop` (tokens sorted by expert, a matmul pair for each),
`grouped` (`torch._grouped_mm` over the same order, where this PyTorch has it on the CPU), `masked` (every expert for every token).
All forms of experts give the same numbers, or the script fails.

    python peer_experts.py [--tokens 2048] [--experts 8] [--threads 2] [--seconds 5]
"""
import argparse
import statistics
import time

import torch
import torch.nn.functional as F

VOCAB, D, D_FF = 32, 512, 2048


class Layer:
    """Weights of a model of one layer, as the bench draws it."""

    def __init__(self, experts):
        g = torch.Generator().manual_seed(1)
        draw = lambda *shape: torch.randn(*shape, generator=g) * shape[-1] ** -0.5
        self.embed, self.gain = draw(VOCAB, D), torch.ones(D)
        self.router = draw(experts, D)
        self.up, self.down = draw(experts, D_FF, D), draw(experts, D, D_FF)
        # As the grouped matmul takes them: [experts, in, out].
        self.up_t, self.down_t = (w.transpose(1, 2).contiguous() for w in (self.up, self.down))

    def around(self, tokens, core):
        x = F.embedding(tokens, self.embed)
        x = x + core(F.rms_norm(x, (D,), self.gain, 1e-5))
        return F.rms_norm(x, (D,), self.gain, 1e-5) @ self.embed.T

    def dense(self, u):
        return F.gelu(u @ self.up[0].T, approximate="tanh") @ self.down[0].T

    def chosen(self, u):
        weight, expert = (u @ self.router.T).softmax(-1).max(-1)
        return weight[:, None], expert

    def masked(self, u):
        weight, expert = self.chosen(u)
        out = torch.zeros_like(u)
        for e in range(len(self.up)):
            y = F.gelu(u @ self.up[e].T, approximate="tanh") @ self.down[e].T
            out = torch.where((expert == e)[:, None], weight * y, out)
        return out

    def sorted_by_expert(self, u):
        weight, expert = self.chosen(u)
        order = expert.argsort(stable=True)
        ends = torch.bincount(expert, minlength=len(self.up)).cumsum(0)
        return weight[order], order, ends

    def loop(self, u):
        weight, order, ends = self.sorted_by_expert(u)
        rows, out, begin = u[order], torch.empty_like(u), 0
        parts = []
        for e, end in enumerate(ends.tolist()):
            parts.append(F.gelu(rows[begin:end] @ self.up[e].T, approximate="tanh") @ self.down[e].T)
            begin = end
        out[order] = weight * torch.cat(parts)
        return out

    def grouped(self, u):
        weight, order, ends = self.sorted_by_expert(u)
        ends = ends.to(torch.int32)
        inner = F.gelu(torch._grouped_mm(u[order], self.up_t, offs=ends), approximate="tanh")
        out = torch.empty_like(u)
        out[order] = weight * torch._grouped_mm(inner, self.down_t, offs=ends)
        return out


def timed(run, seconds):
    """Median and smallest time of a run, in milliseconds."""
    run()
    times, begin = [], time.perf_counter()
    while time.perf_counter() - begin < seconds or len(times) < 5:
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times), min(times)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--tokens", type=int, default=2048)
    a.add_argument("--experts", type=int, default=8)
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--seconds", type=float, default=5.0)
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    layer = Layer(o.experts)
    tokens = torch.tensor([(i * 37 + i // 11) % VOCAB for i in range(o.tokens)])
    size = f"{o.tokens} tokens, d {D}, {D_FF} wide, 1 of {o.experts}, f32, {o.threads} threads, torch {torch.__version__}"
    print(size)
    with torch.inference_mode():
        wanted = layer.around(tokens, layer.masked)
        for name in ("dense", "masked", "loop", "grouped"):
            core = getattr(layer, name)
            try:
                got = layer.around(tokens, core)
            except (AttributeError, NotImplementedError, RuntimeError) as error:
                print(f"{name:8} not on this CPU: {str(error).splitlines()[0]}")
                continue
            if name != "dense" and not torch.allclose(got, wanted, rtol=1e-4, atol=1e-4):
                raise SystemExit(f"{name} gives other numbers, by {float((got - wanted).abs().max())}")
            median, least = timed(lambda: layer.around(tokens, core), o.seconds)
            print(f"{name:8} {median:8.2f} ms (median), {least:8.2f} ms (least)")


if __name__ == "__main__":
    main()
