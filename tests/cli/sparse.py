"""A pruned model, end to end: `skiff quantize --prune`, then run, measured and benchmarked; the same text and perplexity from its packed form
and from its rows, with every instruction set and thread count; packed when most is zero and not otherwise."""
import json
import os
import subprocess

import tiny_model
from tap import check, done

BUILD, TMP, SLOW = os.environ["SKF_BUILD"], os.environ["SKF_TMP"], float(os.environ.get("SKF_SLOW", "1"))
TEXT = os.path.join(TMP, "text")
with open(TEXT, "w") as f:
    f.write("the packed form of a matrix says what its rows say. " * 4)


def skiff(*args, sparse=None, cpu=None):
    env = {k: v for k, v in os.environ.items() if k not in ("SKF_CPU", "SKF_SPARSE")}
    env.update({k: v for k, v in (("SKF_SPARSE", sparse), ("SKF_CPU", cpu)) if v})
    return subprocess.run([os.path.join(BUILD, "skiff"), *args], capture_output=True, text=True, env=env, timeout=120 * SLOW)


def said(*args, **env):
    r = skiff(*args, "--json", **env)
    return json.loads(r.stdout) if r.returncode == 0 else {"failed": r.stderr}


def packed(model, **env):
    r = said("bench", "-m", model, "-p", "0", "-n", "1", "--threads", "1", **env)
    return r.get("packed_matrices"), r.get("packed_bytes"), r.get("packed_instead_of")


source = tiny_model.write(os.path.join(TMP, "in.gguf"), "f32", alignment=32, embd=64, layers=2, heads=4, kv_heads=2, ff=96)
cpus = [c for c in ("ref", "avx2", "avx512", "neon") if skiff("run", "-m", source, "-p", "a", "-n", "1", cpu=c).returncode == 0]
for kind, prune in (("q8_0", "60%"), ("q8_0", "2:4"), ("q4_0", "70%"), ("q4_1", "70%"), ("bf16", "60%"), ("f16", "60%"), ("f32", "60%")):
    name = f"{kind} {prune}"
    model = os.path.join(TMP, "pruned.gguf")
    r = skiff("quantize", source, model, "--type", kind, "--prune", prune)
    if not check(r.returncode == 0, f"{name}: pruned", r.stderr):
        continue
    want, score, bad = None, None, []
    for cpu in cpus:
        for sparse, threads in (("off", "1"), ("on", "1"), ("auto", "2"), ("on", "2")):
            got = said("run", "-m", model, "-p", "hello there", "-n", "12", "--raw", "--threads", threads, sparse=sparse, cpu=cpu)
            value = said("perplexity", "-m", model, "-f", TEXT, "--window", "64", "--threads", threads, sparse=sparse, cpu=cpu)
            want, score = want or got.get("token_ids"), score or value.get("perplexity")
            if not want or not score or got.get("token_ids") != want or value.get("perplexity") != score:
                bad.append(f"{cpu}, {sparse}, {threads} threads: {got} {value}, not {want} {score}")
    check(not bad, f"{name}: packed or not, one text and one perplexity", *bad[:3])
    n, size, instead = packed(model, sparse="on")
    check(n == 15, f"{name}: all matrices are packed when asked for", n)
    check(packed(model, sparse="off")[0] == 0, f"{name}: none when not wanted")
    if "avx512" in cpus and " avx512_vbmi2 " in open("/proc/cpuinfo").read():
        n, size, instead = packed(model)
        check(n == 14 and 0 < size, f"{name}: by itself all but the output, which is not pruned", n, size, instead)

n, _, _ = packed(source)
check(n == 0, "a model that nobody pruned is computed with from its rows", n)
r = skiff("bench", "-m", source, "-p", "0", "-n", "1", sparse="on")
check(r.returncode == 0 and "15 of 15 matrices without their zeros" in r.stdout, "bench says what is packed", r.stdout, r.stderr)
r = skiff("run", "-m", source, "-p", "a", "-n", "1", sparse="maybe")
check(r.returncode == 1 and r.stderr == f"skiff: {source}: SKF_SPARSE=maybe: not one of auto, on, off\n", "another SKF_SPARSE is refused", r.stderr)
done()
