"""Small Llama models with random weights, for tests that need a model but not a good one.

write(path, type="q4_1", seed=1, ...)   a GGUF file: byte-level BPE vocabulary, chat template, tied embeddings
write_lora(path, seed=2, ...)           a LoRA adapter for it, in llama.cpp's layout
write_safetensors(path, tensors)        {name: (dtype, shape, bytes)} as a safetensors file

The same arguments give the same bytes.  `change` adds noise of that relative size to every weight before it is quantized, so
that write(p, seed=1) and write(q, seed=1, change=0.02) are two versions of one model.

usage: tiny_model.py OUT.gguf [--type q4_1] [--seed 1] [--change 0] [--alignment 32] [--lora]
"""
import argparse
import json
import struct

import numpy as np
from gguf import GGMLQuantizationType as QT, GGUFWriter
from gguf.quants import quantize

TYPES = {"f32": QT.F32, "f16": QT.F16, "bf16": QT.BF16, "q8_0": QT.Q8_0, "q4_0": QT.Q4_0, "q4_1": QT.Q4_1, "mxfp4": QT.MXFP4}
FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q4_0": 2, "q4_1": 3, "mxfp4": 38}
CHAT = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ t", "h e", "i n", "Ġt he", "a n", "e r", "o n", "Ġ a", "r e", "a t", "s t", "e n", "o r", "Ġ w", "in g",
          "Ġ s", "l l", "o u", "Ġ o", "i s", "an d", "Ġ b", "Ġ c", "i t", "e s", "Ġ f", "Ġ in", "l o", "lo w", "Ġw or"]
EMBD, LAYERS, HEADS, KV_HEADS, FF, CONTEXT = 64, 2, 4, 2, 128, 256


def byte_letters():
    """GPT-2's letter for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, extra = {}, 0
    for b in range(256):
        letters[b] = chr(b) if b in plain else chr(256 + extra)
        extra += b not in plain
    return letters


def vocabulary():
    return SPECIAL + list(byte_letters().values()) + ["".join(m.split(" ")) for m in MERGES]


def shapes(embd=EMBD, layers=LAYERS, heads=HEADS, kv_heads=KV_HEADS, ff=FF):
    """Names and (rows, columns) in the order of the file."""
    kv = embd // heads * kv_heads
    out = {"token_embd.weight": (len(vocabulary()), embd)}
    for i in range(layers):
        b = f"blk.{i}."
        out.update({b + "attn_norm.weight": (embd,), b + "ffn_down.weight": (embd, ff), b + "ffn_gate.weight": (ff, embd),
                    b + "ffn_up.weight": (ff, embd), b + "ffn_norm.weight": (embd,), b + "attn_k.weight": (kv, embd),
                    b + "attn_output.weight": (embd, embd), b + "attn_q.weight": (embd, embd),
                    b + "attn_v.weight": (kv, embd)})
    out["output_norm.weight"] = (embd,)
    return out


def weights(seed, change=0.0, **dims):
    rng, noise = np.random.RandomState(seed), np.random.RandomState(seed + 1000)
    out = {}
    for name, shape in shapes(**dims).items():
        x = np.ones(shape) if len(shape) == 1 else rng.standard_normal(shape) * (1.0 if "embd" in name else shape[1] ** -0.5)
        if len(shape) == 2:
            x = x * (1 + change * noise.standard_normal(shape))
        out[name] = x.astype(np.float32)
    return out


def metadata(w, file_type, embd, layers, heads, kv_heads, ff, context, pre="smollm"):
    w.add_name("tiny")
    w.add_block_count(layers)
    w.add_context_length(context)
    w.add_embedding_length(embd)
    w.add_feed_forward_length(ff)
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_rope_freq_base(10000.0)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(len(vocabulary()))
    w.add_rope_dimension_count(embd // heads)
    w.add_file_type(file_type)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(vocabulary())
    w.add_token_types([3] * len(SPECIAL) + [1] * (256 + len(MERGES)))
    w.add_token_merges(MERGES)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_add_bos_token(False)
    w.add_add_space_prefix(False)
    w.add_chat_template(CHAT)
    w.add_quantization_version(2)


def write(path, type="q4_1", seed=1, change=0.0, alignment=32, embed_type=None, embd=EMBD, layers=LAYERS, heads=HEADS,
          kv_heads=KV_HEADS, ff=FF, context=CONTEXT, arch="llama", pre="smollm"):
    w = GGUFWriter(str(path), arch)
    if alignment != 32:
        w.add_custom_alignment(alignment)
    metadata(w, FILE_TYPES[type], embd, layers, heads, kv_heads, ff, context, pre)
    if embed_type is None:
        embed_type = "q8_0" if type.startswith("q") else type
    for name, x in weights(seed, change, embd=embd, layers=layers, heads=heads, kv_heads=kv_heads, ff=ff).items():
        t = TYPES["f32" if x.ndim == 1 else embed_type if "embd" in name else type]
        if t in (QT.F32, QT.F16):
            w.add_tensor(name, x.astype(np.float32 if t == QT.F32 else np.float16))
        else:
            w.add_tensor(name, quantize(x, t), raw_dtype=t)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def lora_factors(seed=2, rank=4, size=0.05, which=("attn_q", "attn_v"), **dims):
    """{tensor: (a, b)}: the change of the tensor is alpha / rank * b @ a."""
    rng, out = np.random.RandomState(seed), {}
    for name, shape in shapes(**dims).items():
        if len(shape) == 2 and any(k in name for k in which):
            with np.errstate(over="ignore"):  # a size that overflows a half is asked for on purpose
                out[name] = ((rng.standard_normal((rank, shape[1])) * size).astype(np.float16),
                             rng.standard_normal((shape[0], rank)).astype(np.float16))
    return out


def write_lora(path, seed=2, rank=4, alpha=8.0, size=0.05, which=("attn_q", "attn_v"), arch="llama", **dims):
    w = GGUFWriter(str(path), arch)
    w.add_string("general.type", "adapter")
    w.add_string("adapter.type", "lora")
    w.add_float32("adapter.lora.alpha", alpha)
    for name, (a, b) in lora_factors(seed, rank, size, which, **dims).items():
        w.add_tensor(name + ".lora_a", a)
        w.add_tensor(name + ".lora_b", b)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def write_safetensors(path, tensors):
    head, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, data) in tensors.items():
        head[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(d for _, _, d in tensors.values()))
    return path


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out")
    ap.add_argument("--type", default="q4_1", choices=sorted(TYPES))
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--change", type=float, default=0.0)
    ap.add_argument("--alignment", type=int, default=32)
    ap.add_argument("--lora", action="store_true", help="write an adapter instead")
    a = ap.parse_args()
    if a.lora:
        write_lora(a.out, seed=a.seed)
    else:
        write(a.out, a.type, a.seed, a.change, a.alignment)
