#!/usr/bin/env python3
"""Deltas: bytes, encoding and applying against what else can make one, on the same pairs in the same run, interleaved.

Pairs: the published model to the same with the example's LoRA merged; and, where the environment variable SKF_PAIRS names a folder, each
v1.TYPE.gguf in it to every other NAME.TYPE.gguf there.  Peers: `zstd --patch-from` -3; with --full also -19, xdelta3, bsdiff and, from PyPI
(installed into build/peers, or found through SKF_PEERS, a python that has them), hdiffpatch, zipnn and z4ai on the exclusive or: minutes a pair.
A peer that is not there is named in the result and left out.  --full is one round, written to delta_peers.json: it is about bytes.
"""
import argparse
import filecmp
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time

import common

RUNS = 3
SLOW = ("zstd -19", "xdelta3 -9", "bsdiff", "hdiffpatch", "zipnn", "z4ai")  # encoded once
PYPI = ("hdiffpatch", "zipnn", "z4ai")
PEERS = os.path.join(common.ROOT, "bench", "peers", "delta.py")


def timed(*command, env=None):
    begun = time.perf_counter()
    r = subprocess.run(command, capture_output=True, text=True, env=env)
    if r.returncode:
        raise SystemExit(f"bench: {' '.join(command)}: {(r.stderr.strip().splitlines() or ['failed'])[-1]}")
    return time.perf_counter() - begun


def pairs(skiff, scratch, wanted):
    """name, element type, old, new, the adapter that makes one of the other or None"""
    published, lora = os.path.join(os.environ["SKF_MODELS"], "published.gguf"), os.path.join(common.ROOT, "examples", "smollm2-135m-python-lora.gguf")
    folder = os.environ.get("SKF_PAIRS") or "/nonexistent"
    for name, kind, base in (("published to merged", "q4_1", published), ("v1 bf16 to merged", "bf16", os.path.join(folder, "v1.bf16.gguf"))):
        merged = os.path.join(scratch, "merged.gguf")
        if os.path.exists(base) and (not wanted or name in wanted):
            timed(skiff, "merge", base, lora, "-o", merged)
            yield name, kind, base, merged, lora
    for old in sorted(glob.glob(os.path.join(folder, "v1.*.gguf"))):
        kind = os.path.basename(old)[3:-5]
        for new in sorted(glob.glob(os.path.join(folder, f"*.{kind}.gguf"))):
            tag = os.path.basename(new)[:-len(kind) - 6]
            name = kind if tag == "v2" else f"{kind} to {tag}"
            if new != old and (not wanted or name in wanted):
                yield name, kind, old, new, None


def skiff_ways(skiff, pair, scratch):
    """name, what encodes, what applies, the delta, the result, the environment"""
    _, _, old, new, adapter = pair
    d, n = os.path.join(scratch, "d"), os.path.join(scratch, "n")
    for j in (1, 2):
        yield (f"skiff, {j} threads", [skiff, "diff", old, new, "-o", d + str(j), "--jobs", str(j)],
               [skiff, "apply", old, d + str(j), "-o", n, "--jobs", str(j)], d + str(j), n, None)
    if adapter:
        yield ("skiff --adapter", [skiff, "diff", old, new, "-o", d + "a", "--adapter", adapter, "--jobs", "1"],
               [skiff, "apply", old, d + "a", "-o", n, "--jobs", "1"], d + "a", n, None)
    yield ("skiff, plain C", [skiff, "diff", old, new, "-o", d + "r", "--jobs", "1"],
           [skiff, "apply", old, d + "r", "-o", n, "--jobs", "1"], d + "r", n, dict(os.environ, SKF_CPU="ref"))


def peer_ways(peers, pair, scratch):
    _, kind, old, new, _ = pair
    n = os.path.join(scratch, "n")
    for peer in peers:
        d = os.path.join(scratch, "p." + peer.replace(" ", ""))
        if peer.startswith("zstd"):
            yield (peer, ["zstd", "-qf", peer[5:], "--long=28", "-T1", f"--patch-from={old}", new, "-o", d],
                   ["zstd", "-dqf", "--long=28", f"--patch-from={old}", d, "-o", n], d, n, None)
        elif peer == "xdelta3 -9":
            yield (peer, ["xdelta3", "-9", "-f", "-B", str(1 << 29), "-e", "-s", old, new, d], ["xdelta3", "-f", "-B", str(1 << 29), "-d", "-s", old, d, n], d, n, None)
        elif peer == "bsdiff":
            yield peer, ["bsdiff", old, new, d], ["bspatch", old, n, d], d, n, None
        else:
            env = dict(os.environ, SKF_DTYPE={"bf16": "bf16", "f16": "f16"}.get(kind, "uint8"))
            yield peer, [peers_python(), PEERS, peer, "encode", old, new, d], [peers_python(), PEERS, peer, "apply", old, d, n], d, n, env


def remove(path):
    if os.path.exists(path):
        os.remove(path)


def warm(*paths):
    """Reads them, so that no tool waits for the disk because of what ran before it."""
    for path in paths:
        with open(path, "rb", buffering=0) as f:
            while f.read(1 << 22):
                pass


def peers_python():
    return os.environ.get("SKF_PEERS") or os.path.join(common.ROOT, "build", "peers", "bin", "python")


def find_peers(is_full):
    """Those that are there, and those that are not."""
    want = ["zstd -3"] + (list(SLOW) if is_full else [])
    if is_full and not os.path.exists(peers_python()):
        folder = os.path.dirname(os.path.dirname(peers_python()))
        subprocess.run([sys.executable, "-m", "venv", folder], check=False)
        subprocess.run([peers_python(), "-m", "pip", "-q", "install", "numpy", *PYPI], check=False)
    have = [p for p in want if (p in PYPI and subprocess.run([peers_python(), "-c", f"import {p}"], capture_output=True).returncode == 0)
            or (p not in PYPI and shutil.which(p.split()[0]))]
    return have, [p for p in want if p not in have]


def measure(skiff, pair, peers, scratch, runs):
    """The rows of one pair: every way in turn, `runs` times."""
    name, _, old, new, _ = pair
    full, got = os.path.getsize(new), {}
    for run in range(runs):
        for tool, encode, apply, delta, out, env in (*skiff_ways(skiff, pair, scratch), *peer_ways(peers, pair, scratch)):
            r = got.setdefault(tool, {"encode": [], "apply": []})
            remove(out)  # for every tool: to take an old file's place costs as much as deleting it
            if not (run and tool in SLOW):
                remove(delta)
            if not (run and tool in SLOW):
                warm(old, new)
                r["encode"].append(full / 1e6 / timed(*encode, env=env))
            if tool not in SLOW:  # once without being timed: a virtual machine pays for memory that it has not had before
                timed(*apply, env=env)
                remove(out)
            warm(old, delta)
            r["apply"].append(full / 1e6 / timed(*apply, env=env))
            r["bytes"] = os.path.getsize(delta)
            if not filecmp.cmp(out, new, shallow=False):
                raise SystemExit(f"bench: {tool}: {name}: the result differs")
    print(f"{name} ({full / 1e6:.1f} MB)")
    rows = []
    for tool, r in got.items():
        e, p = common.summary(r["encode"]), common.summary(r["apply"])
        rows.append({"pair": name, "full": full, "tool": tool, "bytes": r["bytes"], "ratio": full / r["bytes"], "encode_MB_per_s": e, "apply_MB_per_s": p})
        print(f"  {tool:<18} {r['bytes']:>11} bytes {full / r['bytes']:7.1f}x   encode {e['median']:7.1f} MB/s   apply {p['median']:7.1f} MB/s", flush=True)
    return rows


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--full", action="store_true", default=bool(os.environ.get("SKF_FULL")), help="every peer (also: SKF_FULL=1)")
    ap.add_argument("--pair", action="append", help="only this one (repeatable)")
    a = ap.parse_args()
    skiff, rows, status = os.path.join(os.path.abspath(a.build), "skiff"), [], 0
    peers, missing = find_peers(a.full)
    runs = 1 if a.full else RUNS
    for p in missing:
        print(f"{p}: not here, left out")
    with tempfile.TemporaryDirectory(dir=os.environ.get("SKF_SCRATCH")) as scratch:
        for pair in pairs(skiff, scratch, a.pair):
            got = measure(skiff, pair, peers, scratch, runs)
            rows += got
            ours = min(r["bytes"] for r in got if r["tool"].startswith("skiff"))
            for r in got:
                if r["bytes"] < ours:
                    status = 1
                    print(f"  short: {r['tool']} is smaller")
    common.write("delta_peers" if a.full else "delta", rows, runs=runs, missing=missing)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
