#!/usr/bin/env python3
"""The Python peers of bench/delta.py, each as a command so that its whole time counts.

usage: delta.py hdiffpatch|zipnn|z4ai encode OLD NEW DELTA | apply OLD DELTA NEW      (z4ai and zipnn take the element type from SKF_DTYPE)
"""
import os
import sys


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


def hdiffpatch(way, old, given):
    import hdiffpatch as h
    if way == "encode":
        return h.diff(read(old), read(given), h.ZStdConfig(level=19), validate=False, big_cache_match=True)
    return h.apply(read(old), read(given))


def xor(a, b):
    """b, with as much of a as there is folded in: its own inverse."""
    import numpy as np
    out = np.frombuffer(b, np.uint8).copy()
    n = min(len(a), len(b))
    out[:n] ^= np.frombuffer(a, np.uint8)[:n]
    return out.tobytes()


def zipnn(way, old, given):
    from zipnn import ZipNN
    dtype = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}.get(os.environ.get("SKF_DTYPE"), "bfloat16")
    z = ZipNN(input_format="byte", bytearray_dtype=dtype, threads=1)
    if way == "encode":
        return z.compress(xor(read(old), read(given)))
    return xor(read(old), bytes(z.decompress(read(given))))


def z4ai(way, old, given):
    from z4ai import delta
    if way == "encode":
        return delta.compress(read(given), reference=read(old), dtype=os.environ.get("SKF_DTYPE") or "bf16")
    return delta.decompress(read(given), reference=read(old))


def main():
    if len(sys.argv) != 6 or sys.argv[1] not in ("hdiffpatch", "zipnn", "z4ai") or sys.argv[2] not in ("encode", "apply"):
        sys.exit(__doc__.strip())
    _, peer, way, old, given, out = sys.argv
    write(out, {"hdiffpatch": hdiffpatch, "zipnn": zipnn, "z4ai": z4ai}[peer](way, old, given))


main()
