"""`skiff diff` and `skiff apply` on files of every kind, and on a real model: exact, small, and whole or not at all."""
import json
import os
import random
import subprocess

import numpy as np
import tiny_model
from gguf import GGUFReader
from tap import check, done

BUILD, TMP, MODELS = os.environ["SKF_BUILD"], os.environ["SKF_TMP"], os.environ["SKF_MODELS"]
SKIFF = os.path.join(BUILD, "skiff")
SLOW = float(os.environ.get("SKF_SLOW", "1"))
rng = random.Random(7)


def at(*parts):
    return os.path.join(TMP, *parts)


def run(*args, timeout=120):
    return subprocess.run([SKIFF, *args], capture_output=True, text=True, timeout=timeout * SLOW)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(name, data):
    with open(at(name), "wb") as f:
        f.write(data)
    return at(name)


def left(name):
    return [f for f in os.listdir(TMP) if f.startswith(name)]


def round_trip(what, old, new, at_most=None):
    """Diff and apply; the result must be the file, and the delta at most so large. Returns the JSON of the diff."""
    d, n = at("rt.skd"), at("rt.out")
    for f in (d, n):
        if os.path.exists(f):
            os.remove(f)
    r = run("diff", old, new, "-o", d, "--json")
    s = run("apply", old, d, "-o", n, "--json")
    good = r.returncode == 0 and s.returncode == 0 and read(n) == read(new)
    size = os.path.getsize(d) if os.path.exists(d) else -1
    check(good and (at_most is None or size <= at_most), what, f"delta of {size} bytes, at most {at_most}", r.stderr, s.stderr)
    return json.loads(r.stdout) if good else {}


# ---- every format and type, both ways, and across
for kind in tiny_model.TYPES:
    tiny_model.write(at(f"1.{kind}"), type=kind, seed=1)
    tiny_model.write(at(f"2.{kind}"), type=kind, seed=1, change=0.02)
    full = os.path.getsize(at(f"2.{kind}"))
    round_trip(f"{kind}: one version to the next", at(f"1.{kind}"), at(f"2.{kind}"), full)
    round_trip(f"{kind}: and back", at(f"2.{kind}"), at(f"1.{kind}"), full)
round_trip("bf16 to q4_1", at("1.bf16"), at("2.q4_1"))
round_trip("q4_1 to f32", at("1.q4_1"), at("2.f32"))
weights = {f"w{i}": ("F32", (64, 50 + i), np.random.RandomState(i).randn(64, 50 + i).astype("<f4").tobytes()) for i in range(4)}
tiny_model.write_safetensors(at("1.safetensors"), weights)
grown = dict(reversed(weights.items()), w9=("F32", (3,), b"abcdefghijkl"))
tiny_model.write_safetensors(at("2.safetensors"), grown)
round_trip("safetensors, reordered and grown", at("1.safetensors"), at("2.safetensors"), 4096)
round_trip("safetensors to gguf", at("1.safetensors"), at("1.q8_0"))

# ---- any bytes
noise = rng.randbytes(1_500_000)
files = {"empty": b"", "byte": b"x", "noise": noise, "shifted": b"0123456789" + noise, "other": rng.randbytes(1_500_000), "text": b"".join(b"line %d of many\n" % (i * i) for i in range(60_000))}
for name, data in files.items():
    write(name, data)
    round_trip(f"{name} against itself", at(name), at(name), 4096)
    round_trip(f"nothing to {name}", at("empty"), at(name), len(data) + 4096)
    round_trip(f"{name} to nothing", at(name), at("empty"), 4096)
round_trip("ten bytes in front of noise", at("noise"), at("shifted"), 8192)
round_trip("and away again", at("shifted"), at("noise"), 8192)
round_trip("noise to other noise", at("noise"), at("other"), 1_504_096)
round_trip("two models that have nothing in common", at("1.q8_0"), at("text"))

# ---- what scripts read
j = round_trip("a pair for the fields", at("1.bf16"), at("2.bf16"))
size = os.path.getsize(at("rt.skd"))
check(j.get("bytes") == size and all(len(bytes.fromhex(j[k])) == 32 for k in ("source_root", "result_root")) and j["seconds"] >= 0
      and j["chunks"] > 10 and set(j["coding"]) >= {"copy", "raw", "zstd", "patch", "int", "mixed"} and 0 < sum(j["coding"].values()) < size,
      "diff --json has its fields", j)
r = run("apply", at("1.bf16"), at("rt.skd"), "-o", at("rt.out"), "--json")
k = json.loads(r.stdout)
check(k["bytes"] == os.path.getsize(at("2.bf16")) and k["result_root"] == j["result_root"] and k["seconds"] >= 0, "apply --json has its fields", k)
deltas = []
for jobs in ("1", "2", "7"):
    run("diff", at("1.bf16"), at("2.bf16"), "-o", at("jobs.skd"), "--jobs", jobs)
    deltas.append(read(at("jobs.skd")))
check(deltas[0] == deltas[1] == deltas[2] == read(at("rt.skd")), "the same bytes from 1, 2 and 7 threads")
r = run("diff", at("1.bf16"), at("2.bf16"), "--plan", "--explain")
check(r.returncode == 0 and "blk.0.attn_q.weight" in r.stdout and "index" in r.stdout and "\nint " in r.stdout, "--plan and --explain tell without writing", r.stdout, r.stderr)
r = run("diff", at("1.bf16"), at("2.bf16"), "--plan", "--explain", "--sort", "sent", "--json")
k = json.loads(r.stdout) if r.returncode == 0 else {"ways": [], "tensors": []}
ways = {w["way"]: w for w in k["ways"]}
check(set(ways) == {"full", "zstd", "zstd_patch", "skiff"} and ways["skiff"]["bytes"] == k["bytes"] == size and k["chosen"] == "skiff" and k["why"]
      and ways["full"]["bytes"] == os.path.getsize(at("2.bf16")) and all(w["bytes"] > 0 and w["apply_seconds"] >= 0 and w["memory_bytes"] > 0 for w in ways.values())
      and ways["skiff"]["bytes"] < min(w["bytes"] for n, w in ways.items() if n != "skiff"), "--plan --json: each way's bytes, time and memory", k["ways"], r.stderr)
sent = [t["sent"] + t["side"] for t in k["tensors"]]
check(sum(t["sent"] for t in k["tensors"]) == sum(k["coding"].values()) and sent == sorted(sent, reverse=True) and 90 < sum(t["share_percent"] for t in k["tensors"]) < 100
      and sum(t["bytes"] for t in k["tensors"]) == os.path.getsize(at("2.bf16")), "--explain --json: a row a tensor, sorted, and nothing left out", k["tensors"][:3])
r = run("diff", at("1.bf16"), at("1.bf16"), "--plan", "--json")
check(r.returncode == 0 and [w["way"] for w in json.loads(r.stdout)["ways"]] == ["full", "skiff"], "--plan of a version and itself", r.stdout, r.stderr)
r = run("diff", at("1.bf16"), at("2.bf16"), "--plan", "--sort", "sent")
check(r.returncode == 2 and "--explain" in r.stderr, "--sort without --explain is wrong usage", r.stderr)
r = run("diff", at("1.bf16"), at("2.bf16"), "--plan", "-o", at("planned.skd"))
check(r.returncode == 0 and not left("planned"), "--plan writes nothing", r.stdout, r.stderr)

# ---- inputs are not overwritten
before = read(at("1.bf16"))
os.link(at("1.bf16"), at("link"))
for what, args in (("diff over OLD", ("diff", at("1.bf16"), at("2.bf16"), "-o", at("1.bf16"))),
                   ("diff over NEW by another name", ("diff", at("2.bf16"), at("1.bf16"), "-o", at("link"))),
                   ("apply over OLD", ("apply", at("1.bf16"), at("rt.skd"), "-o", at("link"))),
                   ("apply over the delta", ("apply", at("1.bf16"), at("rt.skd"), "-o", at("rt.skd")))):
    r = run(*args)
    check(r.returncode == 2 and len(r.stderr.strip().splitlines()) == 1 and read(at("1.bf16")) == before and read(at("rt.skd")) == deltas[0],
          what + " is refused", r.stderr)

# ---- the real model, and a second version with few codes changed in every tensor
old, new = os.path.join(MODELS, "published.gguf"), at("next.gguf")
data, random_ = np.fromfile(old, np.uint8), np.random.RandomState(3)
for t in GGUFReader(old).tensors:
    block, codes = {"Q4_1": (20, 4), "Q8_0": (34, 2)}.get(t.tensor_type.name, (0, 0))
    if block:
        blocks = data[t.data_offset:t.data_offset + t.n_bytes].reshape(-1, block)
        rows = random_.randint(0, len(blocks), len(blocks) // 20)
        blocks[rows, random_.randint(codes, block, len(rows))] ^= 1
data.tofile(new)
full = os.path.getsize(new)
round_trip(f"a real model of {full} bytes, 5 % of its blocks changed", old, new, full // 60)
round_trip("a real model against itself", old, old, 4096)
run("diff", old, new, "-o", at("real.skd"))
good = bytearray(read(at("real.skd")))
wrong = []
for i in range(60):
    p = rng.randrange(128) if i < 10 else rng.randrange(len(good))
    bit = 1 << rng.randrange(8)
    good[p] ^= bit
    r = run("apply", old, write("bad.skd", good), "-o", at("never.gguf"))
    if r.returncode != 1 or left("never") or len(r.stderr.strip().splitlines()) != 1 or "bad.skd" not in r.stderr:
        wrong.append(f"byte {p}: exit {r.returncode}: {r.stderr}")
    good[p] ^= bit
check(not wrong, "60 flipped bits in a real delta are refused, nothing written", *wrong)
wrong = []
for n in (0, 1, 127, 128, 4096, len(good) // 2, len(good) - 1):
    r = run("apply", old, write("bad.skd", good[:n]), "-o", at("never.gguf"))
    if r.returncode != 1 or left("never") or len(r.stderr.strip().splitlines()) != 1:
        wrong.append(f"{n} bytes: exit {r.returncode}: {r.stderr}")
check(not wrong, "a delta cut anywhere is refused, nothing written", *wrong)
r = run("apply", new, at("real.skd"), "-o", at("never.gguf"))
check(r.returncode == 1 and "another base" in r.stderr and not left("never") and len(r.stderr.strip().splitlines()) == 1, "another base of the same size is refused by name", r.stderr)
done()
