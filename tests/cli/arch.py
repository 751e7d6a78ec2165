"""Architectures: logits of small models against transformers' (tests/vectors/arch, made by tools/check_transformers.py), the same bits from
every instruction set, and files that say what this build does not know, or nonsense, refused by its name."""
import os
import subprocess

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

import arch_models
from arch_logits import apart, is_same, logits_of
from tap import check, done

BUILD, TMP = os.environ["SKF_BUILD"], os.environ["SKF_TMP"]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VECTORS = np.load(os.path.join(ROOT, "tests", "vectors", "arch", "logits.npz"))
ISAS = ["ref", "avx2", "avx512", "neon"]
NAN = float("nan")


def path_of(name):
    return os.path.join(TMP, name + ".gguf")


def on_every_isa(path):
    out = []
    for isa in ISAS:
        try:
            out.append(logits_of(BUILD, path, arch_models.IDS, env={"SKF_CPU": isa}).tobytes())
        except RuntimeError as e:
            if "SKF_CPU" not in str(e):
                raise
    return out


def against_transformers():
    check(set(VECTORS.files) == set(arch_models.CASES), "every case has its vectors")
    for name, case in arch_models.CASES.items():
        path = arch_models.write_gguf(case, path_of(name))
        got = logits_of(BUILD, path, arch_models.IDS)
        check(is_same(got, VECTORS[name]), f"{name}: the logits are those of transformers", "median and largest difference %.1e %.1e" % apart(got, VECTORS[name]))
        if name in ("smollm3", "phi3-long", "gemma2"):
            bits = on_every_isa(path)
            check(len(bits) > 1 and set(bits) == {got.tobytes()}, f"{name}: the same bits from every instruction set")


def fused_blocks():
    """Rows out of the middle of a quantized tensor, by every instruction set."""
    case = arch_models.case("phi3", intermediate_size=64, num_key_value_heads=4)

    class Blocks(GGUFWriter):
        def add_tensor(self, name, x, **kw):
            if x.ndim == 2:
                super().add_tensor(name, quantize(x, GGMLQuantizationType.Q8_0), raw_dtype=GGMLQuantizationType.Q8_0)
            else:
                super().add_tensor(name, x, **kw)

    plain, arch_models.GGUFWriter = arch_models.GGUFWriter, Blocks
    try:
        path = arch_models.write_gguf(case, path_of("fused"))
    finally:
        arch_models.GGUFWriter = plain
    bits = on_every_isa(path)
    close = np.abs(np.frombuffer(bits[0], np.float32) - logits_of(BUILD, arch_models.write_gguf(case, path_of("floats")), arch_models.IDS).ravel())
    check(len(set(bits)) == 1 and close.max() < 0.5, "fused tensors in blocks: the same bits everywhere, near those of floats", close.max())


def refusals():
    def key(name, value):
        return lambda p: p["keys"].update({name: value})

    def tensor(name, value):
        return lambda p: p["tensors"].update({name: value})

    def without(name):
        return lambda p: p["tensors"].pop(name)

    bad_factors = np.array([1, NAN, 1, 1], np.float32)
    cases = [
        ("llama", key("attention.magic", 1), "llama.attention.magic is not known to this build"),
        ("llama", key("logit_scale", 2.0), "llama.logit_scale"),
        ("llama", key("expert_count", 8), "llama.expert_count"),
        ("llama", key("attention.head_count", 3), "3 heads"),
        ("llama", key("attention.head_count", 0), "llama.attention.head_count is 0"),
        ("llama", key("attention.head_count_kv", [2, 2]), "llama.attention.head_count_kv is not one whole number"),
        ("llama", key("attention.value_length", 6), "8 and 6 elements a head"),
        ("llama", key("rope.dimension_count", 16), "llama.rope.dimension_count"),
        ("llama", key("attention.sliding_window", 9), "llama.attention.sliding_window"),
        ("llama", key("rope.freq_base_swa", 9.0), "llama.rope.freq_base_swa"),
        ("llama", key("rope.scaling.type", "ntk"), '"ntk"'),
        ("llama-linear", key("rope.scaling.factor", 0.0), "llama.rope.scaling.factor"),
        ("llama-linear", key("rope.scaling.factor", NAN), "llama.rope.scaling.factor"),
        ("llama3", tensor("rope_freqs.weight", bad_factors), "rope_freqs.weight: element 1"),
        ("llama3", tensor("rope_freqs.weight", bad_factors[:2]), "rope_freqs.weight is 2 x 1, not 4 x 1"),
        ("llama", tensor("blk.0.attn_q.bias", np.ones(32, np.float32)), "blk.0.attn_q.bias is no part of the llama architecture"),
        ("qwen2", without("blk.1.attn_k.bias"), "blk.1.attn_k.bias is missing"),
        ("qwen2", tensor("blk.1.attn_v.bias", np.ones(15, np.float32)), "blk.1.attn_v.bias is 15 x 1, not 16 x 1"),
        ("qwen2-yarn", key("rope.freq_base", 1.0), "qwen2.rope.freq_base"),
        ("qwen2-yarn", key("rope.scaling.yarn_ext_factor", 0.5), "qwen2.rope.scaling.yarn_ext_factor"),
        ("qwen2-yarn", key("rope.scaling.yarn_log_multiplier", 0.1), "qwen2.rope.scaling.yarn_log_multiplier"),
        ("qwen3", tensor("blk.0.attn_q_norm.weight", np.ones(32, np.float32)), "blk.0.attn_q_norm.weight is 32 x 1, not 16 x 1"),
        ("phi3", tensor("blk.0.attn_qkv.weight", np.ones((95, 32), np.float32)), "blk.0.attn_qkv.weight is 32 x 95, not 32 x 96"),
        ("phi3", tensor("blk.1.ffn_up.weight", np.ones((48, 32), np.float32)), "blk.1.ffn_up.weight is 32 x 48, not 32 x 96"),
        ("phi3-long", without("rope_factors_short.weight"), "rope_factors_short.weight"),
        ("phi3-long", tensor("rope_factors_long.weight", bad_factors), "rope_factors_long.weight: element 1"),
        ("gemma2", key("attention.sliding_window", 0), "gemma2.attention.sliding_window is 0"),
        ("gemma2", key("attn_logit_softcapping", -1.0), "gemma2.attn_logit_softcapping"),
        ("gemma2", key("final_logit_softcapping", NAN), "gemma2.final_logit_softcapping"),
        ("gemma2", key("final_logit_softcapping", 1e-9), "soft caps"),
        ("gemma3", key("attention.scale", NAN), "gemma3.attention.scale"),
        ("gemma3", key("attention.sliding_window_pattern", [True] * 6), "gemma3.attention.sliding_window_pattern"),
    ]
    for name, change, words in cases:
        path = arch_models.write_gguf(arch_models.CASES[name], path_of("refused"), change)
        r = subprocess.run([os.path.join(BUILD, "skiff"), "run", "-m", path, "-p", "0", "--raw", "-n", "1"], capture_output=True, text=True)
        check(r.returncode == 1 and words in r.stderr and r.stderr.count("\n") == 1, f"refused: {words}", r.stderr)


def what_a_file_may_say():
    """Said otherwise and meant the same: the pattern of windows as a list, caps of 0, a window as long as the context."""
    case = arch_models.CASES["gemma3"]
    want = logits_of(BUILD, path_of("gemma3"), arch_models.IDS).tobytes()
    for keys in ({"attention.sliding_window_pattern": [i % 6 != 5 for i in range(7)]}, {"attention.sliding_window_pattern": 6},
                 {"attn_logit_softcapping": 0.0, "rope.freq_base_swa": 10000.0}):
        got = logits_of(BUILD, arch_models.write_gguf(case, path_of("said"), lambda p, k=keys: p["keys"].update(k)), arch_models.IDS).tobytes()
        check(got == want, f"{', '.join(keys)}: what the architecture says anyway")
    got = logits_of(BUILD, arch_models.write_gguf(case, path_of("said"), lambda p: p["keys"].update(
        {"attention.sliding_window_pattern": [False] * 7})), arch_models.IDS).tobytes()
    check(got != want, "without windows the answer is another")


against_transformers()
fused_blocks()
refusals()
what_a_file_may_say()
done()
