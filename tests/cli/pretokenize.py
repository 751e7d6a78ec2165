"""Pre-tokenizers: awkward texts cut into the pieces that the `tokenizers` library makes of them with the models' own expressions
(tests/vectors/pre, made by tools/make_pieces.py); bytes that are no text; pieces that are tokens as a whole."""
import json
import os
import random
import struct
import subprocess

import arch_models
from tap import check, done

BUILD, TMP = os.environ["SKF_BUILD"], os.environ["SKF_TMP"]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VECTORS = json.load(open(os.path.join(ROOT, "tests", "vectors", "pre", "pieces.json")))


def pieces(pre, texts):
    sent = b"".join(struct.pack("=I", len(t)) + t for t in texts)
    p = subprocess.run([os.path.join(BUILD, "tests", "unit", "runtime_arch"), "pieces", pre], input=sent, capture_output=True)
    got = struct.unpack(f"={len(p.stdout) // 4}I", p.stdout)
    out, at = [], 0
    while at < len(got):
        out.append(list(got[at + 1:at + 1 + got[at]]))
        at += 1 + got[at]
    return out


def against_tokenizers():
    texts = [t.encode() for t in VECTORS["texts"]]
    for pre, want in VECTORS["pieces"].items():
        got = pieces(pre, texts)
        bad = [f"{t!r}: {g}, not {w}" for t, g, w in zip(VECTORS["texts"], got, want) if g != w]
        check(len(got) == len(want) and not bad, f"{pre}: {len(want)} texts cut as by tokenizers", *bad[:8])


def no_text():
    """What is not UTF-8 is cut without a byte lost."""
    rng = random.Random(4)
    texts = [bytes(rng.choice([0x20, 0x27, 0x61, 0x31, 0x0a, 0x80, 0xc3, 0xe2, 0xf0, 0xff, 0xed, 0xa0]) for _ in range(rng.randrange(1, 30))) for _ in range(400)]
    for pre in VECTORS["pieces"]:
        got = pieces(pre, texts)
        check(len(got) == 400 and all(sum(g) == len(t) and min(g) > 0 for g, t in zip(got, texts)), f"{pre}: bytes that are no text")


def whole_first():
    """A token that no merge makes is found by llama-bpe alone."""
    for pre, want in (("llama-bpe", [63]), ("dbrx", [0, 1, 2]), ("qwen2", [0, 1, 2])):
        path = os.path.join(TMP, "whole.gguf")
        arch_models.write_gguf(arch_models.CASES["llama"], path, lambda p: p.update(pre=pre, tokens=["a", "b", "c", "d", "e", "de"] + [f"x{i}" for i in range(57)] + ["abc"], merges=["d e"]))
        r = subprocess.run([os.path.join(BUILD, "skiff"), "run", "-m", path, "-p", "abc", "--tokenize", "--json"], capture_output=True, text=True)
        got = json.loads(r.stdout or "{}").get("token_ids")
        check(got == want, f"{pre}: a piece that is a token", got, r.stderr)


against_tokenizers()
no_text()
whole_first()
done()
