"""The decoder in Python, made after docs/formats.md, makes the same bytes of a delta as `skiff apply`: every element type, every
coding, and the deltas kept in tests/vectors/skd, so that the page, the program and what was written before stay one format.

With SKF_KEEP=FOLDER small deltas of this build are written there: that is how tests/vectors/skd was made, and is made anew with a new codec
version alone."""
import glob
import os
import random
import subprocess
import sys

import numpy as np
import tiny_model
from gguf import GGMLQuantizationType as QT, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import quantize
from tap import check, done

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "python"))
from skiff import skd  # noqa: E402
from skiff.rans import FormatError  # noqa: E402

BUILD, TMP = os.environ["SKF_BUILD"], os.environ["SKF_TMP"]
SKIFF, SLOW = os.path.join(BUILD, "skiff"), float(os.environ.get("SKF_SLOW", "1"))
ROWS, COLUMNS = 48, 256
FLOATS = [QT.F32, QT.F16, QT.BF16]
FITTED = [QT.Q8_0, QT.Q4_0, QT.Q4_1, QT.Q5_0, QT.Q5_1]
# Types whose blocks are made of bytes at random: what they mean does not matter to a delta.
RANDOM = [QT.Q2_K, QT.Q3_K, QT.Q4_K, QT.Q5_K, QT.Q6_K, QT.IQ4_NL, QT.IQ4_XS, QT.TQ1_0]


def at(*parts):
    return os.path.join(TMP, *parts)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write_gguf(path, tensors):
    w = GGUFWriter(path, "llama")
    for name, (kind, data) in tensors.items():
        w.add_tensor(name, data, raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def as_type(kind, x):
    if kind == QT.F32:
        return x.astype("<f4")
    if kind == QT.F16:
        return x.astype("<f2")
    return quantize(x.astype(np.float32), kind)


def two_of_four(x):
    g = x.reshape(-1, 4)
    return np.where(np.argsort(np.argsort(np.abs(g), axis=1), axis=1) < 2, 0, g).reshape(x.shape)


def weights(rng):
    """Changes of every kind: none, few, small everywhere, by few factors, and another tensor altogether."""
    old = rng.randn(ROWS, COLUMNS)
    row = np.linspace(0.3, 1, ROWS)[:, None]
    factor = np.outer(rng.randn(ROWS), rng.randn(COLUMNS))
    return {"same": (old, old), "few": (old, old + 0.3 * (rng.rand(*old.shape) < 0.004)), "small": (old, old * (1 + 0.004 * rng.randn(*old.shape))),
            "factors": (old, old + 0.05 * factor + 0.0005 * rng.randn(*old.shape)), "stronger": (old, old + 0.1 * rng.randn(*old.shape)),
            "pruned": (old, np.where(np.abs(old) < 0.6, 0, old)), "pruned, two of four": (old, two_of_four(old)), "pruned by rows": (old, np.where(np.abs(old) < row, -0.0, old)),
            "other": (old, rng.randn(*old.shape)), "odd": (old * 1e30, np.where(rng.rand(*old.shape) < 0.1, 0, old * 1e30))}


def fitted(kind, rng):
    with np.errstate(over="ignore", invalid="ignore"):
        made = {n: (as_type(kind, a), as_type(kind, b)) for n, (a, b) in weights(rng).items()}
    if kind in (QT.F32, QT.F16): # numbers that a shorter type holds
        for n in ("few", "small"):
            a, b = (quantize(x.astype(np.float32), QT.BF16).view("<u2").astype("<u4") << 16 for x in weights(rng)[n])
            made["bf16 " + n] = tuple(x.view("<f4").astype("<f2" if kind == QT.F16 else "<f4") for x in (a, b))
    return made


def scrambled(kind, rng):
    block, size = GGML_QUANT_SIZES[kind]
    out = {}
    for name, share in (("few", 0.003), ("more", 0.05), ("all", 1.0)):
        a = rng.randint(0, 256, (ROWS, COLUMNS // block * size)).astype(np.uint8)
        b = np.where(rng.rand(*a.shape) < share, rng.randint(0, 256, a.shape), a).astype(np.uint8)
        out[name] = a, b
    return out


def both_ways(what, old, new, *args):
    """`skiff apply` and the decoder here must both make the file."""
    d = at("d.skd")
    r = subprocess.run([SKIFF, "diff", old, new, "-o", d, *args], capture_output=True, text=True, timeout=120 * SLOW)
    s = subprocess.run([SKIFF, "apply", old, d, "-o", at("made")], capture_output=True, text=True, timeout=120 * SLOW)
    try:
        mine, error = skd.apply(read(old), read(d)), None
    except Exception as e:  # whatever it is, it is what the test shows
        mine, error = None, repr(e)
    good = r.returncode == 0 and s.returncode == 0 and read(at("made")) == read(new)
    if good:
        parsed = skd.Delta(read(d))
        seen.update(c["coding"] for c in parsed.chunks)
        seen.update(("side", t["side_coding"]) for t in parsed.tensors if t["side"])
    check(good and mine == read(new), what, f"apply {good}", error, r.stderr, s.stderr)
    return read(d) if good else b""


seen, rng = set(), np.random.RandomState(5)
for kind in FLOATS + FITTED + RANDOM:
    made = scrambled(kind, rng) if kind in RANDOM else fitted(kind, rng)
    for i, side in enumerate(("old", "new")):
        write_gguf(at(side), {n: (kind, pair[i]) for n, pair in made.items()})
    delta = both_ways(f"{kind.name}", at("old"), at("new"))

tiny_model.write(at("float"), type="bf16", seed=1)
for kind in ("q4_1", "q5_1", "q8_0"):  # pruned matrices of the first two have grids with zero on them
    for name, more in (("old", []), ("new", ["--prune", "50%"])):
        subprocess.run([SKIFF, "quantize", at("float"), at(name), "--type", kind, *more], capture_output=True, timeout=120 * SLOW)
    both_ways(f"pruned {kind}", at("old"), at("new"))

# ---- an adapter, merged by us and by others
for kind in ("bf16", "f16", "f32", "q8_0", "q4_0", "q4_1"):
    dims = {"embd": 576, "layers": 1, "heads": 9, "kv_heads": 3, "ff": 64} if kind == "f32" else {}  # tensors of several chunks
    tiny_model.write(at("old"), type=kind, seed=1, **dims)
    tiny_model.write_lora(at("lora"), seed=2, **dims)
    r = subprocess.run([SKIFF, "merge", at("old"), at("lora"), "-o", at("new")], capture_output=True, text=True, timeout=120 * SLOW)
    both_ways(f"adapter on {kind}", at("old"), at("new"), "--adapter", at("lora"))
    other = bytearray(read(at("new")))
    other[-3000:-2000:50] = bytes(b ^ 1 for b in other[-3000:-2000:50])
    with open(at("new"), "wb") as f:
        f.write(other)
    both_ways(f"adapter on {kind}, merged otherwise here and there", at("old"), at("new"), "--adapter", at("lora"))

# ---- any bytes, floats among them
x = (rng.randn(40_000) * 0.02).astype("<f4")
y = (x * (1 + 0.01 * rng.randn(40_000))).astype("<f4")
for name, (old, new) in {"floats in a file": (b"header" + x.tobytes() + b"tail" * 90, b"another header" + y.tobytes() + b"tail" * 80),
                         "floats by themselves": (b"nothing alike", b"header" + y.tobytes() + b"tail")}.items():
    for path, data in (("old", old), ("new", new)):
        with open(at(path), "wb") as f:
            f.write(data)
    both_ways(name, at("old"), at("new"))
words = [bytes(random.Random(i).choices(b"abcdefgh ", k=6)) for i in range(500)]
text = b" ".join(random.Random(1).choices(words, k=200_000))
program = text[:30_000] + b"".join(b"\x55\x48\xe8" + (4096 * (i % 9) - 8 * i - 30_007 & 0xffffffff).to_bytes(4, "little") + b"\x90" for i in range(900))
arm = b"".join(v.to_bytes(4, "little") for i in range(9000) for v in (0x94 << 24 | 1024 * (i % 9) - 4 * i & 0x3ffffff, 0xa9bf7bfd, 0xd503201f,
                                                                      0x90000000 | (i % 4) << 29 | (i * 37 % 0x80000 if i % 5 else i % 50 - 25 & 0x7ffff) << 5 | i % 7))
files = {"program": (b"nothing like it", program), "program for arm64": (b"nothing like it", arm), "text": (text, text[:300_000] + b"more" + text[300_000:]), "from nothing": (b"", text[:70_000]), "to nothing": (text[:1000], b""),
         "itself": (text, text), "noise": (b"a", random.Random(2).randbytes(50_000))}
for name, (old, new) in files.items():
    for path, data in (("old", old), ("new", new)):
        with open(at(path), "wb") as f:
            f.write(data)
    both_ways(name, at("old"), at("new"))

# ---- deltas that were written before
def keep(name, old, new, *args):
    """FOLDER/name.old and name.skd of two files."""
    with open(os.path.join(KEEP, name + ".old"), "wb") as f:
        f.write(read(old))
    subprocess.run([SKIFF, "diff", old, new, "-o", os.path.join(KEEP, name + ".skd"), *args], check=True, timeout=120 * SLOW)


def keep_all():
    few = np.random.RandomState(11)
    for kind in (QT.F32, QT.F16, QT.BF16, QT.Q8_0, QT.Q4_0, QT.Q4_1, QT.Q5_1, QT.Q4_K, QT.Q6_K):
        made = scrambled(kind, few) if kind in RANDOM else fitted(kind, few)
        pruned = ("pruned", "pruned, two of four", "pruned by rows") if kind in (QT.BF16, QT.Q8_0, QT.Q4_1) else ()
        for i, side in enumerate(("old", "new")):
            write_gguf(at(side), {n: (kind, pair[i][:16]) for n, pair in made.items() if n in ("few", "small", "factors", "bf16 small", *pruned)})
        keep(kind.name.lower(), at("old"), at("new"))
    tiny_model.write(at("old"), type="q4_1", seed=1)
    tiny_model.write_lora(at("lora"), seed=2)
    subprocess.run([SKIFF, "merge", at("old"), at("lora"), "-o", at("new")], check=True, capture_output=True, timeout=120 * SLOW)
    keep("adapter", at("old"), at("new"), "--adapter", at("lora"))
    for name, (old, new) in {"text": (text[:9000], text[:3000] + b"more" + text[3000:9000]),
                             "pack": (b"nothing like it", program[15_000:]),
                             "mixed": (b"header" + x[:4000].tobytes() + b"tail", b"another" + y[:4000].tobytes() + b"tails")}.items():
        for path, data in (("old", old), ("new", new)):
            with open(at(path), "wb") as f:
                f.write(data)
        keep(name, at("old"), at("new"))
    for path, data in (("old", text[:5000]), ("new", text[4000:5000] + text[7000:9000] + b"more"), ("also", text[6000:11_000])):
        with open(at(path), "wb") as f:
            f.write(data)
    keep("also", at("old"), at("new"), "--also", at("also"))
    with open(os.path.join(KEEP, "also.also"), "wb") as f:
        f.write(read(at("also")))


KEEP = os.environ.get("SKF_KEEP")
if KEEP:
    keep_all()
for path in sorted(glob.glob(os.path.join(ROOT, "tests", "vectors", "skd", "*.skd"))):
    old, name = path[:-3] + "old", os.path.basename(path)[:-4]
    also = [p for p in (path[:-3] + "also",) if os.path.exists(p)]
    s = subprocess.run([SKIFF, "apply", old, path, "-o", at("made"), *(["--also", *also] if also else [])], capture_output=True, text=True, timeout=120 * SLOW)
    try:
        mine = skd.apply(read(old), read(path), *map(read, also))
    except Exception as e:
        mine = repr(e)
    check(s.returncode == 0 and mine == read(at("made")), f"{name}, as it was written", s.stderr, mine if isinstance(mine, str) else None)

check(seen >= {0, 1, 2, 3, 4, 5, 6, 7, ("side", 4), ("side", 5), ("side", 7)}, "every coding was met", seen)

# ---- a damaged delta is refused here too
delta, refused = bytearray(delta), 0
for i in range(60):
    p, bit = random.Random(i).randrange(len(delta)), 1 << i % 8
    delta[p] ^= bit
    try:
        refused += skd.apply(b"a", bytes(delta)) is None
    except (FormatError, ValueError):
        refused += 1
    delta[p] ^= bit
check(refused == 60, "flipped bits are refused", refused)
done()
