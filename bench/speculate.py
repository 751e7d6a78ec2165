#!/usr/bin/env python3
"""Guessing ahead on SmolLM2-135M Q4_1: decoding with and without it in turns, on prompts whose answers repeat them (copying, extracting, code with a small change), on one whose
answer repeats nothing, and with random draws; the texts must be equal. A small model is tried as well: the same one in fewer bits has the price of a guess that saves nothing.
"""
import argparse
import json
import os
import subprocess
import sys

import common

RUNS, TOKENS = 3, 160
PROSE = open(os.path.join(common.ROOT, "tests", "vectors", "ppl.txt")).read()
CODE = open(os.path.join(common.ROOT, "tests", "vectors", "python-heldout.txt")).read()
PROMPTS = {
    "copying": ("Repeat this text word for word:\n\n" + PROSE[:1200], ()),
    "extracting": ("List each sentence of the following text that names a person, word for word:\n\n" + PROSE[:2500], ()),
    "code": ("Rewrite this code with type hints added:\n\n" + CODE[:1500], ()),
    "a story": ("Tell me a story about a lighthouse keeper and the sea.", ()),
    "a story, drawn": ("Tell me a story about a lighthouse keeper and the sea.", ("--temp", "1", "--seed", "3")),
    "random letters": ("Write random letters and digits without any pattern.", ("--temp", "2", "--seed", "5")),
}


def run(skiff, model, prompt, args):
    r = subprocess.run([skiff, "run", "-m", model, "-p", prompt, "-n", str(TOKENS), "--threads", "1", "--json", *args], capture_output=True, text=True)
    return json.loads(r.stdout) if r.returncode == 0 else sys.exit(r.stderr)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    a = ap.parse_args()
    skiff, model = os.path.join(os.path.abspath(a.build), "skiff"), os.path.join(os.environ["SKF_MODELS"], "published.gguf")
    ways, rows = {"without": ("--speculate", "0"), "look-up": (), "look-up and small model": ("--draft", model)}, []
    for name, (prompt, args) in PROMPTS.items():
        got = {w: [] for w in ways}
        for _ in range(RUNS):
            for w, more in ways.items():
                got[w].append(run(skiff, model, prompt, (*args, *more)))
        ids = {tuple(r["token_ids"]) for runs in got.values() for r in runs}
        if len(ids) != 1:
            sys.exit(f"{name}: texts differ")
        rates = {w: common.summary([r["completion_tokens"] / r["decode_seconds"] for r in runs]) for w, runs in got.items()}
        row = {"prompt": name, "tokens": len(next(iter(ids))), "threads": 1, **{f"tokens_per_s, {w}": r for w, r in rates.items()},
               **{f"ratio, {w}": rates[w]["median"] / rates["without"]["median"] for w in list(ways)[1:]},
               "drafted": got["look-up"][-1]["drafted_tokens"], "accepted": got["look-up"][-1]["accepted_tokens"]}
        rows.append(row)
        print(f"{name:<16} {row['tokens']:4} tokens: {rates['without']['median']:7.1f} tokens/s without, {rates['look-up']['median']:7.1f} with look-up "
              f"({row['ratio, look-up']:.2f}), {rates['look-up and small model']['median']:7.1f} with itself as small model "
              f"({row['ratio, look-up and small model']:.2f})", flush=True)
    common.write("speculate", rows)


if __name__ == "__main__":
    main()
