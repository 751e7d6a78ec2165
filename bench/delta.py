#!/usr/bin/env python3
"""Deltas: bytes, encoding and applying against `zstd --patch-from` on the same pairs, interleaved.

Pairs: the published model to the same with the example's LoRA merged; and, where the environment variable SKF_PAIRS names a folder, each
v1.TYPE.gguf to v2.TYPE.gguf in it.  --full also runs zstd -19 (minutes a pair).
"""
import argparse
import filecmp
import glob
import os
import shutil
import subprocess
import tempfile
import time

import common

RUNS = 3


def timed(*command):
    begun = time.perf_counter()
    r = subprocess.run(command, capture_output=True, text=True)
    if r.returncode:
        raise SystemExit(f"bench: {' '.join(command)}: {r.stderr.strip()}")
    return time.perf_counter() - begun


def pairs(skiff, scratch):
    published, lora = os.path.join(os.environ["SKF_MODELS"], "published.gguf"), os.path.join(common.ROOT, "examples", "smollm2-135m-python-lora.gguf")
    merged = os.path.join(scratch, "merged.gguf")
    timed(skiff, "merge", published, lora, "-o", merged)
    yield "published to merged", published, merged
    for old in sorted(glob.glob(os.path.join(os.environ.get("SKF_PAIRS") or "/nonexistent", "v1.*.gguf"))):
        new = os.path.join(os.path.dirname(old), "v2" + os.path.basename(old)[2:])
        if os.path.exists(new):
            yield os.path.basename(old)[3:-5], old, new


def ways(skiff, jobs, levels, old, new, scratch):
    """name, what encodes, what applies, the delta, the result"""
    d, n = os.path.join(scratch, "d"), os.path.join(scratch, "n")
    for j in jobs:
        yield f"skiff, {j} threads", [skiff, "diff", old, new, "-o", d + str(j), "--jobs", str(j)], [skiff, "apply", old, d + str(j), "-o", n, "--jobs", str(j)], d + str(j), n
    for level in levels:
        z = f"{d}.{level}.zst"
        yield (f"zstd -{level}", ["zstd", "-qf", f"-{level}", "--long=28", "-T1", f"--patch-from={old}", new, "-o", z],
               ["zstd", "-dqf", "--long=28", f"--patch-from={old}", z, "-o", n], z, n)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--full", action="store_true")
    a = ap.parse_args()
    skiff, rows, status = os.path.join(os.path.abspath(a.build), "skiff"), [], 0
    levels = ([3, 19] if a.full else [3]) if shutil.which("zstd") else []
    with tempfile.TemporaryDirectory() as scratch:
        for pair, old, new in pairs(skiff, scratch):
            full, got = os.path.getsize(new), {}
            for run in range(RUNS):
                for name, encode, apply, delta, out in ways(skiff, (1, 2), levels, old, new, scratch):
                    r = got.setdefault(name, {"encode": [], "apply": []})
                    if not (run and name == "zstd -19"):
                        r["encode"].append(full / 1e6 / timed(*encode))
                    r["apply"].append(full / 1e6 / timed(*apply))
                    r["bytes"] = os.path.getsize(delta)
                    if not filecmp.cmp(out, new, shallow=False):
                        raise SystemExit(f"bench: {name}: {pair}: the result differs")
            print(f"{pair} ({full / 1e6:.1f} MB)")
            for name, r in got.items():
                e, p = common.summary(r["encode"]), common.summary(r["apply"])
                rows.append({"pair": pair, "full": full, "tool": name, "bytes": r["bytes"], "ratio": full / r["bytes"], "encode_MB_per_s": e, "apply_MB_per_s": p})
                print(f"  {name:<18} {r['bytes']:>11} bytes {full / r['bytes']:7.1f}x   encode {e['median']:7.1f} MB/s   apply {p['median']:7.1f} MB/s")
            if any(r["bytes"] < got["skiff, 1 threads"]["bytes"] for n, r in got.items() if n.startswith("zstd")):
                status = 1
                print("  short: zstd is smaller")
    common.write("delta", rows, runs=RUNS)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
