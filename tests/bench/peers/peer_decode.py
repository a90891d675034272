"""Peers that decode: llama.cpp, transformers, and PyTorch that skips.

Each continues a prompt by the likeliest token, at batch 1, from keys and values that it keeps. `decode(prompt, count)`
gives the tokens, and milliseconds of the prompt and of each step behind it; `logits(prompt)` those of the prompt's end.
"""

import ctypes
import time

import llama_cpp
import numpy as np
import torch
import torch.nn.functional as F
import transformers


class Stepped:
    """A peer is what begins with a prompt and takes tokens one by one; each gives the logits of the last."""

    def decode(self, prompt, count):
        tokens, times, given = [], [], prompt
        for step in range(count + 1):
            started = time.perf_counter()
            logits = self.begin(given) if step == 0 else self.step(given[0])
            token = int(logits.argmax())
            times.append((time.perf_counter() - started) * 1e3)
            tokens.append(token)
            given = [token]
        return tokens, times[0], times[1:]

    def logits(self, prompt):
        return np.array(self.begin(prompt), np.float32)


class LlamaCpp(Stepped):
    """llama.cpp by its own functions, without what its Python class does with texts and samplers."""

    def __init__(self, path, threads, positions=512):
        llama_cpp.llama_backend_init()
        # Only what is wrong is said.
        self.quiet = llama_cpp.llama_log_callback(lambda level, text, _: None)
        llama_cpp.llama_log_set(self.quiet, ctypes.c_void_p(0))
        self.model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = positions
        settings.n_threads = settings.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        if not self.context:
            raise RuntimeError(f"llama.cpp cannot make a context for {path}")
        vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab = llama_cpp.llama_vocab_n_tokens(vocab)

    def begin(self, tokens):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        return self.run(tokens)

    def step(self, token):
        return self.run([token])

    def run(self, tokens):
        given = (llama_cpp.llama_token * len(tokens))(*tokens)
        batch = llama_cpp.llama_batch_get_one(given, len(tokens))
        if llama_cpp.llama_decode(self.context, batch):
            raise RuntimeError("llama.cpp cannot decode")
        logits = llama_cpp.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(logits, (self.vocab,))


class Transformers(Stepped):
    """A Llama of `transformers` with its dynamic cache."""

    def __init__(self, folder, threads, dtype):
        torch.set_num_threads(threads)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    def begin(self, tokens):
        self.cache = transformers.DynamicCache(config=self.model.config)
        return self.run(tokens)

    def step(self, token):
        return self.run([token])

    @torch.inference_mode()
    def run(self, tokens):
        ids = torch.tensor([tokens])
        found = self.model(ids, cache=self.cache, use_cache=True, logits_to_keep=1)
        return found.logits[0, -1].float().numpy()


class SkippingTorch(Stepped):
    """The model with its routers in PyTorch, keys and values of all tokens in a cache.

    Masked, every block is computed for every token and thrown away where it was skipped. Otherwise a step asks each router
    and computes the block if it says so, which is possible for one token at a time; prompts are masked.
    """

    def __init__(self, model, threads, dtype, masked):
        torch.set_num_threads(threads)
        self.of, self.masked, self.dtype = model, masked, dtype
        self.w = {name: weight.to(dtype) for name, weight in model.weights.items()}
        half = model.width // 2
        frequency = model.theta ** (-torch.arange(half, dtype=torch.float32) / half)
        angle = torch.arange(model.positions).float()[:, None] * frequency
        self.turn = angle.cos(), angle.sin()

    def begin(self, tokens):
        room = (self.of.blocks, self.of.kv_heads, len(tokens) + 256, self.of.width)
        self.keys, self.values = torch.zeros(room, dtype=self.dtype), torch.zeros(room, dtype=self.dtype)
        self.length = 0
        return self.run(tokens, masked=True)

    def step(self, token):
        return self.run([token], self.masked)

    @torch.inference_mode()
    def run(self, tokens, masked):
        x = F.embedding(torch.tensor(tokens), self.w["embed.weight"])
        for block in range(self.of.blocks):
            at = f"blocks.{block}"
            u = self.norm(x, f"{at}.layers.0")
            self.keep(block, u)
            z = F.linear(u.float(), self.w[f"{at}.router.weight"].float())
            executes = z[:, 1] >= z[:, 0]
            if masked:
                x = torch.where(executes[:, None], self.block(block, x, u), x)
            elif executes.item():
                x = self.block(block, x, u)
        self.length += len(tokens)
        x = F.rms_norm(x[-1:], (self.of.d,), self.w["norm.weight"], self.of.eps)
        return F.linear(x, self.w["lm_head.weight"])[0].float().numpy()

    def norm(self, x, at):
        return F.rms_norm(x, (self.of.d,), self.w[f"{at}.norm.weight"], self.of.eps)

    def part(self, u, block, part, heads):
        """[heads, tokens, columns of a head]"""
        return F.linear(u, self.w[f"blocks.{block}.layers.0.{part}_proj.weight"]).view(len(u), heads, -1).transpose(0, 1)

    def rotate(self, x):
        a, b = x.float().chunk(2, -1)
        cos, sin = (table[self.length : self.length + x.shape[1]] for table in self.turn)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(self.dtype)

    def keep(self, block, u):
        places = slice(self.length, self.length + len(u))
        self.keys[block, :, places] = self.rotate(self.part(u, block, "k", self.of.kv_heads))
        self.values[block, :, places] = self.part(u, block, "v", self.of.kv_heads)

    def block(self, block, x, u):
        q = self.rotate(self.part(u, block, "q", self.of.heads))
        end = self.length + len(u)
        keys, values = self.keys[block, :, :end], self.values[block, :, :end]
        seen = F.scaled_dot_product_attention(
            q[None], keys[None], values[None], is_causal=len(u) > 1, enable_gqa=True
        )[0]
        seen = seen.transpose(0, 1).reshape(len(u), -1)
        y = x + F.linear(seen, self.w[f"blocks.{block}.layers.0.o_proj.weight"])
        at = f"blocks.{block}.layers.1"
        h = self.norm(y, at)
        gate, up = (F.linear(h, self.w[f"{at}.{part}_proj.weight"]) for part in ("gate", "up"))
        return y + F.linear(F.silu(gate) * up, self.w[f"{at}.down_proj.weight"])


def versions():
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "llama-cpp-python": llama_cpp.__version__,
    }
