"""Swaps where a version takes another's place (--swap in-place), under clients that ask all the time: no request is lost, both for a version
that is well and for one that is not, after which the old one is back.  And what a configuration says: aliases, warm prompts, a restart
that answers 503 to nobody."""
import os
import threading
import time

import fleet as fl
import tiny_model
from tap import check, done, note

TMP = os.environ["SKF_TMP"]


def model(version, **more):
    return tiny_model.write(os.path.join(TMP, version), "q4_1", seed=1, change=float(version) / 100, **more)


def broken(version):
    """A GGUF file with all its tensors but one, that the worker refuses."""
    path = model(version)
    data = open(path, "rb").read()
    at = data.index(b"blk.0.attn_q.weight")
    open(path, "wb").write(data[:at] + b"blk.0.attn_x.weight" + data[at + 19:])
    return path


with fl.Fleet(os.path.join(TMP, "f"), os.environ["SKF_BUILD"]) as fleet:
    config = fleet.path("agent.toml")
    with open(config, "w") as f:
        f.write('watch = 60\n[swap]\nmode = "in-place"\n[cache]\nwarm = ["You are a short and friendly helper of few words."]\n'
                f'[models."{fl.MODEL}"]\naliases = ["default"]\n')
    fleet.publish(model("1.0"), "1.0")
    box = fleet.add_agent("box", "--config", config, "--watch", "1")
    fleet.wait("box", version="1.0", phase="confirmed")
    status, _, _ = box.request("POST", "/v1/completions", dict(model="default", prompt="one", max_tokens=2))
    check(status == 200, "an alias of the configuration is served", status)
    said = fl.wait_for("warm prompts", 20, lambda: [line for line in open(box.log) if "of prompts are warm" in line])
    check(" 0 tokens" not in said[0], "the worker was warmed", *said)

    clients = fl.Clients(box, 3, 12).start()
    for version in ("2.0", "3.0"):
        time.sleep(0.3)
        fleet.publish(model(version), version)
        told = fleet.wait("box", version=version, phase="confirmed")
        note(f"{version}: requests waited {told['swap_pause_us'] / 1000:.0f} ms at most")
    check(told["swap_pause_us"] > 0, "the pause is measured and told")
    fleet.publish(broken("4.0"), "4.0")
    told = fleet.wait("box", phase="failed", seconds=120)
    fl.wait_for("the old version back", 30, lambda: box.chat("x", 2)[1] == "3.0")
    time.sleep(0.5)
    clients.stop()
    check(not clients.failed, "no request was lost", *clients.failed[:5])
    check(clients.versions == {"1.0", "2.0", "3.0"} and clients.answers > 10, f"{clients.answers} answers by {sorted(clients.versions)}")
    check("takes" in open(box.log).read() and "makes room" in open(box.log).read(), "in place: the old worker left first")

    fleet.centre.kill()
    box.stop()
    answers, end = [], threading.Event()

    def knock():
        while not end.is_set():
            try:
                answers.append(box.request("POST", "/v1/completions", dict(prompt="x", max_tokens=1), timeout=30)[0])
            except OSError:
                time.sleep(0.002)  # it does not listen yet

    threads = [threading.Thread(target=knock) for _ in range(4)]
    [t.start() for t in threads]
    box.start()
    box.ready()
    time.sleep(0.3)
    end.set()
    [t.join() for t in threads]
    check(answers and set(answers) == {200}, f"a box that is started again answers 200 from its first request on ({len(answers)})", set(answers))
done()
