"""Ten swaps between two versions under four clients that stream all the time: no request fails.  `make soak` makes them a hundred, after which
agent and gateway must not have grown."""
import os
import time

import fleet as fl
from tap import check, done, note

SWAPS = int(os.environ.get("SKF_SWAPS", "10"))
ADAPTER = os.path.join(os.environ["SKF_ROOT"], "examples", "smollm2-135m-python-lora.gguf")
v1, v2 = (os.environ.get("SKF_SWAP_MODELS") or ":").split(":")  # "V1.gguf:V2.gguf" instead of the published one and an adapter merged into it
v1 = v1 or os.path.join(os.environ["SKF_MODELS"], "published.gguf")
merged = v2 or os.path.join(os.environ["SKF_TMP"], "v2.gguf")


def own_memory(pid):
    """KiB that are the process's own."""
    return int(next(line for line in open(f"/proc/{pid}/status") if line.startswith("RssAnon")).split()[1])


with fl.Fleet(os.path.join(os.environ["SKF_TMP"], "f"), os.environ["SKF_BUILD"]) as fleet:
    if not v2:
        fleet.skiff("merge", v1, ADAPTER, "-o", merged)
    fleet.publish(v1, "1.0")
    box = fleet.add_agent("box", "--watch", "1")
    fleet.wait("box", version="1.0", phase="confirmed")
    fleet.publish(merged, "2.0")
    fleet.wait("box", version="2.0", phase="confirmed")
    clients = fl.Clients(box, 4, 16).start()
    pauses, received, memory = [], 0, []
    for i in range(SWAPS):
        version = ("1.0", "2.0")[i % 2]
        fleet.operate("pin", "box", "--model", fl.MODEL, "--version", version)
        said = fleet.wait("box", version=version, phase="confirmed")
        pauses.append(said["swap_pause_us"] / 1000)
        received += said["bytes_received"]
        memory.append(own_memory(box.p.pid) + sum(own_memory(p) for p in box.children("skiff-gateway")))
    time.sleep(1)
    clients.stop()
    check(not clients.failed, f"no request failed over {SWAPS} swaps", *clients.failed[:5])
    check(clients.answers >= SWAPS, f"{clients.answers} answers meanwhile")
    check(clients.versions == {"1.0", "2.0"}, f"both versions answered: {clients.versions}")
    check(received == 0, "nothing was sent for versions the box holds")
    if SWAPS >= 40:  # the first quarter fills what is kept for later use
        begun, end = (sum(memory[at:at + SWAPS // 8]) / (SWAPS // 8) for at in (SWAPS // 4, SWAPS - SWAPS // 8))
        check(end <= begun * 1.01, f"agent and gateway: {begun:.0f} KiB of their own, {end:.0f} at the end")
    note(f"longest gap between streamed tokens {clients.gap * 1000:.0f} ms; pauses {min(pauses):.1f} to {max(pauses):.1f} ms")
done()
