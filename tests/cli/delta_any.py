"""`skiff diff` where versions differ by more than their weights: tensors renamed, resized, reordered, added, moved to another place or file; vocabularies that
grow; files that are no model; and whatever happens, never more than zstd of the file."""
import json
import os
import random
import subprocess

import numpy as np
import tiny_model
import zstandard
from gguf import GGMLQuantizationType as QT, GGUFWriter
from gguf.quants import quantize
from tap import check, done

BUILD, TMP = os.environ["SKF_BUILD"], os.environ["SKF_TMP"]
SKIFF = os.path.join(BUILD, "skiff")
SLOW = float(os.environ.get("SKF_SLOW", "1"))
rng = np.random.RandomState(11)


def at(name):
    return os.path.join(TMP, name)


def read(name):
    with open(at(name), "rb") as f:
        return f.read()


def write(name, data):
    with open(at(name), "wb") as f:
        f.write(data)
    return name


def delta(what, old, new, at_most):
    """Diff and apply; the result must be the file, the delta at most so many bytes. Returns the diff's JSON."""
    for f in ("rt.skd", "rt.out"):
        if os.path.exists(at(f)):
            os.remove(at(f))
    r = subprocess.run([SKIFF, "diff", at(old), at(new), "-o", at("rt.skd"), "--json"], capture_output=True, text=True, timeout=120 * SLOW)
    s = subprocess.run([SKIFF, "apply", at(old), at("rt.skd"), "-o", at("rt.out")], capture_output=True, text=True, timeout=120 * SLOW)
    good = r.returncode == 0 and s.returncode == 0 and read("rt.out") == read(new)
    size = os.path.getsize(at("rt.skd")) if os.path.exists(at("rt.skd")) else -1
    check(good and 0 < size <= at_most, what, f"delta of {size} bytes, at most {at_most}", r.stderr, s.stderr)
    return json.loads(r.stdout) if good else {}


# ---- a model whose parts can be changed one by one
ROWS, WIDTH = 6000, 128
BASE = {"token_embd.weight": rng.standard_normal((ROWS, WIDTH)) * 0.04}
for layer in range(3):
    for part, rows in (("attn_q", 128), ("attn_k", 64), ("ffn_up", 384), ("ffn_down", 384)):
        BASE[f"blk.{layer}.{part}.weight"] = rng.standard_normal((rows, WIDTH)) * 0.05
TOKENS = [f"token-{i * i}" for i in range(ROWS)]


def tuned(tensors, step):
    """The same after some training."""
    r = np.random.RandomState(5)
    return {name: x + np.abs(x) * step * r.standard_normal(x.shape) for name, x in tensors.items()}


def gguf(name, tensors, kind=QT.BF16, tokens=TOKENS, alignment=32, architecture="llama"):
    w = GGUFWriter(at(name), architecture)
    if alignment != 32:
        w.add_custom_alignment(alignment)
    w.add_token_list(tokens)
    w.add_context_length(2048)
    for key, x in tensors.items():
        w.add_tensor(key, quantize(x.astype(np.float32), kind), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return name


def size(name):
    return os.path.getsize(at(name))


for kind in (QT.BF16, QT.Q8_0):
    tag = kind.name
    gguf("old", BASE, kind)
    full = size("old")
    gguf("plain", tuned(BASE, 0.002), kind)
    d = delta(f"{tag}: trained a little", "old", "plain", full * 2 // 5)
    least = d.get("bytes", 1 << 60)
    new = {"model." + name.replace("blk.", "layers."): x for name, x in tuned(BASE, 0.002).items()}
    gguf("renamed", new, kind)
    delta(f"{tag}: the same with every tensor renamed", "old", "renamed", least * 101 // 100 + 4096)
    gguf("reordered", dict(reversed(tuned(BASE, 0.002).items())), kind)
    delta(f"{tag}: the same in reverse order", "old", "reordered", least * 101 // 100 + 4096)
    gguf("aligned", BASE, kind, alignment=4096)
    delta(f"{tag}: another alignment and nothing else", "old", "aligned", 4096)
    gguf("moved", dict(reversed([("a." + n, x) for n, x in BASE.items()])), kind)
    delta(f"{tag}: renamed and reordered and nothing else", "old", "moved", 4096)
    gguf("fewer", {n: x for n, x in BASE.items() if "blk.1" not in n}, kind)
    delta(f"{tag}: a layer less", "old", "fewer", 4096)
    delta(f"{tag}: a layer more", "fewer", "old", (size("old") - size("fewer")) * (75 if kind == QT.BF16 else 97) // 100 + 4096)
    more = dict(BASE, **{"token_embd.weight": np.vstack([BASE["token_embd.weight"], rng.standard_normal((64, WIDTH)) * 0.04])})
    added = size("old") * 64 // ROWS
    gguf("grown", more, kind, tokens=TOKENS + [f"<|new-{i}|>" for i in range(64)])
    delta(f"{tag}: 64 tokens more", "old", "grown", 64 * WIDTH * (2 if kind == QT.BF16 else 1) + 4096)
    mean = BASE["token_embd.weight"].mean(0, keepdims=True)
    gguf("mean", {**BASE, "token_embd.weight": np.concatenate([BASE["token_embd.weight"], np.repeat(mean, 64, 0)])}, kind,
         tokens=TOKENS + [f"<|new-{i}|>" for i in range(64)])
    delta(f"{tag}: 64 tokens more, all of them the mean of the others", "old", "mean", 6144)
    gguf("grown", tuned(more, 0.002), kind, tokens=TOKENS + [f"<|new-{i}|>" for i in range(64)])
    delta(f"{tag}: 64 tokens more and trained a little", "old", "grown", least * 102 // 100 + 64 * WIDTH * 2 + 4096)
    delta(f"{tag}: and 64 tokens less again", "grown", "old", least * 102 // 100 + 4096)
    gguf("renamed", {n + ".new": x for n, x in more.items()}, kind)
    delta(f"{tag}: resized and renamed", "old", "renamed", 64 * WIDTH * 2 + 4096)
    gguf("tokens", BASE, kind, tokens=["first"] + TOKENS[:100] + ["x"] + TOKENS[100:])
    delta(f"{tag}: two tokens more in the middle of the list", "old", "tokens", 4096)

# ---- unrelated weights: what floats have in common with each other
other = {n: np.random.RandomState(99).standard_normal(x.shape) * 0.05 for n, x in BASE.items()}
gguf("other", other, QT.BF16)
gguf("old", BASE, QT.BF16)
delta("BF16: trained anew", "old", "other", size("other") * 72 // 100)
write("nothing", b"")
delta("BF16 from nothing", "nothing", "other", size("other") * 72 // 100)
gguf("other", other, QT.F16)
delta("F16 from nothing", "nothing", "other", size("other") * 91 // 100)
gguf("other", other, QT.F32)
delta("F32 from nothing", "nothing", "other", size("other") * 85 // 100)

# ---- safetensors
parts = {n: ("F32", x.shape, x.astype("<f4").tobytes()) for n, x in BASE.items()}
tiny_model.write_safetensors(at("1.safetensors"), parts)
tiny_model.write_safetensors(at("2.safetensors"), {"x." + n: p for n, p in reversed(parts.items())})
delta("safetensors renamed and reordered", "1.safetensors", "2.safetensors", 4096)
gguf("float", BASE, QT.F32)
delta("GGUF to safetensors of the same tensors", "float", "2.safetensors", 8192)
delta("safetensors to GGUF", "2.safetensors", "float", 64 * 1024 + 8192)

# a sharded set is its files one behind the other
names = list(parts)
for name, cuts in (("set2", (0, 7, 13)), ("set3", (0, 2, 9, 13))):
    shards = []
    for i in range(len(cuts) - 1):
        tiny_model.write_safetensors(at("shard"), {n: parts[n] for n in names[cuts[i]:cuts[i + 1]]})
        shards.append(read("shard"))
    write(name, b"".join(shards))
delta("two shards become three", "set2", "set3", 4096)
delta("two shards become one file", "set2", "1.safetensors", 4096)
delta("one file becomes three shards", "1.safetensors", "set3", 4096)

# ---- any bytes: weights inside of a format that is not understood
def wrapped(seed, head=b"some format, "):
    r = np.random.RandomState(seed)
    out = [head * 40]
    for i in range(6):
        out.append(b"tensor %d" % i + (r.standard_normal(60_000) * 0.03).astype("<f4").tobytes() + b"." * (i + 1))
    return b"".join(out)


weights = wrapped(1)
write("w1", weights)
write("w2", wrapped(2))
delta("weights in an unknown format, trained anew", "w1", "w2", len(weights) * 86 // 100)
delta("and from nothing", "nothing", "w2", len(weights) * 86 // 100)
write("w3", wrapped(1, b"the same format: "))
delta("a longer head, the same weights", "w1", "w3", 4096)
words = np.frombuffer(weights[521:521 + 1_400_000], "<u4").copy()
words[rng.randint(0, len(words), 30_000)] += 1
write("w4", weights[:521] + words.tobytes() + weights[521 + 4 * len(words):])
delta("a few of them changed a little", "w1", "w4", 80_000)

# ---- never more than zstd of the file
random.seed(3)
vocabulary = ["".join(random.choices("abcdefghijklmnop", k=random.randint(2, 9))) for _ in range(3000)]
text = " ".join(random.choices(vocabulary, k=150_000)).encode()
phrases = [text[i:i + 150] + b"\n" for i in range(0, 900_000, 151)]  # what comes again does so mostly in another chunk
program = np.cumsum(rng.randint(0, 40, 120_000)).astype("<u4").tobytes() + bytes(rng.randint(0, 256, 200_000).astype(np.uint8))
files = {"text": text, "program": program, "mixed": text[:300_000] + program + weights[:500_000] + text[200_000:500_000], "zeros": bytes(700_000) + text[:1000],
         "noise": rng.bytes(900_000), "far apart": b"".join(phrases[i] for i in rng.randint(0, len(phrases), 9_000))}
for name, data in files.items():
    write(name, data)
for name, data in files.items():
    p = zstandard.ZstdCompressionParameters.from_level(19, window_log=27, enable_ldm=True)
    z = len(zstandard.ZstdCompressor(compression_params=p).compress(data))
    for base in ("nothing", "w1", "noise"):
        if base != name and (base == "nothing" or name != "far apart"):
            delta(f"{name} from {base}: at most zstd of the file", base, name, z * 101 // 100 + 256 + 144 * (1 + len(data) // (1 << 20)))
done()
