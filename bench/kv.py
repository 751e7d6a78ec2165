#!/usr/bin/env python3
"""Keys and values: what their type costs in quality, memory and speed.  Perplexity of SmolLM2-135M and Gemma 3 270M on tests/vectors/ppl.txt in windows of
512 tokens, and bytes a position, with halves and with Q8_0; decoding behind 0, 2,048 and 8,000 positions on one and two threads, runs of both types
interleaved."""
import argparse
import json
import os
import subprocess

import common

RUNS = 3
TYPES = ("f16", "q8_0")
MODELS = ("published.gguf", "gemma-3-270m-q4_k_m.gguf")


def said(skiff, *args):
    r = subprocess.run([skiff, *map(str, args), "--json"], capture_output=True, text=True)
    if r.returncode:
        raise SystemExit(r.stderr)
    return json.loads(r.stdout)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    a = ap.parse_args()
    skiff, folder, rows = os.path.join(os.path.abspath(a.build), "skiff"), os.environ["SKF_MODELS"], []
    for name in MODELS:
        model = os.path.join(folder, name)
        if not os.path.exists(model):
            print(f"{name} is not there: left out")
            continue
        for kind in TYPES:
            got = said(skiff, "perplexity", "-m", model, "-f", os.path.join(common.ROOT, "tests", "vectors", "ppl.txt"), "--cache-type", kind)
            rows.append({"what": "perplexity", "model": name, "type": kind, **got})
            print(f"{name} {kind:<5} perplexity {got['perplexity']:.4f} over {got['tokens']} tokens", flush=True)
    model = os.path.join(folder, MODELS[0])
    for threads in sorted({1, min(2, common.machine()["cores"])}):
        for depth in (0, 2048, 8000):
            runs = {kind: [] for kind in TYPES}
            for _ in range(RUNS):
                for kind in TYPES:
                    runs[kind].append(said(skiff, "bench", "-m", model, "-p", 0, "-n", 32, "--depth", depth, "--threads", threads, "--cache-type", kind))
            for kind, got in runs.items():
                row = {"what": "decoding", "model": MODELS[0], "type": kind, "depth": depth, "threads": threads, "isa": got[0]["isa"],
                       "decode_tokens_per_s": common.summary([r["decode_tokens_per_s"] for r in got])}
                rows.append(row)
                print(f"{kind:<5} behind {depth:>5}, {threads} threads: {row['decode_tokens_per_s']['median']:7.1f} tokens/s", flush=True)
    common.write("kv", rows)


if __name__ == "__main__":
    main()
