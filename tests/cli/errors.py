"""Bad input gets one line that names file and reason, exit status 1, and nothing written."""
import os
import shutil
import socket
import struct
import subprocess
import time

import tiny_model
from tap import check, done, skip

BUILD, TMP = os.environ["SKF_BUILD"], os.environ["SKF_TMP"]
SKIFF = os.path.join(BUILD, "skiff")


def at(*parts):
    return os.path.join(TMP, *parts)


def run(*args, program=SKIFF, timeout=60, env=None):
    return subprocess.run([program, *args], capture_output=True, text=True, timeout=timeout * float(os.environ.get("SKF_SLOW", "1")), env=env)


def refused(what, r, *words, out=None):
    lines = r.stderr.strip().splitlines()
    good = r.returncode == 1 and len(lines) == 1 and all(w.lower() in lines[0].lower() for w in words) and r.stdout == ""
    left = out is not None and (os.path.exists(out) or any(f.startswith(os.path.basename(out) + ".") for f in os.listdir(os.path.dirname(out))))
    check(good and not left, what, f"exit {r.returncode}", f"wanted words: {words}", r.stderr, "output left behind" if left else "")


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)
    return path


old, new = at("old.gguf"), at("new.gguf")
tiny_model.write(old, type="q4_1", seed=1)
tiny_model.write(new, type="q4_1", seed=1, change=0.05)
good = open(old, "rb").read()

# ---- model files
for size in (3, 11, 60, 700, len(good) - 1):
    bad = write(at("cut.gguf"), good[:size])
    r = run("diff", bad, new, "-o", at("x.skd"))
    if size > 3:  # with less than the magic it is a file of any bytes
        refused(f"truncated to {size} bytes: diff", r, "cut.gguf", out=at("x.skd"))
        refused(f"truncated to {size} bytes: show", run("show", bad), "cut.gguf")
        refused(f"truncated to {size} bytes: run", run("run", "-m", bad, "-p", "x"), "cut.gguf")
    if os.path.exists(at("x.skd")):
        os.remove(at("x.skd"))
name = b"output_norm.weight"
spot = good.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)
dims = struct.unpack_from("<I", good, spot)[0]
offset = spot + 4 + 8 * dims + 4
far = write(at("far.gguf"), good[:offset] + struct.pack("<Q", 1 << 40) + good[offset + 8:])
refused("tensor offset past the end", run("run", "-m", far, "-p", "x"), "far.gguf", "output_norm")
refused("a model that is not there", run("run", "-m", at("none.gguf"), "-p", "x"), "none.gguf", "no such file")
refused("a folder as a model", run("run", "-m", TMP, "-p", "x"), TMP)
os.mkfifo(at("pipe"), 0o600)
refused("a named pipe as a model", run("show", at("pipe")), "pipe", "regular")
refused("a named pipe as a key", run("sign", "--key", at("pipe"), old), "pipe", "regular")

# ---- deltas
r = run("diff", old, new, "-o", at("d.skd"))
check(r.returncode == 0, "a delta to break", r.stderr)
refused("a delta for another base", run("apply", new, at("d.skd"), "-o", at("n.gguf")), "d.skd", out=at("n.gguf"))
refused("a delta that is none", run("apply", old, old, "-o", at("n.gguf")), "old.gguf", out=at("n.gguf"))
refused("an output in no folder", run("apply", old, at("d.skd"), "-o", at("no", "such", "n.gguf")), "no such file")

# ---- full disk: a small tmpfs, as root or in a user namespace
disk = at("disk")
os.makedirs(disk)
script = f'mount -t tmpfs -o size=64k tmpfs {disk} && {SKIFF} apply {old} {at("d.skd")} -o {disk}/n.gguf; s=$?; ls -A {disk}; umount {disk}; exit $s'
# In a changed root (a container, a build tree) the propagation of mounts cannot be changed.
r = subprocess.run(["unshare", "--propagation", "unchanged", "-m" if os.geteuid() == 0 else "-rm", "bash", "-c", script], capture_output=True, text=True)
if "unshare" in r.stderr or "mount" in r.stderr:
    skip("a full disk", "no tmpfs to be had here")
else:
    refused("a full disk", r, "n.gguf", "space")

# ---- keys and certificates
r = run("keygen", "--role", "targets", "-o", at("t.key"))
check(r.returncode == 0, "a key", r.stderr)
refused("a key that would be overwritten", run("keygen", "--role", "targets", "-o", at("t.key")), "t.key", "exist")
os.chmod(at("t.key"), 0o644)
write(at("doc.json"), b'{"signed": {"_type": "targets"}, "signatures": []}')
refused("a key that others can read", run("sign", "--key", at("t.key"), at("doc.json")), "t.key")
for fleet in ("one", "two"):
    r = run("ca", "init", "--dir", at(fleet), "--fleet", fleet)
    check(r.returncode == 0, f"certificate authority {fleet}", r.stderr)
run("ca", "issue", "--ca", at("one"), "--kind", "operator", "--name", "ann", "--days", "1", "-o", at("ann"))
run("ca", "issue", "--ca", at("two"), "--kind", "operator", "--name", "eve", "-o", at("eve"))
shutil.copy(at("one", "ca.crt"), at("eve", "ca.crt"))
refused("a foreign certificate", run("devices", "--centre", "127.0.0.1:1", "--tls", at("eve")), "operator.crt")
os.chmod(at("ann", "operator.key"), 0o644)
refused("a certificate's key that others can read", run("devices", "--centre", "127.0.0.1:1", "--tls", at("ann")), "operator.key", "chmod 600")
refused("which may be allowed", run("devices", "--centre", "127.0.0.1:1", "--tls", at("ann"), "--allow-open-keys"), "127.0.0.1:1")
os.chmod(at("ann", "operator.key"), 0o600)
late = dict(os.environ, SKF_NOW=str(int(time.time()) + 10 * 86400))
refused("an expired certificate", run("devices", "--centre", "127.0.0.1:1", "--tls", at("ann"), env=late), "operator.crt", "expired")
refused("no distributor there", run("devices", "--centre", "127.0.0.1:1", "--tls", at("ann")), "127.0.0.1:1")

# ---- an output that is no file: a rename would put one in its place
for what, make in (("a named pipe", os.mkfifo), ("a folder", os.mkdir), ("a link to a device", lambda p: os.symlink("/dev/null", p))):
    out = at("out-" + what.replace(" ", "-"))
    make(out)
    before = os.lstat(out)
    refused(f"{what} as an output", run("diff", old, new, "-o", out), os.path.basename(out), "not a regular file")
    check(os.lstat(out).st_ino == before.st_ino and not [f for f in os.listdir(TMP) if f.endswith(".part")], f"{what} stays as it is, alone")

# ---- what is printed to nowhere
with open("/dev/full", "w") as full:
    for args in (["--help"], ["--version"], ["diff", "--help"], ["show", old], ["show", old, "--json"], ["run", "-m", old, "-p", "x", "-n", "4"]):
        r = subprocess.run([SKIFF, *args], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        lines = r.stderr.strip().splitlines()
        check(r.returncode == 1 and len(lines) == 1 and "standard output" in lines[0], "no room for what is printed: " + " ".join(map(os.path.basename, args)), r.returncode, r.stderr)

# ---- a port in use
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    s.listen()
    port = s.getsockname()[1]
    refused("a port in use: serve", run("serve", "-m", old, "--listen", f"127.0.0.1:{port}"), f"127.0.0.1:{port}")
    refused("a port in use: gateway", run("--listen", f"127.0.0.1:{port}", "--control", at("c.sock"), program=os.path.join(BUILD, "skiff-gateway")), f"127.0.0.1:{port}")

# ---- the fleet's verbs, which are another program's: nobody else waits for gRPC's libraries
with open(SKIFF, "rb") as f:
    check(b"libgrpc" not in f.read(), "skiff itself does not load gRPC")
alone = at("alone")
os.mkdir(alone)
shutil.copy(SKIFF, alone)
refused("a verb of the fleet without its program", run("versions", program=os.path.join(alone, "skiff")), "skiff-fleet", "no such file")
r, r2 = run("versions", "--help"), run("versions", "--help", program=os.path.join(BUILD, "skiff-fleet"))
check(r.returncode == 0 and r.stdout.startswith("usage: skiff versions") and r.stdout == r2.stdout, "and with it", r.stderr)

# ---- usage
for args in (["no-such-verb"], ["diff"], ["diff", old], ["diff", old, new], ["run", "--no-such-option"], ["run", "-m"], ["apply", old, at("d.skd"), "-o", at("n.gguf"), "more"],
             ["devices", "--wait", "no-such-phase"], ["devices", "--timeout", "18446744073709551615"]):
    r = run(*args)
    check(r.returncode == 2 and len(r.stderr.strip().splitlines()) == 1, "usage: " + " ".join(os.path.basename(a) for a in args), r.returncode, r.stderr)
done()
