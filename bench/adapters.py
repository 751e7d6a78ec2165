#!/usr/bin/env python3
"""A LoRA adapter at run time on SmolLM2-135M: perplexity of six windows of held-out Python with it, without it, and of the model that it was merged into, in F16 and in the published
Q4_1; and what it costs: decoding and prefill with it and without, in turns.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import common

RUNS = 3
LORA = os.path.join(common.ROOT, "examples", "smollm2-135m-python-lora.gguf")
TEXT = os.path.join(common.ROOT, "tests", "vectors", "python-heldout.txt")


def said(*args):
    r = subprocess.run(args, capture_output=True, text=True)
    return json.loads(r.stdout) if r.returncode == 0 else sys.exit(r.stderr)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    a = ap.parse_args()
    skiff, published = os.path.join(os.path.abspath(a.build), "skiff"), os.path.join(os.environ["SKF_MODELS"], "published.gguf")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        half, merged = os.path.join(folder, "f16.gguf"), os.path.join(folder, "merged.gguf")
        subprocess.run([skiff, "quantize", published, half, "--type", "f16"], check=True, capture_output=True)
        for what, base in (("F16", half), ("Q4_1", published)):
            subprocess.run([skiff, "merge", base, LORA, "-o", merged], check=True, capture_output=True)
            row = {"model": what}
            for name, model, more in (("without", base, ()), ("merged", merged, ()), ("at run time", base, ("--adapter", LORA))):
                row["perplexity, " + name] = said(skiff, "perplexity", "-m", model, "-f", TEXT, "--windows", "6", "--json", *more)["perplexity"]
            print(f"{what}: perplexity {row['perplexity, without']:.4f} without, {row['perplexity, merged']:.4f} merged, "
                  f"{row['perplexity, at run time']:.4f} at run time", flush=True)
            runs = {"without": [], "with": []}
            for _ in range(RUNS):
                for way, got in runs.items():
                    got.append(said(skiff, "bench", "-m", base, "--threads", "1", "-p", "256", "-n", "64", "--json", *(("--adapter", LORA) if way == "with" else ())))
            for rate in ("decode_tokens_per_s", "prefill_tokens_per_s"):
                for way, got in runs.items():
                    row[f"{rate}, {way}"] = common.summary([r[rate] for r in got])
                row[f"ratio, {rate}"] = row[f"{rate}, with"]["median"] / row[f"{rate}, without"]["median"]
                print(f"{what}: {rate} {row[f'{rate}, without']['median']:.1f} without, {row[f'{rate}, with']['median']:.1f} with it", flush=True)
            rows.append(row)
    common.write("adapters", rows)


if __name__ == "__main__":
    main()
