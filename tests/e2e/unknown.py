"""Versions that no runtime here can run: refused by name before a byte of their payload travels; version 1 goes on serving, and the next good
version comes as ever."""
import os
import re
import sys

import fleet as fl
import tiny_model
from tap import check, done

TMP = os.environ["SKF_TMP"]


def path(name, **args):
    return str(tiny_model.write(os.path.join(TMP, name + ".gguf"), **args))


def refused(fleet, box, version, file, words):
    fleet.publish(file, version)

    def failed():
        d = fleet.device("box")
        return d if words in d["error"] else None
    got = fl.wait_for(f"the box refuses {version}", 60, failed, 0.2)
    check(got["version"] == "1.0", f"refused by name: {words}", got)
    check(got["bytes_received"] == 0 and not os.path.exists(os.path.join(box.dir, "incoming", fl.MODEL + ".skdx")),
          "not a byte of payload travelled, nor the index", got)
    check(box.chat("Hello", 4)[1] == "1.0", "version 1 goes on serving")
    check([v["version"] for v in box.store()["versions"]] == ["1.0"], "and the store holds what it held")


def story(fleet):
    box = fleet.add_agent("box", "--watch", "1", start=False)
    fleet.publish(path("good", seed=1), "1.0")
    box.start()
    fleet.wait("box", version="1.0", phase="confirmed")
    index = os.path.join(box.dir, "incoming", fl.MODEL + ".skdx")
    if os.path.exists(index):
        os.remove(index)
    refused(fleet, box, "2.0", path("arch", arch="mamba"), 'architecture "mamba" is not known to this agent')
    refused(fleet, box, "3.0", path("pre", pre="chameleon"), 'tokenizer "gpt2:chameleon" is not known to this agent')
    refused(fleet, box, "4.0", path("type", type="mxfp4"), "cannot compute with type mxfp4")
    fleet.publish(path("better", seed=1, change=0.02), "5.0")
    fleet.wait("box", version="5.0", phase="confirmed")
    check(box.chat("Hello", 4)[1] == "5.0", "the next good version comes as ever")
    log = open(box.log, errors="replace").read()
    check(not re.search(r"Sanitizer|panic", log), "and nothing broke")


def main():
    with fl.Fleet(os.path.join(TMP, "f"), os.environ["SKF_BUILD"]) as fleet:
        story(fleet)
    done()


sys.exit(main())
