#!/usr/bin/env python3
"""Deltas of files that are no GGUF: models as packages on PyPI ship them, two versions of each, against what else can make a delta.

The packages are downloaded (nothing is installed) into build/any-pairs, or found in the folder that SKF_ANY_PAIRS names; without a network the benchmark says so and ends.
With them files that the old one has nothing of: the Python library as a tar, a program, a tokenizer as JSON, an ONNX file, each from an empty file.
Peers: zstd -19 of the new file alone, the same with --long=27, zstd -19 --patch-from, xdelta3 -9, bsdiff and hdiffpatch (PyPI; its best compressor). One that is not there is named in the result.
For each pair must hold: at most the best peer + 1 %, and at most zstd -19 of the new file alone + 1 %; of a file from nothing the latter alone.
"""
import argparse
import filecmp
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import common
import delta

PAIRS = (  # what it is called, package, version and file of the old one, of the new one
    ("silero-vad 5.1 to 6.0, ONNX", "silero-vad", "5.1", "silero_vad.onnx", "6.0.0", "silero_vad.onnx"),
    ("silero-vad 5.1 to 6.0, TorchScript", "silero-vad", "5.1", "silero_vad.jit", "6.0.0", "silero_vad.jit"),
    ("silero-vad 6.0 to 6.2, ONNX", "silero-vad", "6.0.0", "silero_vad.onnx", "6.2.0", "silero_vad.onnx"),
    ("silero-vad 6.0 to 6.2, ONNX 16k", "silero-vad", "6.0.0", "silero_vad_16k_op15.onnx", "6.2.0", "silero_vad_16k_op15.onnx"),
    ("silero-vad 6.2.0 to 6.2.3, ONNX", "silero-vad", "6.2.0", "silero_vad.onnx", "6.2.3", "silero_vad.onnx"),
    ("silero-vad 6.2, ONNX to safetensors", "silero-vad", "6.2.0", "silero_vad_16k_op15.onnx", "6.2.3", "silero_vad_16k.safetensors"),
    ("magika v3_2 to v3_3", "magika", "0.6.1", "model.onnx", "0.6.2", "model.onnx"),
    ("magika v1 to v3_2", "magika", "0.5.1", "model.onnx", "0.6.1", "model.onnx"),
    ("openwakeword 0.4 to 0.5, embedding", "openwakeword", "0.4.0", "embedding_model.onnx", "0.5.1", "embedding_model.onnx"),
    ("openwakeword 0.5, alexa to hey_mycroft", "openwakeword", "0.5.1", "alexa_v0.1.onnx", "0.5.1", "hey_mycroft_v0.1.onnx"),
)
PLATFORM = ("--only-binary=:all:", "--platform", "manylinux_2_28_x86_64", "--platform", "any")  # the same files on every machine
HDIFF = """
import sys, hdiffpatch as h
old, new = (open(p, 'rb').read() for p in sys.argv[1:3])
best = min((h.diff(old, new, c) for c in (h.ZStdConfig(level=19), h.LzmaConfig(), h.Lzma2Config())), key=len)
open(sys.argv[3], 'wb').write(best)
"""


def fetch(folder):
    """Takes the files of PAIRS out of their wheels; False when they cannot be had."""
    os.makedirs(folder, exist_ok=True)
    for package, version in sorted({(p, v) for _, p, a, _, b, _ in PAIRS for v in (a, b)}):
        into = os.path.join(folder, f"{package}-{version}")
        if os.path.isdir(into):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch, *PLATFORM, f"{package}=={version}"]
            if subprocess.run(command, capture_output=True, timeout=600).returncode:
                return False
            os.mkdir(into + ".part")
            with zipfile.ZipFile(os.path.join(scratch, os.listdir(scratch)[0])) as z:
                for entry in z.infolist():
                    if entry.filename.endswith((".onnx", ".jit", ".safetensors")):
                        with open(os.path.join(into + ".part", os.path.basename(entry.filename)), "wb") as f:
                            f.write(z.read(entry))
            os.rename(into + ".part", into)
    return True


def ways(skiff, peers, old, new, scratch):
    """tool, what encodes, the delta"""
    d = os.path.join(scratch, "d")
    yield "skiff", [skiff, "diff", old, new, "-o", d + ".skd", "--jobs", "1"], d + ".skd"
    for tool, command in (("zstd -19", ["zstd", "-qf", "-19", new, "-o", d]),
                          ("zstd -19 --long=27", ["zstd", "-qf", "-19", "--long=27", new, "-o", d]),
                          ("zstd -19 --patch-from", ["zstd", "-qf", "-19", "--long=27", f"--patch-from={old}", new, "-o", d]),
                          ("xdelta3 -9", ["xdelta3", "-9", "-f", "-e", "-s", old, new, d]),
                          ("bsdiff", ["bsdiff", old, new, d]),
                          ("hdiffpatch", [delta.peers_python(), "-c", HDIFF, old, new, d])):
        if tool.split()[0] in peers and (os.path.getsize(old) or "long" in tool or tool == "zstd -19"):
            yield tool, command, d


def alone(folder, scratch):
    """What it is called, file: of this machine, without a counterpart; what is not here is left out."""
    tar, tokens = os.path.join(scratch, "library.tar"), os.path.join(scratch, "tokenizer.json")
    library = os.path.dirname(os.__file__)

    def plain(info):  # the files' own bytes alone, in their order, and no more than 60 MB
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        left[0] -= info.size
        return info if left[0] >= 0 and "site-packages" not in info.name and "dist-packages" not in info.name and "__pycache__" not in info.name else None

    left = [60_000_000]
    with tarfile.open(tar, "w") as t:
        for name in sorted(os.listdir(library)):
            t.add(os.path.join(library, name), name, filter=plain)
    with open(tokens, "w", encoding="utf-8") as f:
        words = sorted({w for path in glob.glob(os.path.join(library, "**", "*.py"), recursive=True)[:600]
                        for w in re.findall(r"\w+", open(path, encoding="utf-8", errors="ignore").read())})
        json.dump({"model": {"type": "BPE", "vocab": {w: i for i, w in enumerate(words)}, "merges": [f"{w[:-2]} {w[-2:]}" for w in words if len(w) > 3]}}, f, indent=1)
    yield "the Python library, tar, from nothing", tar
    yield "a tokenizer, JSON, from nothing", tokens
    for pattern in ("/usr/lib/*/libcrypto.so.3", "/usr/lib/*/libz3.so.4", "/usr/lib/*/libLLVM-14.so.1"):
        for path in glob.glob(pattern)[:1]:
            yield f"{os.path.basename(path)}, from nothing", path
    yield "magika v3_3, ONNX, from nothing", os.path.join(folder, "magika-0.6.2", "model.onnx")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--only", default="", help="pairs whose name has this in it")
    a = ap.parse_args()
    folder = os.environ.get("SKF_ANY_PAIRS") or os.path.join(common.ROOT, "build", "any-pairs")
    if not fetch(folder):
        print("delta_any: the packages cannot be downloaded here: left out")
        return 0
    skiff, rows, status = os.path.join(os.path.abspath(a.build), "skiff"), [], 0
    want = ("zstd", "xdelta3", "bsdiff", "hdiffpatch")
    delta.find_peers(True)  # makes the environment of the PyPI peers
    peers = [p for p in want if (shutil.which(p) if p != "hdiffpatch" else
                                 subprocess.run([delta.peers_python(), "-c", "import hdiffpatch"], capture_output=True, check=False).returncode == 0)]
    for p in sorted(set(want) - set(peers)):
        print(f"{p}: not here, left out")
    with tempfile.TemporaryDirectory(dir=os.environ.get("SKF_SCRATCH")) as scratch:
        empty = os.path.join(scratch, "empty")
        with open(empty, "wb"):
            pass
        pairs = [(pair, os.path.join(folder, f"{package}-{v1}", f1), os.path.join(folder, f"{package}-{v2}", f2)) for pair, package, v1, f1, v2, f2 in PAIRS]
        for pair, old, new in pairs + [(pair, empty, new) for pair, new in alone(folder, scratch)]:
            if a.only not in pair:
                continue
            full, got = os.path.getsize(new), {}
            for tool, encode, out in ways(skiff, peers, old, new, scratch):
                seconds = delta.timed(*encode)
                got[tool] = os.path.getsize(out)
                rows.append({"pair": pair, "full": full, "tool": tool, "bytes": got[tool], "ratio": full / got[tool], "encode_MB_per_s": full / 1e6 / seconds})
            result = os.path.join(scratch, "n")
            apply = delta.timed(skiff, "apply", old, os.path.join(scratch, "d.skd"), "-o", result, "--jobs", "1")
            if not filecmp.cmp(result, new, shallow=False):
                raise SystemExit(f"bench: {pair}: the result differs")
            best = min(((n, t) for t, n in got.items() if t != "skiff"), default=(full, "the file"))
            print(f"{pair} ({full / 1e6:.1f} MB): {got['skiff']} bytes, {full / got['skiff']:.2f}x; {best[1]} {best[0]}; apply {full / 1e6 / apply:.0f} MB/s", flush=True)
            # Two digests a chunk and the head are what a signed delta costs at the least.
            fixed = 256 + 144 * (full // (1 << 20) + 1)
            if (old != empty and got["skiff"] > 1.01 * best[0] + fixed) or got["skiff"] > 1.01 * got.get("zstd -19", full) + fixed:
                status = 1
                print("  short: more than 1 % over the best peer")
    if a.only:
        return status
    common.write("delta_any", rows, missing=sorted(set(want) - set(peers)))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
