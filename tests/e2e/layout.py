"""Kept layouts on a box: made when a version is applied, used by the workers, made anew when damaged, gone with their version.  That a kill at
any step leaves none or a whole one is tests/unit/store_layout.c's."""
import os

import fleet as fl
import tiny_model
from tap import check, done

TMP = os.environ["SKF_TMP"]
ASK = "Say in one sentence what a list is."


def layouts(box):
    folder = os.path.join(box.dir, "store", "layout")
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def says(box, word):
    return fl.wait_for(f"'{word}' in the log", 20, lambda: word in open(box.log, errors="replace").read())


def restart(box, *args):
    box.stop()
    open(box.log, "w").close()
    box.command = [a for a in box.command if a not in ("--repack", "off", "shared")] + list(args)
    box.start()
    box.ready()


def is_whole(box):
    return all(v["layout_bytes"] > 0 and not v["layout_error"] for v in box.store()["versions"])


def model(version):
    return tiny_model.write(os.path.join(TMP, version), "q4_1", seed=1, change=float(version) / 100)


with fl.Fleet(os.path.join(TMP, "f"), os.environ["SKF_BUILD"]) as fleet:
    fleet.publish(model("1.0"), "1.0")
    box = fleet.add_agent("box", "--watch", "1", "--repack", "off")
    fleet.wait("box", version="1.0", phase="confirmed")
    want, _ = box.chat(ASK)
    check(layouts(box) == [], "--repack off keeps none")
    restart(box)
    fl.wait_for("a layout of the version that serves", 60, lambda: layouts(box) and is_whole(box))
    check(box.chat(ASK)[0] == want, "the same words from a layout in memory")
    restart(box)
    says(box, "laid out before")
    says(box, "bytes copied")
    check(box.chat(ASK)[0] == want, "the next start uses what is kept: the same words")
    restart(box, "--repack", "shared")
    says(box, "bytes shared")
    check(box.chat(ASK)[0] == want, "--repack shared reads it where it is kept: the same words")

    path = os.path.join(box.dir, "store", "layout", layouts(box)[0])
    box.stop()
    with open(path, "r+b") as f:
        f.seek(9000)
        b = f.read(1)
        f.seek(9000)
        f.write(bytes([b[0] ^ 1]))
    open(path + ".1.part", "w").close()
    said = box.store()["versions"][0]
    check("does not have its digest" in said["layout_error"], "--check-store names a damaged layout; the store is right all the same")
    restart(box)
    says(box, "kept layout not used")
    check(box.chat(ASK)[0] == want, "the worker does without the damaged one: the same words")
    fl.wait_for("the damaged layout made anew, what was left of others swept", 60, lambda: len(layouts(box)) == 1 and is_whole(box))

    fleet.publish(model("2.0"), "2.0")
    fleet.wait("box", version="2.0", phase="confirmed")
    check(is_whole(box) and len(layouts(box)) == 2, "both versions are laid out when the second is confirmed")
    for version in ("3.0", "4.0"):
        fleet.publish(model(version), version)
        fleet.wait("box", version=version, phase="confirmed")
    fl.wait_for("collected", 30, lambda: len(layouts(box)) == len(box.store()["versions"]) == 2)
    check(is_whole(box), "layouts go with their versions")
done()
