#!/usr/bin/env python3
"""The CPU runtime on SmolLM2-135M: prefill of 512 tokens and decoding of 128, one and two threads, every instruction set of this
machine; against llama.cpp through its C API where the package llama-cpp-python is installed (built natively; Debian 12's gcc builds an
AMX path that crashes: CC=clang-19 CXX=clang++-19 CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python llama-cpp-python).
Runs are interleaved; the table has medians.

Then the same model pruned by `skiff quantize --prune` (from the published weights: the figures are of speed), computed with from its packed form and from
its rows (SKF_SPARSE=off), and how many bytes of pruned matrices each reads.
"""
import argparse
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile

import common

RUNS = 5


def peer(path, threads):
    """Run as a process of its own: prefill and decoding rates of llama.cpp."""
    import ctypes
    import time

    import llama_cpp as api
    quiet = api.llama_log_callback(lambda *a: None)
    api.llama_log_set(quiet, ctypes.c_void_p(0))
    api.llama_backend_init()
    model = api.llama_model_load_from_file(path.encode(), api.llama_model_default_params())
    params = api.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = 1024, 512, 512
    params.n_threads = params.n_threads_batch = threads
    ctx = api.llama_init_from_model(model, params)

    def decode(ids):
        array = (api.llama_token * len(ids))(*ids)
        if api.llama_decode(ctx, api.llama_batch_get_one(array, len(ids))):
            raise SystemExit("llama_decode failed")
        api.llama_synchronize(ctx)

    def timed(batches):
        api.llama_memory_clear(api.llama_get_memory(ctx), True)
        decode([1])
        begun = time.perf_counter()
        for ids in batches:
            decode(ids)
        return sum(map(len, batches)) / (time.perf_counter() - begun)

    timed([list(range(100, 164))])
    print(json.dumps({"prefill_tokens_per_s": timed([list(range(100, 612))]), "decode_tokens_per_s": timed([[1000 + i] for i in range(128)])}))


def ours(skiff, model, threads, cpu, **more):
    r = subprocess.run([skiff, "bench", "-m", model, "--threads", str(threads), "--json"], capture_output=True, text=True,
                       env=dict(os.environ, SKF_CPU=cpu, **more))
    return json.loads(r.stdout) if r.returncode == 0 else None


def sparse(skiff, model, cpus):
    """Rows of pruned models: decoding and prefill, packed and not."""
    rates = ("prefill_tokens_per_s", "decode_tokens_per_s")
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
                       **{k: common.summary([r[k] for r in auto]) for k in rates},
                       "from_rows": {k: common.summary([r[k] for r in off]) for k in rates},
                       **{k: auto[0][k] for k in ("packed_matrices", "packed_bytes", "packed_instead_of")}}
                print(f"{row['what']:<22} {kind} {share:>4}: decoding {row['decode_tokens_per_s']['median']:7.1f} tokens/s, from rows "
                      f"{row['from_rows']['decode_tokens_per_s']['median']:7.1f}; {row['packed_bytes'] / 1e6:.1f} MB for {row['packed_instead_of'] / 1e6:.1f}",
                      flush=True)
                yield row


def theirs(model, threads):
    r = subprocess.run([sys.executable, __file__, "--peer", model, str(threads)], capture_output=True, text=True)
    return json.loads(r.stdout) if r.returncode == 0 else None


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--peer", nargs=2, metavar=("MODEL", "THREADS"), help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.peer:
        return peer(a.peer[0], int(a.peer[1]))
    skiff, model = os.path.join(os.path.abspath(a.build), "skiff"), os.path.join(os.environ["SKF_MODELS"], "published.gguf")
    has_peer = importlib.util.find_spec("llama_cpp") is not None
    if not has_peer:
        print("llama-cpp-python is not installed: no peer in this run")
    ways = [("skiff " + cpu, cpu) for cpu in ("avx512", "avx2", "neon") if ours(skiff, model, 1, cpu)] or [("skiff ref", "ref")]
    rows = []
    for threads in sorted({1, min(2, common.machine()["cores"])}):
        got = {name: [] for name, _ in ways + [("llama.cpp", None)] * has_peer}
        for _ in range(RUNS):
            for name, cpu in ways:
                got[name].append(ours(skiff, model, threads, cpu))
            if has_peer:
                got["llama.cpp"].append(theirs(model, threads))
        for name, runs in got.items():
            runs = [r for r in runs if r]
            if not runs:
                print(f"{name}, {threads} threads: failed")
                continue
            row = {"what": name, "threads": threads, **{k: common.summary([r[k] for r in runs]) for k in ("prefill_tokens_per_s", "decode_tokens_per_s")}}
            rows.append(row)
            print(f"{name:<14} {threads} threads: prefill {row['prefill_tokens_per_s']['median']:8.1f} tokens/s, "
                  f"decoding {row['decode_tokens_per_s']['median']:7.1f} tokens/s", flush=True)
    rows.extend(sparse(skiff, model, [cpu for _, cpu in ways]))
    common.write("runtime", rows, peer=has_peer)


if __name__ == "__main__":
    main()
