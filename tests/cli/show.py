"""skiff show: what it says of each kind of file, as text and as JSON, and what it refuses."""
import hashlib
import json
import os
import struct
import subprocess

from gguf import GGUFReader, GGUFWriter

import tiny_model
from tap import check, done

BUILD, MODELS, TMP, SLOW = os.environ["SKF_BUILD"], os.environ["SKF_MODELS"], os.environ["SKF_TMP"], float(os.environ.get("SKF_SLOW", "1"))
SKIFF = os.path.join(BUILD, "skiff")


def at(name):
    return os.path.join(TMP, name)


def run(*args):
    return subprocess.run([SKIFF, *args], capture_output=True, text=True, timeout=60 * SLOW)


def show(path, *options):
    r = run("show", path, "--json", *options)
    return json.loads(r.stdout) if r.returncode == 0 and r.stderr == "" and r.stdout.count("\n") == 1 else {"error": r.stderr}


# ---- GGUF, against the gguf package's reader
path = os.path.join(MODELS, "published.gguf")
said, real = show(path, "--root"), GGUFReader(path)
check(said.get("format") == "gguf" and said.get("bytes") == os.path.getsize(path), "the published file is a GGUF", said.get("error"))
# The root of these bytes, on every machine.
check(said.get("root") == "6570f1d8710d73bc71d93105c241bbf020db3cd24995a4f9e6f55274345fbf43" and said.get("chunks") == 302, "its root")
tensors = [{"name": t.name, "type": t.tensor_type.name.lower(), "shape": [int(d) for d in t.shape], "offset": int(t.data_offset),
            "bytes": int(t.n_bytes)} for t in sorted(real.tensors, key=lambda t: t.data_offset)]
check(said.get("tensors") == tensors, "its tensors")
metadata, good = said.get("metadata", {}), True
for key, field in real.fields.items():
    if key.startswith("GGUF."):
        continue
    value, got = field.contents(), metadata.get(key)
    if isinstance(value, list):
        good = good and got["count"] == len(value) and got["first"] == value[:16]
    else:
        good = good and got == value
check(good and len(metadata) == len(real.fields) - 3, "its metadata")

w = GGUFWriter(at("types.gguf"), "llama")
w.add_uint8("a.u8", 200), w.add_int8("a.i8", -100), w.add_uint16("a.u16", 60000), w.add_int16("a.i16", -30000)
w.add_uint32("a.u32", 4000000000), w.add_int32("a.i32", -2000000000), w.add_uint64("a.u64", 2**64 - 1), w.add_int64("a.i64", -2**63)
w.add_float32("a.f32", 0.5), w.add_float64("a.f64", 0.1), w.add_bool("a.bool", True), w.add_string("a.s", "é\n\x1b[2J")
w.add_float32("a.nan", float("nan")), w.add_array("a.list", [-1, 2, -3]), w.add_array("a.words", ["x", "y"])
w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
m = show(at("types.gguf")).get("metadata", {})
want = {"a.u8": 200, "a.i8": -100, "a.u16": 60000, "a.i16": -30000, "a.u32": 4000000000, "a.i32": -2000000000, "a.i64": -2**63,
        "a.u64": "18446744073709551615", "a.f32": 0.5, "a.f64": 0.1, "a.bool": True, "a.s": "é\n\x1b[2J", "a.nan": "nan"}
check(all(m.get(k) == v for k, v in want.items()), "every metadata type", m)
check(m["a.list"] == {"array": "i32", "count": 3, "first": [-1, 2, -3]} and m["a.words"]["first"] == ["x", "y"], "arrays", m)
text = run("show", at("types.gguf"))
check(text.returncode == 0 and "\x1b" not in text.stdout and "a.u16" in text.stdout, "the text form sends no control characters")

# ---- safetensors, any bytes
tiny_model.write_safetensors(at("x.safetensors"), {"w": ("BF16", (2, 3), bytes(12)), "s": ("F32", (), bytes(4))})
said = show(at("x.safetensors"))
check(said.get("format") == "safetensors" and [(t["name"], t["type"], t["shape"]) for t in said["tensors"]] ==
      [("w", "bf16", [3, 2]), ("s", "f32", [])], "safetensors", said)
with open(at("plain"), "wb") as f:
    f.write(bytes(range(256)) * 5000)
check(show(at("plain"), "--root").get("chunks") == 2, "any bytes")
with open(at("none"), "wb") as f:
    pass
said = show(at("none"), "--root")
check(said.get("bytes") == 0 and said.get("chunks") == 0, "no bytes at all", said)

# ---- a delta
old, new = tiny_model.write(at("old.gguf"), seed=1), tiny_model.write(at("new.gguf"), seed=1, change=0.02)
run("diff", old, new, "-o", at("d.skd"))
said = show(at("d.skd"))
check(said.get("format") == "skd" and said.get("source_root") == show(old, "--root")["root"] and
      said.get("result_root") == show(new, "--root")["root"], "a delta names its roots", said)
check(sum(c["chunks"] for c in said["coding"].values()) == said["chunks"] == show(new, "--root")["chunks"] and
      sum(c["payload_bytes"] for c in said["coding"].values()) + said["side_bytes"] == said["payload_size"] and
      sum(c["result_bytes"] for c in said["coding"].values()) == said["result_size"] == os.path.getsize(new), "and its codings", said)
check("coding" in run("show", at("d.skd")).stdout, "as text too")



# ---- a manifest, packed by hand
def field(number, value):
    def varint(n):
        return bytes([n & 127 | 128]) + varint(n >> 7) if n > 127 else bytes([n])
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def manifest(root):
    leaf = hashlib.sha256(b"\0" + struct.pack("<Q", 5) + hashlib.sha256(b"hello").digest()).digest()
    if root is None:
        root = hashlib.sha256(b"\2" + struct.pack("<QQ", 5, 1) + leaf).digest()
    tensor = field(1, "t") + field(2, 24) + field(3, b"\5") + field(4, 0) + field(5, 5)
    return (field(1, 1) + field(2, "assistant") + field(3, "1.0") + field(4, "bytes") + field(5, field(1, "hello.bin") + field(2, 5)) +
            field(6, tensor) + field(7, root) + field(8, 5) + field(9, hashlib.sha256(b"hello").digest()) + field(10, b"\5") +
            field(11, field(1, "llama") + field(2, 1000)) + field(12, "notes") + field(13, 1700000000))


with open(at("a.manifest"), "wb") as f:
    f.write(manifest(None))
said = show(at("a.manifest"))
check(said.get("model") == "assistant" and said.get("version") == "1.0" and said.get("chunks") == 1 and said.get("size") == 5 and
      said["files"] == [{"name": "hello.bin", "bytes": 5}] and said["tensors"][0]["type"] == "i8" and
      said["needs"]["memory_bytes"] == 1000 and said["sha256"] == hashlib.sha256(manifest(None)).hexdigest(), "a manifest", said)
check("assistant" in run("show", at("a.manifest")).stdout, "a manifest as text")


# ---- refusals
def refused(what, words, path, *more):
    for options in (more, (*more, "--json")):
        r = run("show", path, *options)
        good = r.returncode == 1 and len(r.stderr.splitlines()) == 1 and r.stdout == "" and all(x in r.stderr for x in words)
        check(good, what + " " + " ".join(options), f"exit {r.returncode}", r.stderr)


def write(name, data):
    with open(at(name), "wb") as f:
        f.write(data)
    return at(name)


raw, delta = open(old, "rb").read(), open(at("d.skd"), "rb").read()
refused("a truncated GGUF", ["cut.gguf", "truncated"], write("cut.gguf", raw[:1000]))
refused("a GGUF without its last tensor", ["cut.gguf", "output_norm"], write("cut.gguf", raw[:-64]))
refused("a GGUF that claims a world of tensors", ["many.gguf", "tensors"], write("many.gguf", raw[:8] + struct.pack("<Q", 2**60) + raw[16:]))
refused("a big-endian GGUF", ["be.gguf", "big-endian"], write("be.gguf", b"GGUF" + struct.pack(">I", 3) + raw[8:]))
refused("a truncated safetensors", ["cut.safetensors", "truncated"], write("cut.safetensors", open(at("x.safetensors"), "rb").read()[:60]))
refused("a truncated delta", ["cut.skd"], write("cut.skd", delta[:100]))
refused("a delta with a byte missing", ["cut.skd"], write("cut.skd", delta[:-1]))
refused("a delta with a changed byte", ["flip.skd"], write("flip.skd", delta[:90] + bytes([delta[90] ^ 1]) + delta[91:]))
refused("a manifest that is none", ["x.manifest"], write("x.manifest", b"\xff" * 50))
refused("a manifest whose chunks are not its root's", ["wrong.manifest", "root"], write("wrong.manifest", manifest(bytes(32))))
refused("a file that is not there", ["absent", "No such file"], at("absent"))

# ---- the plan of a forward pass
one, many = show(path, "--plan"), show(path, "--plan", "--tokens", "68")
names = [o["operator"] for o in one.get("operators", [])]
check(names[:3] == ["embed", "attn_norm", "attn_q, attn_k, attn_v"] and names[-1] == "output" and one.get("layers") == 30, "the plan's operators", one.get("error"))
sizes = {b["name"]: b["bytes"] for b in many.get("buffers", [])}
check(sizes.get("x") == 68 * 576 * 4 and sizes.get("gate") == 68 * 1536 * 4 and sum(sizes.values()) == many["bytes_apart"]
      and many["bytes"] == max(b["offset"] + b["bytes"] for b in many["buffers"]) < many["bytes_apart"], "its buffers", many.get("error"))
text = run("show", path, "--plan")
check(text.returncode == 0 and f"{one['bytes']} bytes in all, {one['bytes_apart']} if each" in text.stdout and "rope, store" in text.stdout, "the plan as text")
refused("the plan of a delta", ["d.skd", "only GGUF"], at("d.skd"), "--plan")
refused("the plan of a GGUF that is no model", ["types.gguf"], at("types.gguf"), "--plan")
check(run("show", path, "--plan", "--tokens", "0").returncode == 2 and run("show", path, "--tokens", "65537").returncode == 2, "tokens out of range")
check(run("show").returncode == 2 and run("show", old, new).returncode == 2, "wrong usage")
done()
