"""`skiff diff --adapter` and `skiff compose`: exact, no larger than without, and refused where they do not fit."""
import json
import os
import subprocess

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize

import tiny_model
from tap import check, done

BUILD, MODELS, TMP, SLOW = os.environ["SKF_BUILD"], os.environ["SKF_MODELS"], os.environ["SKF_TMP"], float(os.environ.get("SKF_SLOW", "1"))
SKIFF = os.path.join(BUILD, "skiff")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PUBLISHED = os.path.join(MODELS, "published.gguf")
ADAPTER = os.path.join(ROOT, "examples", "smollm2-135m-python-lora.gguf")


def at(name):
    return os.path.join(TMP, name)


def run(*args, seconds=120):
    return subprocess.run([SKIFF, *args], capture_output=True, text=True, timeout=seconds * SLOW)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def diff(what, old, new, *more):
    """A delta that makes `new` of `old`; what diff --json says of it."""
    d = run("diff", old, new, "-o", at("d.skd"), "--json", *more)
    a = run("apply", old, at("d.skd"), "-o", at("d.out"))
    good = d.returncode == 0 and a.returncode == 0 and read(at("d.out")) == read(new)
    return json.loads(d.stdout) if check(good, what, d.stderr, a.stderr) else {"bytes": 1 << 60, "coding": {"adapter": 0}}


# ---- a tensor in one chunk, by our merge, by a sum in another order, and with the change rounded first
lora = tiny_model.write_lora(at("lora.gguf"), alpha=8.0)
for kind in ("f32", "f16", "bf16", "q8_0", "q4_1"):
    base, merged = tiny_model.write(at(f"base.{kind}"), kind), at(f"merged.{kind}")
    run("merge", base, lora, "-o", merged)
    plain, with_it = diff(f"{kind}: without the adapter", base, merged), diff(f"{kind}: with it", base, merged, "--adapter", lora)
    check(with_it["bytes"] <= plain["bytes"], f"{kind}: no larger for the adapter", with_it, plain)
r = run("diff", at("base.bf16"), at("merged.bf16"), "-o", at("no.skd"), "--adapter", ADAPTER)
check(r.returncode == 1 and len(r.stderr.strip().splitlines()) == 1 and not os.path.exists(at("no.skd")), "an adapter for another model is refused", r.stderr)
r = run("diff", at("base.bf16"), at("merged.bf16"), "-o", at("no.skd"), "--adapter", at("base.bf16"))
check(r.returncode == 1 and "not an adapter" in r.stderr, "a model in place of an adapter is refused", r.stderr)

# ---- the real ones: a matrix of the published file as BF16, merged as others do it
t = next(x for x in GGUFReader(PUBLISHED).tensors if x.name == "blk.0.attn_q.weight")
a, b = (next(x for x in GGUFReader(ADAPTER).tensors if x.name == f"blk.0.attn_q.weight.lora_{n}").data.astype(np.float32) for n in "ab")
w = dequantize(t.data, t.tensor_type).astype(np.float32)


def bf16(x):
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype("<u2")


def write_matrix(name, bits):
    g = GGUFWriter(at(name), "llama")
    g.add_tensor("blk.0.attn_q.weight", bits.view(np.uint8), raw_shape=(bits.shape[0], bits.shape[1] * 2), raw_dtype=GGMLQuantizationType.BF16)
    g.write_header_to_file(), g.write_kv_data_to_file(), g.write_tensors_to_file(), g.close()
    return at(name)


def write_lora(name):
    g = GGUFWriter(at(name), "llama")
    g.add_string("general.type", "adapter"), g.add_string("adapter.type", "lora"), g.add_float32("adapter.lora.alpha", 16.0)
    for n, x in (("a", a), ("b", b)):
        g.add_tensor(f"blk.0.attn_q.weight.lora_{n}", x.astype(np.float16))
    g.write_header_to_file(), g.write_kv_data_to_file(), g.write_tensors_to_file(), g.close()
    return at(name)


w = (w + np.random.RandomState(1).randn(*w.shape).astype(np.float32) * np.float32(1e-3)).astype(np.float32)
old, one = write_matrix("m.old", bf16(w)), write_lora("m.lora")
w = (bf16(w).astype(np.uint32) << 16).view(np.float32)
change = np.float32(2) * (b @ a)  # in whatever order the library sums
twice = (bf16(change).astype(np.uint32) << 16).view(np.float32)
factors = 2 * (a.size + b.size)
for what, new in (("sums in another order", bf16(w + change)), ("the change rounded first", bf16(w + twice)),
                  ("other weights besides", bf16(w + change + (np.random.RandomState(2).rand(*w.shape) < 0.001).astype(np.float32) * np.float32(0.01)))):
    j = diff(what, old, write_matrix("m.new", new), "--adapter", one)
    check(j["coding"]["adapter"] > 0 and j["bytes"] < factors * (1.1 if "besides" not in what else 1.4), what + ": the factors and little else", j, factors)

# ---- the published file with the example's adapter: whatever is least
merged = at("merged.gguf")
run("merge", PUBLISHED, ADAPTER, "-o", merged)
j = diff("the published file, merged", PUBLISHED, merged, "--adapter", ADAPTER)
check(j["bytes"] <= 600_000, "is sent in 0.6 MB", j)

# ---- chains
os.rename(at("d.skd"), at("12.skd"))
data = bytearray(read(merged))
for i in range(50_000_000, 60_000_000, 5003):
    data[i] ^= 1
with open(at("third.gguf"), "wb") as f:
    f.write(data)
diff("a third version", merged, at("third.gguf"))
os.rename(at("d.skd"), at("23.skd"))
r = run("compose", PUBLISHED, at("12.skd"), at("23.skd"), "-o", at("13.skd"), "--json")
j = json.loads(r.stdout) if check(r.returncode == 0, "compose", r.stderr) else {}
check(j.get("bytes") == os.path.getsize(at("13.skd")) and j["parts_bytes"] == os.path.getsize(at("12.skd")) + os.path.getsize(at("23.skd"))
      and j["bytes"] < j["parts_bytes"] * 1.05 and {"source_root", "result_root", "seconds", "chunks"} <= set(j), "compose --json has its fields", j)
r = run("apply", PUBLISHED, at("13.skd"), "-o", at("out"))
check(r.returncode == 0 and read(at("out")) == bytes(data), "the composed delta makes the last version of the first", r.stderr)
before = read(at("13.skd"))
for what, status, args in (("out of order", 1, (PUBLISHED, at("23.skd"), at("12.skd"))), ("another base", 1, (merged, at("12.skd"), at("23.skd"))),
                           ("a file that is no delta", 1, (PUBLISHED, at("12.skd"), merged)), ("no delta at all", 2, (PUBLISHED,))):
    r = run("compose", *args, "-o", at("13.skd"))
    check(r.returncode == status and len(r.stderr.strip().splitlines()) == 1 and read(at("13.skd")) == before, f"compose: {what} is refused", r.stderr)
r = run("compose", PUBLISHED, at("12.skd"), at("23.skd"), "-o", at("12.skd"))
check(r.returncode == 2 and os.path.getsize(at("12.skd")) > 0, "compose: an input is not overwritten", r.stderr)
check(not [f for f in os.listdir(TMP) if f.endswith(".part")], "compose leaves nothing beside its output", os.listdir(TMP))
done()
