"""One update, end to end, on a real model: v1 is installed whole, v2 comes as a small delta while requests keep coming, a pin goes back
without a byte sent; what cannot run is refused and v2 goes on serving; with the centre gone the box still starts and answers."""
import os
import random
import shutil
import signal
import time

import fleet as fl
from tap import check, done, note

ADAPTER = os.path.join(os.environ["SKF_ROOT"], "examples", "smollm2-135m-python-lora.gguf")
QUESTION = "Write a Python function that reverses a list."
v1 = os.path.join(os.environ["SKF_MODELS"], "published.gguf")
v2 = os.path.join(os.environ["SKF_TMP"], "v2.gguf")
junk = os.path.join(os.environ["SKF_TMP"], "junk.bin")


def phase(box):
    return box.store()["models"][fl.MODEL]


def first_version(fleet, box):
    fleet.publish(v1, "1.0")
    fleet.wait("box", version="1.0", phase="confirmed")
    text, version = box.chat(QUESTION, 32)
    check(version == "1.0" and text, "version 1 is installed from nothing and answers", text)
    return text


def second_version(fleet, box, before):
    received = fleet.device("box")["bytes_received"]
    clients = fl.Clients(box, 2, 16).start()
    fleet.publish(v2, "2.0")
    got = fleet.wait("box", version="2.0", phase="confirmed")
    time.sleep(0.5)
    clients.stop()
    check(not clients.failed, f"no request failed ({clients.answers} answered)", *clients.failed[:3])
    check(clients.versions == {"1.0", "2.0"}, f"both versions answered: {sorted(clients.versions)}")
    full = os.path.getsize(v2)
    check(0 < got["bytes_received"] * 20 < full, f"{got['bytes_received']} bytes sent for a file of {full}", received)
    check(got["previous"] == "1.0", "version 1 is kept as the previous one")
    text, version = box.chat(QUESTION, 32)
    check(version == "2.0" and text != before, "version 2 answers, and differently", text)
    note(f"swap pause {got['swap_pause_us']} us; longest gap between streamed tokens {clients.gap * 1000:.0f} ms")


def pin_and_back(fleet, box, before):
    fleet.operate("pin", "box", "--model", fl.MODEL, "--version", "1.0")
    got = fleet.wait("box", version="1.0", phase="confirmed")
    check(got["bytes_received"] == 0, "the pinned version is held already: nothing is sent")
    check(box.chat(QUESTION, 32) == (before, "1.0"), "version 1 answers as before, word for word")
    check(phase(box)["pinned"] == "1.0", "the pin is in the store")
    fleet.operate("unpin", "box", "--model", fl.MODEL)
    fleet.wait("box", version="2.0", phase="confirmed")
    check(phase(box)["pinned"] == "", "and gone after the unpin")


def what_cannot_run(fleet, box):
    with open(junk, "wb") as f:
        f.write(random.Random(5).randbytes(3_000_000))
    fleet.publish(junk, "3.0")

    def failed():
        d = fleet.device("box")
        return d if d["phase"] in ("failed", "returned") else None
    got = fl.wait_for("a version that cannot run is given up", 60, failed, 0.2)
    check(got["version"] == "2.0" and got["error"], "a version that cannot run is given up, and the centre knows why", got["error"])
    check(box.chat(QUESTION, 8)[1] == "2.0", "version 2 goes on answering")
    held = sorted(v["version"] for v in box.store()["versions"])
    check(held == ["1.0", "2.0"], f"nothing of it stays: {held}")
    fleet.operate("pin", "box", "--model", fl.MODEL, "--version", "2.0")
    fleet.wait("box", version="2.0", phase="confirmed", target="2.0")


def dying_worker(fleet, box):
    for pid in box.children("skiff-worker"):
        os.kill(pid, signal.SIGKILL)
    check(box.chat(QUESTION, 8)[1] == "2.0", "a worker that dies is started again")
    os.kill(box.children("skiff-gateway")[0], signal.SIGKILL)
    box.ready()
    check(box.chat(QUESTION, 8)[1] == "2.0", "so is the gateway, at the same address")
    hung = box.children("skiff-gateway")[0]
    os.kill(hung, signal.SIGSTOP)
    fl.wait_for("a gateway that hangs is replaced", 60, lambda: box.children("skiff-gateway") not in ([], [hung]))
    box.ready()
    check(box.chat(QUESTION, 8)[1] == "2.0", "a gateway that hangs is replaced too")


def hung_worker(fleet, box):
    """It neither works nor ends, with requests in it that have had no byte yet: another worker answers them."""
    pid = box.children("skiff-worker")[0]
    os.kill(pid, signal.SIGSTOP)
    clients = fl.Clients(box, 2, 8).start()
    fl.wait_for("a worker that hangs is replaced", 60, lambda: clients.answers >= 2)
    clients.stop()
    check(not clients.failed and pid not in box.children("skiff-worker"), "a worker that hangs is replaced, and its requests are answered", *clients.failed[:3])


def boot_loop(fleet, box):
    """Version 2 dies again and again: three times are enough."""
    killed = set()

    def returned():
        for pid in box.children("skiff-worker"):
            if pid not in killed and len(killed) < 3:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
        d = fleet.device("box")
        return d if d["phase"] == "returned" else None
    got = fl.wait_for("the box goes back", 60, returned, 0.2)
    check(got["version"] == "1.0" and "3 times" in got["error"], "a version that keeps dying is given up for the previous one", got)
    check(box.chat(QUESTION, 8)[1] == "1.0", "which answers")


def no_centre(fleet, box):
    fleet.centre.stop()
    box.kill()
    fl.wait_for("nothing of the box runs", 5, lambda: not box.session())
    check(True, "no process outlives a killed agent")
    box.start()
    box.ready()
    check(box.chat(QUESTION, 8)[1] == "1.0", "with the centre gone the box starts and answers")
    fleet.start_centre()
    fl.wait_for("the box is back", 60, lambda: fleet.device("box")["online"], 0.2)
    check(fleet.device("box")["version"] == "1.0", "and finds the centre when it is back")
    began = time.monotonic()
    box.stop()
    check(box.p.returncode == 0 and time.monotonic() - began < 15 * fl.SLOW, "SIGTERM ends it with status 0", box.tail())


def main():
    folder = os.path.join(os.environ["SKF_TMP"], "f")
    shutil.rmtree(folder, ignore_errors=True)
    with fl.Fleet(folder, os.environ["SKF_BUILD"]) as fleet:
        fleet.skiff("merge", v1, ADAPTER, "-o", v2)
        box = fleet.add_agent("box", "--watch", "1")
        box.first_line()
        status, _, _ = box.request("GET", "/health")
        check(status == 503, "without a version the box says that it cannot answer")
        before = first_version(fleet, box)
        second_version(fleet, box, before)
        hung_worker(fleet, box)
        pin_and_back(fleet, box, before)
        what_cannot_run(fleet, box)
        dying_worker(fleet, box)
        boot_loop(fleet, box)
        no_centre(fleet, box)
    done()


main()
