#!/usr/bin/env python3
"""What the programs hold in memory: a real fleet of one distributor and one box on loopback with the published model, read at rest and
while an update goes on under one streaming client.

A process's own memory is Pss_Anon and private dirty pages; Pss besides counts its share of mapped files (programs, libraries, the
weight store, which worker and agent share). During the update the highest reading of each is kept; readings are 20 ms apart, so a
shorter peak can be missed.  The kernel's page cache is not counted: it gives way.
"""
import argparse
import os
import sys
import tempfile
import threading
import time

import common

sys.path.insert(0, os.path.join(common.ROOT, "tests", "lib"))
import fleet as fl  # noqa: E402

ADAPTER = os.path.join(common.ROOT, "examples", "smollm2-135m-python-lora.gguf")
KEYS = {"Rss": "rss_kb", "Pss": "pss_kb", "Pss_Anon": "own_kb"}


def reading(pid):
    """KB of one process, or None when it has gone."""
    got = {}
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            for line in f:
                key, _, value = line.partition(":")
                if key in KEYS:
                    got[KEYS[key]] = int(value.split()[0])
    except (FileNotFoundError, ProcessLookupError):
        return None
    return got if len(got) == len(KEYS) else None


def processes(fleet, box):
    """(program, process id) of everything that runs for the fleet; several workers while two versions do."""
    yield "skiffd", fleet.centre.p.pid
    yield "skiff-agent", box.p.pid
    for program in ("skiff-gateway", "skiff-worker"):
        for pid in box.children(program):
            yield program, pid


def read_all(fleet, box):
    """Of each program; two workers are two readings, of which the larger stands, and `workers` says how many there were."""
    rows, workers = {}, 0
    for program, pid in processes(fleet, box):
        got = reading(pid)
        if got is None:
            continue
        workers += program == "skiff-worker"
        old = rows.get(program)
        rows[program] = got if old is None else {k: max(old[k], got[k]) for k in got}
    return rows, workers


class Watch:
    """Keeps the highest reading of each program until it is stopped."""

    def __init__(self, fleet, box):
        self.fleet, self.box, self.most, self.workers, self.box_pss = fleet, box, {}, 0, 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self):
        while not self._end.wait(0.02):
            rows, workers = read_all(self.fleet, self.box)
            self.workers = max(self.workers, workers)
            for program, got in rows.items():
                old = self.most.setdefault(program, got)
                self.most[program] = {k: max(old[k], got[k]) for k in got}

    def stop(self):
        self._end.set()
        self._thread.join()
        return self.most


def rows_of(when, readings, **more):
    return [{"when": when, "program": p, **readings[p], **more} for p in ("skiffd", "skiff-agent", "skiff-gateway", "skiff-worker") if p in readings]


def show(rows):
    for r in rows:
        print(f"{r['when']:34} {r['program']:14} {r['own_kb'] / 1024:8.1f} MiB of its own, {r['pss_kb'] / 1024:8.1f} MiB PSS, {r['rss_kb'] / 1024:8.1f} MiB RSS", flush=True)


def measure(folder, build, v1, settle):
    v2 = os.path.join(folder, "v2.gguf")
    rows = []
    with fl.Fleet(folder, build, "footprint") as fleet:
        def keep(when, readings, **more):
            new = rows_of(when, readings, **more)
            show(new)
            rows.extend(new)

        box = fleet.add_agent("box-1", "--watch", "3")
        box.first_line()
        time.sleep(settle)
        keep("at rest, no version", read_all(fleet, box)[0])
        fleet.skiff("merge", v1, ADAPTER, "-o", v2)

        watch = Watch(fleet, box)
        fleet.publish(v1, "1.0")
        fleet.wait("box-1", version="1.0", phase="confirmed")
        keep("first version arrives, whole", watch.stop())
        time.sleep(settle)
        keep("at rest, one version", read_all(fleet, box)[0])

        clients = fl.Clients(box, 1).start()
        time.sleep(1)
        watch = Watch(fleet, box)
        fleet.publish(v2, "2.0")
        fleet.wait("box-1", version="2.0", phase="confirmed", seconds=240)
        most = watch.stop()
        clients.stop()
        if clients.failed:
            raise SystemExit(f"bench: a request failed: {clients.failed[0]}")
        keep("update by delta, one client", most, workers_at_once=watch.workers)
        time.sleep(settle)
        keep("at rest after the update", read_all(fleet, box)[0])

        store = os.path.join(box.dir, "store", "data.mdb")
        centre = sum(os.stat(os.path.join(d, f)).st_blocks * 512 for d, _, files in os.walk(fleet.path("centre")) for f in files)
        disk = {"box_store_bytes": os.stat(store).st_blocks * 512, "centre_folder_bytes": centre}
        print(f"disk with two versions: {disk['box_store_bytes'] / 1e6:.1f} MB in the box's store, {centre / 1e6:.1f} MB in the distributor's folder")
    return rows, disk


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--settle", type=float, default=3, help="seconds of rest before a reading at rest")
    a = ap.parse_args()
    build = os.path.abspath(a.build)
    v1 = os.path.join(os.environ.get("SKF_MODELS", os.path.join(build, "models")), "published.gguf")
    with tempfile.TemporaryDirectory() as folder:
        rows, disk = measure(folder, build, v1, a.settle)
    common.write("footprint", rows, model_bytes=os.path.getsize(v1), disk=disk)


if __name__ == "__main__":
    main()
