"""A box without a certificate: a one-time token gets it one, and with it the first trusted root; then it serves like any other. A wrong or
used token, and a centre under another CA, get it nothing."""
import os
import shutil
import subprocess
import sys

import grpc

import fleet as fl
from tap import check, done

TMP = os.environ["SKF_TMP"]


def bare(fleet, name, enrol, token, *args):
    """An agent that has the CA's certificate and nothing else."""
    box = fl.Box(fleet, name, fleet.free_port(), ("--enrol", enrol, "--name", name, "--watch", "1", *args))
    os.makedirs(os.path.join(box.dir, "tls"))
    shutil.copy(fleet.path("ca", "ca.crt"), os.path.join(box.dir, "tls"))
    if token is not None:
        with open(fleet.path(name + ".token"), "w") as f:
            f.write(token + "\n")
        box.command += ["--token-file", fleet.path(name + ".token")]
    fleet.boxes[name] = box
    return box


def refused(box, what, text):
    box.start()
    try:
        box.p.wait(60 * fl.SLOW)
    except subprocess.TimeoutExpired:
        pass
    check(box.p.returncode == 1 and text in box.tail(1), what, box.p.returncode, box.tail(3))
    check(not os.path.exists(os.path.join(box.dir, "tls", "device.crt")), "and nothing is written")


def flood(fleet, enrol):
    """The port that asks for no certificate takes no large message, whatever is in it."""
    with open(fleet.path("ca", "ca.crt"), "rb") as f, grpc.secure_channel(enrol, grpc.ssl_channel_credentials(f.read())) as c:
        codes = []
        for n in (1000, 100000, 3000000):
            try:
                c.unary_unary("/skiff.v1.Enrolment/Enrol")(b"\x0a" * n, timeout=30 * fl.SLOW)
            except grpc.RpcError as e:
                codes.append(e.code().name)
    check(codes[0] != "RESOURCE_EXHAUSTED" and codes[1:] == ["RESOURCE_EXHAUSTED"] * 2, "a message over 64 KiB is refused unread", codes)


def main():
    with fl.Fleet(os.path.join(TMP, "f"), os.environ["SKF_BUILD"]) as fleet:
        fleet.centre.stop()
        shutil.copytree(fleet.path("ca"), fleet.path("centre", "ca"))
        command = fleet.centre.command
        command[command.index("--listen") + 1] = fleet.address
        command += ["--enrol-listen", "127.0.0.1:0"]
        fleet.centre.start()
        line = fl.wait_for("enrolment port", 20, lambda: [x for x in fleet.centre.lines if x.startswith("enrolling ")])
        enrol = line[0].split()[1]

        def token(name):
            return subprocess.run([fleet.bin("skiffd"), "--dir", fleet.path("centre"), "--enrol-token", name],
                                  capture_output=True, text=True, check=True).stdout.strip()
        model = os.path.join(TMP, "v1.gguf")
        subprocess.run([sys.executable, os.path.join(os.environ["SKF_ROOT"], "tests", "lib", "tiny_model.py"), model], check=True)
        fleet.publish(model, "1.0")
        good = token("box-1")
        box = bare(fleet, "box-1", enrol, good)
        box.start()
        fleet.wait("box-1", version="1.0", phase="confirmed")
        check(box.chat("Hello", 4)[1] == "1.0", "a token makes a bare box one of the fleet")
        mode = os.stat(os.path.join(box.dir, "tls", "device.key")).st_mode & 0o777
        check(mode == 0o600, f"its key is its own: {mode:o}")
        with open(fleet.root, "rb") as a, open(os.path.join(box.dir, "tuf", "root.json"), "rb") as b:
            check(a.read() == b.read(), "it trusts the repository's first root")
        box.stop()
        box.start()
        fleet.wait("box-1", version="1.0", phase="confirmed", online=True)
        box.ready()
        check(box.chat("Hello", 4)[1] == "1.0", "a second start enrols no more")

        flood(fleet, enrol)
        refused(bare(fleet, "box-2", enrol, good), "another box's token is refused", "enrolment")
        refused(bare(fleet, "box-3", enrol, "0" * 64), "a wrong token is refused", "enrolment")
        box = bare(fleet, "box-4", enrol, token("box-4"))
        os.unlink(os.path.join(box.dir, "tls", "ca.crt"))
        refused(box, "without the fleet's CA certificate nobody is asked", "tls/ca.crt")
    done()


main()
