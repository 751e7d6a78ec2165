"""skiff merge: bit for bit what the rule says, the same from any number of threads, refusals, and the gain on the real model."""
import hashlib
import json
import os
import subprocess

import numpy as np
from gguf import GGMLQuantizationType as QT, GGUFReader, GGUFWriter
from gguf.quants import dequantize

import tiny_model
from tap import check, done, note

BUILD, MODELS, TMP, SLOW = os.environ["SKF_BUILD"], os.environ["SKF_MODELS"], os.environ["SKF_TMP"], float(os.environ.get("SKF_SLOW", "1"))
SKIFF = os.path.join(BUILD, "skiff")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PUBLISHED = os.path.join(MODELS, "published.gguf")
ADAPTER = os.path.join(ROOT, "examples", "smollm2-135m-python-lora.gguf")
HELDOUT = os.path.join(ROOT, "tests", "vectors", "python-heldout.txt")
# The merge of the published file and the example's adapter: whatever the machine, these bytes.
MERGED = "24a1ff0716728d13d8d344859817b37995099dbecc2d60c54af2e7e44fcf877f"


def at(name):
    return os.path.join(TMP, name)


def run(*args, seconds=120):
    return subprocess.run([SKIFF, *args], capture_output=True, text=True, timeout=seconds * SLOW)


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


# ---- the rule, written down a second time -----------------------------------------------------------------------------------
def change(a, b, alpha):
    """alpha / rank * b @ a, summed in the order of the ranks in float32."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    s = np.zeros((b.shape[0], a.shape[1]), np.float32)
    for k in range(a.shape[0]):
        s += b[:, k:k + 1] * a[k]
    return np.float32(np.float32(alpha) / np.float32(a.shape[0])) * s


def grid(kind, data):
    """Scale, minimum, lowest and highest code of every element's block."""
    size, low, high, zero = {"q8_0": (34, -128, 127, 0), "q4_0": (18, 0, 15, 8), "q4_1": (20, 0, 15, 0)}[kind]
    blocks = data.reshape(data.shape[0], -1, size)
    d = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0].astype(np.float32)
    m = np.ascontiguousarray(blocks[..., 2:4]).view(np.float16)[..., 0].astype(np.float32) if kind == "q4_1" else np.zeros_like(d)
    return np.repeat(d, 32, 1), np.repeat(m, 32, 1), low, high, zero


def carried(x, d, m, low, high, zero):
    """Nearest codes, the error of each carried on to the next of its row, at most a step."""
    out, carry = np.empty_like(x), np.zeros(x.shape[0], np.float32)
    for j in range(x.shape[1]):
        want = x[:, j] + carry
        c = (want - m[:, j]) / d[:, j] + np.float32(zero - low) + np.float32(0.5)
        code = low + np.clip(np.trunc(c), 0, high - low)
        out[:, j] = d[:, j] * (code - zero).astype(np.float32) + m[:, j]
        step = np.abs(d[:, j])
        carry = np.clip(want - out[:, j], -step, step)
    return out


def expected(kind, tensor, delta):
    x = dequantize(tensor.data, tensor.tensor_type).astype(np.float32) + delta
    if kind == "bf16":
        u = x.view(np.uint32)
        return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16 << 16).view(np.float32)
    if kind in ("f32", "f16"):
        return x.astype(np.float32 if kind == "f32" else np.float16).astype(np.float32)
    return carried(x, *grid(kind, tensor.data))


lora, alpha = tiny_model.write_lora(at("lora.gguf"), alpha=8.0), 8.0
factors = tiny_model.lora_factors()
for kind in ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"):
    base = tiny_model.write(at(f"base.{kind}.gguf"), kind, alignment=64)
    out = at(f"out.{kind}.gguf")
    r = run("merge", base, lora, "-o", out, "--json", "--jobs", "3")
    if not check(r.returncode == 0, f"{kind}: merges", r.stderr):
        continue
    said = json.loads(r.stdout)
    check(said["tensors_merged"] == 4 and said["bytes"] == os.path.getsize(base) == os.path.getsize(out), f"{kind}: says what it did", r.stdout)
    old, new = GGUFReader(base), GGUFReader(out)
    with open(base, "rb") as f, open(out, "rb") as g:
        check(f.read(old.data_offset) == g.read(old.data_offset), f"{kind}: head and metadata are the base's")
    same = changed = True
    for t, u in zip(old.tensors, new.tensors):
        if t.name not in factors:
            same = same and np.array_equal(t.data, u.data)
        else:
            want = expected(kind, t, change(*factors[t.name], alpha))
            changed = changed and np.array_equal(want, dequantize(u.data, u.tensor_type)) and not np.array_equal(t.data, u.data)
    check(same, f"{kind}: other tensors are untouched")
    check(changed, f"{kind}: every element is what the rule says")
    run("merge", base, lora, "-o", at("one.gguf"), "--jobs", "1")
    check(sha256(at("one.gguf")) == sha256(out), f"{kind}: one thread gives the same bytes")

# ---- an adapter of the embedding, whose factors stand the other way round ------------------------------------------------------
w = GGUFWriter(at("embd.gguf"), "llama")
w.add_string("general.type", "adapter")
w.add_string("adapter.type", "lora")
rng = np.random.RandomState(4)
rows, columns = tiny_model.shapes()["token_embd.weight"]
a, b = rng.standard_normal((rows, 3)).astype(np.float32), rng.standard_normal((columns, 3)).astype(np.float32)
w.add_tensor("token_embd.weight.lora_a", a)
w.add_tensor("token_embd.weight.lora_b", b)
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
r = run("merge", at("base.f32.gguf"), at("embd.gguf"), "-o", at("embd.out.gguf"))
got = {t.name: t.data for t in GGUFReader(at("embd.out.gguf")).tensors} if r.returncode == 0 else {}
base = {t.name: t.data for t in GGUFReader(at("base.f32.gguf")).tensors}["token_embd.weight"]
s = np.zeros((rows, columns), np.float32)
for k in range(3):
    s += a[:, k:k + 1] * b[:, k]
check(got and np.array_equal(got["token_embd.weight"], base + s), "an adapter of the embedding, without alpha", r.stderr)

# ---- refusals ------------------------------------------------------------------------------------------------------------------
def refused(what, words, *args):
    r = run("merge", *args, "-o", at("never.gguf"))
    left = [f for f in os.listdir(TMP) if f.startswith("never.gguf")]
    good = r.returncode == 1 and len(r.stderr.splitlines()) == 1 and all(x in r.stderr for x in words) and not left and not r.stdout
    check(good, what, f"exit {r.returncode}", r.stderr, f"left: {left}")


q4 = at("base.q4_1.gguf")
refused("a model as adapter", ["base.q8_0.gguf", "not an adapter"], q4, at("base.q8_0.gguf"))
refused("an adapter as base", ["lora.gguf", "adapter itself"], lora, lora)
refused("an adapter of another architecture", ["gemma.gguf", "architecture"], q4, tiny_model.write_lora(at("gemma.gguf"), arch="gemma"))
refused("an adapter for more layers", ["deep.gguf", "blk.2."], q4, tiny_model.write_lora(at("deep.gguf"), layers=3))
refused("an adapter for a wider model", ["wide.gguf", "shape"], q4, tiny_model.write_lora(at("wide.gguf"), embd=128))
refused("infinite factors", ["inf.gguf", "not finite"], q4, tiny_model.write_lora(at("inf.gguf"), size=1e9))
refused("no such adapter", ["none.gguf", "No such file"], q4, at("none.gguf"))
with open(lora, "rb") as f, open(at("cut.gguf"), "wb") as g:
    g.write(f.read()[:-100])
refused("a truncated adapter", ["cut.gguf", "truncated"], q4, at("cut.gguf"))
w = GGUFWriter(at("lone.gguf"), "llama")
w.add_string("general.type", "adapter")
w.add_string("adapter.type", "lora")
w.add_tensor("blk.0.attn_q.weight.lora_a", np.zeros((4, 64), np.float32))
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
refused("a factor alone", ["lone.gguf", "counterpart"], q4, at("lone.gguf"))
check(run("merge", q4, lora).returncode == 2, "without -o it is wrong usage")
before = sha256(q4)
for what, out in (("the base", q4), ("the adapter", lora)):
    r = run("merge", q4, lora, "-o", out)
    check(r.returncode == 2 and "one of the sources" in r.stderr and sha256(q4) == before, f"{what} as output", r.stderr)
check(run("merge", q4, lora, "-o", at("never.gguf"), "--calibrate", HELDOUT, "--bytes", "0").returncode == 2, "a bound of no bytes is wrong usage")

# ---- the real one --------------------------------------------------------------------------------------------------------------
merged = at("merged.gguf")
r = run("merge", PUBLISHED, ADAPTER, "-o", merged, "--json")
check(r.returncode == 0 and sha256(merged) == MERGED, "the example's merge has the bytes it must have", r.stderr, sha256(merged) if r.returncode == 0 else "")
r = run("perplexity", "-m", merged, "-f", HELDOUT, "--window", "512", "--json", seconds=600)
try:
    kept = (11.437 - json.loads(r.stdout)["perplexity"]) / (11.437 - 9.956)
    note(f"{kept:.1%} of the adapter's gain kept")
except (ValueError, KeyError):
    kept = 0
check(kept >= 0.75, "at least 75 % of the adapter's gain is kept", r.stderr, r.stdout)
done()
