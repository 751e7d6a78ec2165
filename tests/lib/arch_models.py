"""Small models with random weights, one for each thing that tells decoders apart, as transformers names them and as GGUF.

CASES                    {name: case}: configuration for transformers, metadata and habits of the GGUF file
weights(case)            {name of transformers: float32 array}, the same on every machine
write_gguf(case, path)   the model as llama.cpp's converter would write it, all float32
IDS                      the tokens whose logits tests/vectors/arch/logits.npz holds

No torch is needed here: tools/check_transformers.py, which makes the vectors, has it.
"""
import numpy as np
from gguf import GGUFWriter, get_tensor_name_map
from gguf.constants import MODEL_ARCH_NAMES

VOCAB, POSITIONS = 64, 40
IDS = [int(x) for x in np.random.RandomState(77).randint(0, VOCAB, POSITIONS)]
BASE = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=128, rms_norm_eps=1e-5, head_dim=8, tie_word_embeddings=False, rope_theta=10000.0,
            bos_token_id=1, eos_token_id=2, pad_token_id=0)
PAIRS = 4  # of a head of 8


def case(arch, gguf=None, rope=None, **config):
    return dict(arch=arch, gguf=gguf or {}, rope=rope, config={**BASE, **config})


LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
SHORT, LONG = [1.0, 1.05, 1.2, 1.4], [1.0, 1.5, 3.0, 6.5]
LONGROPE = dict(rope_type="longrope", short_factor=SHORT, long_factor=LONG)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)
CASES = {
    "llama": case("llama", tie_word_embeddings=True),
    "llama-linear": case("llama", rope=dict(rope_type="linear", factor=2.5), gguf={"rope.scaling.type": "linear", "rope.scaling.factor": 2.5}),
    "llama3": case("llama", rope=LLAMA3, rope_theta=500000.0),
    "qwen2": case("qwen2", rope_theta=1000000.0),
    "qwen2-yarn": case("qwen2", rope=YARN, tie_word_embeddings=True, gguf={
        "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32}),
    "qwen3": case("qwen3", head_dim=16, rope_theta=1000000.0, tie_word_embeddings=True),
    "smollm3": case("smollm3", num_hidden_layers=5, rope_theta=50000.0, tie_word_embeddings=True),
    "phi3": case("phi3", sliding_window=9, num_key_value_heads=4, gguf={"attention.sliding_window": 9}),
    # transformers takes the long factors when a sequence grows over the original length, an engine when its context may
    "phi3-short": case("phi3", rope=dict(LONGROPE, original_max_position_embeddings=64), original_max_position_embeddings=64, gguf={
        "rope.scaling.original_context_length": 64, "context": 64}),
    "phi3-long": case("phi3", rope=dict(LONGROPE, original_max_position_embeddings=16), original_max_position_embeddings=16,
                      gguf={"rope.scaling.original_context_length": 16, "context": 128}),
    "phi3-partial": case("phi3", head_dim=16, hidden_size=64, partial_rotary_factor=0.5, gguf={"rope.dimension_count": 8}),
    "gemma2": case("gemma2", sliding_window=9, num_hidden_layers=3, tie_word_embeddings=True, query_pre_attn_scalar=8,
                   attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
                   gguf={"attention.sliding_window": 9, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "gemma3": case("gemma3", sliding_window=9, num_hidden_layers=7, tie_word_embeddings=True, query_pre_attn_scalar=8, head_dim=16,
                   rope_theta=1000000.0, gguf={"attention.sliding_window": 9, "attention.scale": 8 ** -0.5,
                                               "rope.scaling.type": "linear", "rope.scaling.factor": 8.0}),
}


def shapes(c):
    """Names and shapes of transformers' tensors."""
    g, h, hd = c["config"], c["config"]["hidden_size"], c["config"]["head_dim"]
    q, kv, ff, gemma = hd * g["num_attention_heads"], hd * g["num_key_value_heads"], g["intermediate_size"], c["arch"].startswith("gemma")
    out = {"model.embed_tokens.weight": (VOCAB, h), "model.norm.weight": (h,)}
    for i in range(g["num_hidden_layers"]):
        p = f"model.layers.{i}."
        norms = ["input_layernorm", "post_attention_layernorm"] + ["pre_feedforward_layernorm", "post_feedforward_layernorm"] * gemma
        out.update({f"{p}{n}.weight": (h,) for n in norms})
        parts = {"qkv": q + 2 * kv} if c["arch"] == "phi3" else {"q": q, "k": kv, "v": kv}
        out.update({f"{p}self_attn.{n}_proj.weight": (rows, h) for n, rows in parts.items()})
        if c["arch"] == "qwen2":
            out.update({f"{p}self_attn.{n}_proj.bias": (rows,) for n, rows in parts.items()})
        if c["arch"] in ("qwen3", "gemma3"):
            out.update({f"{p}self_attn.{n}_norm.weight": (hd,) for n in "qk"})
        out[p + "self_attn.o_proj.weight"] = (h, q)
        mlp = {"gate_up": 2 * ff} if c["arch"] == "phi3" else {"gate": ff, "up": ff}
        out.update({f"{p}mlp.{n}_proj.weight": (rows, h) for n, rows in mlp.items()})
        out[p + "mlp.down_proj.weight"] = (h, ff)
    if not g["tie_word_embeddings"]:
        out["lm_head.weight"] = (VOCAB, h)
    return out


def weights(c, seed=5):
    rng, out = np.random.RandomState(seed), {}
    for name, shape in shapes(c).items():
        x = rng.standard_normal(shape)
        if len(shape) == 2:
            x *= 1.0 if "embed" in name else 1.7 * shape[1] ** -0.5
        else:
            x = 0.3 * x + (0.0 if name.endswith("bias") or c["arch"].startswith("gemma") else 1.0)
        out[name] = x.astype(np.float32)
    return out


def permuted(x, heads):
    """Rows of a head from halves to adjacent pairs, as llama.cpp's converter lays them."""
    return np.ascontiguousarray(x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape))


def llama3_factors(base, n_rot, r):
    """What Llama 3.1 divides each frequency by."""
    wave = 2 * np.pi * base ** (np.arange(0, n_rot, 2) / n_rot)
    old, low, high = r["original_max_position_embeddings"], r["low_freq_factor"], r["high_freq_factor"]
    smooth = (old / wave - low) / (high - low)
    between = 1 / ((1 - smooth) / r["factor"] + smooth)
    return np.where(wave < old / high, 1.0, np.where(wave > old / low, r["factor"], between)).astype(np.float32)


def tensors(c):
    """{name of GGUF: array}."""
    g, arch = c["config"], c["arch"]
    ids = {v: k for k, v in MODEL_ARCH_NAMES.items()}
    names, out = get_tensor_name_map(ids[arch], g["num_hidden_layers"]), {}
    for name, x in weights(c).items():
        if arch in ("llama", "smollm3") and (".q_proj" in name or ".k_proj" in name):
            x = permuted(x, g["num_attention_heads" if ".q_" in name else "num_key_value_heads"])
        if arch.startswith("gemma") and name.endswith("norm.weight"):
            x = x + np.float32(1)
        out[names.get_name(name, try_suffixes=(".weight", ".bias"))] = x
    rope = c["rope"] or {}
    if rope.get("rope_type") == "llama3":
        out["rope_freqs.weight"] = llama3_factors(g["rope_theta"], g["head_dim"], rope)
    if rope.get("rope_type") == "longrope":
        out["rope_factors_short.weight"] = np.array(SHORT, np.float32)
        out["rope_factors_long.weight"] = np.array(LONG, np.float32)
    return out


def metadata(c):
    """{key behind the architecture: value}, as the converter writes them."""
    g, extra = c["config"], dict(c["gguf"])
    context = extra.pop("context", g["max_position_embeddings"])
    out = {"block_count": g["num_hidden_layers"], "context_length": context, "embedding_length": g["hidden_size"],
           "feed_forward_length": g["intermediate_size"], "attention.head_count": g["num_attention_heads"],
           "attention.head_count_kv": g["num_key_value_heads"], "attention.key_length": g["head_dim"], "attention.value_length": g["head_dim"],
           "attention.layer_norm_rms_epsilon": float(g["rms_norm_eps"]), "rope.freq_base": float(g["rope_theta"]),
           "rope.dimension_count": g["head_dim"], "vocab_size": g["vocab_size"]}
    if (c["rope"] or {}).get("rope_type") == "longrope":
        scale = g["max_position_embeddings"] / g["original_max_position_embeddings"]
        out["rope.scaling.attn_factor"] = float(np.sqrt(1 + np.log(scale) / np.log(g["original_max_position_embeddings"])))
    out.update(extra)
    return out


def write_gguf(c, path, change=None):
    """`change` may alter the parts before they are written."""
    parts = {"keys": metadata(c), "tensors": tensors(c), "pre": "gpt-2", "tokens": [chr(48 + i) for i in range(VOCAB - 1)] + ["01"], "merges": ["0 1"]}
    if change:
        change(parts)
    w = GGUFWriter(str(path), c["arch"])
    for key, value in parts["keys"].items():
        put = {bool: w.add_bool, int: w.add_uint32, float: w.add_float32, str: w.add_string, list: w.add_array}[type(value)]
        put(f"{c['arch']}.{key}", value)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(parts["pre"])
    w.add_token_list(parts["tokens"])
    w.add_token_types([1] * VOCAB)
    w.add_token_merges(parts["merges"])
    for name, x in parts["tensors"].items():
        w.add_tensor(name, x)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path
