"""Update metadata of others verifies here, and ours there: python-tuf writes and rotates, `skiff tuf` reads, and the other way round.
Attacks are made with python-tuf's own signing, so that only the one thing is wrong that the name says."""
import copy
import hashlib
import json
import os
import shutil
import subprocess
from datetime import datetime, timedelta, timezone

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Delegations, Key, Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig
from tuf.api.exceptions import DownloadHTTPError

from tap import check, done

BUILD, TMP = os.environ["SKF_BUILD"], os.environ["SKF_TMP"]
SKIFF = os.path.join(BUILD, "skiff")
DAY = timedelta(days=1)
NOW = datetime.now(timezone.utc).replace(microsecond=0)


def at(*parts):
    return os.path.join(TMP, *parts)


def skiff(*args, now=None):
    env = dict(os.environ)
    if now:
        env["SKF_NOW"] = str(int(now.timestamp()))
    return subprocess.run([SKIFF, *args], capture_output=True, text=True, env=env,
                          timeout=60 * float(os.environ.get("SKF_SLOW", "1")))


class Repo:
    """A repository of python-tuf in a folder, with a delegated role and a target in each."""

    def __init__(self, name, make=CryptoSigner.generate_ed25519, paths=("deltas/*",)):
        self.dir, self.targets_dir, self.md = at(name, "metadata"), at(name, "targets"), at(name, "client")
        os.makedirs(self.dir)
        self.make = make
        self.signers = {r: [make()] for r in ("root", "timestamp", "snapshot", "targets", "deltas")}
        self.root, self.snapshot, self.timestamp = Root(expires=NOW + 365 * DAY), Snapshot(expires=NOW + 7 * DAY), Timestamp(expires=NOW + DAY)
        self.targets, self.deltas = Targets(expires=NOW + 90 * DAY), Targets(expires=NOW + 30 * DAY)
        self.root.unrecognized_fields["x-fleet"] = {"é": [1, None, True]}
        for role in ("root", "timestamp", "snapshot", "targets"):
            self.root.add_key(self.signers[role][0].public_key, role)
        key = self.signers["deltas"][0].public_key
        self.targets.delegations = Delegations({key.keyid: key}, {"deltas": DelegatedRole("deltas", [key.keyid], 1, True, list(paths))})
        self.add(self.targets, "models/m/1.manifest", b"manifest one")
        self.add(self.deltas, "deltas/a-b.skdx", b"delta")
        self.add(self.deltas, "models/evil/1.manifest", b"not for this role to say")
        self.write_root()
        self.publish()

    def add(self, role, path, data):
        role.targets[path] = TargetFile.from_data(path, data)
        for name in (path, os.path.join(os.path.dirname(path), hashlib.sha256(data).hexdigest() + "." + os.path.basename(path))):
            os.makedirs(os.path.dirname(os.path.join(self.targets_dir, name)), exist_ok=True)
            with open(os.path.join(self.targets_dir, name), "wb") as f:
                f.write(data)

    def write(self, name, signed, signers):
        md = Metadata(signed)
        for s in signers:
            md.sign(s, append=True)
        data = md.to_bytes(JSONSerializer())
        with open(os.path.join(self.dir, name), "wb") as f:
            f.write(data)
        return data

    def write_root(self, extra=()):
        return self.write(f"{self.root.version}.root.json", self.root, [*self.signers["root"], *extra])

    def publish(self, hashes=True):
        def meta(version, data):
            return MetaFile(version, len(data), {"sha256": hashlib.sha256(data).hexdigest()}) if hashes else MetaFile(version)
        d = self.write(f"{self.deltas.version}.deltas.json", self.deltas, self.signers["deltas"])
        t = self.write(f"{self.targets.version}.targets.json", self.targets, self.signers["targets"])
        self.snapshot.meta = {"targets.json": meta(self.targets.version, t), "deltas.json": meta(self.deltas.version, d)}
        s = self.write(f"{self.snapshot.version}.snapshot.json", self.snapshot, self.signers["snapshot"])
        self.timestamp.snapshot_meta = meta(self.snapshot.version, s)
        self.write("timestamp.json", self.timestamp, self.signers["timestamp"])

    def bump(self):
        for r in (self.deltas, self.targets, self.snapshot, self.timestamp):
            r.version += 1

    def init(self):
        return skiff("tuf", "--metadata-dir", self.md, "init", os.path.join(self.dir, "1.root.json"))

    def refresh(self, now=None):
        return skiff("tuf", "--metadata-dir", self.md, "--repo", self.dir, "refresh", now=now)

    def download(self, path, into=None):
        return skiff("tuf", "--metadata-dir", self.md, "--repo", self.dir, "--target-name", path, "--target-dir",
                     into or at("downloads"), "--target-base", self.targets_dir, "download")

    def trusted(self, role):
        try:
            return Metadata.from_file(os.path.join(self.md, role + ".json")).signed.version
        except Exception:
            return 0


def refused(what, r, *words):
    lines = r.stderr.strip().splitlines()
    check(r.returncode == 1 and len(lines) == 1 and all(w in lines[0] for w in words), what, f"exit {r.returncode}", r.stderr)


def accepted(what, r):
    check(r.returncode == 0 and not r.stderr, what, f"exit {r.returncode}", r.stderr)


# ---- python-tuf signs, skiff verifies
for name, make in (("ed25519", CryptoSigner.generate_ed25519), ("ecdsa", CryptoSigner.generate_ecdsa), ("rsa", CryptoSigner.generate_rsa)):
    p = Repo("theirs-" + name, make)
    accepted(f"{name}: their first root is taken", p.init())
    accepted(f"{name}: their metadata verifies", p.refresh())
    accepted(f"{name}: a target of their top-level role", p.download("models/m/1.manifest"))
    accepted(f"{name}: a target of their delegated role", p.download("deltas/a-b.skdx"))
check(sorted(open(at("downloads", f), "rb").read() for f in os.listdir(at("downloads"))) == [b"delta", b"manifest one"],
      "what was downloaded has the right bytes", os.listdir(at("downloads")))
refused("a path that the delegated role may not speak for", p.download("models/evil/1.manifest"), "models/evil/1.manifest", "no signed metadata")

p = Repo("rotated")
p.init()
accepted("before the rotation", p.refresh())
old, p.signers["root"] = p.signers["root"], [CryptoSigner.generate_ed25519(), CryptoSigner.generate_ecdsa()]
p.root.roles["root"].keyids.clear()
p.root.roles["root"].threshold = 2
for s in p.signers["root"]:
    p.root.add_key(s.public_key, "root")
p.root.version = 2
p.write_root(extra=old)
p.root.version = 3  # and now without the old key; at once with new keys for timestamp and snapshot
for role in ("timestamp", "snapshot"):
    p.signers[role] = [CryptoSigner.generate_ed25519()]
    p.root.roles[role].keyids.clear()
    p.root.add_key(p.signers[role][0].public_key, role)
p.write_root()
p.publish()
accepted("after two rotations of root, timestamp and snapshot", p.refresh())
check(p.trusted("root") == 3, "the newest root is trusted", p.trusted("root"))
p.root.version = 4
p.write("4.root.json", p.root, p.signers["root"][:1])
refused("a root under its threshold", p.refresh(), "4.root.json", "signed by 1 of the 2")
check(p.trusted("root") == 3, "and the root of before stays", p.trusted("root"))

p = Repo("attacks")
p.init()
accepted("sound", p.refresh())
for role in ("timestamp", "snapshot", "targets"):
    p.bump()
    right, p.signers[role] = p.signers[role], [CryptoSigner.generate_ed25519()]
    p.publish()
    refused(f"{role} signed by a stranger", p.refresh(), role + ".json", "signed by 0 of the 1")
    p.signers[role] = right
p.bump()
p.publish()
accepted("sound again", p.refresh())
for what, role in (("timestamp", p.timestamp), ("snapshot", p.snapshot), ("targets", p.targets)):
    p.bump()
    p.publish()
    p.refresh()
    before = role.version
    if what != "timestamp":
        p.timestamp.version += 1
    if what == "targets":
        p.snapshot.version += 1
    role.version -= 1
    p.publish()
    refused(f"{what} rolled back", p.refresh(), f"{before} was seen before")
    role.version += 2
    p.bump()
    p.publish()
for what, role in (("timestamp", p.timestamp), ("snapshot", p.snapshot), ("targets", p.targets)):
    p.bump()
    right, role.expires = role.expires, NOW - DAY
    p.publish()
    refused(f"{what} expired", p.refresh(), what + ".json", "expired on")
    role.expires = right
p.bump()
p.publish()
accepted("sound once more", p.refresh())
refused("frozen: two days on, nothing new", p.refresh(now=NOW + 2 * DAY), "timestamp.json", "expired on")
p.bump()
del p.deltas.targets["deltas/a-b.skdx"]
p.publish()
p.snapshot.meta.pop("deltas.json")
p.snapshot.version += 1
p.timestamp.version += 1
s = p.write(f"{p.snapshot.version}.snapshot.json", p.snapshot, p.signers["snapshot"])
p.timestamp.snapshot_meta = MetaFile(p.snapshot.version)
p.write("timestamp.json", p.timestamp, p.signers["timestamp"])
refused("the delegated role left out of the snapshot", p.refresh(), "no longer lists deltas.json")

p = Repo("substituted")
p.init()
good = at("substituted", "targets", "models", "m", hashlib.sha256(b"manifest one").hexdigest() + ".1.manifest")
with open(good, "wb") as f:
    f.write(b"manifest two")
refused("a target of the right length with other bytes", p.download("models/m/1.manifest", at("none")), "models/m/1.manifest", "SHA-256")
for name in (good, at("substituted", "targets", "models/m/1.manifest")):
    with open(name, "wb") as f:
        f.write(b"manifest one and more")
refused("a target that is too long", p.download("models/m/1.manifest", at("none")), "longer than is signed for")
check(not os.path.exists(at("none")), "nothing was written")
p = Repo("wide", paths=("*",))
p.init()
refused("a wildcard does not reach over a slash", p.download("deltas/a-b.skdx"), "no signed metadata")


# ---- skiff signs, python-tuf verifies
class Folder(FetcherInterface):
    def _fetch(self, url):
        path = url.removeprefix("http://repo/")
        try:
            with open(os.path.join(at("ours"), path), "rb") as f:
                return iter([f.read()])
        except FileNotFoundError:
            raise DownloadHTTPError("not there", 404)


def updater(name):
    shutil.rmtree(at(name), ignore_errors=True)
    os.makedirs(at(name))
    with open(at("ours", "metadata", "1.root.json"), "rb") as f:
        first = f.read()
    return Updater(at(name), "http://repo/metadata/", at(name), "http://repo/targets/", Folder(),
                   UpdaterConfig(prefix_targets_with_hash=False), bootstrap=first)


os.makedirs(at("ours", "targets", "models", "m"))
os.makedirs(at("ours", "targets", "deltas"))
for path, data in (("models/m/1.manifest", b"ours"), ("deltas/a-b.skdx", b"our delta")):
    with open(at("ours", "targets", path), "wb") as f:
        f.write(data)
repo, keys = at("ours", "metadata"), at("ours", "keys")
accepted("skiff tuf create", subprocess.run([SKIFF, "tuf", "create", "--dir", repo, "--keys", keys, "--json"], capture_output=True, text=True))
accepted("a release", skiff("tuf", "add", "--dir", repo, "--keys", keys, "--file", at("ours", "targets", "models/m/1.manifest"), "--target-name", "models/m/1.manifest"))
accepted("a delta", skiff("tuf", "add", "--dir", repo, "--keys", keys, "--file", at("ours", "targets", "deltas/a-b.skdx"), "--target-name", "deltas/a-b.skdx"))
u = updater("peer")
try:
    u.refresh()
    ok = True
except RepositoryError as e:
    ok = e
check(ok is True, "python-tuf verifies what skiff signed", ok)
for path, data in (("models/m/1.manifest", b"ours"), ("deltas/a-b.skdx", b"our delta")):
    info = u.get_targetinfo(path)
    got = info and open(u.download_target(info), "rb").read()
    check(got == data, f"python-tuf downloads {path}", got)
check(u.get_targetinfo("deltas/none") is None, "and finds nothing that is not there")
for role in ("root", "targets", "snapshot", "timestamp", "deltas"):
    ours = json.load(open(os.path.join(keys, role + ".key.pub")))
    theirs = Key.from_dict("", copy.deepcopy(ours))
    keyid = json.load(open(os.path.join(keys, role + ".key")))["keyid"]
    from securesystemslib.formats import encode_canonical
    check(hashlib.sha256(encode_canonical(theirs.to_dict()).encode()).hexdigest() == keyid, f"{role}: the keyid is theirs")

# a root that python-tuf changes and skiff signs
md = Metadata.from_file(os.path.join(repo, "1.root.json"))
fresh = CryptoSigner.generate_ecdsa()
md.signed.version = 2
md.signed.add_key(fresh.public_key, "root")
md.signed.roles["root"].threshold = 2
md.signatures.clear()
md.sign(fresh)
draft = os.path.join(repo, "2.root.json")
with open(draft, "wb") as f:
    f.write(md.to_bytes())
u = updater("peer")
out = skiff("tuf", "--metadata-dir", at("mine"), "init", os.path.join(repo, "1.root.json"))
refused("a half signed root is refused", skiff("tuf", "--metadata-dir", at("mine"), "--repo", repo, "refresh"), "2.root.json", "signed by 1 of the 2")
accepted("skiff sign adds the second signature", skiff("sign", "--key", os.path.join(keys, "root.key"), draft, "--root", os.path.join(repo, "1.root.json"), "--json"))
accepted("our client follows", skiff("tuf", "--metadata-dir", at("mine"), "--repo", repo, "refresh"))
check(Metadata.from_file(at("mine", "root.json")).signed.version == 2, "to version 2")
try:
    u.refresh()
    ok = u._trusted_set.root.version == 2
except RepositoryError as e:
    ok = e
check(ok is True, "and so does python-tuf", ok)
stamp = Metadata.from_file(os.path.join(repo, "timestamp.json"))
stamp.signed.version += 1
with open(os.path.join(repo, "timestamp.json"), "wb") as f:
    f.write(stamp.to_bytes())
refused("our own metadata, altered", skiff("tuf", "--metadata-dir", at("mine"), "--repo", repo, "refresh"), "timestamp.json", "signed by 0")
refused("and the repository does not sign on what is not its own", skiff("tuf", "update", "--dir", repo, "--keys", keys), "timestamp", "signed by 0")
done()
