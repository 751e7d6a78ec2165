"""skiffd where its folder is wrong, its registry is not there, or its key is everybody's: said at once, and nothing made in a folder that is none."""
import os
import shutil
import subprocess

import fleet as fl
from tap import check, done

BUILD, TMP, SLOW = os.environ["SKF_BUILD"], os.environ["SKF_TMP"], float(os.environ.get("SKF_SLOW", "1"))
SKIFFD = os.path.join(BUILD, "skiffd")
fleet = fl.Fleet(os.path.join(TMP, "fleet"), BUILD)
fleet.make()
centre, key = fleet.path("centre"), fleet.path("centre", "tls", "distributor.key")


def fails(what, word, *args):
    r = subprocess.run([SKIFFD, "--listen", "127.0.0.1:0", *args], capture_output=True, text=True, timeout=60 * SLOW)
    lines = r.stderr.splitlines()
    check(r.returncode == 1 and lines and lines[-1].startswith("skiffd: ") and word in lines[-1] and not r.stdout, what, r.returncode, r.stderr)


def starts(*args):
    """What it logs until it listens and is told to end."""
    p = subprocess.Popen([SKIFFD, "--dir", centre, "--listen", "127.0.0.1:0", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    check(p.stdout.readline().startswith("listening "), "it listens")
    p.terminate()
    _, err = p.communicate(timeout=60 * SLOW)
    return err


empty = os.path.join(TMP, "empty")
os.makedirs(empty)
fails("a folder that is no distributor's", "distributor.crt", "--dir", empty)
check(os.listdir(empty) == [], "and nothing is made in it", os.listdir(empty))
log = starts()
check("begins anew" in log and "chunks" not in log, "the first start says that the registry begins", log)
os.chmod(key, 0o640)
fails("a key that others can read", "distributor.key", "--dir", centre)
check("begins anew" not in starts("--allow-open-keys"), "which may be allowed")
os.chmod(key, 0o600)
shutil.rmtree(os.path.join(centre, "registry"))
log = starts()
check("registry" in log and "begins anew" in log and "chunks" in log, "a registry that was lost is spoken of", log)
check("begins anew" not in starts(), "one that is there is not")
fleet.stop()
done()
