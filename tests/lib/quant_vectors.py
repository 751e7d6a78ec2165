"""The figures in tests/unit/model_quant.c: SHA-256 of what the `gguf` package's quantizers make of a fixed noise.

usage: quant_vectors.py   (prints the C table; needs numpy and gguf)
"""
import hashlib

import numpy as np
from gguf import GGMLQuantizationType as QT
from gguf.quants import dequantize, quantize

BLOCKS = 4096


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


if __name__ == "__main__":
    x = noise()
    for name in ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        t = QT[name]
        with np.errstate(all="ignore"):
            q = np.ascontiguousarray(quantize(x, t))
            back = np.ascontiguousarray(dequantize(q, t).astype("<f4"))
        print(f'    {{SKF_T_{name}, "{hashlib.sha256(q.tobytes()).hexdigest()}",\n'
              f'     "{hashlib.sha256(back.tobytes()).hexdigest()}"}},')
