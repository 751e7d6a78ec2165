"""skiff-agent's command line and what it says when it cannot work: one line, the right status, nothing left running."""
import json
import os
import shutil
import signal
import socket
import subprocess
import time

from tap import check, done

AGENT = os.path.join(os.environ["SKF_BUILD"], "skiff-agent")
TMP = os.environ["SKF_TMP"]
SLOW = float(os.environ.get("SKF_SLOW", "1"))


def run(*args):
    return subprocess.run([AGENT, *args], capture_output=True, text=True, timeout=60 * SLOW)


def folder(name):
    return os.path.join(TMP, name)


def says(r, status, text, what):
    lines = r.stderr.splitlines()
    check(r.returncode == status and len(lines) == 1 and lines[0].startswith("skiff-agent: ") and text in lines[0] and not r.stdout,
          what, r.returncode, r.stderr, r.stdout)


def config():
    path = os.path.join(TMP, "c.toml")

    def says_of(text, want, what):
        with open(path, "w") as f:
            f.write(text)
        says(run("--config", path, "--dir", "nowhere-at-all"), 1, want, what)

    says(run("--config", os.path.join(TMP, "none.toml")), 1, "none.toml", "a configuration that is not there")
    says_of("listen = 1\n", f"{path}:1: listen: must be a string", "a key of the wrong type")
    says_of("\n[runtime]\nthreds = 2\n", f"{path}:3: runtime.threds: unknown key", "an unknown key is named with file and line")
    says_of("[runtme]\n", f"{path}:1: runtme: unknown table", "an unknown table")
    says_of("watch = 99999999\n", f"{path}:1: watch: is 99999999, not 0 to 86400", "a number out of range")
    says_of("[swap]\nmode = 'quick'\n", f"{path}:2: swap.mode: 'quick' is not one of auto|side|in-place", "a choice that is none")
    says_of("[swap]\nshadow = 2\n", f"{path}:2: swap.shadow: must be a number from 0 to 1", "a share that is none")
    says_of("rate = '5'\n", f"{path}:1: rate: '5' is no rate", "a rate that is too small")
    says_of("watch = 1\nwatch = 2\n", f"{path}:2: watch is there already, in line 1", "a key given twice")
    says_of("[cache]\nwarm = ['a', 1]\n", f"{path}:2: cache.warm: must be an array of strings", "an array of the wrong type")
    says_of("[models.a]\naliases = ['x']\n[models.b]\naliases = ['x']\n", f"{path}:4: models.b.aliases: 'x' stands for another", "an alias of two models")
    says_of("[models.a]\npriorty = 1\n", f"{path}:2: models.a.priorty: unknown key", "an unknown key of a model")
    says_of("dir = 'elsewhere'\n[cache]\nwarm = []\n", "nowhere-at-all", "options of the command line go first")
    with open(path, "w") as f:
        f.write("listen = '127.0.0.1:0'\n")
    says(run("--config", path), 2, "--dir", "a configuration without dir")
    root = os.environ["SKF_ROOT"]
    says(run("--config", os.path.join(root, "examples", "skiff-agent.toml"), "--dir", "nowhere-at-all"), 1, "nowhere-at-all", "the example is taken")


def usage():
    r = run("--help")
    check(r.returncode == 0 and "--check-store" in r.stdout and not r.stderr, "--help")
    r = run("--version")
    check(r.returncode == 0 and r.stdout.startswith("skiff-agent "), "--version")
    says(run(), 2, "--dir", "no --dir")
    says(run("--dir"), 2, "--dir", "--dir without a value")
    says(run("--frobnicate"), 2, "--frobnicate", "an option that is none")
    says(run("--dir", "x", "y"), 2, "y", "one argument too many")
    for bad in ("-1", "x", "3s", "99999999999999999999"):
        says(run("--dir", folder("u"), "--watch", bad), 2, bad, f"--watch {bad}")
    for bad in ("0", "101", "x"):
        says(run("--dir", folder("u"), "--share", bad), 2, bad, f"--share {bad}")
    for bad in ("0", "999", "x", "-5", "5T", "99999999999999G"):
        says(run("--dir", folder("u"), "--rate", bad), 2, "--rate", f"--rate {bad}")
    check(not os.path.exists(folder("u")), "wrong usage writes nothing")


def cannot_start():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        says(run("--dir", folder("p"), "--init", "--listen", f"127.0.0.1:{s.getsockname()[1]}"), 1, f"{s.getsockname()[1]}", "a port in use")
    with open(folder("file"), "w") as f:
        f.write("x")
    says(run("--dir", os.path.join(folder("file"), "sub")), 1, "file", "a folder that cannot be")
    says(run("--dir", folder("mistyped")), 1, "--init", "a folder that is not there")
    check(not os.path.exists(folder("mistyped")), "and is not made")
    says(run("--dir", folder("t"), "--token-file", folder("none")), 1, "none", "a token file that is not there")
    os.makedirs(os.path.join(folder("d"), "store"))
    with open(os.path.join(folder("d"), "store", "data.mdb"), "wb") as f:
        f.write(bytes(range(256)) * 64)
    says(run("--dir", folder("d"), "--listen", "127.0.0.1:0"), 1, "store", "a store that is none")
    says(run("--check-store", folder("d")), 1, "store", "the same for --check-store")
    says(run("--check-store", folder("nowhere")), 1, "nowhere", "--check-store of nothing")


def alone():
    """Without a centre and without a version: it runs, says where it listens, holds its store alone, ends when told."""
    p = subprocess.Popen([AGENT, "--dir", folder("a"), "--init", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = p.stdout.readline()
    check(line.startswith("listening 127.0.0.1:"), "it says where it listens", line)
    says(run("--dir", folder("a"), "--listen", "127.0.0.1:0"), 1, "another process", "a second agent on one folder")
    r = run("--check-store", folder("a"))
    check(r.returncode == 0 and json.loads(r.stdout) == {"versions": [], "models": {}}, "--check-store while it runs", r.stdout, r.stderr)
    p.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, err = p.communicate(timeout=60 * SLOW)
    check(p.returncode == 0 and time.monotonic() - began < 15 * SLOW, "SIGTERM ends it with status 0", p.returncode, err)
    check(oct(os.stat(os.path.join(folder("a"), "store")).st_mode & 0o777) == "0o700", "its folders are its own")


def wrong_certificate():
    """Not a reason to end: what is here is served; but it says what is wrong."""
    tls = os.path.join(os.environ["SKF_ROOT"], "tests", "vectors", "tls")
    for name, text in (("expired-device", "expired"), ("foreign-device", "tls/device.crt")):
        box = folder(name)
        os.makedirs(os.path.join(box, "tls"))
        shutil.copy(os.path.join(tls, "ca.crt"), os.path.join(box, "tls"))
        for ending in (".crt", ".key"):
            shutil.copy(os.path.join(tls, name + ending), os.path.join(box, "tls", "device" + ending))
        os.chmod(os.path.join(box, "tls", "device.key"), 0o600)
        with open(folder(name + ".log"), "wb") as log:
            p = subprocess.Popen([AGENT, "--dir", box, "--centre", "127.0.0.1:1", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=log)
            p.stdout.readline()
            end, said = time.monotonic() + 20 * SLOW, ""
            while time.monotonic() < end and text not in said:
                time.sleep(0.1)
                with open(folder(name + ".log")) as f:
                    said = f.read()
            check(text in said and p.poll() is None, f"{name}: named, and the box goes on", said)
            p.terminate()
            p.communicate()


usage()
config()
cannot_start()
alone()
wrong_certificate()
done()
