#!/usr/bin/env python3
"""Makes the directories beside this file: tiny random models as transformers writes them, with what transformers computes.

    make.py [NAME…]

Each has config.json and weights in bf16 as users have them, tokens.npy [rows, tokens], and in f32 logits.npy
[rows, tokens, vocabulary] and greedy.npy [rows, new tokens], of the first row alone in those of the reference. Seeds are drawn until no token is chosen by a margin that
rounding could turn. `gemma3`, `llama3`, `phi` and `qwen2-skip` are not made here: they came with the reference, as older
versions of transformers wrote them. chat.json are strings that transformers makes of chats.
"""
import json
import os
import shutil
import sys
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import numpy as np
import torch
import transformers as tf

HERE = Path(__file__).parent
SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=24, vocab_size=61,
             max_position_embeddings=64, head_dim=8, pad_token_id=0, bos_token_id=1, eos_token_id=2)
LINEAR = dict(rope_type="linear", factor=4.0, rope_theta=1e4)
FAMILIES = {
    "llama": ("Llama", dict(rope_parameters=LINEAR, attention_bias=True, mlp_bias=True)),
    "mistral": ("Mistral", dict(sliding_window=6)),
    "qwen2-window": ("Qwen2", dict(use_sliding_window=True, sliding_window=7, max_window_layers=1)),
    "qwen3": ("Qwen3", {}),
    "smollm3": ("SmolLM3", dict(no_rope_layer_interval=2)),
    "gemma": ("Gemma", {}),
    "gemma2": ("Gemma2", dict(sliding_window=6, query_pre_attn_scalar=24, final_logit_softcapping=3.0, attn_logit_softcapping=2.0)),
    "phi-qk-norm": ("Phi", dict(qk_layernorm=True, num_key_value_heads=4)),
    "phi3": ("Phi3", dict(sliding_window=9)),
    "olmo2": ("Olmo2", {}),
    "gpt2": ("GPT2", {}),
    "mixtral": ("Mixtral", dict(num_local_experts=4)),
    "qwen2-moe": ("Qwen2Moe", dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=12, shared_expert_intermediate_size=20,
                                   mlp_only_layers=[1])),
    "qwen3-moe": ("Qwen3Moe", dict(num_experts=6, num_experts_per_tok=3, moe_intermediate_size=12, norm_topk_prob=True,
                                   decoder_sparse_step=2)),
    "olmoe": ("Olmoe", dict(num_experts=7, num_experts_per_tok=2)),
    # The experts of a layer in one tensor, as transformers 5 holds them and writes them when it is asked to.
    "mixtral-fused": ("Mixtral", dict(num_local_experts=4)),
    "qwen2-moe-fused": ("Qwen2Moe", dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=12,
                                         shared_expert_intermediate_size=20, mlp_only_layers=[1])),
}
# Images in, a row of scores each: patches.npy [rows, patches, numbers of a patch] in place of tokens.npy, and no greedy.npy.
VISION = {
    "vit": dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, image_size=12, patch_size=4,
                num_channels=3, num_labels=5),
}
ROWS, LENGTH, NEW, MARGIN = 2, 16, 8, 2e-3
CHATS = {
    "smollm2": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama3": "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "mistral": "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% endif %}{% endfor %}",
    "gemma": "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
    "blocks": "{%- for message in messages %}\n    {%- if message.content is string and not loop.last %}\n{{ message.role | upper }}: {{ message.content.split('\\n')[0].strip() }}\n    {%- else %}\n{{ message['role'] }}> {{ message['content'] | tojson }} {{ [1.5, [], {'z': none, 'a': message.content}] | tojson(indent=2) }}\n    {%- endif %}\n{% endfor %}",
}
MESSAGES = [
    [{"role": "user", "content": "  Who was Noah? "}],
    [{"role": "user", "content": "Hi\nthere"}, {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "é <b>\"ö\"</b>"}],
]


def build(kind, extra, seed):
    """A model with random weights, also where its own initialisation has ones and zeros."""
    if kind == "GPT2":
        config = tf.GPT2Config(n_embd=16, n_layer=2, n_head=4, vocab_size=61, n_positions=64, bos_token_id=1, eos_token_id=2)
        model_type = tf.GPT2LMHeadModel
    else:
        sizes = {key: value for key, value in (SMALL | extra).items() if kind not in ("Phi", "Phi3", "Olmoe") or key != "head_dim"}
        config = getattr(tf, kind + "Config")(**sizes)
        model_type = getattr(tf, kind + "ForCausalLM")
    torch.manual_seed(seed)
    model = model_type(config).eval().float()
    noise = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        deviation = 0.2 if parameter.dim() == 1 else 0.2
        parameter.data = (parameter.data + deviation * torch.randn(parameter.shape, generator=noise)).bfloat16()
    return model.to(torch.bfloat16)


def greedy(model, tokens):
    """New tokens of each row, and the least margin by which one was chosen."""
    least, row = float("inf"), tokens
    for _ in range(NEW):
        best = model(row).logits[:, -1].topk(2)
        least = min(least, float((best.values[:, 0] - best.values[:, 1]).min()))
        row = torch.cat([row, best.indices[:, :1]], 1)
    return row[:, tokens.shape[1]:], least


def make(name, kind, extra):
    folder = HERE / name
    for seed in range(1, 100):
        shutil.rmtree(folder, ignore_errors=True)
        build(kind, extra, seed).save_pretrained(folder, save_original_format=not name.endswith("-fused"))
        (folder / "generation_config.json").unlink(missing_ok=True)
        model = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        tokens = torch.from_numpy(np.random.default_rng(seed).integers(0, 61, (ROWS, LENGTH)))
        with torch.no_grad():
            logits = model(tokens).logits
            new, least = greedy(model, tokens)
        if least > MARGIN:
            break
    else:
        raise SystemExit(f"{name}: no seed has clear margins")
    np.save(folder / "tokens.npy", tokens.numpy().astype(np.int32))
    np.save(folder / "logits.npy", logits.numpy())
    np.save(folder / "greedy.npy", new.numpy().astype(np.int32))
    print(name, f"seed {seed}, margin {least:.1e}")


def patches(pixels, side):
    """[B, C, H, W] to [B, T, C·side·side]: patches row by row over the image, numbers of one by channel, row and column."""
    b, c, h, w = pixels.shape
    cut = pixels.reshape(b, c, h // side, side, w // side, side)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * side * side)


def make_vision(name, sizes):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(1)
    model = tf.ViTForImageClassification(tf.ViTConfig(**sizes)).eval().float()
    noise = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = (parameter.data + 0.2 * torch.randn(parameter.shape, generator=noise)).bfloat16()
    model.to(torch.bfloat16).save_pretrained(folder)
    model = tf.ViTForImageClassification.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    pixels = torch.randn(ROWS, sizes["num_channels"], sizes["image_size"], sizes["image_size"], generator=noise)
    with torch.no_grad():
        logits = model(pixels).logits
    np.save(folder / "patches.npy", patches(pixels, sizes["patch_size"]).numpy())
    np.save(folder / "logits.npy", logits.numpy())
    print(name, "logits", tuple(logits.shape))


def chats():
    """What transformers makes of each template and chat."""
    words = dict(bos_token="<s>", eos_token="</s>")
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_file=str(HERE / "llama3" / "tokenizer.json"), **words)
    made = []
    for name, template in CHATS.items():
        for messages in MESSAGES:
            text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True)
            made.append({"name": name, "template": template, "messages": messages, "text": text})
    (HERE / "chat.json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")


def main():
    tf.logging.set_verbosity_error()
    torch.set_num_threads(1)
    named = sys.argv[1:]
    for name, (kind, extra) in FAMILIES.items():
        if not named or name in named:
            make(name, kind, extra)
    for name, sizes in VISION.items():
        if not named or name in named:
            make_vision(name, sizes)
    if not named or "chat" in named:
        chats()


if __name__ == "__main__":
    main()
