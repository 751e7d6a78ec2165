"""`skiff diff` and `skiff apply` on folders: a sharded set of safetensors with what lies beside it, sharded anew, made of one file, made one file."""
import filecmp
import json
import os
import random
import shutil
import struct
import subprocess

import numpy as np
from tap import check, done

BUILD, TMP = os.environ["SKF_BUILD"], os.environ["SKF_TMP"]
SKIFF = os.path.join(BUILD, "skiff")
SLOW = float(os.environ.get("SKF_SLOW", "1"))
rng = np.random.RandomState(3)


def at(*names):
    return os.path.join(TMP, *names)


def skiff(*args):
    return subprocess.run([SKIFF, *args], capture_output=True, text=True, timeout=60 * SLOW)


def bf16(x):
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def shard(path, tensors):
    head, end = {"__metadata__": {"format": "pt"}}, 0
    for name, u in tensors.items():
        head[name] = {"dtype": "BF16", "shape": list(u.shape), "data_offsets": [end, end + u.nbytes]}
        end += u.nbytes
    text = json.dumps(head).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(u.tobytes() for u in tensors.values()))


def folder(name, tensors, parts, note):
    """The tensors in so many files, an index, a configuration, an empty file and one that is not carried."""
    os.mkdir(at(name))
    keys, where = list(tensors), {}
    for k in range(parts):
        file = f"model-{k + 1:05d}-of-{parts:05d}.safetensors"
        mine = keys[len(keys) * k // parts:len(keys) * (k + 1) // parts]
        shard(at(name, file), {key: tensors[key] for key in mine})
        where.update({key: file for key in mine})
    with open(at(name, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {}, "weight_map": where}, f, indent=1)
    with open(at(name, "config.json"), "w") as f:
        f.write(json.dumps({"note": note, "names": "ünïcode \" \\ "}))
    open(at(name, "empty.txt"), "w").close()
    with open(at(name, ".hidden"), "w") as f:
        f.write(note)
    return at(name)


def is_same(a, b):
    """The files of both, but for hidden ones, which no delta carries."""
    names = [sorted(n for n in os.listdir(d) if not n.startswith(".")) for d in (a, b)]
    return names[0] == names[1] and not filecmp.cmpfiles(a, b, names[0], shallow=False)[1]


def gone(path):
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.remove(path)


def round_trip(what, old, new, out, at_most):
    r, s = skiff("diff", old, new, "-o", at("d.skd"), "--json"), None
    if r.returncode == 0:
        s = skiff("apply", old, at("d.skd"), "-o", out)
    size = os.path.getsize(at("d.skd")) if r.returncode == 0 else -1
    good = s is not None and s.returncode == 0 and (is_same(out, new) if os.path.isdir(new) else filecmp.cmp(out, new, shallow=False))
    check(good and size <= at_most, what, f"{size} bytes, at most {at_most}", r.stderr, s and s.stderr)


weights = {f"model.layers.{k}.weight": rng.standard_normal((96, 256)).astype(np.float32) * 0.05 for k in range(7)}
v1 = {name: bf16(x) for name, x in weights.items()}
v2 = {name: bf16(x + 0.002 * np.abs(x) * rng.standard_normal(x.shape)) for name, x in weights.items()}
old, new, again = folder("old", v1, 2, "one"), folder("new", v2, 3, "two"), folder("again", v1, 4, "one")
shard(at("one.safetensors"), v1)
full = sum(u.nbytes for u in v2.values())

round_trip("a fine-tune that is sharded anew", old, new, at("out"), full / 5)
round_trip("the same weights sharded anew cost next to nothing", old, again, at("out2"), 4096)
round_trip("a folder against itself", old, old, at("out3"), 4096)
round_trip("a folder of what was one file", at("one.safetensors"), again, at("out4") + "/", 4096)
round_trip("one file of what was a folder", again, at("one.safetensors"), at("out5"), 4096)

skiff("diff", old, new, "-o", at("d.skd"))
r = skiff("apply", old, at("d.skd"), "-o", at("out"))
check(r.returncode == 1 and r.stderr == f"skiff: {at('out')}: is there already: the result is a folder of 6 files, which takes no other's place\n" and is_same(at("out"), new),
      "a folder that is there is not written over", r.stderr)
os.mkdir(at("none"))
r = skiff("apply", old, at("d.skd"), "-o", at("none"))
check(r.returncode == 0 and is_same(at("none"), new), "an empty one is", r.stderr)

gone(at("out"))
os.mkdir(at("out.skiff-part"))
with open(at("out.skiff-part", "config.json"), "w") as f:
    f.write("left by a killed run")
r = skiff("apply", old, at("d.skd"), "-o", at("out"))
check(r.returncode == 0 and is_same(at("out"), new) and not os.path.exists(at("out.skiff-part")), "what a killed run left goes", r.stderr)

gone(at("out"))
before = sorted(os.listdir(TMP))
r = skiff("apply", again, at("d.skd"), "-o", at("out"))
check(r.returncode == 1 and "the delta is for another base" in r.stderr and sorted(os.listdir(TMP)) == before, "another base is named, and nothing is left", r.stderr)

r = skiff("apply", old, at("d.skd"), "--in-place")
check(r.returncode == 1 and r.stderr == f"skiff: {old}: is a folder, and only a file is changed in place; write the result to another one\n" and is_same(old, at("old")), "a folder is not changed in place", r.stderr)

for what, args in (("a delta", ("diff", old, new, "-o", at("old", "d.skd"))), ("a delta", ("diff", again, old, "-o", at("old", "d.skd"))), ("a result", ("apply", old, at("d.skd"), "-o", at("old", "new") + "/")),
                   ("a result", ("apply", old, at("d.skd"), "-o", os.path.join(os.path.relpath(old), "..", "old", "one")))):
    r = skiff(*args)
    check(r.returncode == 2 and "stands in the folder" in r.stderr and is_same(old, at("old")) and len(os.listdir(old)) == 6, f"{what} does not go into its source", r.stderr)

os.mkdir(at("again", "inner"))
r = skiff("diff", at("again"), new, "-o", at("e.skd"))
check(r.returncode == 1 and r.stderr == f"skiff: {at('again', 'inner')}: is no file: of a folder its files are taken, and nothing beneath\n", "folders in a folder are refused", r.stderr)
r = skiff("diff", at("none2"), new, "-o", at("e.skd"))
check(r.returncode == 1 and "none2" in r.stderr, "a folder that is not there", r.stderr)
os.mkdir(at("bare"))
r = skiff("diff", old, at("bare"), "-o", at("e.skd"))
check(r.returncode == 1 and "no files stand in this folder" in r.stderr, "an empty folder", r.stderr)

r = skiff("show", new, "--json")
shown = json.loads(r.stdout) if r.returncode == 0 else {}
check({t["name"] for t in shown.get("tensors", [])} == {*v2, "/config.json", "/empty.txt", "/model.safetensors.index.json"}, "what a folder holds is shown", r.stderr)

with open(at("d.skd"), "rb") as f:
    good = f.read()
bad, dice = [], random.Random(4)
before = sorted(os.listdir(TMP) + ["f.skd"])
for case in [good[:k] for k in (0, 100, 400, len(good) - 1)] + [good[:p] + bytes([good[p] ^ 1 << dice.randrange(8)]) + good[p + 1:] for p in
                                                                 [dice.randrange(600) for _ in range(20)] + [dice.randrange(len(good)) for _ in range(20)]]:
    with open(at("f.skd"), "wb") as f:
        f.write(case)
    r = skiff("apply", old, at("f.skd"), "-o", at("out"))
    if r.returncode != 1 or len(r.stderr.splitlines()) != 1 or sorted(os.listdir(TMP)) != before:
        bad.append(f"{r.returncode} {r.stderr[:200]} {sorted(set(os.listdir(TMP)) ^ set(before))}")
check(not bad, "broken deltas leave nothing", *bad)

os.makedirs(at("strange.skiff-part", "sub"))
r = skiff("apply", old, at("d.skd"), "-o", at("strange"))
check(r.returncode == 1 and "strange.skiff-part: holds sub, which no killed run" in r.stderr and not os.path.exists(at("strange")), "what is in the way and not ours is named", r.stderr)
os.rmdir(at("strange.skiff-part", "sub"))
with open(at("strange.skiff-part", "diary.txt"), "w") as f:
    f.write("somebody's")
with open(at("strange.skiff-part", "config.json.77.0.part"), "w") as f:
    f.write("a killed run's")
r = skiff("apply", old, at("d.skd"), "-o", at("strange"))
check(r.returncode == 1 and "holds diary.txt" in r.stderr and os.listdir(at("strange.skiff-part")) == ["diary.txt"], "and stays", r.stderr)
done()
