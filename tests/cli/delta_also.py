"""`skiff diff --also` and `skiff apply --also`: tensors and chunks that another version has, or is nearer to, are taken from it."""
import hashlib
import json
import os
import random
import subprocess
import sys

import numpy as np
from gguf import GGMLQuantizationType as QT, GGUFWriter
from gguf.quants import quantize
from tap import check, done

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "python"))
from skiff import skd  # noqa: E402

BUILD, TMP = os.environ["SKF_BUILD"], os.environ["SKF_TMP"]
SKIFF, SLOW = os.path.join(BUILD, "skiff"), float(os.environ.get("SKF_SLOW", "1"))
rng = np.random.RandomState(8)


def at(*names):
    return os.path.join(TMP, *names)


def skiff(*args, env=None):
    return subprocess.run([SKIFF, *args], capture_output=True, text=True, timeout=60 * SLOW, env=dict(os.environ, **(env or {})))


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)
    return path


def model(name, tensors):
    w = GGUFWriter(at(name), "llama")
    for key, (kind, x) in tensors.items():
        w.add_tensor(key, quantize(x.astype(np.float32), kind) if kind != QT.F32 else x.astype(np.float32), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return at(name)


def near(x):
    return x * (1 + 0.004 * rng.randn(*x.shape))


def merged(name, old, other, new, expect, *args):
    """A delta by both, which both decoders undo; its bytes, and those of the one without OTHER."""
    plain = skiff("diff", old, new, "-o", at("plain.skd"), "--json")
    r = skiff("diff", old, new, "--also", other, "-o", at("d.skd"), "--json", *args)
    s = skiff("apply", old, at("d.skd"), "--also", other, "-o", at("made"), "--json")
    mine = None
    try:
        alone = os.path.isdir(old) or os.path.isdir(other) or skd.apply(read(old), read(at("d.skd")), read(other)) == read(new)
        mine = True if alone else "not the result"
    except Exception as e:
        mine = repr(e)
    sizes = [json.loads(x.stdout)["bytes"] if x.returncode == 0 else -1 for x in (r, plain)]
    good = s.returncode == 0 and read(at("made")) == read(new)
    check(good and mine is True and expect(*sizes), name, sizes, mine, r.stderr, s.stderr)
    return json.loads(r.stdout) if r.returncode == 0 else {}


# The new version: two tensors like the old one's, two like the other's, one that is the other's to the byte, one that only the other has, and one that moved there.
base = {k: rng.randn(64, 512) for k in "abcdefg"}
away = {k: rng.randn(64, 512) for k in "abcdefg"}
kinds = dict(zip("abcdefg", (QT.F32, QT.Q8_0, QT.F16, QT.Q4_1, QT.BF16, QT.Q8_0, QT.Q4_0)))
old = model("old", {k: (kinds[k], base[k]) for k in "abcdeg"})
other = model("other", {k: (kinds[k], away[k]) for k in "gabcdef"})
new = model("new", {"a": (kinds["a"], near(base["a"])), "b": (kinds["b"], near(base["b"])), "c": (kinds["c"], near(away["c"])), "d": (kinds["d"], near(away["d"])),
                    "e": (kinds["e"], away["e"]), "f": (kinds["f"], near(away["f"])), "h": (kinds["g"], away["g"])})
told = merged("of two versions", old, other, new, lambda both, plain: both < 0.65 * plain)
check(len(told.get("also_root", "")) == 64, "which the delta names", told)
delta = read(at("d.skd"))
for isa in ("ref", "avx2"):
    r = skiff("diff", old, new, "--also", other, "-o", at("e.skd"), "--jobs", "1", env={"SKF_CPU": isa})
    check(r.returncode == 1 or read(at("e.skd")) == delta, f"the same bytes by {isa}", r.stderr)
merged("the new version is the other one", old, other, other, lambda both, plain: both < 2048)
merged("the source has it all", new, old, new, lambda both, plain: both == plain)
check("also_root" not in merged("the other is the source again", old, old, new, lambda both, plain: both == plain), "and is not named")
told = merged("the other is of no use", old, write(at("noise"), random.Random(3).randbytes(5000)), new, lambda both, plain: both == plain)
r = skiff("apply", old, at("d.skd"), "-o", at("made"))
check("also_root" not in told and r.returncode == 0, "then the delta is one of one version", told, r.stderr)
words = [bytes(random.Random(i).choices(b"abcdefgh ", k=6)) for i in range(500)]
text = b" ".join(random.Random(1).choices(words, k=60_000))
write(at("t.old"), text[:150_000])
write(at("t.other"), text[140_000:300_000])
write(at("t.new"), text[100_000:150_000] + b"between" + text[200_000:290_000])
merged("any bytes, of both and over their border", at("t.old"), at("t.other"), at("t.new"), lambda both, plain: both < 3000)
os.mkdir(at("folder"))
write(at("folder", "x.txt"), text[140_000:300_000])
merged("of a folder", at("t.old"), at("folder"), at("t.new"), lambda both, plain: both < 3000)

write(at("d.skd"), delta)
shown = json.loads(skiff("show", at("d.skd"), "--json").stdout or "{}")
check(shown.get("also_root") and shown.get("also_size") == os.path.getsize(other), "it is shown", shown)
full = open(other, "rb").read()
wrong = write(at("wrong"), full[:-5] + bytes([full[-5] ^ 1]) + full[-4:])
short = write(at("short"), full[:-1])
before = sorted([*os.listdir(TMP), "f.skd"])
for what, args, status, words in (
        ("none is named", ("apply", old, at("d.skd"), "-o", at("no")), 1, "takes from another version too, "),
        ("another one", ("apply", old, at("d.skd"), "--also", wrong, "-o", at("no")), 1, f"too, {wrong} is "),
        ("one of another size", ("apply", old, at("d.skd"), "--also", short, "-o", at("no")), 1, f"{short} has {len(full) - 1} bytes"),
        ("another source", ("apply", other, at("d.skd"), "--also", other, "-o", at("no")), 1, "the delta is for another base"),
        ("none that is there", ("apply", old, at("d.skd"), "--also", at("none"), "-o", at("no")), 1, "none: "),
        ("in place", ("apply", old, at("d.skd"), "--in-place"), 1, "is not applied in place"),
        ("in place with it", ("apply", old, at("d.skd"), "--in-place", "--also", other), 2, "--in-place takes deltas of one version"),
        ("over it", ("apply", old, at("d.skd"), "--also", other, "-o", other), 2, "would overwrite"),
        ("a delta over it", ("diff", old, new, "--also", other, "-o", other), 2, "would overwrite"),
        ("in its folder", ("diff", old, new, "--also", at("folder"), "-o", at("folder", "d.skd")), 2, "stands in the folder"),
        ("with an adapter", ("diff", old, new, "--also", other, "--adapter", other, "-o", at("no")), 2, "two ways"),
        ("a plan", ("diff", old, new, "--also", other, "--plan"), 2, "--plan tells of one version"),
        ("a chain", ("compose", old, at("d.skd"), at("d.skd"), "-o", at("no")), 1, "is no link of a chain")):
    r = skiff(*args)
    check(r.returncode == status and words in r.stderr and len(r.stderr.splitlines()) == 1 and read(other) == full and sorted([*os.listdir(TMP), "f.skd"]) == before, what, r.stderr)

index, bad = shown["index_size"], []
dice = random.Random(5)
for case in [delta[:24] + n.to_bytes(8, "little") + delta[32:] for n in (0, 1, len(full) - 1, 2**63, 2**64 - 1)] + \
        [delta[:p] + bytes([delta[p] ^ 1 << dice.randrange(8)]) + delta[p + 1:] for p in [24, 27, 31, *(dice.randrange(128, 180) for _ in range(6)), *(dice.randrange(index) for _ in range(6))]]:
    sealed = case[:96] + hashlib.sha256(case[:96] + case[128:index]).digest() + case[128:]  # a digest that is right: what is in the index is not
    write(at("f.skd"), sealed)
    r = skiff("apply", old, at("f.skd"), "--also", other, "-o", at("no"))
    try:
        mine = skd.apply(read(old), sealed, full) == read(new)
    except Exception:
        mine = False
    if r.returncode not in (0, 1) or (r.returncode == 0 and read(at("no")) != read(new)) or len(r.stderr.splitlines()) != (r.returncode == 1):
        bad.append(f"{r.returncode} {r.stderr[:200]}")
    if os.path.exists(at("no")):
        os.remove(at("no"))
check(not bad and sorted(os.listdir(TMP)) == before, "broken deltas make nothing", *bad)
done()
