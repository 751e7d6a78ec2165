"""skiff merge and quantize --base with --calibrate: bounds of bytes are kept, what matters on the text survives, the same bytes from
any number of threads and instruction set, refusals leave nothing behind."""
import json
import os
import re
import subprocess

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

import tiny_model
from tap import check, done

BUILD, TMP, SLOW = os.environ["SKF_BUILD"], os.environ["SKF_TMP"], float(os.environ.get("SKF_SLOW", "1"))
SKIFF = os.path.join(BUILD, "skiff")


def at(name):
    return os.path.join(TMP, name)


def run(*args, env=None, seconds=120):
    return subprocess.run([SKIFF, *args], capture_output=True, text=True, timeout=seconds * SLOW, env={**os.environ, **(env or {})})


def read(path):
    with open(path, "rb") as f:
        return f.read()


def left():
    """What no run may leave behind."""
    return [f for f in os.listdir(TMP) if re.search(r"\.(part|gguf\.\w{6})$", f)]


TEXT = at("text.txt")
with open(TEXT, "w") as f:
    f.write("".join(f"the {w} in the low world is {w}er than the other, and {k} of them went\n" for k, w in
                    enumerate("slow warm long thin cold dark small loud soft wet".split() * 5)))


def pair(kind, **lora):
    base, adapter = tiny_model.write(at(f"{kind}.gguf"), kind, seed=4), tiny_model.write_lora(at(f"{kind}.lora.gguf"), size=0.02, **lora)
    return base, adapter


def tensors(path):
    return {t.name: dequantize(t.data, t.tensor_type) for t in GGUFReader(path).tensors}


def differing(a, b):
    return {n for n, x in tensors(a).items() if not np.array_equal(x, tensors(b)[n])}


# ---- every type, and what a text is worth ------------------------------------------------------------------------------------
for kind in ("q8_0", "q4_0", "q4_1"):
    base, adapter = pair(kind)
    p = run("merge", base, adapter, "-o", at("out.gguf"), "--calibrate", TEXT, "--json")
    if not check(p.returncode == 0, f"{kind}: merged by calibration", p.stderr):
        continue
    o = json.loads(p.stdout)
    check(differing(base, at("out.gguf")) <= {f"blk.{i}.attn_{k}.weight" for i in (0, 1) for k in "qv"} and o["tensors_changed"] == 4,
          f"{kind}: what the adapter does not name stays")
    check(0 < o["error"] < 0.5, f"{kind}: most of the change's effect on the text is there", o["error"])
    d = run("diff", base, at("out.gguf"), "-o", at("out.skd"), "--json")
    check(json.loads(d.stdout)["bytes"] == o["delta_bytes"] == os.path.getsize(at("out.skd")), f"{kind}: the delta is as large as was said")
    check(o["codes_changed"] + o["scales_changed"] > 0 and o["calibration_tokens"] % 256 == 0, f"{kind}: changes and tokens are told")

# ---- bounds -------------------------------------------------------------------------------------------------------------------
base, adapter = pair("q4_1", which=("attn_q", "attn_v", "ffn_down"))
full = json.loads(run("merge", base, adapter, "-o", at("full.gguf"), "--calibrate", TEXT, "--json").stdout)
bound = full["delta_bytes"] * 2 // 3
p = run("merge", base, adapter, "-o", at("bound.gguf"), "--calibrate", TEXT, "--bytes", str(bound), "--json")
o = json.loads(p.stdout)
check(o["delta_bytes"] <= bound and o["error"] > full["error"], "fewer bytes, more error", o, full)
check(o["codes_changed"] + o["scales_changed"] < full["codes_changed"] + full["scales_changed"], "fewer changes")
check(all(q["delta_bytes"] > bound or q["error"] >= o["error"] - 1e-12 for q in o["curve"]), "the best that was tried within the bound")
plain = run("merge", base, adapter, "-o", at("bound.gguf"), "--calibrate", TEXT, "--bytes", str(bound))
check(plain.returncode == 0 and re.fullmatch(r".*: an update of [\d.]+ kB, \d+ codes and \d+ scales in \d+ tensors\n", plain.stdout, re.I),
      "told in words", plain.stdout)

# ---- the same on every machine --------------------------------------------------------------------------------------------------
want = read(at("bound.gguf"))
for name, args, env in (("one thread", ["--jobs", "1"], {}), ("two threads", ["--jobs", "2"], {}), ("five threads", ["--jobs", "5"], {}),
                        ("plain C", [], {"SKF_CPU": "ref"})):
    p = run("merge", base, adapter, "-o", at("again.gguf"), "--calibrate", TEXT, "--bytes", str(bound), *args, env=env)
    check(p.returncode == 0 and read(at("again.gguf")) == want, f"the same bytes by {name}", p.stderr)

# ---- a new version on the old one's grid --------------------------------------------------------------------------------------------
new = tiny_model.write(at("new.gguf"), "f16", seed=4, change=0.02)
p = run("quantize", new, at("q.gguf"), "--base", base, "--calibrate", TEXT, "--json")
if check(p.returncode == 0, "quantize --base --calibrate", p.stderr):
    o = json.loads(p.stdout)
    types = {t.name: t.tensor_type for t in GGUFReader(base).tensors}
    check(types == {t.name: t.tensor_type for t in GGUFReader(at("q.gguf")).tensors}, "types are the base's")
    check(o["error"] < 0.6, "and it is much nearer to the new weights", o["error"])
    half = o["delta_bytes"] // 2
    p = run("quantize", new, at("q.gguf"), "--base", base, "--calibrate", TEXT, "--bytes", str(half), "--json")
    check(p.returncode == 0 and json.loads(p.stdout)["delta_bytes"] <= half, "in half the bytes too", p.stderr)

# ---- refusals ---------------------------------------------------------------------------------------------------------------------------
short = at("short.txt")
with open(short, "w") as f:
    f.write("too short")
wide = tiny_model.write(at("wide.gguf"), "f16", seed=4, ff=160)
os.path.exists(at("no.gguf")) and os.remove(at("no.gguf"))
for what, args, status, line in (
        ("--bytes without a text", ["merge", base, adapter, "--bytes", "9K"], 2, "--bytes goes with --calibrate TEXT"),
        ("a gain that is no share", ["merge", base, adapter, "--calibrate", TEXT, "--gain", "much"], 2, "--gain: not a share"),
        ("no text", ["merge", base, adapter, "--calibrate", at("none.txt")], 1, "none.txt"),
        ("a text that fills no window", ["merge", base, adapter, "--calibrate", short], 1, "short.txt: 7 tokens, and a window takes 256"),
        ("too few bytes", ["merge", base, adapter, "--calibrate", TEXT, "--bytes", "400"], 1, "allow more with --bytes"),
        ("another shape", ["quantize", wide, "--base", base, "--calibrate", TEXT], 1, "has another shape"),
        ("new weights that are no better", ["quantize", new, "--base", base, "--calibrate", TEXT, "--gain", "90%", "--text", TEXT], 1,
         "no better than the old ones")):
    args = [args[0], args[1], at("no.gguf"), *args[2:]] if args[0] == "quantize" else [*args, "-o", at("no.gguf")]
    p = run(*args)
    check(p.returncode == status and line in p.stderr and p.stderr.count("\n") == 1 and not p.stdout, f"refused: {what}", p.stdout, p.stderr)
    check(not os.path.exists(at("no.gguf")), f"nothing is written: {what}")
check(not left(), "nothing is left beside the outputs", left())

# ---- a gain that is there: the base is the worse of two for the text ----------------------------------------------------------------------
def perplexity(path):
    return json.loads(run("perplexity", "-m", path, "-f", TEXT, "--window", "256", "--json").stdout)["perplexity"]


one = tiny_model.write(at("one.f16.gguf"), "f16", seed=4)
other = tiny_model.write(at("other.f16.gguf"), "f16", seed=4, change=0.2)
better, worse = sorted((one, other), key=perplexity)
run("quantize", worse, at("worse.gguf"), "--type", "q8_0")
p = run("quantize", better, at("gain.gguf"), "--base", at("worse.gguf"), "--calibrate", TEXT, "--gain", "80%", "--json")
if check(p.returncode == 0, "--gain finds an update", p.stderr):
    o = json.loads(p.stdout)
    check(o["gain"] >= 0.8 and abs(o["gain"] - (o["base_perplexity"] - o["perplexity"]) / (o["base_perplexity"] - o["target_perplexity"])) < 1e-9,
          "of so much of the gain", o["gain"])
    check(all(q["delta_bytes"] >= o["delta_bytes"] for q in o["curve"] if q.get("gain", 0) >= 0.8), "and the smallest that was tried")
    check(abs(perplexity(at("gain.gguf")) - o["perplexity"]) < 1e-9, "whose perplexity is what was said")
done()
