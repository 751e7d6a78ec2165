"""`skiff diff` where a version changes its numbers' type: what a box can make of what it has is not sent."""
import filecmp
import os
import subprocess
import sys

import numpy as np
from gguf import GGMLQuantizationType as QT, GGUFWriter
from gguf.quants import quantize
from tap import check, done

BUILD, TMP = os.environ["SKF_BUILD"], os.environ["SKF_TMP"]
SKIFF = os.path.join(BUILD, "skiff")
PYTHON = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "python")
SLOW = float(os.environ.get("SKF_SLOW", "1"))
rng = np.random.RandomState(2)
ROWS, WIDTH = 160, 640


def at(name):
    return os.path.join(TMP, name)


def bf16(x):
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)


def gguf(name, x, kind, shape=None):
    w = GGUFWriter(at(name), "llama")
    for k in range(3):
        w.add_tensor(f"blk.{k}.ffn_up.weight", quantize(x[k].reshape(shape or x[k].shape), kind), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return at(name)


def run(*args):
    return subprocess.run(args, capture_output=True, text=True, timeout=120 * SLOW, env=dict(os.environ, PYTHONPATH=PYTHON))


def delta(what, old, new, share, is_read_twice=False):
    """`is_read_twice`: by the decoder in Python too."""
    full, d, out = os.path.getsize(new), at("d.skd"), at("out")
    r = run(SKIFF, "diff", old, new, "-o", d)
    made = [run(SKIFF, "apply", old, d, "-o", out), filecmp.cmp(out, new, shallow=False)] if r.returncode == 0 else [r, False]
    second = run(sys.executable, "-m", "skiff.skd", old, d, at("second")) if r.returncode == 0 and is_read_twice else r
    size = os.path.getsize(d) if r.returncode == 0 else full
    check(made[1] and second.returncode == 0 and (not is_read_twice or filecmp.cmp(at("second"), new, shallow=False)) and size <= share * full, what,
          f"{size} of {full} bytes, at most {share}", r.stderr, made[0].stderr, second.stderr[-500:])


weights = bf16(rng.standard_normal((3, ROWS, WIDTH)) * 0.03)
tuned = bf16(weights * (1 + 0.002 * rng.standard_normal(weights.shape)))
types = {k: getattr(QT, k) for k in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")}
files = {k: gguf(k, weights, kind) for k, kind in types.items()}
for n, (old, new) in enumerate((("BF16", "F16"), ("F16", "BF16"), ("BF16", "F32"), ("F32", "BF16"), ("F32", "F16"), ("BF16", "Q8_0"), ("F32", "Q8_0"), ("F16", "Q5_1"),
                 ("BF16", "Q5_0"), ("BF16", "Q4_1"), ("BF16", "Q4_0"))):
    delta(f"the same weights, {old} to {new}, cost next to nothing", files[old], files[new], 0.004, n % 4 == 1)
delta("Q8_0 to Q4_1 costs what was lost in between", files["Q8_0"], files["Q4_1"], 0.2, True)
delta("Q8_0 to BF16 costs less than the file", files["Q8_0"], files["BF16"], 0.6)
delta("a fine-tune, BF16 to F16, costs what it costs in BF16", files["BF16"], gguf("t.f16", tuned, QT.F16), 0.25)
delta("a fine-tune, BF16 to Q8_0, costs what it costs in Q8_0", files["BF16"], gguf("t.q8_0", tuned, QT.Q8_0), 0.1, True)
delta("rows of another length are other numbers", files["BF16"], gguf("t.shape", weights, QT.F16, (WIDTH, ROWS)), 1.01)
odd = weights.copy()
odd[0, 5, 5], odd[1, 7, 7] = np.inf, np.nan
delta("what is not finite is coded all the same", gguf("odd.f32", odd, QT.F32), gguf("odd.f16", odd, QT.F16), 0.8)
done()
