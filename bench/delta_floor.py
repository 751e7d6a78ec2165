#!/usr/bin/env python3
"""Deltas against what static tables could reach at best: for each pair the bytes of `skiff diff` beside the floor, a conditional entropy with
its tables counted, one set of tables a tensor.

Floats: the difference of order-preserving integers, in the context of the old value's exponent.  Blocks: scales as differences of their bit
patterns; codes as what is left of the old value on the new grid, in the context of its place in the cell and of the step's size.  For the
largest matrix (the embedding) also with a low-rank predictor and a level a row, their own bytes counted, where that is less.

Pairs: those of the folder SKF_PAIRS (v1.TYPE.gguf to every other NAME.TYPE.gguf), or named on the command line, OLD NEW OLD NEW ...
--stretch K (repeatable) makes stronger fine-tunes of v1.bf16.gguf and v2.bf16.gguf, v1 + K (v2 - v1), in BF16 and, by `skiff quantize`,
Q8_0 and Q4_1.  Must hold: at most 5 % over the floor.
"""
import argparse
import glob
import os
import subprocess
import sys
import tempfile

import numpy as np
from gguf import GGUFReader

import common

LIMIT = 1.05
CELL = 9       # bits that an entry of a table takes
RANKS = (0, 4, 16)
FLOATS = {"BF16": 7, "F16": 10, "F32": 23}   # where the exponent begins
BLOCKS = {"Q8_0": (34, 1, 8), "Q4_0": (18, 1, 4), "Q4_1": (20, 2, 4)}  # bytes, halves, bits of a code


# ---- entropies ---------------------------------------------------------------------------------------------------------------------

def conditional(context, symbol):
    """Bits of the symbols (integers) in their contexts, tables and all."""
    symbol = symbol - symbol.min()
    context = context - context.min()
    n = int(symbol.max()) + 1
    if n * (int(context.max()) + 1) > 1 << 22:  # far apart: only their order matters
        symbol = np.unique(symbol, return_inverse=True)[1]
        n = int(symbol.max()) + 1
    count = np.bincount(context.astype(np.int32) * np.int32(n) + symbol, minlength=(int(context.max()) + 1) * n).reshape(-1, n).astype(np.float64)
    total = count.sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.where(count > 0, count * (np.log2(total) - np.log2(count)), 0).sum()
    return float(bits) + CELL * int((count > 0).sum())


def bucketed(context, d):
    """The same of differences of any size: buckets by their logarithm, then as many bits as they leave open."""
    m = np.abs(d)
    symbol = 2 * m - (d < 0)
    big = np.flatnonzero(m > 7)
    k = np.log2(m[big]).astype(np.int32)
    symbol[big] = 15 + 2 * (k - 3) + (m[big] >> (k - 1) & 1)
    return conditional(context, symbol.astype(np.int32)) + float(k.sum())


def levels(energy):
    """Of each row, in half octaves below the strongest, and their bits."""
    level = np.clip(np.round(np.log2(np.maximum(energy, 1e-30) / max(energy.max(), 1e-30))), -31, 0).astype(np.int32)
    return level, conditional(np.zeros(level.shape, np.int32), level)


def factors(change, rank):
    """A matrix' change as `rank` factors in small integers, and their bits."""
    if rank == 0:
        return 0, 0.0
    _, vectors = np.linalg.eigh(change.T @ change)
    v = vectors[:, ::-1][:, :rank]
    u = change @ v
    left = np.sqrt(max(float(np.mean(change * change)) - float(np.sum(u * u)) / change.size, 1e-30))
    unit = left * np.sqrt(change.shape[1]) * 0.7
    q = np.round(u / unit).astype(np.int32)
    bits = conditional(np.broadcast_to(np.arange(rank), q.shape).ravel(), q.ravel()) + 8 * v.size
    return (q * np.float32(unit)) @ v.T, bits


# ---- floats ------------------------------------------------------------------------------------------------------------------------

def as_float(u, kind):
    return {"BF16": lambda: (u.astype(np.uint32) << 16).view(np.float32), "F16": lambda: u.view(np.float16).astype(np.float32),
            "F32": lambda: u.view(np.float32)}[kind]()


def as_words(x, kind):
    if kind == "BF16":
        u = np.ascontiguousarray(x, np.float32).view(np.uint32)
        return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)
    return x.astype(np.float16).view(np.uint16) if kind == "F16" else np.ascontiguousarray(x, np.float32).view(np.uint32)


def ordered(u):
    top = 1 << (8 * u.dtype.itemsize - 1)
    i = u.astype(np.int32 if u.dtype.itemsize < 4 else np.int64)
    return np.where(i & top, top - i, i)


def float_floor(old, new, kind, columns, is_predicted):
    word = np.uint32 if kind == "F32" else np.uint16
    a, b, at = old.view(word).ravel(), new.view(word).ravel(), FLOATS[kind]
    exponent = (a & np.array((1 << (8 * a.dtype.itemsize - 1)) - 1, a.dtype)) >> at

    words = ordered(b)

    def cost(a, exponent, level, stripe):
        d = words - ordered(a)
        context = 2 * exponent.astype(np.int32)
        if level is not None:
            context = np.clip(context - np.repeat(level, stripe), context.min() - 8, context.max() + 8)
        return bucketed(context, d)
    best = cost(a, exponent, None, 0)
    plain = best
    if not is_predicted or columns < 16 or a.size // columns < 64:
        return plain, best
    x = as_float(a, kind).reshape(-1, columns)
    change = as_float(b, kind).reshape(-1, columns) - x
    for rank in RANKS:
        guess, side = factors(change, rank)
        left = change - guess
        level, bits = levels((left * left).mean(1))
        w = as_words(x + guess, kind).ravel() if rank else a
        e = (w & np.array((1 << (8 * w.dtype.itemsize - 1)) - 1, w.dtype)) >> at
        best = min(best, cost(w, e, level, columns) + side + bits, cost(w, e, None, 0) + side)
    return plain, best


# ---- blocks ------------------------------------------------------------------------------------------------------------------------

def unpack(raw, kind):
    size, halves, bits = BLOCKS[kind]
    p = raw.reshape(-1, size)
    h = np.ascontiguousarray(p[:, :2 * halves]).view(np.uint16)
    q = p[:, 2 * halves:]
    code = q.view(np.int8) if bits == 8 else np.concatenate((q & 15, q >> 4), 1).view(np.int8)
    return h, code


def block_floor(old, new, kind, columns, is_predicted):
    (h0, q0), (h1, q1) = unpack(old, kind), unpack(new, kind)
    scale = np.abs(h0[:, :1].view(np.float16).astype(np.float32))
    size = np.clip(np.round(4 * np.log2(np.maximum(scale[:, 0], 1e-8))), -120, 40).astype(np.int32)
    cost = 0.0
    for k in range(h0.shape[1]):
        d = h1[:, k].astype(np.int32) - h0[:, k]
        seen = size // 4 if k == 0 else 2 * (size // 4) + (h1[:, 0] != h0[:, 0])
        cost += conditional(seen, (d != 0).astype(np.int32))
        if d.any():
            cost += min(bucketed(seen[d != 0], d[d != 0]), bucketed(seen[d != 0] * 0, d[d != 0]))

    def value(h, k):
        return h[:, k:k + 1].view(np.float16).astype(np.float32)
    s0, s1 = value(h0, 0), value(h1, 0)
    m0, m1 = (value(h0, 1), value(h1, 1)) if h0.shape[1] > 1 else (-8 * s0 if kind == "Q4_0" else 0 * s0, -8 * s1 if kind == "Q4_0" else 0 * s1)
    safe = np.where(s1 == 0, np.float32(1), s1)
    x0 = (s0 * q0 + m0 - m1) / safe
    least, most = (-128, 127) if kind == "Q8_0" else (0, 15)
    ends = (q0 <= -127) * 1 + (q0 >= 127) * 2 if kind == "Q8_0" else (q0 <= 0) * 1 + (q0 >= 15) * 2
    ends = ends.astype(np.int32)

    def codes(guess, level):
        x = np.clip(x0 + guess / safe, -1000, 1000)
        near = np.clip(np.rint(x), least, most)
        place = x - near
        turn = np.where(place < 0, -1, 1)
        cell = np.clip(np.rint(np.abs(place) * 16), 0, 9).astype(np.int32)
        seen = np.clip((size if level is None else size - level)[:, None] // 2, -60, 20)
        key = ((seen - seen.min()) * 10 + cell) * 3 + ends
        return conditional(key.ravel(), ((q1 - near) * turn).astype(np.int32).ravel())
    plain = best = codes(np.float32(0), None)
    if is_predicted and q0.size // columns >= 64:
        each = columns // 32
        change = (s1 * q1 + m1 - s0 * q0 - m0).reshape(-1, columns)
        for rank in RANKS:
            guess, side = factors(change, rank)
            left = change - guess
            level, bits = levels((left * left).mean(1))
            guess = guess.reshape(-1, 32) if rank else np.float32(0)
            best = min(best, codes(guess, 2 * np.repeat(level, each)) + side + bits, codes(guess, None) + side)
    return cost + plain, cost + best


# ---- pairs -------------------------------------------------------------------------------------------------------------------------

def floor(old, new):
    """Bytes: without and with a predictor for the largest matrix; what is not among the types known here counts as it is."""
    a, b = ({t.name: t for t in GGUFReader(p).tensors} for p in (old, new))
    largest = max(b.values(), key=lambda t: t.n_elements).name
    plain = best = 0.0
    for name, t in b.items():
        was, kind = a.get(name), t.tensor_type.name
        raw = np.ascontiguousarray(t.data).view(np.uint8).ravel()
        if was is None or was.tensor_type != t.tensor_type or was.n_elements != t.n_elements or kind not in {**FLOATS, **BLOCKS}:
            plain, best = plain + 8 * raw.size, best + 8 * raw.size
            continue
        before = np.ascontiguousarray(was.data).view(np.uint8).ravel()
        if np.array_equal(before, raw):
            continue
        p, q = (float_floor if kind in FLOATS else block_floor)(before, raw, kind, int(t.shape[0]), name == largest)
        plain, best = plain + p, best + q
    return int(plain / 8), int(best / 8)


def stretched(skiff, folder, scratch, times):
    """v1 + times (v2 - v1), in three types."""
    old, new = (os.path.join(folder, v + ".bf16.gguf") for v in ("v1", "v2"))
    made = os.path.join(scratch, f"x{times:g}.bf16.gguf")
    with open(new, "rb") as f:
        out = bytearray(f.read())
    was = {t.name: t for t in GGUFReader(old).tensors}
    for t in GGUFReader(new).tensors:
        kind = t.tensor_type.name
        if kind in FLOATS:
            word = np.uint32 if kind == "F32" else np.uint16
            x, y = (as_float(np.ascontiguousarray(m.data).view(word).ravel(), kind) for m in (was[t.name], t))
            w = as_words(x + np.float32(times) * (y - x), kind).tobytes()
            out[t.data_offset:t.data_offset + len(w)] = w
    with open(made, "wb") as f:
        f.write(out)
    yield f"bf16, {times:g} times the change", old, made
    for kind in ("q8_0", "q4_1"):
        model = os.path.join(folder, f"v1.{kind}.gguf")
        if os.path.exists(model):
            to = made.replace("bf16", kind)
            embedding = next(t for t in GGUFReader(model).tensors if t.name == "token_embd.weight").tensor_type.name.lower()
            subprocess.run([skiff, "quantize", made, to, "--type", kind, "--embedding-type", embedding], check=True, capture_output=True)
            yield f"{kind}, {times:g} times the change", model, to


def pairs(skiff, a, scratch):
    for i in range(0, len(a.files) - 1, 2):
        yield os.path.basename(a.files[i + 1]), a.files[i], a.files[i + 1]
    folder = os.environ.get("SKF_PAIRS")
    if a.files or not folder:
        return
    for old in sorted(glob.glob(os.path.join(folder, "v1.*.gguf"))):
        kind = os.path.basename(old)[3:-5]
        for new in sorted(glob.glob(os.path.join(folder, f"*.{kind}.gguf"))):
            if new != old:
                yield os.path.basename(new)[:-5], old, new
    for k in a.stretch:
        yield from stretched(skiff, folder, scratch, k)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--stretch", type=float, action="append", default=[])
    ap.add_argument("files", nargs="*")
    a = ap.parse_args()
    skiff, rows, status = os.path.join(os.path.abspath(a.build), "skiff"), [], 0
    with tempfile.TemporaryDirectory(dir=os.environ.get("SKF_SCRATCH")) as scratch:
        delta = os.path.join(scratch, "d.skd")
        for name, old, new in pairs(skiff, a, scratch):
            subprocess.run([skiff, "diff", old, new, "-o", delta], check=True, capture_output=True)
            ours, full = os.path.getsize(delta), os.path.getsize(new)
            plain, best = floor(old, new)
            rows.append({"pair": name, "full": full, "bytes": ours, "floor": plain, "floor_predicted": best, "over": ours / best - 1})
            print(f"{name} ({full / 1e6:.1f} MB): {ours} bytes, {full / ours:.1f}x; floor {plain}, predicted {best} ({full / best:.1f}x); {ours / best - 1:+.1%}", flush=True)
            if ours > LIMIT * best:
                status = 1
                print("  short: more than 5 % over the floor")
    if not rows:
        print("delta_floor: SKF_PAIRS names no folder of pairs: left out")
        return 0
    common.write("delta_floor", rows)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
