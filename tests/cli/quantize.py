"""skiff quantize: every type as the gguf package makes it, choice of types by tensor, importance, INT8, pruning, refusals."""
import json
import os
import struct
import subprocess

import numpy as np
from gguf import GGMLQuantizationType as QT, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize

import tiny_model
from tap import check, done

BUILD, MODELS, TMP, SLOW = os.environ["SKF_BUILD"], os.environ["SKF_MODELS"], os.environ["SKF_TMP"], float(os.environ.get("SKF_SLOW", "1"))
SKIFF = os.path.join(BUILD, "skiff")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TEXT = os.path.join(TMP, "text")
with open(os.path.join(ROOT, "tests", "vectors", "ppl.txt"), "rb") as whole, open(TEXT, "wb") as part:
    part.write(whole.read(3000))
DIMS = {"embd": 256, "layers": 8, "heads": 8, "kv_heads": 4, "ff": 256}


def at(name):
    return os.path.join(TMP, name)


def run(*args, seconds=120):
    return subprocess.run([SKIFF, "quantize", *args], capture_output=True, text=True, timeout=seconds * SLOW)


def read(name):
    with open(at(name), "rb") as f:
        return f.read()


def tensors(path):
    return {t.name: t for t in GGUFReader(path).tensors}


def values(t):
    return dequantize(t.data, t.tensor_type).astype(np.float32)


def shown(path):
    """Type and bytes of each tensor; the package's reader takes long over a large vocabulary."""
    said = json.loads(subprocess.run([SKIFF, "show", path, "--json"], capture_output=True, text=True, timeout=60 * SLOW).stdout)
    data = np.memmap(path, np.uint8, "r")
    return {t["name"]: (t["type"], data[t["offset"]:t["offset"] + t["bytes"]]) for t in said["tensors"]}


def made(what, out, *args, **more):
    r = run(*args, at(out), **more)
    return r if check(r.returncode == 0, what, r.stderr, r.stdout) else None


source = tiny_model.write(at("in.f32.gguf"), "f32", alignment=64, **DIMS)
old = tensors(source)

# ---- every type, by the package's own quantizers ---------------------------------------------------------------------------------
PLAIN = {"f16": 1, "bf16": 32, "q8_0": 7, "q4_0": 2, "q4_1": 3, "q5_0": 8, "q5_1": 9, "tq1_0": 36, "tq2_0": 37, "mxfp4": 38}
for kind, file_type in PLAIN.items():
    out = f"out.{kind}.gguf"
    if not made(f"{kind}: quantizes", out, source, "--type", kind, "--jobs", "3"):
        continue
    new, good, wrong = GGUFReader(at(out)), True, []
    for t in new.tensors:
        x = values(old[t.name])
        want = QT.F32 if x.ndim == 1 else QT.Q8_0 if "embd" in t.name and kind not in ("f16", "bf16") else QT[kind.upper()]
        data = x if want == QT.F32 else quantize(x, want)
        if t.tensor_type != want or not np.array_equal(np.ascontiguousarray(t.data).view(np.uint8), np.ascontiguousarray(data).view(np.uint8)):
            wrong.append(f"{t.name} {t.tensor_type.name}")
    check(not wrong, f"{kind}: every tensor has the package's bytes", *wrong)
    check([t.name for t in new.tensors] == list(old), f"{kind}: in the same order")
    check(new.fields["general.file_type"].contents() == file_type and new.fields["general.alignment"].contents() == 64 and
          new.fields["tokenizer.ggml.tokens"].contents() == tiny_model.vocabulary(), f"{kind}: metadata")
    made(f"{kind}: quantizes alone", "one.gguf", source, "--type", kind, "--jobs", "1")
    check(read("one.gguf") == read(out), f"{kind}: one thread gives the same bytes")

# ---- K-quants: their bits are checked in tests/unit/model_quant.c; here that they come near, and which tensor becomes what --------------
STEP = {"q2_k": 0.32, "q3_k": 0.17, "q4_k": 0.09, "q5_k": 0.045, "q6_k": 0.025, "iq4_nl": 0.1}  # of error to size, root mean square
for kind, most in STEP.items():
    if not made(f"{kind}: quantizes", f"out.{kind}.gguf", source, "--type", kind):
        continue
    new = tensors(at(f"out.{kind}.gguf"))
    x, y = values(old["blk.0.ffn_up.weight"]), values(new["blk.0.ffn_up.weight"])
    error = float(np.sqrt(((x - y) ** 2).sum() / (x ** 2).sum()))
    check(most / 2 < error < most, f"{kind}: is as near as its bits allow", error)
    check(new["token_embd.weight"].tensor_type == (QT.Q8_0 if kind == "iq4_nl" else QT.Q6_K), f"{kind}: the output has more bits")


def types_of(kind):
    r = run(source, "--type", kind, "--plan", "--json")
    return {t["name"]: t["to"] for t in json.loads(r.stdout)["tensors"]} if check(r.returncode == 0, f"{kind}: plans", r.stderr) else {}


def layers(types, name):
    return [types[f"blk.{i}.{name}.weight"] for i in range(DIMS["layers"])]


m = types_of("q4_k_m")
check(layers(m, "attn_v") == layers(m, "ffn_down") == ["q6_k", "q4_k", "q4_k", "q6_k", "q4_k", "q4_k", "q6_k", "q6_k"] and
      layers(m, "attn_q") == ["q4_k"] * 8, "q4_k_m: llama.cpp's mixture", m)
m = types_of("q4_k_s")
check(layers(m, "attn_v") == ["q5_k"] * 4 + ["q4_k"] * 4 and layers(m, "ffn_down") == ["q5_k"] + ["q4_k"] * 7, "q4_k_s: llama.cpp's mixture", m)
m = types_of("q3_k_m")
check(layers(m, "attn_v") == ["q5_k"] * 2 + ["q4_k"] * 6 and layers(m, "attn_output") == ["q4_k"] * 8, "q3_k_m: llama.cpp's mixture", m)
narrow = tiny_model.write(at("narrow.f16.gguf"), "f16")  # rows of 64 and 128
r = run(narrow, "--type", "q4_k", "--plan")
check(r.returncode == 0 and "q5_0" in r.stdout and "rows fit no other" in r.stdout and "no whole blocks" in r.stderr,
      "rows that are no whole blocks fall back, which is said", r.stdout, r.stderr)
check(not os.path.exists(at("None")) and run(narrow, at("never.gguf"), "--type", "q4_0", "--plan").returncode == 0 and
      not os.path.exists(at("never.gguf")), "--plan writes nothing")

# ---- by tensor ------------------------------------------------------------------------------------------------------------------
r = made("by tensor", "mixed.gguf", source, "--type", "q4_0", "--tensor-type", "*ffn_*=q8_0", "--tensor-type", "blk.?.ffn_up.weight=q5_1",
         "--tensor-type", "blk.1.*=q4_1", "--keep", "*attn_k*", "--embedding-type", "f16", "--json")
if r:
    got, said = tensors(at("mixed.gguf")), json.loads(r.stdout)
    want = {"token_embd.weight": QT.F16, "blk.0.ffn_up.weight": QT.Q5_1, "blk.0.ffn_down.weight": QT.Q8_0, "blk.0.attn_q.weight": QT.Q4_0,
            "blk.1.ffn_up.weight": QT.Q4_1, "blk.1.attn_k.weight": QT.F32, "blk.1.attn_norm.weight": QT.F32, "output_norm.weight": QT.F32}
    check(all(got[n].tensor_type == t for n, t in want.items()), "the last pattern that matches counts, --keep above all",
          {n: got[n].tensor_type.name for n in want})
    check(said["bytes"] == os.path.getsize(at("mixed.gguf")) and said["tensor_bytes"] == sum(t.n_bytes for t in got.values()) and
          said["tensors_quantized"] + said["tensors_kept"] == len(got), "--json says what was done", r.stdout)
r = made("again", "again.gguf", at("mixed.gguf"), "--type", "q4_0")
if r:
    check("quantized already" in r.stderr and len(r.stderr.splitlines()) == 1, "a source that is quantized already is spoken of", r.stderr)

# ---- importance -----------------------------------------------------------------------------------------------------------------
rng = np.random.RandomState(7)
matrices = [n for n, t in old.items() if len(t.shape) == 2]
weights = {n: (rng.random_sample(int(old[n].shape[0])) ** 4).astype(np.float32) for n in matrices}
TOKENS = 10


def write_imatrix(name, entries, kind="imatrix", counts=TOKENS):
    w = GGUFWriter(at(name), "llama")
    w.add_string("general.type", kind)
    for n, v in entries.items():
        v = v.reshape(-1, v.shape[-1])
        w.add_tensor(n + ".in_sum2", v * np.float32(TOKENS))
        if counts:
            w.add_tensor(n + ".counts", np.full((len(v), 1), counts, np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return at(name)


def write_older(name, entries):
    with open(at(name), "wb") as f:
        f.write(struct.pack("<i", len(entries)))
        for n, v in entries.items():
            f.write(struct.pack("<i", len(n)) + n.encode() + struct.pack("<ii", TOKENS, len(v)) + (v * np.float32(TOKENS)).astype("<f4").tobytes())
        f.write(struct.pack("<ii", 3, 4) + b"text")
    return at(name)


im, older = write_imatrix("im.gguf", weights), write_older("im.dat", weights)
for kind in ("q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q6_k"):
    if made(f"{kind}: with importance", "im.out.gguf", source, "--type", kind, "--imatrix", im, "--output-type", kind) and \
            made(f"{kind}: with importance of the older form", "older.out.gguf", source, "--type", kind, "--imatrix", older, "--output-type", kind):
        check(read("im.out.gguf") == read("older.out.gguf"), f"{kind}: both forms weigh alike")
        new, plain = tensors(at("im.out.gguf")), tensors(at(f"out.{kind}.gguf")) if kind[0] == "q" else {}
        better = 0
        for n in matrices:
            if new[n].tensor_type == plain[n].tensor_type:
                x, w = values(old[n]), weights[n]
                better += (w * (x - values(new[n])) ** 2).sum() < (w * (x - values(plain[n])) ** 2).sum()
        check(better > 50, f"{kind}: the weighed error is smaller", better)
def write_experts(name, tensors_):
    w = GGUFWriter(at(name), "llama")
    for n, x in tensors_.items():
        w.add_tensor(n, x)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return at(name)


experts = rng.standard_normal((3, 8, 256)).astype(np.float32)
theirs = (rng.random_sample((3, 256)) ** 3).astype(np.float32)
apart = {f"blk.{i}.ffn_up.weight": experts[i] for i in range(3)}
for kind in ("q4_0", "q4_k"):
    if made(f"{kind}: experts by importance", "experts.out.gguf", write_experts("experts.gguf", {"blk.0.ffn_up_exps.weight": experts}), "--type", kind,
            "--imatrix", write_imatrix("experts.im.gguf", {"blk.0.ffn_up_exps.weight": theirs})) and \
            made(f"{kind}: the same apart", "apart.out.gguf", write_experts("apart.gguf", apart), "--type", kind,
                 "--imatrix", write_imatrix("apart.im.gguf", {f"blk.{i}.ffn_up.weight": theirs[i] for i in range(3)})):
        one, three = tensors(at("experts.out.gguf")), tensors(at("apart.out.gguf"))
        check(all(np.array_equal(one["blk.0.ffn_up_exps.weight"].data[i], three[f"blk.{i}.ffn_up.weight"].data) for i in range(3)),
              f"{kind}: each matrix of a tensor has its own importance")
r = made("calibrated on a text", "cal.gguf", source, "--type", "q4_0", "--calibrate", TEXT, "--json")
if r:
    said = json.loads(r.stdout)
    check(said["calibration_tokens"] > 500 and said["tensors_weighed"] == len(matrices) - 1 and read("cal.gguf") != read("out.q4_0.gguf"),
          "a text gives the importance of every matrix that is weighed", r.stdout[:300])
    made("again with one thread", "one.gguf", source, "--type", "q4_0", "--calibrate", TEXT, "--jobs", "1", "--save-imatrix", at("kept.gguf"))
    check(read("one.gguf") == read("cal.gguf"), "and the same bytes from one thread")
    made("from what was kept", "kept.out.gguf", source, "--type", "q4_0", "--imatrix", at("kept.gguf"))
    check(read("kept.out.gguf") == read("cal.gguf"), "and from the importance matrix that was kept")
    kept = GGUFReader(at("kept.gguf"))
    check({t.name for t in kept.tensors} == {n + e for n in matrices for e in (".in_sum2", ".counts")} and
          kept.fields["imatrix.datasets"].contents() == [TEXT] and kept.fields["imatrix.chunk_size"].contents() == said["calibration_tokens"],
          "which is in llama.cpp's form")

# ---- INT8 ------------------------------------------------------------------------------------------------------------------------
scales = {}
for observer in ("minmax", "average"):
    if made(f"int8 by {observer}", "int8.gguf", source, "--type", "int8", "--calibrate", TEXT, "--observer", observer):
        g = GGUFReader(at("int8.gguf"))
        scales[observer] = {k[len("skiff.act_scale."):]: f.contents() for k, f in g.fields.items() if k.startswith("skiff.act_scale.")}
        check(set(scales[observer]) == set(matrices) and g.fields["skiff.act_observer"].contents() == observer, "the inputs of every matrix have a scale")
        good = True
        for t in g.tensors:
            if t.name not in matrices:
                continue
            x = values(old[t.name])
            b = t.data.reshape(x.shape[0], -1, 34)
            d = np.ascontiguousarray(b[..., :2]).view(np.float16)[..., 0]
            s = (np.abs(x).max(1) / np.float32(127)).astype(np.float16)
            codes = x / s.astype(np.float32)[:, None]
            size = np.abs(codes)
            codes = np.sign(codes) * np.minimum(np.floor(size) + (size - np.floor(size) >= 0.5), 127)
            good = good and np.array_equal(d, np.repeat(s[:, None], d.shape[1], 1)) and \
                np.array_equal(b[..., 2:].view(np.int8).reshape(x.shape), codes.astype(np.int8))
        check(good, "one scale a row, codes symmetric around zero")
if len(scales) == 2:
    check(all(0 < scales["average"][n] <= scales["minmax"][n] * 1.0001 for n in matrices) and
          any(scales["average"][n] < scales["minmax"][n] * 0.99 for n in matrices), "the average is no larger than the largest", scales)

# ---- pruning -----------------------------------------------------------------------------------------------------------------------
if made("pruned by half", "half.gguf", source, "--type", "f32", "--prune", "50%"):
    new = tensors(at("half.gguf"))
    good = True
    for n in matrices:
        x, y = values(old[n]), values(new[n])
        t = np.sort(np.abs(x).ravel())[x.size // 2 - 1] if n != "token_embd.weight" else -1
        good = good and np.array_equal(y, np.where(np.abs(x) <= t, np.float32(0), x))
    check(good, "the smaller half of each matrix is zero, the rest and the embedding as they were")
if made("pruned over all", "half.gguf", source, "--type", "f32", "--prune", "0.25", "--prune-global", "--jobs", "3"):
    new = tensors(at("half.gguf"))
    inner = [n for n in matrices if n != "token_embd.weight"]
    every = np.sort(np.concatenate([np.abs(values(old[n])).ravel() for n in inner]))
    t = every[every.size // 4 - 1]
    check(all(np.array_equal(values(new[n]), np.where(np.abs(values(old[n])) <= t, np.float32(0), values(old[n]))) for n in inner),
          "one threshold for all")
r = made("pruned 2 of 4", "24.gguf", source, "--type", "q8_0", "--prune", "2:4", "--json")
if r:
    new = tensors(at("24.gguf"))
    y = values(new["blk.0.attn_q.weight"]).reshape(-1, 4)
    x = values(old["blk.0.attn_q.weight"]).reshape(-1, 4)
    kept = np.argsort(-np.abs(x), 1, kind="stable")[:, :2]
    check(((y == 0).sum(1) >= 2).all() and (np.take_along_axis(np.abs(y), kept, 1) >= 0).all() and abs(json.loads(r.stdout)["sparsity"] - 0.5) < 0.01,
          "two of four neighbours are zero", r.stdout[:200])
    mask = np.zeros(x.shape, bool)
    np.put_along_axis(mask, kept, True, 1)
    check(np.array_equal(y.ravel(), dequantize(quantize(np.where(mask, x, 0).astype(np.float32).reshape(-1, 256), QT.Q8_0), QT.Q8_0).ravel()),
          "the two largest stay")
if made("pruned by importance", "wanda.gguf", source, "--type", "f32", "--prune", "50%", "--imatrix", im):
    n = "blk.0.attn_q.weight"
    x, y = values(old[n]), values(tensors(at("wanda.gguf"))[n])
    score = np.abs(x * np.sqrt(weights[n]))
    t = np.sort(score.ravel())[x.size // 2 - 1]
    check(np.mean((y == 0) == (score <= t)) > 0.999, "size times importance decides")
for kind, most in (("q4_1", 0.05), ("q5_1", 0.025), ("q4_0", 0.06), ("q6_k", 0.02)):
    r = made(f"{kind}: pruned", "sparse.gguf", source, "--type", kind, "--prune", "2:4")
    made(f"{kind}: floats pruned", "sparse.f32.gguf", source, "--type", "f32", "--prune", "2:4")
    if r:
        n = "blk.0.ffn_down.weight"
        x, y = values(tensors(at("sparse.f32.gguf"))[n]), values(tensors(at("sparse.gguf"))[n])
        error = float(np.sqrt(((x - y) ** 2).sum() / (x ** 2).sum()))
        check((y[x == 0] == 0).all() and error < 2 * most and not r.stderr, f"{kind}: zeros stay zero, the rest is near", error, r.stderr)
r = made("pruned in a type that has no zero", "41.gguf", source, "--type", "q4_k", "--prune", "2:4")
check(r and "not exactly zero" in r.stderr, "a type that cannot hold a zero is spoken of", r and r.stderr)

# ---- refusals ------------------------------------------------------------------------------------------------------------------------
def refused(what, words, *args, status=1):
    r = run(*args)
    left = [f for f in os.listdir(TMP) if f.startswith("never.gguf")]
    check(r.returncode == status and len(r.stderr.splitlines()) == 1 and all(x in r.stderr for x in words) and not left and not r.stdout,
          what, f"exit {r.returncode}", r.stderr, f"left: {left}")


never = at("never.gguf")


def spoiled(name, value, row=1, column=3):
    w = GGUFWriter(at(name), "llama")
    x = np.ones((4, 64), np.float32)
    x[row, column] = value
    w.add_tensor("blk.0.attn_q.weight", x)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return at(name)


refused("an unknown type", ["--type", "not known"], source, never, "--type", "q9_9", status=2)
refused("a type that cannot be written", ["--type", "cannot be written"], source, never, "--type", "iq2_xxs", status=2)
refused("no type", ["--type"], source, never, status=2)
refused("no output", ["OUT"], source, "--type", "q4_0", status=2)
refused("a budget without a base", ["--budget", "--base"], source, never, "--type", "q4_0", "--budget", "1%", status=2)
refused("an observer without a text", ["--observer", "--calibrate"], source, never, "--type", "int8", "--observer", "minmax", status=2)
refused("a share over one", ["--prune"], source, never, "--type", "q4_0", "--prune", "150%", status=2)
refused("a pattern without a type", ["PATTERN=TYPE"], source, never, "--type", "q4_0", "--tensor-type", "x", status=2)
refused("a pattern that matches nothing", ["blk.9.*", "no tensor"], source, never, "--type", "q4_0", "--keep", "blk.9.*")
refused("a type for norms alone", ["*_norm.*", "no matrix"], source, never, "--type", "q4_0", "--tensor-type", "*_norm.*=q8_0")
refused("the source as output", ["one of the sources"], source, source, "--type", "q4_0", status=2)
refused("the text as output", ["one of the sources"], source, TEXT, "--type", "q4_0", "--calibrate", TEXT, status=2)
refused("the source as importance matrix", ["one of the sources"], source, never, "--type", "q4_0", "--calibrate", TEXT, "--save-imatrix", source, status=2)
refused("one name for both outputs", ["--save-imatrix"], source, never, "--type", "q4_0", "--calibrate", TEXT, "--save-imatrix", never, status=2)
refused("a bound of no bytes", ["--bytes", "at least 1"], source, never, "--base", source, "--text", TEXT, "--bytes", "0", status=2)
refused("a gain of nothing", ["--gain"], source, never, "--base", source, "--text", TEXT, "--gain", "0", status=2)
for way in ([], ["--calibrate", TEXT]):
    base = tiny_model.write(at("base-kept.gguf"), "q4_1")
    before = read("base-kept.gguf")
    refused("the base as output " + " ".join(way[:1]), ["one of the sources"], source, base, "--base", base, *way, status=2)
    check(read("base-kept.gguf") == before, "the base stays as it is " + " ".join(way[:1]))
refused("no such file", ["none.gguf", "No such file"], at("none.gguf"), never, "--type", "q4_0")
refused("a value that is no number", ["blk.0.attn_q.weight", "no number", "row 1, column 3"], spoiled("nan.gguf", np.nan), never, "--type", "q4_0")
refused("an infinite value", ["infinite", "row 1, column 3"], spoiled("inf.gguf", -np.inf), never, "--type", "q8_0")
refused("a value too large for its type", ["1e+30", "row 1", "f16"], spoiled("large.gguf", 1e30), never, "--type", "f16")
refused("a scale too large for its type", ["1e+08", "row 1", "q8_0"], spoiled("large2.gguf", 1e8), never, "--type", "q8_0")
with open(at("x.safetensors"), "wb") as f:
    head = b'{"a":{"dtype":"F32","shape":[2,32],"data_offsets":[0,256]}}'
    f.write(struct.pack("<Q", len(head)) + head + bytes(256))
refused("safetensors", ["not a GGUF file", "convert"], at("x.safetensors"), never, "--type", "q4_0")
refused("an importance matrix of another model", ["in.f32.gguf", "rows of"], source, never, "--type", "q4_0", "--imatrix",
        write_imatrix("another.gguf", {"blk.0.attn_q.weight": np.ones(64, np.float32)}))
refused("one that fits nothing", ["weighs none"], source, never, "--type", "q4_0", "--imatrix",
        write_imatrix("far.gguf", {"blk.77.attn_q.weight": np.ones(64, np.float32)}))
refused("one that is a model", ["in.f32.gguf", "imatrix"], source, never, "--type", "q4_0", "--imatrix", source)
refused("one without counts", ["counts"], source, never, "--type", "q4_0", "--imatrix", write_imatrix("bare.gguf", weights, counts=None))
refused("one with a value that is no number", ["negative or not finite"], source, never, "--type", "q4_0", "--imatrix",
        write_imatrix("nan.im.gguf", {"blk.0.attn_q.weight": np.full(256, np.nan, np.float32)}))
refused("one of any bytes", ["text", "no importance matrix"], source, never, "--type", "q4_0", "--imatrix", TEXT)
with open(older, "rb") as f, open(at("cut.dat"), "wb") as g:
    g.write(f.read()[:5000])
refused("one that is cut short", ["cut.dat", "no importance matrix"], source, never, "--type", "q4_0", "--imatrix", at("cut.dat"))

# ---- the real one ----------------------------------------------------------------------------------------------------------------------
published = os.path.join(MODELS, "published.gguf")
if made("the published model as float", "real.f16.gguf", published, "--type", "f16") and \
        made("and back", "real.q4_1.gguf", at("real.f16.gguf"), "--type", "q4_1"):
    was, half, now = (shown(f) for f in (published, at("real.f16.gguf"), at("real.q4_1.gguf")))
    check({n: t[0] for n, t in was.items()} == {n: t[0] for n, t in now.items()}, "types are the published ones")
    some = [f"blk.{i}.{n}.weight" for i in (0, 17, 29) for n in ("attn_v", "attn_output", "ffn_down")]
    with np.errstate(over="ignore"):
        check(all(np.array_equal(half[n][1].view(np.float16), dequantize(was[n][1].reshape(-1, 20), QT.Q4_1).astype(np.float16).ravel()) for n in some),
              "its floats are the package's")
    check(all(np.array_equal(now[n][1], quantize(half[n][1].view(np.float16).astype(np.float32).reshape(-1, 32), QT.Q4_1).ravel()) for n in some),
          "its blocks are the package's")
for name in ("real.f16.gguf", "real.q4_1.gguf"):
    if os.path.exists(at(name)):
        os.remove(at(name))
done()
