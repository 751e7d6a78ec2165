"""A small model that guesses (--draft): the same answers, and refused by name when its tokens are others."""
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tiny_model  # noqa: E402
from tap import check, done  # noqa: E402

BUILD, TMP, SLOW = os.environ["SKF_BUILD"], os.environ["SKF_TMP"], float(os.environ.get("SKF_SLOW", "1"))
SKIFF = os.path.join(BUILD, "skiff")
MODEL, SMALL, OTHER, CUT = (os.path.join(TMP, n) for n in ("tiny.gguf", "small.gguf", "other.gguf", "cut.gguf"))


def run(*args):
    r = subprocess.run([SKIFF, "run", "-m", MODEL, "-p", "the low words", "--raw", "-n", "60", *args], capture_output=True, text=True, timeout=120 * SLOW)
    return r.returncode, r.stdout, r.stderr


def main():
    tiny_model.write(MODEL, "q8_0", seed=3)
    tiny_model.write(SMALL, "q8_0", seed=4, layers=1)
    with open(CUT, "wb") as f:
        f.write(open(SMALL, "rb").read()[:3000])
    with open(OTHER, "wb") as f:  # a letter of the vocabulary is another one
        f.write(open(SMALL, "rb").read().replace(b"\x01\0\0\0\0\0\0\0q", b"\x01\0\0\0\0\0\0\0\x7f", 1))
    for args in ((), ("--temp", "1", "--seed", "4")):
        plain = json.loads(run("--speculate", "0", "--json", *args)[1])
        with_it = json.loads(run("--draft", SMALL, "--json", *args)[1])
        check(plain["token_ids"] == with_it["token_ids"] and plain["text"] == with_it["text"], "the same text", plain, with_it)
        check(plain["drafted_tokens"] == 0 < with_it["drafted_tokens"], "guesses were made", plain, with_it)
    for path, want in ((OTHER, r"skiff: .*tiny\.gguf: guessing with .*other\.gguf: its token \d+ is not that of the model .*\n"),
                       (CUT, r"skiff: .*cut\.gguf: .*\n"), (os.path.join(TMP, "none.gguf"), r"skiff: .*none\.gguf: No such file or directory\n")):
        code, out, err = run("--draft", path)
        check(code == 1 and not out and re.fullmatch(want, err), f"{os.path.basename(path)}: one line", code, out, err)
    r = subprocess.run([os.path.join(BUILD, "skiff-worker"), "--socket", os.path.join(TMP, "w.sock"), "--file", MODEL, "--draft", OTHER],
                       capture_output=True, text=True, timeout=60 * SLOW)
    check(r.returncode == 1 and "other.gguf" in r.stderr.splitlines()[-1], "so says the worker", r.stderr)
    done()


main()
