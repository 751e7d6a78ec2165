"""Several models on one box behind one port: installed at the same time, asked for by name or alias, swapped one by one, unloaded when nobody
asks and loaded again for who does."""
import json
import os
import threading

import fleet as fl
import tiny_model
from tap import check, done

TMP = os.environ["SKF_TMP"]


def model(name, seed, change=0.0):
    return tiny_model.write(os.path.join(TMP, name), "q4_1", seed=seed, change=change)


def ask(box, name, **more):
    status, headers, body = box.request("POST", "/v1/completions", dict(model=name, prompt="hello", max_tokens=8, temperature=0, **more))
    return status, headers.get("x-skiff-version"), json.loads(body)


with fl.Fleet(os.path.join(TMP, "f"), os.environ["SKF_BUILD"]) as fleet:
    config = fleet.path("agent.toml")
    with open(config, "w") as f:
        f.write('[runtime]\nidle_seconds = 4\n[models.small]\naliases = ["quick", "s"]\n[models.big]\naliases = ["slow"]\n')
    fleet.publish(model("small", 1), "1.0", model="small")
    fleet.publish(model("big", 2), "1.0", model="big")
    box = fleet.add_agent("box", "--config", config, "--watch", "1")

    def served():
        try:
            return {m["id"] for m in json.loads(box.request("GET", "/v1/models")[2])["data"]} == {"small", "big"} and ask(box, "slow")[0] == ask(box, "s")[0] == 200
        except OSError:
            return False
    fl.wait_for("both models", 60, served)
    small, big = ask(box, "small"), ask(box, "big")
    check((small[2]["model"], big[2]["model"]) == ("small", "big"), "each is asked for by its name", small, big)
    check([ask(box, a)[2]["model"] for a in ("quick", "s", "slow")] == ["small", "small", "big"], "and by its aliases")
    status, _, body = ask(box, "other")
    check(status == 404 and body["error"]["code"] == "model_not_found", "one that is not here is refused by name", body)
    status, _, _ = box.request("POST", "/v1/completions", dict(prompt="x", max_tokens=1))
    check(status == 400, "with several, a request names one", status)

    fleet.publish(model("small2", 1, 0.05), "2.0", model="small")
    fl.wait_for("the new version of one", 60, lambda: ask(box, "small")[1] == "2.0")
    check(ask(box, "big")[1] == "1.0", "the other goes on")

    fl.wait_for("both unloaded", 60, lambda: not box.children("skiff-worker"))
    status, _, body = box.request("GET", "/health")
    check(status == 200 and all(m.get("asleep") for m in json.loads(body)["models"]), "nobody asked: no worker runs, and all is well", body)
    got = []
    threads = [threading.Thread(target=lambda: got.append(ask(box, "slow"))) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    check([g[0] for g in got] == [200] * 4 and all(g[2]["choices"] == big[2]["choices"] for g in got), "requests wait for it to be loaded again", got)
    check(len(box.children("skiff-worker")) == 1, "only what was asked for")
    fleet.publish(model("small3", 1, 0.08), "3.0", model="small")
    fl.wait_for("a version that came while its model slept", 60, lambda: ask(box, "small")[1] == "3.0")
    check(True, "an update does not need its model awake")
done()
