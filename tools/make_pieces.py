#!/usr/bin/env python3
"""Makes tests/vectors/pre/pieces.json: how the `tokenizers` library, with the expressions of the models' own tokenizer files, cuts awkward
texts into pieces. tests/cli/pretokenize.py holds the runtime to it.

usage: make_pieces.py, with the packages of tests/requirements-transformers.txt
"""
import json
import os
import random

from tokenizers import Regex, pre_tokenizers

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def split(expression):
    return pre_tokenizers.Split(Regex(expression), "isolated")


CUTS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
    "llama-bpe": split(LLAMA3),
    "dbrx": split(LLAMA3),
    "qwen2": split(LLAMA3.replace("{1,3}", "")),
}
WRITTEN = [
    "", " ", "  ", "\n", "\r\n", " \n", "\n ", "\t\n\n  x", "a", " a", "  a", "   a  ", "a\n\nb", "a \n\n b", "a\r\n\r\nb", "x  \n", "\u00a0\u00a0a", "a\u3000b",
    "I'm you're we've he'll she'd it's can't", "I'M YOU'RE WE'VE HE'LL SHE'D IT'S CAN'T", "I'Ve 'lL 'D 'X ''s '\u017f '\u017fa 'S'", "'", "''", " 's", "n't'", "\u2019s",
    "0 12 123 1234 12345 1234567", " 12", "a1b22c333d4444", "3.14159,2.71", "\u00bd\u00b2\u2167\u0664\u0665\u0666\u0667", "\u0967\u0968\u0969\u096a", "1\u20e3", "x\u00b2+y\u00b3=z\u00b9\u2070",
    "e\u0301te\u0301 \u0301 a\u0308\u0323b", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u3053\u3093\u306b\u3061\u306f", "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea\u2764\ufe0f", " \U0001f600a", "!\n\n", " !!\n\r\nx", "...\n ...", "(a) [b] {c}", "#include <x>\n\tint a=1;\n", "https://a.b/c?d=e&f=g",
    "\u200ba\u200b", "\ufeffx", "\u2028a\u2029b", "a\u0085b", "\x1c\x1d\x1e\x1f", "\x00\x01a\x7f", "a\u00adb", "\U0001d400\U0001d7ce\U0001d7cf", "\u01c5\u02b0\u00aa", "_a_b_", "$\u20ac\u00a3 5", "\n\n\n", " \t \n \t a", "a\t b", "\t\ta", " \n\n ",
]
LETTERS = ["a", "B", "\u00e9", "\u017f", "\u4e2d", "\u0301", "1", "2", "\u0663", "\u00bd", " ", " ", "  ", "\n", "\r", "\t", "\u00a0", "'", "'s", "'LL", ".", "!", "\U0001f600", "\u200d", "\x00", "_"]


def main():
    rng = random.Random(9)
    texts = WRITTEN + ["".join(rng.choice(LETTERS) for _ in range(rng.randrange(3, 40))) for _ in range(150)]
    pieces = {}
    for name, cut in CUTS.items():
        pieces[name] = [[len(text[a:b].encode()) for _, (a, b) in cut.pre_tokenize_str(text)] for text in texts]
    path = os.path.join(ROOT, "tests", "vectors", "pre", "pieces.json")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        json.dump({"texts": texts, "pieces": pieces}, f, separators=(",", ":"))
        f.write("\n")
    print(f"{path}: {len(texts)} texts, {os.path.getsize(path)} bytes")


if __name__ == "__main__":
    main()
