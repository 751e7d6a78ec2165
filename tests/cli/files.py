"""Files that change under a verb, are half way through a change, or have no name: one line that names the file and says how to go on."""
import os
import shutil
import subprocess
import time

import tiny_model
from tap import check, done

BUILD, MODELS, TMP, SLOW = os.environ["SKF_BUILD"], os.environ["SKF_MODELS"], os.environ["SKF_TMP"], float(os.environ.get("SKF_SLOW", "1"))
SKIFF = os.path.join(BUILD, "skiff")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ADAPTER = os.path.join(ROOT, "examples", "smollm2-135m-python-lora.gguf")
TEXT = os.path.join(ROOT, "tests", "vectors", "python-heldout.txt")


def at(name):
    return os.path.join(TMP, name)


def run(*args):
    return subprocess.run([SKIFF, *args], capture_output=True, text=True, timeout=120 * SLOW)


def is_line(r, *words, status=1):
    return r.returncode == status and r.stderr.count("\n") == 1 and r.stderr.startswith("skiff: ") and all(w in r.stderr for w in words)


# ---- cut short while it is read: the line names the file -----------------------------------------------------------------------------
def cut(what, begun, *args):
    """Stops the command once `begun` says that it reads the model, cuts that, and lets it go on."""
    model = at("cut.gguf")
    shutil.copy(os.path.join(MODELS, "published.gguf"), model)
    p = subprocess.Popen([SKIFF, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60 * SLOW
    while not begun(p) and p.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    os.truncate(model, 4096)
    out, err = p.communicate(timeout=120 * SLOW)
    r = subprocess.CompletedProcess(args, p.returncode, out, err)
    check(is_line(r, "cut.gguf: became shorter"), f"cut short under {what}: named", r.returncode, err)


def maps(p):
    """The model is mapped, and the text too: tokens are being made or scored."""
    try:
        with open(f"/proc/{p.pid}/maps") as f:
            return "cut.gguf" in f.read()
    except OSError:
        return False


cut("merge", lambda p: any(f.startswith("out.gguf.") for f in os.listdir(TMP)), "merge", at("cut.gguf"), ADAPTER, "-o", at("out.gguf"))
cut("perplexity", maps, "perplexity", "-m", at("cut.gguf"), "-f", TEXT)
for f in os.listdir(TMP):
    if f.endswith(".part"):
        os.remove(at(f))

# ---- half way through a change in place ----------------------------------------------------------------------------------------------
old, new = at("old.gguf"), at("new.gguf")
tiny_model.write(old, type="q4_1", seed=1)
tiny_model.write(new, type="q4_1", seed=1, change=0.05)
check(run("diff", old, new, "-o", at("d.skd")).returncode == 0 and run("diff", new, old, "-o", at("back.skd")).returncode == 0, "deltas")
half = at("half.gguf")
shutil.copy(old, half)
os.symlink(half, at("link.gguf"))
lora = tiny_model.write_lora(at("lora.gguf"))
READERS = (("show", half), ("show", at("link.gguf")), ("run", "-m", half, "-p", "x"), ("bench", "-m", half), ("perplexity", "-m", half, "-f", TEXT),
           ("serve", "-m", half, "--listen", "127.0.0.1:0"), ("diff", half, new, "-o", at("o.skd")), ("diff", old, half, "-o", at("o.skd")),
           ("apply", half, at("d.skd"), "-o", at("o.gguf")),
           ("quantize", half, at("o.gguf"), "--type", "q8_0"), ("quantize", new, at("o.gguf"), "--base", half),
           ("quantize", half, at("o.gguf"), "--base", old, "--calibrate", TEXT), ("merge", half, lora, "-o", at("o.gguf")),
           ("merge", half, lora, "-o", at("o.gguf"), "--calibrate", TEXT), ("compose", half, at("d.skd"), at("back.skd"), "-o", at("o.skd")))


def journal(record):
    with open(half + ".skiff-journal", "wb") as f:
        f.write(b"SKJ\x1a".ljust(4096, b"\0") + record.ljust(2 * 4096, b"\0"))


journal(b"\1")
for args in READERS:
    r = run(*args)
    check(is_line(r, "neither version", "--in-place") and not r.stdout and not os.path.exists(at("o.skd")) and not os.path.exists(at("o.gguf")),
          "half way: " + " ".join(os.path.basename(a) for a in args[:3]), r.returncode, r.stderr)
r = run("apply", half, at("d.skd"), "--in-place")
check(is_line(r, "half.gguf.skiff-journal", "damaged journal", "remove the journal"), "a damaged journal, and the way on", r.stderr)
journal(b"")
r = run("show", half)
check(r.returncode == 0, "a journal in which no batch is recorded: nothing was changed yet", r.stderr)
os.remove(half + ".skiff-journal")

# ---- names of nothing ------------------------------------------------------------------------------------------------------------------
for args in (("show", ""), ("run", "-m", "", "-p", "x"), ("diff", "", new, "-o", at("o.skd")), ("diff", old, new, "-o", ""), ("apply", old, "", "-o", at("n"))):
    r = run(*args)
    check(r.returncode in (1, 2) and r.stderr.count("\n") == 1 and "''" in r.stderr and ": :" not in r.stderr, "no name: " + " ".join(map(os.path.basename, args)), r.stderr)

# ---- chains --------------------------------------------------------------------------------------------------------------------------------
r = run("compose", old, at("d.skd"), "-o", at("o.skd"))
check(is_line(r, "two deltas or more", status=2) and not os.path.exists(at("o.skd")), "a chain of one", r.stderr)
r = run("compose", old, *[at("d.skd"), at("back.skd")] * 33, at("d.skd"), "-o", at("o.skd"))
check(r.returncode == 0 and "67 deltas" in r.stdout, "a chain of 67", r.stderr)
r = run("apply", old, at("o.skd"), "-o", at("n.gguf"))
check(r.returncode == 0 and open(at("n.gguf"), "rb").read() == open(new, "rb").read(), "which comes to the last version", r.stderr)

# ---- limits name their option --------------------------------------------------------------------------------------------------------------
for args in (("quantize", new, at("o.gguf"), "--base", old, "--text", TEXT, "--budget", "1%", "--jobs", "257"),
             ("quantize", new, at("o.gguf"), "--type", "q8_0", "--calibrate", TEXT, "--jobs", "257"),
             ("merge", old, lora, "-o", at("o.gguf"), "--calibrate", TEXT, "--jobs", "257")):
    r = run(*args)
    check(is_line(r, "--jobs", "256", status=2), "more threads than an engine has: " + args[0], r.stderr)
r = run("run", "-m", old, "-p", "x", "--threads", "257")
check(is_line(r, "--threads", "256", status=2), "more threads than an engine has: run", r.stderr)

# ---- long texts: no more is read than is used ------------------------------------------------------------------------------------------------
with open(TEXT) as f, open(at("long.txt"), "w") as g:
    text = f.read()
    g.write(text * (3_000_000 // len(text)))
short = run("perplexity", "-m", old, "-f", TEXT, "--window", "64", "--windows", "2")
long = run("perplexity", "-m", old, "-f", at("long.txt"), "--window", "64", "--windows", "2")
check(short.returncode == 0 and short.stdout == long.stdout, "the first windows of a long text", short.stdout, long.stdout, long.stderr)
os.truncate(at("long.txt"), (64 << 20) + 1)
check(is_line(run("perplexity", "-m", old, "-f", at("long.txt"), "--window", "64"), "long.txt", "head -c"), "a text that is too long, and what to do")
done()
