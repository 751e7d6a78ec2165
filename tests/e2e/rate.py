"""A rate of download: the update takes as long as that says, over one session whose heartbeats stand, and goes on where a kill ended it."""
import os
import time

import fleet as fl
import tiny_model
from tap import check, done

RATE = 500_000
HERE = ("staged", "checking", "watching", "confirmed")
models = [os.path.join(os.environ["SKF_TMP"], f"m{seed}.gguf") for seed in (3, 4)]
for seed, path in zip((3, 4), models):
    tiny_model.write(path, type="f16", seed=seed, embd=192, layers=3, heads=6, kv_heads=3, ff=480)


def all_here(fleet, version):
    """Seconds from the publication until every byte is on the box, and what was sent."""
    def whole():
        d = fleet.device("box")
        return d if d and d.get("target") == version and d["phase"] in HERE or d and d.get("version") == version else None
    return fl.wait_for(f"version {version} on the box", 60, whole)


with fl.Fleet(os.path.join(os.environ["SKF_TMP"], "fleet"), os.environ["SKF_BUILD"]) as fleet:
    box = fleet.add_agent("box", "--rate", "500K", "--watch", "1")
    fl.wait_for("the box at the centre", 30, lambda: fleet.device("box"))
    begun = time.monotonic()
    fleet.publish(models[0], "1.0")
    all_here(fleet, "1.0")
    took = time.monotonic() - begun
    size = fleet.wait("box", version="1.0", phase="confirmed")["bytes_received"]
    check(size > 1_900_000, f"{size} bytes")
    check(took >= size / RATE and took >= 3.5, f"at 500 kB a second they take {size / RATE:.1f} s at least", took)
    with open(os.path.join(fleet.dir, "box.log")) as f:
        log = f.read()
    check(log.count("connected as") == 1 and "link down" not in log, "over one session", log[-2000:])

    fleet.publish(models[1], "2.0")
    fl.wait_for("a part of version 2.0", 60, lambda: fleet.device("box").get("bytes_received", 0) in range(300_000, size - 300_000))
    box.kill()
    box.start()
    got = fleet.wait("box", version="2.0", phase="confirmed")["bytes_received"]
    check(0 < got < size * 1.3, f"killed, it goes on: {got} bytes in all", size)

    # Newer versions that come one upon another, while the last one's payloads are still on their way.
    for seed, version in ((3, "3.0"), (5, "4.0"), (4, "5.0")):
        path = os.path.join(os.environ["SKF_TMP"], f"n{seed}.gguf")
        tiny_model.write(path, type="f16", seed=seed + 10, embd=192, layers=3, heads=6, kv_heads=3, ff=480)
        fleet.publish(path, version)
        time.sleep(0.6)
    fleet.wait("box", version="5.0", phase="confirmed", seconds=60)
    with open(os.path.join(fleet.dir, "box.log")) as f:
        log = f.read()
    check("failed" not in log, "of three versions that come in quick succession the last is taken, and nothing is taken for its payloads that is none", log[-2000:])
done()
