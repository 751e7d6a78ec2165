#!/usr/bin/env python3
"""The CPU runtime on SmolLM2-135M Q4_1 and, where SKF_MODELS has the file, Gemma-3-270m Q4_K_M: prefill of 512 tokens, decoding of 128, and of 16 streams together;
one and two threads, every instruction set of this machine; against llama.cpp (bench/peers/llama.py builds it). Beside them what one thread and two read from memory,
by a plain sum over a block far larger than the caches, and the share of it that decoding reaches. Runs are interleaved; the table has medians.

Then the same model pruned by `skiff quantize --prune` (from the published weights: the figures are of speed), computed with from its packed form and from
its rows (SKF_SPARSE=off), and how many bytes of pruned matrices each reads (bench/results/pruned.json).
"""
import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile

import common
from peers import llama

RUNS, STREAMS = 5, 16
RATES = ("prefill_tokens_per_s", "decode_tokens_per_s")


def ours(skiff, model, threads, cpu, args=(), **more):
    r = subprocess.run([skiff, "bench", "-m", model, "--threads", str(threads), "--json", *args], capture_output=True, text=True,
                       env=dict(os.environ, SKF_CPU=cpu, **more))
    return json.loads(r.stdout) if r.returncode == 0 else None


def sparse(skiff, model, cpus):
    """Rows of pruned models: decoding and prefill, packed and not."""
    with tempfile.TemporaryDirectory() as folder:
        pruned = os.path.join(folder, "pruned.gguf")
        for kind, share in itertools.product(("q8_0", "bf16"), ("50%", "70%", "90%", "2:4")):
            if subprocess.run([skiff, "quantize", model, pruned, "--type", kind, "--prune", share], capture_output=True).returncode:
                print(f"{kind}, {share} zeros: cannot be made")
                continue
            for cpu in cpus:
                runs = {way: [] for way in ("off", "auto")}
                for _ in range(RUNS):
                    for way, got in runs.items():
                        got.append(ours(skiff, pruned, 1, cpu, SKF_SPARSE=way))
                off, auto = runs["off"], runs["auto"]
                row = {"what": f"skiff {cpu}, pruned", "type": kind, "zeros": share, "threads": 1,
                       **{k: common.summary([r[k] for r in auto]) for k in RATES},
                       "from_rows": {k: common.summary([r[k] for r in off]) for k in RATES},
                       **{k: auto[0][k] for k in ("packed_matrices", "packed_bytes", "packed_instead_of")}}
                print(f"{row['what']:<22} {kind} {share:>4}: decoding {row['decode_tokens_per_s']['median']:7.1f} tokens/s, from rows "
                      f"{row['from_rows']['decode_tokens_per_s']['median']:7.1f}; {row['packed_bytes'] / 1e6:.1f} MB for {row['packed_instead_of'] / 1e6:.1f}",
                      flush=True)
                yield row


def memory_rate(threads):
    """Bytes a second that so many threads read, the best of five passes over 512 MiB."""
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "reads")
        subprocess.run(["cc", "-O3", "-march=native", "-pthread", "-o", program, os.path.join(common.ROOT, "bench", "reads.c")], check=True)
        return float(subprocess.run([program, str(threads)], capture_output=True, text=True, check=True).stdout)


def model_rows(skiff, tools, what, model, ways, runs_each):
    for threads in sorted({1, min(2, common.machine()["cores"])}):
        got = {name: [] for name, _ in ways + [("llama.cpp", None)] * bool(tools)}
        batch = {name: [] for name in got}
        reads = []
        for _ in range(runs_each):
            reads.append(memory_rate(threads))
            for name, cpu in ways:
                r = ours(skiff, model, threads, cpu, args=("--batch", str(STREAMS)))
                got[name].append(r)
                batch[name].append(r["batch"][0]["decode_tokens_per_s"])
            if tools:
                got["llama.cpp"].append(llama.rates(tools, model, threads))
                batch["llama.cpp"].append(llama.together(tools, model, threads, STREAMS))
        for name, runs in got.items():
            if None in runs or None in batch[name]:
                print(f"{what}, {name}, {threads} threads: failed")
                continue
            row = {"what": name, "model": what, "threads": threads, **{k: common.summary([r[k] for r in runs]) for k in RATES},
                   "streams": STREAMS, "streams_tokens_per_s": common.summary(batch[name]), "memory_bytes_per_s": common.summary(reads)}
            if "read_bytes_per_token" in runs[0]:
                row["share_of_memory_rate"] = row["decode_tokens_per_s"]["median"] * runs[0]["read_bytes_per_token"] / row["memory_bytes_per_s"]["median"]
            yield row
            print(f"{what} {name:<14} {threads} threads: prefill {row['prefill_tokens_per_s']['median']:8.1f} tokens/s, decoding "
                  f"{row['decode_tokens_per_s']['median']:7.1f} tokens/s, {STREAMS} streams {row['streams_tokens_per_s']['median']:7.1f}"
                  + (f", {row['share_of_memory_rate']:.0%} of what memory gives" if "share_of_memory_rate" in row else ""), flush=True)


def ratios(rows):
    """What stands against the peer's row of the same model and threads."""
    peer = {(r["model"], r["threads"]): r for r in rows if r["what"] == "llama.cpp"}
    for r in rows:
        p = peer.get((r["model"], r["threads"]))
        if p and p is not r:
            r["times_the_peer"] = {k: r[k]["median"] / p[k]["median"] for k in (*RATES, "streams_tokens_per_s")}
            print(f"{r['model']} {r['what']:<14} {r['threads']} threads, times the peer: " + ", ".join(f"{k.split('_')[0]} {v:.2f}" for k, v in r["times_the_peer"].items()))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--runs", type=int, default=RUNS, help="of each, interleaved")
    ap.add_argument("--no-pruned", action="store_true", help="leave out the pruned models")
    a = ap.parse_args()
    skiff, model = os.path.join(os.path.abspath(a.build), "skiff"), os.path.join(os.environ["SKF_MODELS"], "published.gguf")
    tools = llama.prepare()
    ways = [("skiff " + cpu, cpu) for cpu in ("avx512", "avx2", "neon") if ours(skiff, model, 1, cpu)] or [("skiff ref", "ref")]
    rows = []
    for what, file in (("SmolLM2-135M Q4_1", "published.gguf"), ("Gemma-3-270m Q4_K_M", "gemma-3-270m-q4_k_m.gguf")):
        path = os.path.join(os.environ["SKF_MODELS"], file)
        if os.path.exists(path):
            rows.extend(model_rows(skiff, tools, what, path, ways, a.runs))
        else:
            print(f"{what}: {path} is not there")
    ratios(rows)
    common.write("runtime", rows, peer=bool(tools))
    if not a.no_pruned:
        common.write("pruned", list(sparse(skiff, model, [cpu for _, cpu in ways])))


if __name__ == "__main__":
    main()
