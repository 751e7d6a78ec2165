"""`skiff versions MODEL --remove VERSION`: refused while anybody has to do with the version, and then all of it goes that nothing else needs, whatever
kills the distributor meanwhile."""
import os
import random
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "lib")]
import fleet as fl  # noqa: E402
import tiny_model  # noqa: E402
from tap import check, done  # noqa: E402

TMP = os.environ["SKF_TMP"]


def at(name):
    return os.path.join(TMP, name)


def publish(fleet, path, version, *more, check=True):
    return fleet.operate("publish", path, "--model", fl.MODEL, "--version", version, "--key", fleet.path("keys", "targets.key"), *more, check=check)


def remove(fleet, version, *more, model=fl.MODEL, check=True):
    return fleet.operate("versions", model, "--remove", version, *more, check=check)


def names(fleet):
    return sorted(v["version"] for v in fleet.operate("versions")["versions"])


def chunks(fleet):
    return {f for _, _, files in os.walk(fleet.path("centre", "chunks")) for f in files}


def files_of(fleet, root):
    """Deltas and contents that bear a root in their names."""
    return [f for folder in ("deltas", "content") for f in os.listdir(fleet.path("centre", folder)) if root in f]


def refused(what, r, *said):
    check(r.returncode == 1 and r.stderr.count("\n") == 1 and all(s in r.stderr for s in said), f"{what} is refused in a line", r.stderr)


def uses(fleet, box):
    refused("what a channel stands at", remove(fleet, "3.0", check=False), "channel stable stands at it")
    refused("what an abort would go back to", remove(fleet, "2.0", check=False), "channel stable", "3.0")
    refused("a version that there is not", remove(fleet, "9.9", check=False), "no such version")
    refused("a model that there is not", remove(fleet, "1.0", model="other", check=False), "no such version")
    for args in (("--remove", "1.0"), (fl.MODEL, "--remove", "a/b"), (fl.MODEL, "--dry-run")):
        r = fleet.operate("versions", *args, check=False)
        check(r.returncode == 2 and r.stderr.count("\n") == 1, f"wrong usage: {' '.join(args)}", r.stderr)
    fleet.operate("pin", "box", "--model", fl.MODEL, "--version", "1.0")
    refused("what a pin names", remove(fleet, "1.0", check=False), "box", "unpin")
    fleet.wait("box", version="1.0", phase="confirmed")
    fleet.operate("unpin", "box", "--model", fl.MODEL)
    refused("what a box holds", remove(fleet, "1.0", check=False), "box")
    fleet.wait("box", version="3.0", phase="confirmed", previous="1.0")
    refused("what a box would go back to", remove(fleet, "1.0", check=False), "box holds it, as its previous version")
    publish(fleet, at("4.gguf"), "4.0", "--channel", "stable")
    fleet.wait("box", version="4.0", phase="confirmed", previous="3.0")


def goes(fleet, box, roots):
    before = chunks(fleet), names(fleet), files_of(fleet, roots["1.0"])
    check(len(before[2]) >= 2, "deltas to and from version 1 are there", before[2])
    dry = remove(fleet, "1.0", "--dry-run")
    check(dry["dry_run"] and dry["chunks"] > 0 and dry["deltas"] >= 2 and (chunks(fleet), names(fleet), files_of(fleet, roots["1.0"])) == before,
          "a dry run says what would go, and changes nothing", dry)
    got = remove(fleet, "1.0")
    check({**dry, "dry_run": False} == got, "the removal says the same", dry, got)
    check(names(fleet) == ["2.0", "3.0", "4.0"] and not files_of(fleet, roots["1.0"]), "version 1 and its deltas are gone", names(fleet))
    check(len(before[0] - chunks(fleet)) == got["chunks"] and chunks(fleet) < before[0], "so are the chunks that only it had")
    for version, path in (("2.0", "2.gguf"), ("4.0", "4.gguf")):
        r = publish(fleet, at(path), version, "--dry-run")
        check(r["bytes_to_send"] == 0, f"version {version} has all of its chunks", r)
    new = fleet.add_agent("new", "--watch", "1")
    fleet.wait("new", version="4.0", phase="confirmed")
    new.stop()
    check(box.chat("Hello", 4)[1] == "4.0", "boxes go on")
    for more in (("--dry-run",), ()):
        refused("its name for another content", publish(fleet, at("2.gguf"), "1.0", *more, check=False), "1.0", "removed")
    r = publish(fleet, at("1.gguf"), "1.0")
    check(r["new"] and r["bytes_sent"] == got["chunk_bytes"] and r["deltas"], "its own content may come back under it", r)


def shared(fleet):
    before = chunks(fleet)
    r = publish(fleet, at("4.gguf"), "4.0-again")
    text = fleet.skiff("versions", fl.MODEL, "--remove", "4.0-again", "--centre", fleet.address, "--tls", fleet.path("operator")).stdout
    check("4.0-again is removed: 0 chunks of 0 B, 0 deltas of 0 B" in text and chunks(fleet) == before and files_of(fleet, r["root"]),
          "of a content that another version has nothing goes", text)


def adapters(fleet):
    """They go with the version that they make, and when another one takes their place."""
    fleet.skiff("merge", at("4.gguf"), tiny_model.write_lora(at("5.lora"), seed=5), "-o", at("5.gguf"))
    before = chunks(fleet)
    publish(fleet, at("5.gguf"), "5.0", "--adapter", tiny_model.write_lora(at("wrong.lora"), seed=6), "--adapter-base", "2.0")
    with_wrong = chunks(fleet)
    publish(fleet, at("5.gguf"), "5.0", "--adapter", at("5.lora"), "--adapter-base", "2.0")
    check(len(with_wrong - chunks(fleet)) == 1 and len(chunks(fleet) - with_wrong) == 1, "an adapter takes the place of another", len(with_wrong))
    fl.wait_for("no delta is under way", 20, lambda: isinstance(remove(fleet, "5.0", "--dry-run", check=False), dict))
    remove(fleet, "5.0")
    check(chunks(fleet) == before, "an adapter goes with its version", len(before), len(chunks(fleet)))


def killed(fleet):
    """kill -9 at random instants of a removal: the version is there whole, or gone with all that was its own."""
    rng = random.Random(int(os.environ.get("SKF_SEED", "20261121")))
    before = chunks(fleet)
    tiny_model.write(at("k.gguf"), "q8_0", seed=99)
    publish(fleet, at("k.gguf"), "k")
    began = time.monotonic()
    remove(fleet, "k")
    length = time.monotonic() - began
    there = 0
    for i in range(8):
        version = f"k{i}"
        tiny_model.write(at("k.gguf"), "q8_0", seed=100 + i)
        publish(fleet, at("k.gguf"), version)
        p = subprocess.Popen([fleet.bin("skiff"), "versions", fl.MODEL, "--remove", version, "--centre", fleet.address, "--tls", fleet.path("operator")],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=fleet.env)
        time.sleep(rng.uniform(0.4, 1.2) * length)
        fleet.centre.kill()
        p.wait(60 * fl.SLOW)
        fleet.start_centre()
        if version in names(fleet):
            there += 1
            r = publish(fleet, at("k.gguf"), version, "--dry-run")
            if not check(r["bytes_to_send"] == 0, f"{version} is there, whole", r):
                return
            remove(fleet, version)
        if not check(chunks(fleet) == before, f"{version} is gone, with all that was its own", len(chunks(fleet) - before), len(before - chunks(fleet))):
            return
    check(True, f"{there} of 8 kills came before the removal")


def main():
    folder = at("f")
    shutil.rmtree(folder, ignore_errors=True)
    roots = {}
    with fl.Fleet(folder, os.environ["SKF_BUILD"]) as fleet:
        for n in (1, 2, 3, 4):
            tiny_model.write(at(f"{n}.gguf"), "q4_1", seed=1, change=0.02 * (n - 1))
        box = fleet.add_agent("box", "--watch", "1")
        for n in (1, 2, 3):
            roots[f"{n}.0"] = publish(fleet, at(f"{n}.gguf"), f"{n}.0", "--channel", "stable")["root"]
            fleet.wait("box", version=f"{n}.0", phase="confirmed")
        uses(fleet, box)
        goes(fleet, box, roots)
        shared(fleet)
        adapters(fleet)
        killed(fleet)
    done()


main()
