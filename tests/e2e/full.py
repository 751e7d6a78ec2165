"""A box whose disk is too small for an update: known before the first byte, told to the centre, version 1 goes on serving; once there is
room the box tries again by itself."""
import os
import subprocess
import sys

import fleet as fl
from tap import check, done, skip

TMP = os.environ["SKF_TMP"]
big = os.path.join(os.environ["SKF_MODELS"], "published.gguf")


def mount(folder, *options):
    return subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder], capture_output=True).returncode == 0


def story(fleet, disk, small):
    box = fleet.add_agent("box", "--watch", "1", start=False)
    os.symlink(disk, os.path.join(box.dir, "store"))
    fleet.publish(small, "1.0")
    box.start()
    fleet.wait("box", version="1.0", phase="confirmed")
    fleet.publish(big, "2.0")

    def failed():
        d = fleet.device("box")
        return d if d["error"] else None
    got = fl.wait_for("the box says that it is full", 60, failed, 0.2)
    check("more bytes needed" in got["error"] and got["version"] == "1.0", "no room: known, and told", got)
    check(got["bytes_received"] == 0, "before the first byte")
    check(box.chat("Hello", 4)[1] == "1.0", "version 1 goes on serving")
    check([v["version"] for v in box.store()["versions"]] == ["1.0"], "and the store holds what it held")
    check(mount(disk, "remount", "size=400m"), "room is made")
    fleet.wait("box", version="2.0", phase="confirmed", seconds=180)
    check(box.chat("Hello", 4)[1] == "2.0", "the box tries again by itself")
    check(len(box.store()["versions"]) == 2, "and its store is whole")


def main():
    disk = os.path.join(TMP, "disk")
    os.makedirs(disk)
    if not mount(disk, "size=70m"):  # 64 MiB of it are to stay free
        skip("a full disk", "no right to mount one")
        done()
    try:
        small = os.path.join(TMP, "v1.gguf")
        subprocess.run([sys.executable, os.path.join(os.environ["SKF_ROOT"], "tests", "lib", "tiny_model.py"), small], check=True)
        with fl.Fleet(os.path.join(TMP, "f"), os.environ["SKF_BUILD"]) as fleet:
            story(fleet, disk, small)
    finally:
        subprocess.run(["umount", "-l", disk], check=False)
    done()


main()
