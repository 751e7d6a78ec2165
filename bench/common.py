"""What every benchmark shares: the machine's description, ratios of interleaved runs, and the result file bench/results/<name>.json."""
import datetime
import json
import os
import platform
import statistics
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def machine():
    model, flags = platform.machine(), set()
    for line in open("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        if key.strip() in ("flags", "Features"):
            flags = set(value.split())
            break
    wanted = ("avx2", "avx512f", "avx512_vnni", "amx_int8", "sha_ni", "asimddp", "i8mm", "sha2")
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "features": [f for f in wanted if f in flags], "system": platform.platform()}


def commit():
    r = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return r.stdout.strip()


def summary(values):
    return {"min": min(values), "median": statistics.median(values), "max": max(values), "runs": len(values)}


def write(name, rows, **more):
    """rows: a list of objects, one a line of the printed table. Writes bench/results/<name>.json."""
    folder = os.path.join(ROOT, "bench", "results")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name + ".json")
    with open(path, "w") as f:
        json.dump({"name": name, "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"), "commit": commit(),
                   "machine": machine(), **more, "rows": rows}, f, indent=1)
        f.write("\n")
    print(f"wrote {os.path.relpath(path, ROOT)}")
