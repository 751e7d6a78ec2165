"""`skiff apply` and `skiff diff` ended early in every way: killed at random instants and gone on with, interrupted, on a full disk, with a file
cut short under them; in place; with a share of the processors; and the memory that they take."""
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time

import sparse_pair
from tap import check, done

BUILD, TMP = os.environ["SKF_BUILD"], os.environ["SKF_TMP"]
SKIFF = os.path.join(BUILD, "skiff")
SLOW = float(os.environ.get("SKF_SLOW", "1"))
rng = random.Random(11)


def at(*parts):
    return os.path.join(TMP, *parts)


def run(*args, timeout=120, **more):
    return subprocess.run([SKIFF, *args], capture_output=True, text=True, timeout=timeout * SLOW, **more)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def left(name):
    return sorted(f for f in os.listdir(TMP) if f.startswith(name))


def is_line(r, status=1):
    return r.returncode == status and len(r.stderr.strip().splitlines()) == 1 and "Traceback" not in r.stderr


def kill_after(seconds, *args, sig=signal.SIGKILL):
    """Starts it, sends the signal after so long; the status, negative for a signal, and what it said."""
    p = subprocess.Popen([SKIFF, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    p.send_signal(sig)
    out, err = p.communicate(timeout=60 * SLOW)
    return p.returncode, err


def kill_begun(name, extra, *args, sig=signal.SIGKILL):
    """Starts it and sends the signal `extra` seconds after it has a file beside `name`, so that a quick machine is met as well as a slow one."""
    p = subprocess.Popen([SKIFF, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while p.poll() is None and not left(name + "."):
        time.sleep(0.001)
    time.sleep(extra)
    p.send_signal(sig)
    out, err = p.communicate(timeout=60 * SLOW)
    return p.returncode, err


old, new, delta, out = at("v1.gguf"), at("v2.gguf"), at("d.skd"), at("out.gguf")
sparse_pair.write((old, new), 36_000_000, 24_000_000, tensors=30, row=4096)
r = run("diff", old, new, "-o", delta)
check(r.returncode == 0, "a pair of models to work with", r.stderr)
wanted = read(new)

# ---- applying, killed again and again, goes on
begun = time.monotonic()
run("apply", old, delta, "-o", out, "--share", "30")
full = time.monotonic() - begun
check(read(out) == wanted, "a share of the processors makes the same file")
kills, continued = 0, 0
for _ in range(3):
    os.remove(out) if os.path.exists(out) else None
    for k in range(4):
        args = ("apply", old, delta, "-o", out, "--share", "30")
        status, err = kill_begun("out.gguf", rng.uniform(0, full / 8), *args) if k == 2 else kill_after(rng.uniform(0.01, full), *args)
        kills += status == -9
        continued += status == -9 and left("out.gguf.") != []
        check(status in (0, -9), "killed or done, never anything else", status, err)
        if os.path.exists(out):
            check(read(out) == wanted, "what has the output's name is whole", err)
    r = run("apply", old, delta, "-o", out)
    check(r.returncode == 0 and read(out) == wanted and left("out.gguf") == ["out.gguf"], "after kills the same command ends well, nothing beside it", r.stderr, left("out"))
check(kills > 2 and continued > 0, "kills came in between", kills, continued)

# ---- what a killed run left is checked, not believed; another delta sweeps it
os.remove(out)
for tries in range(20):
    os.remove(out) if os.path.exists(out) else None
    status, _ = kill_begun("out.gguf", full / (4 + tries), "apply", old, delta, "-o", out, "--share", "30")
    parts = left("out.gguf.")
    if status == -9 and parts:
        break
check(len(parts) == 1 and parts[0].endswith(".part"), "a killed run leaves one file that the next goes on with", parts)
with open(at(parts[0]), "r+b") as f:
    for _ in range(40):
        f.seek(rng.randrange(len(wanted)))
        f.write(b"lies")
r = run("apply", old, delta, "-o", out)
check(r.returncode == 0 and read(out) == wanted and left("out.gguf") == ["out.gguf"], "a part that somebody changed is checked", r.stderr)
run("diff", new, old, "-o", at("back.skd"))
shutil.copy(out, at("out.gguf.0123456789abcdef.part"))
r = run("apply", new, at("back.skd"), "-o", out)
check(r.returncode == 0 and read(out) == read(old) and left("out.gguf") == ["out.gguf"], "parts of another delta are swept", r.stderr, left("out"))
os.remove(out)

# ---- interrupted
for tries in range(20):
    status, err = kill_begun("out.gguf", full / (4 + tries), "apply", old, delta, "-o", out, "--share", "20", sig=signal.SIGINT)
    if status == 1:  # a signal may come before it is waited for, or when all is done
        break
    if os.path.exists(out):
        os.remove(out)
check(status == 1 and len(err.strip().splitlines()) == 1 and "cancelled" in err and not os.path.exists(out), "Ctrl-C ends it with a line", status, err)
check(left("out.gguf") == [] or "goes on with " + at(left("out.gguf")[0]) in err, "the line names what is left", err, left("out"))
r = run("apply", old, delta, "-o", out)
check(r.returncode == 0 and read(out) == wanted and left("out.gguf") == ["out.gguf"], "and the same command goes on", r.stderr)
for tries in range(20):
    status, err = kill_after(rng.uniform(0.01, 0.2 / (1 + tries / 4)), "diff", old, new, "-o", at("cut.skd"), "--share", "20", sig=signal.SIGINT)
    if status == 1:  # a signal may come before it is waited for, or when all is done
        break
    if os.path.exists(at("cut.skd")):
        os.remove(at("cut.skd"))
check(status == 1 and left("cut.skd") == [], "an interrupted diff leaves nothing", status, err, left("cut"))
for _ in range(3):
    kill_after(rng.uniform(0.05, 0.4), "diff", old, new, "-o", at("cut.skd"), "--share", "50")
r = run("diff", old, new, "-o", at("cut.skd"))
check(r.returncode == 0 and left("cut.skd") == ["cut.skd"] and read(at("cut.skd")) == read(delta), "after killed diffs nothing is left but the delta, the same bytes", left("cut"))

# ---- two at once
p = subprocess.Popen([SKIFF, "apply", old, delta, "-o", at("two.gguf"), "--share", "5"], stderr=subprocess.PIPE, text=True)
for _ in range(int(400 * SLOW)):
    if left("two.gguf.") or p.poll() is not None:
        break
    time.sleep(0.01)
r = run("apply", old, delta, "-o", at("two.gguf"))
check(is_line(r) and "another process" in r.stderr or p.poll() is not None, "a second writer of the same file is refused", r.stderr)
p.kill()
p.communicate()

# ---- a full disk: files may not grow past a limit
limit = len(wanted) // 2
r = run("apply", old, delta, "-o", at("big.gguf"), preexec_fn=lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))))
check(is_line(r) and left("big") == [], "no room for the result: one line, nothing left", r.stderr, left("big"))
r = run("diff", old, new, "-o", at("big.skd"), preexec_fn=lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))))
check(is_line(r) and left("big") == [], "no room for the delta: one line, nothing left", r.stderr, left("big"))

# ---- another file system
if os.access("/dev/shm", os.W_OK):
    there = f"/dev/shm/skiff-apply-{os.getpid()}.gguf"
    r = run("apply", old, delta, "-o", there)
    check(r.returncode == 0 and read(there) == wanted, "the result on another file system", r.stderr)
    os.remove(there)


# ---- a file that is cut short while it is read
def shorten(path, to, wait, *args):
    """Cuts the file while the command runs, or, if it was quicker than `wait`, behind it; the command must end by itself."""
    size = os.path.getsize(path)
    p = subprocess.Popen([SKIFF, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(rng.uniform(0.01, wait))
    os.truncate(path, int(size * to))
    out_, err_ = p.communicate(timeout=120 * SLOW)
    return subprocess.CompletedProcess(args, p.returncode, out_, err_)


for what, args in (("the source of apply", ("apply", at("cut.gguf"), delta, "-o", at("o.gguf"), "--share", "5")),
                   ("the source of apply in place", ("apply", at("cut.gguf"), delta, "--in-place", "--share", "5")),
                   ("the old model of diff", ("diff", at("cut.gguf"), new, "-o", at("o.skd"), "--share", "20")),
                   ("the new model of diff", ("diff", new, at("cut.gguf"), "-o", at("o.skd"), "--share", "20"))):
    for to in (0.0, 0.5):
        for tries in range(30):
            for f in left("o.") + left("cut.gguf"):
                os.remove(at(f))
            shutil.copy(old, at("cut.gguf"))
            r = shorten(at("cut.gguf"), to, 0.2 / (1 + tries / 3), *args)
            if r.returncode:  # it met the cut
                break
        check(is_line(r) and not os.path.exists(at("o.gguf")) and not os.path.exists(at("o.skd")), f"{what} cut short: a line and status 1", r.returncode, r.stderr)
        for f in left("o.") + left("cut.gguf"):
            os.remove(at(f))

# ---- in place
shutil.copy(old, at("ip.gguf"))
r = run("apply", at("ip.gguf"), delta, "--in-place", "--json")
check(r.returncode == 0 and read(at("ip.gguf")) == wanted and left("ip.") == ["ip.gguf"] and json.loads(r.stdout)["bytes"] == len(wanted), "in place", r.stderr, left("ip."))
r = run("apply", at("ip.gguf"), delta, "--in-place")
check(r.returncode == 0 and read(at("ip.gguf")) == wanted, "in place once more: it is there already", r.stderr)
r = run("apply", at("ip.gguf"), at("back.skd"), "--in-place", "--jobs", "1")
check(r.returncode == 0 and read(at("ip.gguf")) == read(old), "and back", r.stderr)
begun = time.monotonic()
run("apply", at("ip.gguf"), delta, "--in-place", "--share", "30")
full = time.monotonic() - begun
half = 0
for _ in range(2):
    shutil.copy(old, at("ip.gguf"))
    for k in range(3):
        args = ("apply", at("ip.gguf"), delta, "--in-place", "--share", "30")
        status, err = kill_begun("ip.gguf", rng.uniform(0, full / 8), *args) if k == 1 else kill_after(rng.uniform(0.3, 1.0) * full, *args)
        half += status == -9 and left("ip.gguf.") != []
        check(status in (0, -9), "in place: killed or done", status, err)
        if left("ip.gguf.skiff-journal"):
            r = run("apply", at("ip.gguf"), at("back.skd"), "--in-place")
            check(is_line(r) and "on its way" in r.stderr or read(at("ip.gguf")) == read(old), "no other delta takes a file that is half way", r.stderr)
    r = run("apply", at("ip.gguf"), delta, "--in-place")
    check(r.returncode == 0 and read(at("ip.gguf")) == wanted and left("ip.") == ["ip.gguf"], "in place: after kills the same command ends well", r.stderr, left("ip."))
check(half > 0, "kills came while the file was half way", half)
r = run("apply", at("ip.gguf"), delta, "--in-place", "-o", at("x"))
check(r.returncode == 2 and "different things" in r.stderr, "in place takes no other output", r.stderr)

# ---- pieces that change places, shrink and grow, in place
pieces = [rng.randbytes(rng.choice((1_000, 300_000, 1_200_000))) for _ in range(12)]
order = pieces[:]
rng.shuffle(order)
tensors = {"a": pieces, "b": order[:9], "c": [b"head" * 100] + order + [b"tail"]}
for name, p in tensors.items():
    with open(at("mix." + name), "wb") as f:
        f.write(b"".join(p))
for x, y in (("a", "b"), ("b", "c"), ("c", "a"), ("a", "c")):
    r = run("diff", at("mix." + x), at("mix." + y), "-o", at("mix.skd"))
    shutil.copy(at("mix." + x), at("mix.ip"))
    s = run("apply", at("mix.ip"), at("mix.skd"), "--in-place")
    check(s.returncode == 0 and read(at("mix.ip")) == read(at("mix." + y)), f"pieces in another order, in place: {x} to {y}", r.stderr, s.stderr)

# ---- memory beyond the maps, whatever the model's size: a sparse pair of 500 MB
sparse_pair.write((at("s1"), at("s2")), 500_000_000, 6_000_000, tensors=300)
for what, args, limit in (("encoding", ("diff", at("s1"), at("s2"), "-o", at("s.skd"), "--jobs", "2"), 64 << 10),
                          ("applying", ("apply", at("s1"), at("s.skd"), "-o", at("s3"), "--jobs", "2"), 8 << 10),
                          ("applying on many threads", ("apply", at("s1"), at("s.skd"), "-o", at("s3"), "--jobs", "64"), 8 << 10)):
    kib, _, _, r = sparse_pair.peak([SKIFF, *args], timeout=240 * SLOW)
    # A sanitizer has memory of its own, ten times ours.
    check(r.returncode == 0 and (SLOW > 1 or kib <= limit), f"{what} takes at most {limit >> 10} MiB", f"{kib} KiB", r.stderr)
check(sparse_pair.is_same(at("s2"), at("s3")), "and the sparse model is the same")
done()
