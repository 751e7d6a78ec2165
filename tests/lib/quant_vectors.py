"""The figures in tests/unit/model_quant.c: SHA-256 of what other quantizers make of a fixed noise.

usage: quant_vectors.py [libggml-base.so]   (prints the C tables; needs numpy and gguf; the library comes with llama-cpp-python)

What the `gguf` package quantizes is taken from it; K-quants, iq4_nl and everything with importance from ggml's own library.
"""
import ctypes
import hashlib
import sys

import numpy as np
from gguf import GGMLQuantizationType as QT
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize

BLOCKS, ROW = 4096, 1024


def noise():
    """Exact in float32 whatever the machine: 16 signed bits times a power of two that changes from block to block."""
    s, out = 12345, []
    for block in range(BLOCKS):
        scale = 2.0 ** -(block % 40)
        for _ in range(32):
            s = (s * 1664525 + 1013904223) & 0xFFFFFFFF
            v = (s >> 16) - 32768
            out.append((v >> 12 << 12 if block % 7 == 0 else v) * scale)  # every seventh block: few values, many ties
    x = np.array(out, np.float32)
    x[:32] = 0
    x[32:64] = -1.5
    return x


def importance():
    """A row of weights; every fourth is zero."""
    return np.array([0 if i % 4 == 3 else ((i * 2654435761 & 0xFFFFFFFF) >> 16) * 2.0 ** -10 for i in range(ROW)], np.float32)


def ggml(library, x, t, weights):
    block, size = GGML_QUANT_SIZES[t]
    out = np.zeros(x.size // block * size, np.uint8)
    fn = ctypes.CDLL(library).ggml_quantize_chunk
    fn.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    fn.restype = ctypes.c_size_t
    assert fn(int(t), x.ctypes.data, out.ctypes.data, 0, x.size // ROW, ROW, weights.ctypes.data if weights is not None else None) == out.size
    return out


def sha(a):
    return hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()


if __name__ == "__main__":
    x, w = noise(), importance()
    library = sys.argv[1] if len(sys.argv) > 1 else None
    for name in "F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 TQ1_0 TQ2_0 MXFP4 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL".split():
        t, weighed = QT[name], "NULL"
        with np.errstate(all="ignore"):
            try:
                q = quantize(x, t)
            except NotImplementedError:
                if not library:
                    continue
                q = ggml(library, x, t, None)
            back = dequantize(q, t).astype("<f4")
        if library and name[0] not in "FB":
            q_w = ggml(library, x, t, w)
            weighed = f'"{sha(q_w)}"' if not np.array_equal(q, q_w) else "NULL"
        print(f'    {{SKF_T_{name}, "{sha(q)}",\n     "{sha(back)}",\n     {weighed}}},')
