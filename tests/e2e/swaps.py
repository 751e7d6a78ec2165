"""Ten swaps between two versions under four clients that stream all the time: no request fails."""
import os
import time

import fleet as fl
from tap import check, done, note

ADAPTER = os.path.join(os.environ["SKF_ROOT"], "examples", "smollm2-135m-python-lora.gguf")
v1 = os.path.join(os.environ["SKF_MODELS"], "published.gguf")
v2 = os.path.join(os.environ["SKF_TMP"], "v2.gguf")

with fl.Fleet(os.path.join(os.environ["SKF_TMP"], "f"), os.environ["SKF_BUILD"]) as fleet:
    fleet.skiff("merge", v1, ADAPTER, "-o", v2)
    fleet.publish(v1, "1.0")
    box = fleet.add_agent("box", "--watch", "1")
    fleet.wait("box", version="1.0", phase="confirmed")
    fleet.publish(v2, "2.0")
    fleet.wait("box", version="2.0", phase="confirmed")
    clients = fl.Clients(box, 4, 16).start()
    pauses, received = [], 0
    for i in range(10):
        version = ("1.0", "2.0")[i % 2]
        fleet.operate("pin", "box", "--model", fl.MODEL, "--version", version)
        said = fleet.wait("box", version=version, phase="confirmed")
        pauses.append(said["swap_pause_us"] / 1000)
        received += said["bytes_received"]
    time.sleep(1)
    clients.stop()
    check(not clients.failed, "no request failed over ten swaps", *clients.failed[:5])
    check(clients.answers >= 10, f"{clients.answers} answers meanwhile")
    check(clients.versions == {"1.0", "2.0"}, f"both versions answered: {clients.versions}")
    check(received == 0, "nothing was sent for versions the box holds")
    note(f"longest gap between streamed tokens {clients.gap * 1000:.0f} ms; pauses {min(pauses):.1f} to {max(pauses):.1f} ms")
done()
