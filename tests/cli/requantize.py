"""skiff quantize --base: the old version's grid, budgets, lossy float versions: same bytes everywhere, bounds held, refusals."""
import json
import os
import shutil
import subprocess

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

import tiny_model
from tap import check, done

BUILD, TMP, SLOW = os.environ["SKF_BUILD"], os.environ["SKF_TMP"], float(os.environ.get("SKF_SLOW", "1"))
SKIFF = os.path.join(BUILD, "skiff")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = os.path.join(TMP, "requantize")
os.makedirs(FOLDER, exist_ok=True)


def at(name):
    return os.path.join(FOLDER, name)


TEXT = at("text")
with open(os.path.join(ROOT, "tests", "vectors", "ppl.txt"), "rb") as whole, open(TEXT, "wb") as part:
    part.write(whole.read(1500))


def skiff(*args, **env):
    return subprocess.run([SKIFF, *args], capture_output=True, text=True, timeout=120 * SLOW, env={**os.environ, **env})


def read(name):
    with open(at(name), "rb") as f:
        return f.read()


def said(r):
    return json.loads(r.stdout) if r.returncode == 0 else {}


def delta(old, new):
    return said(skiff("diff", at(old), at(new), "--plan", "--json"))["bytes"]


def requantize(source, out, *args, **env):
    return skiff("quantize", at(source), at(out), "--json", *args, **env)


def refused(what, r, status, *words):
    """One line, the status, nothing written."""
    check(r.returncode == status and len(r.stderr.splitlines()) == 1 and all(w in r.stderr for w in words) and not r.stdout
          and not os.path.exists(at("no")), what, r.returncode, r.stdout, r.stderr)


tiny_model.write(at("v1.bf16"), "bf16", seed=1)
tiny_model.write(at("v2.bf16"), "bf16", seed=1, change=0.01)
for v in "v1", "v2":
    for t in "q4_1", "q8_0":
        r = skiff("quantize", at(v + ".bf16"), at(f"{v}.{t}"), "--type", t)
        check(r.returncode == 0, f"{v} in {t}", r.stderr)

# ---- the old grid ----------------------------------------------------------------------------------------------------------------
for t in "q4_1", "q8_0":
    base = ["--base", at(f"v1.{t}")]
    r = requantize("v2.bf16", f"new.{t}", *base, "--jobs", "1")
    check(r.returncode == 0, f"{t}: on the old grid", r.stderr)
    check(said(r).get("delta_bytes") == delta(f"v1.{t}", f"new.{t}"), f"{t}: the bytes told are those of the delta", r.stdout)
    check(delta(f"v1.{t}", f"new.{t}") < delta(f"v1.{t}", f"v2.{t}"), f"{t}: fewer than of a plain quantization")
    old, new = ({x.name: x for x in GGUFReader(at(f"{n}.{t}")).tensors} for n in ("v1", "new"))
    moved = blocks = 0
    for name, x in new.items():
        if len(x.shape) == 2:
            size = {"Q4_1": 20, "Q8_0": 34}[x.tensor_type.name]
            a, b = (np.asarray(y.data).reshape(-1, size)[:, :2] for y in (old[name], x))
            moved += int((a != b).any(axis=1).sum())
            blocks += len(a)
    check(moved < blocks * 0.15, f"{t}: few blocks take another scale", moved, blocks)
    for env, jobs in (({"SKF_CPU": "ref"}, "1"), ({}, "3")):
        requantize("v2.bf16", "again", *base, "--type", t, "--jobs", jobs, **env)
        check(read("again") == read(f"new.{t}"), f"{t}: same bytes with {jobs} jobs {env}")

# ---- within a budget ---------------------------------------------------------------------------------------------------------------
for source, base, budget in (("v2.bf16", "v1.q4_1", "1%"), ("v2.bf16", "v1.bf16", "1%")):
    args = ["--base", at(base), "--budget", budget, "--text", TEXT]
    r = requantize(source, "least", *args, "--jobs", "1")
    j = said(r)
    if not check(r.returncode == 0 and j["excess"] <= 0.01, f"{base}: within the budget", r.stdout, r.stderr):
        continue
    finest = delta(base, "new.q4_1") if base.endswith("q4_1") else delta(base, source)
    check(j["delta_bytes"] == delta(base, "least") < finest, f"{base}: fewer bytes than without one", finest, j["delta_bytes"])
    p = said(skiff("perplexity", "-m", at("least"), "-f", TEXT, "--window", "256", "--json"))
    check(abs(p.get("perplexity", 0) - j["perplexity"]) < 1e-9, f"{base}: the perplexity told is the model's", p, j["perplexity"])
    check(len(j["curve"]) > 1 and j["curve"] == sorted(j["curve"], key=lambda c: c["bytes"])
          and any(c["bytes"] == j["delta_bytes"] for c in j["curve"]), f"{base}: the curve", j["curve"])
    for env, jobs in (({"SKF_CPU": "ref"}, "1"), ({}, "3")):
        requantize(source, "again", *args, "--jobs", jobs, **env)
        check(read("again") == read("least"), f"{base}: same bytes with {jobs} jobs {env}")
    room = j["delta_bytes"] + 200
    j = said(requantize(source, "most", "--base", at(base), "--bytes", str(room), "--text", TEXT))
    check(0 < j.get("delta_bytes", 0) <= room and j["delta_bytes"] == delta(base, "most"), f"{base}: within the bytes", j)
    r = skiff("quantize", at(source), at("most"), "--base", at(base), "--gain", "10%", "--text", TEXT)
    check(r.returncode == 0 or "bound" in r.stderr, f"{base}: a share of the gain", r.stdout, r.stderr)

# ---- lossy float versions -----------------------------------------------------------------------------------------------------------
exact = delta("v1.bf16", "v2.bf16")
for method in "sample", "uniform", "sign", "topk", "lowrank":
    r = requantize("v2.bf16", "lossy", "--base", at("v1.bf16"), "--method", method, "--jobs", "1")
    j = said(r)
    check(r.returncode == 0 and 0 < j["delta_bytes"] < exact, f"{method}: fewer bytes than exactly", r.stdout, r.stderr, exact)
    requantize("v2.bf16", "again", "--base", at("v1.bf16"), "--method", method, "--jobs", "2", SKF_CPU="ref")
    check(read("again") == read("lossy"), f"{method}: same bytes with another number of jobs")
    check(method.encode() in read("lossy")[:4096] or b"skiff.lossy.method" in read("lossy"), f"{method}: the file says that it is lossy")
check(b"skiff.lossy" not in read("new.q4_1"), "a quantized version on the old grid is not called lossy")

# ---- a base that exists only quantized: changes smaller than a step are kept by draws -------------------------------------------------
skiff("quantize", at("v1.q4_1"), at("drift"), "--type", "f32")
reader = GGUFReader(at("drift"), "r+")
shift = {}
for x in reader.tensors:
    if len(x.shape) == 2:
        shift[x.name] = np.float32(0.02 * np.abs(x.data).mean())
        x.data[...] = x.data + shift[x.name]
reader.data.flush()
del reader
for seed in "1", "2":
    requantize("drift", "drawn" + seed, "--base", at("v1.q4_1"), "--seed", seed)
requantize("drift", "again", "--base", at("v1.q4_1"), "--seed", "1", "--jobs", "3", SKF_CPU="ref")
check(read("again") == read("drawn1") != read("drawn2"), "the same seed draws the same, another another")
old, new = ({x.name: dequantize(x.data, x.tensor_type) for x in GGUFReader(at(n)).tensors if len(x.shape) == 2} for n in ("v1.q4_1", "drawn1"))
kept = [float((new[n] - old[n]).mean() / shift[n]) for n in shift]
check(0.7 < float(np.mean(kept)) < 1.3, "draws keep the sum of the changes", kept)

# ---- refusals ------------------------------------------------------------------------------------------------------------------------
q4 = ["--base", at("v1.q4_1")]
refused("a bound without a text", requantize("v2.bf16", "no", *q4, "--budget", "1%"), 1, "--budget", "--text")
refused("bytes without a text", requantize("v2.bf16", "no", *q4, "--bytes", "10K"), 1, "--bytes", "--text")
refused("too few bytes", requantize("v2.bf16", "no", *q4, "--bytes", "100", "--text", TEXT), 1, "not written", "at least")
refused("a method that is worse than the bound", requantize("v2.bf16", "no", "--base", at("v1.bf16"), "--method", "sign", "--budget", "0%", "--text", TEXT),
        1, "not written", "at best", "is the bound")
refused("another type than the base's", requantize("v2.bf16", "no", *q4, "--type", "q8_0"), 1, "v1.q4_1", "--type")
refused("a method of floats for a grid", requantize("v2.bf16", "no", *q4, "--method", "topk"), 1, "--method")
refused("an unknown method", requantize("v2.bf16", "no", "--base", at("v1.bf16"), "--method", "magic"), 1, "--method")
refused("a float version without a bound", requantize("v2.bf16", "no", "--base", at("v1.bf16")), 1, "bound")
for what, raw in (("no number", b"\xc0\x7f"), ("an infinite value", b"\x80\xff")):  # bfloats
    for name in ("v1", "v2"):
        r = GGUFReader(at(name + ".bf16"))
        t = next(x for x in r.tensors if x.name == "blk.1.ffn_up.weight")
        spot = t.data_offset + 2 * int(t.shape[0]) * 3 + 2 * 5
        broken = bytearray(read(name + ".bf16"))
        broken[spot:spot + 2] = raw
        with open(at("broken"), "wb") as f:
            f.write(broken)
        old, new = ("broken", "v2.bf16") if name == "v1" else ("v1.bf16", "broken")
        for method in ("sign", "topk", "lowrank") if name == "v1" else ("sample", "uniform", "sign", "topk", "lowrank"):
            refused(f"{what} in the {'old' if name == 'v1' else 'new'} version: {method}", requantize(new, "no", "--base", at(old), "--method", method), 1,
                    "broken: ", "blk.1.ffn_up.weight", what, "row 3, column 5")
os.remove(at("broken"))
with open(at("short"), "w") as f:
    f.write("few")
refused("a text that is too short", requantize("v2.bf16", "no", *q4, "--budget", "1%", "--text", at("short")), 1, "tokens")
refused("a text that is not there", requantize("v2.bf16", "no", *q4, "--budget", "1%", "--text", at("none")), 1, "none")
tiny_model.write(at("other"), "q4_1", seed=1, embd=32, layers=1, ff=64)
refused("another model", requantize("v2.bf16", "no", "--base", at("other")), 1, "same model")
tiny_model.write(at("kept"), "q4_1", seed=1)
before = read("kept")
r = requantize("v2.bf16", "kept", "--base", at("kept"))
check(r.returncode == 2 and read("kept") == before, "the base is not overwritten", r.stderr)
left = [n for n in os.listdir(FOLDER) if ".part" in n or n.count(".") > 1]
check(not left, "nothing is left beside", left)
shutil.rmtree(FOLDER)
done()
