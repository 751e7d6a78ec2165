"""kill -9 of agent, gateway, worker or distributor at random instants of an update: each time the box ends with version 2 confirmed or
version 1 serving, and every byte of its store is right.  Only a worker's death may be held against the new version."""
import os
import random
import shutil
import signal
import subprocess
import time

import fleet as fl
from tap import check, done, note

ROUNDS = int(os.environ.get("SKF_KILLS", "30"))
TMP = os.environ["SKF_TMP"]
WHO = ("agent", "gateway", "worker", "distributor")


def models():
    """The published model and an adapter merged into it; or "V1.gguf:V2.gguf" of the environment."""
    given = os.environ.get("SKF_KILL_MODELS")
    if given:
        return given.split(":")
    v1, v2 = os.path.join(os.environ["SKF_MODELS"], "published.gguf"), os.path.join(TMP, "v2.gguf")
    adapter = os.path.join(os.environ["SKF_ROOT"], "examples", "smollm2-135m-python-lora.gguf")
    subprocess.run([os.path.join(os.environ["SKF_BUILD"], "skiff"), "merge", v1, adapter, "-o", v2], check=True)
    return v1, v2


def strike(fleet, box, who, rng):
    if who == "agent":
        box.kill()
        time.sleep(rng.random() / 2)
        box.start()
    elif who == "distributor":
        fleet.centre.kill()
        time.sleep(rng.random() / 2)
        fleet.start_centre()
    else:
        pids = box.children("skiff-" + who)
        if pids:
            os.kill(rng.choice(pids), signal.SIGKILL)


def settled(box):
    """The box's state once nothing is under way."""
    state = box.store()["models"][fl.MODEL]
    if state["incoming"] or state["assignment"] != "2.0" or state["phase"] not in ("confirmed", "returned", "failed"):
        return None
    return state


def answers(box, version):
    def right():
        try:
            return box.chat("Hello", 4)[1] == version
        except (OSError, fl.Failed):
            return None
    return fl.wait_for(f"the box answers with {version}", 30, right, 0.2)


def fresh(fleet, box, snapshot):
    """The box as it was with version 1 alone, and a decision to stay there."""
    box.stop()
    shutil.rmtree(os.path.join(box.dir, "store"))
    shutil.copytree(snapshot, os.path.join(box.dir, "store"))
    fleet.operate("pin", "box", "--model", fl.MODEL, "--version", "1.0")
    box.start()
    fleet.wait("box", version="1.0", phase="confirmed", target="1.0", online=True)
    answers(box, "1.0")


def one(fleet, box, number, length, rng):
    who = WHO[number % len(WHO)]
    instant = rng.random() ** 2 * length  # the first part, until the new version serves, is the shorter one and has more in it
    fleet.operate("pin", "box", "--model", fl.MODEL, "--version", "2.0")
    time.sleep(instant)
    strike(fleet, box, who, rng)
    what = f"{who} killed {instant * 1000:.0f} ms into the update"
    try:
        state = fl.wait_for("the box settles", 90, lambda: settled(box), 0.3)
        serving = "2.0" if state["phase"] == "confirmed" else "1.0"
        ok = state["active"] == serving and (serving == "2.0" or who == "worker")
        answers(box, serving)
    except fl.Failed as e:
        check(False, what, e, box.tail(8))
        return None
    check(ok, f"{what}: {serving} serves, store whole", state)
    return serving


def main():
    rng = random.Random(int(os.environ.get("SKF_SEED", "20261121")))
    folder, snapshot = os.path.join(TMP, "f"), os.path.join(TMP, "store.v1")
    v1, v2 = models()
    ends = []
    with fl.Fleet(folder, os.environ["SKF_BUILD"]) as fleet:
        fleet.publish(v1, "1.0")
        box = fleet.add_agent("box", "--watch", "1")
        fleet.wait("box", version="1.0", phase="confirmed")
        fleet.publish(v2, "2.0", channel="next")
        box.stop()
        shutil.copytree(os.path.join(box.dir, "store"), snapshot)
        fresh(fleet, box, snapshot)
        began = time.monotonic()  # how long an update takes here when nothing happens
        fleet.operate("pin", "box", "--model", fl.MODEL, "--version", "2.0")
        fleet.wait("box", version="2.0", phase="confirmed")
        length = time.monotonic() - began
        for i in range(ROUNDS):
            fresh(fleet, box, snapshot)
            ends.append(one(fleet, box, i, length, rng))
    note(f"an undisturbed update takes {length:.1f} s; {ends.count('2.0')} ended on 2.0, {ends.count('1.0')} on 1.0")
    done()


main()
