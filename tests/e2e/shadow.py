"""Shadowing: before a new version answers anybody it computes the answers of the requests that the old one gets, and both are compared. One that
says the same is taken, one that says something else is refused with the figures; users see the old version's answers meanwhile."""
import os
import re

import fleet as fl
import tiny_model
from tap import check, done, note

TMP = os.environ["SKF_TMP"]

with fl.Fleet(os.path.join(TMP, "f"), os.environ["SKF_BUILD"]) as fleet:
    config = fleet.path("agent.toml")
    with open(config, "w") as f:
        f.write("[swap]\nmode = 'side'\nshadow = 1.0\nagreement = 0.9\nshadow_requests = 6\nshadow_seconds = 100\n")
    fleet.publish(tiny_model.write(os.path.join(TMP, "1"), "q8_0", seed=1), "1.0")
    box = fleet.add_agent("box", "--config", config, "--watch", "1")
    fleet.wait("box", version="1.0", phase="confirmed")
    clients = fl.Clients(box, 3, 12).start()
    fleet.publish(tiny_model.write(os.path.join(TMP, "2"), "q8_0", seed=1, change=0.00001), "2.0")
    fleet.wait("box", version="2.0", phase="confirmed")
    said = re.findall(r"(\d+) answers compared: (\d+) of (\d+) tokens are equal", open(box.log).read())
    check(said and int(said[0][0]) >= 6 and int(said[0][1]) >= 0.9 * int(said[0][2]) > 0, "a version that says the same is taken", said)
    other = tiny_model.write(os.path.join(TMP, "3"), "q8_0", seed=1)
    data = open(other, "rb").read()  # a model this small says the last token again: its template puts another there
    assert data.count(b"assistant\n' }}") == 1
    open(other, "wb").write(data.replace(b"assistant\n' }}", b"assistant.' }}"))
    fleet.publish(other, "3.0")
    told = fleet.wait("box", phase="failed")
    check(re.search(r"shadow: \d+ answers compared: \d+ of \d+ tokens are equal \(.* %\); .* tokens/s instead of", told["error"]),
          "one that says something else is refused with the figures", told["error"])
    note(told["error"])
    clients.stop()
    check(not clients.failed and clients.versions == {"1.0", "2.0"}, f"{clients.answers} users' answers, none by the refused version", *clients.failed[:3], clients.versions)
    check(box.chat("x", 2)[1] == "2.0", "the version before goes on")
done()
