#!/usr/bin/env python3
"""Holds the runtime against transformers: small models with random weights of every architecture (tests/lib/arch_models.py), logits
position by position.

Twice for each model: with keys and values rounded to halves in transformers too, as the runtime keeps them, where what is left is the order
of sums; and as transformers computes by itself, where the halves show. `--write` stores the former as tests/vectors/arch/logits.npz, which
tests/cli/arch.py checks without torch.

usage: check_transformers.py --build DIR [--write] [--match WORD]
"""
import argparse
import importlib
import os
import sys
import tempfile

import numpy as np
import torch
import transformers

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
import arch_models  # noqa: E402
from arch_logits import apart, is_same, logits_of  # noqa: E402

CLASSES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "smollm3": "SmolLM3", "phi3": "Phi3", "gemma2": "Gemma2", "gemma3": "Gemma3"}
HALVES = 1e-2  # of the largest logit: what keys and values as halves may do


def make(case):
    config = dict(case["config"])
    theta, arch = config.pop("rope_theta"), case["arch"]
    rope = {"rope_type": "default", **(case["rope"] or {}), "rope_theta": theta}
    if "partial_rotary_factor" in config:
        rope["partial_rotary_factor"] = config.pop("partial_rotary_factor")
    if arch == "gemma3":
        rope = {"full_attention": dict(rope, rope_type="linear", factor=8.0),
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}
    name = CLASSES[arch] + ("Text" if arch == "gemma3" else "")
    made = getattr(transformers, name + "Config")(**config, rope_parameters=rope, attn_implementation="eager")
    model = getattr(transformers, CLASSES[arch] + "ForCausalLM")(made).eval()
    state = {k: torch.from_numpy(v) for k, v in arch_models.weights(case).items()}
    if config["tie_word_embeddings"]:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    return model


def run(case, is_rounded):
    module = importlib.import_module(f"transformers.models.{case['arch']}.modeling_{case['arch']}")
    plain = module.eager_attention_forward

    def halves(m, query, key, value, *args, **kwargs):
        return plain(m, query, key.half().float(), value.half().float(), *args, **kwargs)

    module.eager_attention_forward = halves if is_rounded else plain
    try:
        with torch.no_grad():
            return make(case)(torch.tensor([arch_models.IDS])).logits[0].float().numpy()
    finally:
        module.eager_attention_forward = plain


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--write", action="store_true")
    ap.add_argument("--match", default="")
    a = ap.parse_args()
    vectors, failed = {}, 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        for name, case in arch_models.CASES.items():
            if a.match not in name:
                continue
            got = logits_of(a.build, arch_models.write_gguf(case, os.path.join(scratch, name + ".gguf")), arch_models.IDS)
            rounded, plain = run(case, True), run(case, False)
            vectors[name] = rounded.astype(np.float32)
            middle, most = apart(got, rounded)
            is_ok = is_same(got, rounded) and apart(got, plain)[1] <= HALVES
            failed += not is_ok
            print(f"{'ok  ' if is_ok else 'FAIL'} {name:<14} of the largest logit: {middle:.1e} off in the middle, {most:.1e} at most; "
                  f"{apart(got, plain)[1]:.1e} from floats", flush=True)
    if a.write:
        path = os.path.join(ROOT, "tests", "vectors", "arch", "logits.npz")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        np.savez_compressed(path, **vectors)
        print(f"{path}: {os.path.getsize(path)} bytes")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
