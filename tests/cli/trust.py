"""skiff keygen, sign, ca and tuf: what they print, write and refuse; certificates as OpenSSL and python's cryptography see them."""
import json
import os
import ssl
import socket
import stat
import subprocess
import threading
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from tap import check, done

BUILD, TMP = os.environ["SKF_BUILD"], os.environ["SKF_TMP"]
SKIFF = os.path.join(BUILD, "skiff")
SLOW = float(os.environ.get("SKF_SLOW", "1"))


def at(*parts):
    return os.path.join(TMP, *parts)


def skiff(*args, **env):
    return subprocess.run([SKIFF, *args], capture_output=True, text=True, timeout=60 * SLOW, env=dict(os.environ, **env))


def accepted(what, r):
    return check(r.returncode == 0 and not r.stderr, what, f"exit {r.returncode}", r.stderr)


def refused(what, r, *words, code=1):
    lines = r.stderr.strip().splitlines()
    check(r.returncode == code and len(lines) == 1 and lines[0].startswith("skiff: ") and all(w in lines[0] for w in words),
          what, f"exit {r.returncode}", r.stderr)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


# ---- keys
r = skiff("keygen", "--role", "targets", "-o", at("k.key"), "--json")
accepted("keygen", r)
j = json.loads(r.stdout)
check(j["role"] == "targets" and len(j["keyid"]) == 64 and j["key"] == at("k.key"), "keygen --json", r.stdout)
check(mode(at("k.key")) == 0o600, "the key is its owner's alone", oct(mode(at("k.key"))))
pub = json.load(open(at("k.key.pub")))
check(set(pub) == {"keytype", "scheme", "keyval"} and set(pub["keyval"]) == {"public"}, "the public half is TUF's key form", pub)
secret = json.load(open(at("k.key")))["keyval"]["private"]
before = open(at("k.key")).read()
refused("keygen does not overwrite", skiff("keygen", "--role", "targets", "-o", at("k.key")), "k.key", "exists")
check(open(at("k.key")).read() == before, "and the key is as it was")
refused("keygen without a role", skiff("keygen", "-o", at("x.key")), "--role", code=2)
refused("keygen with another role", skiff("keygen", "--role", "king", "-o", at("x.key")), "--role", code=2)
refused("keygen without a file", skiff("keygen", "--role", "root"), "-o", code=2)
refused("keygen into no folder", skiff("keygen", "--role", "root", "-o", at("no", "x.key")), "x.key", "No such file")
check(skiff("keygen", "--help").stdout.startswith("usage: skiff keygen"), "keygen --help")

# ---- a repository of several keyholders, signed file by file
for name, role in (("r1", "root"), ("r2", "root"), ("t", "targets"), ("snapshot", "snapshot"), ("timestamp", "timestamp"), ("deltas", "deltas")):
    skiff("keygen", "--role", role, "-o", at(name + ".key"))
accepted("tuf init", skiff("tuf", "init", "--dir", at("repo"), "--root", at("r1.key.pub"), "--root", at("r2.key.pub"), "--root-threshold",
                           "2", "--targets", at("t.key.pub"), "--snapshot", at("snapshot.key.pub"), "--timestamp",
                           at("timestamp.key.pub"), "--deltas", at("deltas.key.pub")))
refused("tuf init again", skiff("tuf", "init", "--dir", at("repo"), "--root", at("r1.key.pub"), "--targets", at("t.key.pub"), "--snapshot",
                                at("snapshot.key.pub"), "--timestamp", at("timestamp.key.pub"), "--deltas", at("deltas.key.pub")),
        "repo", "already")
root, targets = at("repo", "1.root.json"), at("repo", "1.targets.json")
update = ("tuf", "update", "--dir", at("repo"), "--keys", TMP)
refused("nothing is published before it is signed", skiff(*update), "1.root.json", "signed by 0 of the 2")
refused("a stranger's key does not sign a root", skiff("sign", "--key", at("t.key"), root), "1.root.json", "none of the role root")
r = skiff("sign", "--key", at("r1.key"), root, "--json")
check(accepted("the first keyholder signs", r) and json.loads(r.stdout)["signed"][0]["complete"] is False, "which is not enough", r.stdout)
refused("one of two is not enough", skiff(*update), "signed by 1 of the 2")
r = skiff("sign", "--add", "--key", at("r2.key"), root, "--json")
check(accepted("the second keyholder signs", r) and json.loads(r.stdout)["signed"][0]["complete"] is True, "which is enough", r.stdout)
refused("a root key does not sign targets", skiff("sign", "--key", at("r1.key"), targets, "--root", root), "none of the role targets")
accepted("the release key does", skiff("sign", "--key", at("t.key"), targets, "--root", root))
accepted("and it is published", skiff(*update))
out = skiff("tuf", "show", "--dir", at("repo"))
check(out.returncode == 0 and "timestamp.json" in out.stdout and "2 signatures" in out.stdout, "tuf show", out.stdout)
made = skiff("tuf", "create", "--dir", at("shown"), "--keys", at("shown-keys"))
out = skiff("tuf", "show", "--dir", at("shown"))
check(made.returncode == 0 and [line.split()[0].split(".")[-2] for line in out.stdout.splitlines()] == ["root", "timestamp", "snapshot", "targets", "deltas"],
      "tuf show of a repository: all its roles", out.stdout, out.stderr)
out = skiff("tuf", "show", "--dir", at("repo"), "--json")
check(json.loads(out.stdout)["root.json"]["signed"]["roles"]["root"]["threshold"] == 2, "tuf show --json", out.stdout[:200])
check(json.loads(skiff("tuf", "show", root, "--json").stdout)["1.root.json"]["signed"]["version"] == 1, "tuf show FILE")
accepted("a client trusts the root", skiff("tuf", "--metadata-dir", at("md"), "init", root))
accepted("and refreshes", skiff("tuf", "--metadata-dir", at("md"), "--repo", at("repo"), "refresh"))
skiff("keygen", "--role", "root", "-o", at("r3.key"))
accepted("tuf rotate", skiff("tuf", "rotate", "--dir", at("repo"), "--root", at("r2.key.pub"), "--root", at("r3.key.pub")))
refused("tuf rotate while one waits", skiff("tuf", "rotate", "--dir", at("repo")), "2.root.json", "waits for signatures")
for name in ("r1", "r2", "r3"):
    accepted(f"{name} signs it", skiff("sign", "--key", at(name + ".key"), at("repo", "2.root.json"), "--root", root))
accepted("it is published", skiff(*update))
accepted("and the client follows", skiff("tuf", "--metadata-dir", at("md"), "--repo", at("repo"), "refresh"))
check(json.load(open(at("md", "root.json")))["signed"]["version"] == 2, "to the new root")
refused("a client without a root", skiff("tuf", "--metadata-dir", at("none"), "--repo", at("repo"), "refresh"), "root.json")
refused("an unknown subcommand", skiff("tuf", "dance"), "first argument", code=2)
refused("refresh without a repository", skiff("tuf", "--metadata-dir", at("md"), "refresh"), "--repo", code=2)
refused("signing what is no metadata", skiff("sign", "--key", at("t.key"), at("k.key.pub")), "k.key.pub", "not TUF metadata")
os.chmod(at("t.key"), 0o644)
refused("a key that others can read", skiff("sign", "--key", at("t.key"), targets), "t.key", "chmod 600")
os.chmod(at("t.key"), 0o600)
everything = "".join(open(os.path.join(d, f), errors="replace").read() for d, _, fs in os.walk(TMP) for f in fs if not f.endswith(".key"))
check(secret not in everything, "no file but the key holds the secret")

# ---- certificates
accepted("ca init", skiff("ca", "init", "--dir", at("ca"), "--fleet", "acme"))
refused("ca init again", skiff("ca", "init", "--dir", at("ca"), "--fleet", "acme"), "exists")
refused("ca init without a fleet", skiff("ca", "init", "--dir", at("ca2")), "--fleet", code=2)
refused("a fleet's name that is none", skiff("ca", "init", "--dir", at("ca2"), "--fleet", "a/b"), "fleet")
check(mode(at("ca", "ca.key")) == 0o600, "the CA's key is its owner's alone")
for kind in ("device", "operator", "distributor"):
    hosts = ("--host", "centre.example", "--host", "127.0.0.1", "--host", "::1", "--host", "localhost") if kind == "distributor" else ()
    accepted(f"ca issue {kind}", skiff("ca", "issue", "--ca", at("ca"), "--kind", kind, "--name", "n-" + kind, *hosts, "-o", at(kind)))
    check(mode(at(kind, kind + ".key")) == 0o600, f"{kind}: the key is its owner's alone")
    purpose = "sslserver" if kind == "distributor" else "sslclient"
    r = subprocess.run(["openssl", "verify", "-x509_strict", "-CAfile", at(kind, "ca.crt"), "-purpose", purpose, at(kind, kind + ".crt")],
                       capture_output=True, text=True)
    check(r.returncode == 0, f"{kind}: openssl verify -x509_strict", r.stdout + r.stderr)
    crt = x509.load_pem_x509_certificate(open(at(kind, kind + ".crt"), "rb").read())
    san = crt.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    check(san.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://acme/{kind}/n-{kind}"], f"{kind}: identity", san)
    eku = set(crt.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    check((ExtendedKeyUsageOID.SERVER_AUTH in eku) == (kind == "distributor") and ExtendedKeyUsageOID.CLIENT_AUTH in eku, f"{kind}: usage", eku)
    key = serialization.load_pem_private_key(open(at(kind, kind + ".key"), "rb").read(), None)
    check(key.public_key() == crt.public_key() and key.curve.name == "secp256r1", f"{kind}: the key is the certificate's, on P-256")
    check(crt.serial_number.bit_length() > 64 and crt.not_valid_before_utc < datetime.now(timezone.utc) - timedelta(hours=1),
          f"{kind}: random serial, valid on a clock that is behind")
    if kind != "distributor":
        check(not san.get_values_for_type(x509.DNSName) and not san.get_values_for_type(x509.IPAddress), f"{kind}: fit to be no server")
ca = x509.load_pem_x509_certificate(open(at("ca", "ca.crt"), "rb").read())
crt = x509.load_pem_x509_certificate(open(at("distributor", "distributor.crt"), "rb").read())
chain = PolicyBuilder().store(Store([ca])).build_server_verifier(x509.DNSName("centre.example")).verify(crt, [])
check(len(chain) == 2, "cryptography's verifier takes the distributor as a server")
dev = x509.load_pem_x509_certificate(open(at("device", "device.crt"), "rb").read())
chain = PolicyBuilder().store(Store([ca])).build_client_verifier().verify(dev, [])
check(len(chain.chain) == 2, "and the device as a client")
refused("ca issue does not overwrite", skiff("ca", "issue", "--ca", at("ca"), "--kind", "device", "--name", "x", "-o", at("device")), "exists")
refused("a device has no host", skiff("ca", "issue", "--ca", at("ca"), "--kind", "device", "--name", "x", "--host", "h", "-o", at("d2")), "only a distributor")
refused("ca issue without a CA", skiff("ca", "issue", "--ca", at("none"), "--kind", "device", "--name", "x", "-o", at("d2")), "ca.crt")
refused("ca issue of another kind", skiff("ca", "issue", "--ca", at("ca"), "--kind", "king", "--name", "x", "-o", at("d2")), "--kind", code=2)
refused("a CA that has expired", skiff("ca", "issue", "--ca", at("ca"), "--kind", "device", "--name", "x", "-o", at("d2"), SKF_NOW="3000000000"), "expired")
check(not os.path.exists(at("d2", "device.key")), "nothing was written for those")


# ---- mutual TLS, as a fleet has it
def handshake(server, client, name):
    """None when both sides are content, otherwise who is not."""
    s = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    s.load_cert_chain(at(server, server + ".crt"), at(server, server + ".key"))
    s.load_verify_locations(at("ca", "ca.crt"))
    s.verify_mode = ssl.CERT_REQUIRED
    c = ssl.create_default_context(cafile=at("ca", "ca.crt"))
    c.load_cert_chain(at(client, "device.crt"), at(client, "device.key"))
    a, b = socket.socketpair()
    a.settimeout(20 * SLOW)
    b.settimeout(20 * SLOW)
    said = []

    def serve():
        try:
            with s.wrap_socket(a, server_side=True) as t:
                said.append(t.getpeercert()["subjectAltName"])
                t.sendall(b"x")
        except Exception as e:
            said.append(e)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with c.wrap_socket(b, server_hostname=name) as t:
            t.recv(1)
    except Exception as e:
        b.close()
        thread.join()
        return f"client: {e}"
    thread.join()
    return None if isinstance(said[0], tuple) else f"server: {said[0]}"


for name in ("localhost", "127.0.0.1", "centre.example"):
    check(handshake("distributor", "device", name) is None, f"mutual TLS to {name}", handshake("distributor", "device", name))
check(handshake("distributor", "device", "evil.example") is not None, "no TLS to another name")
check(handshake("device", "device", "localhost") is not None, "a device cannot pose as the distributor")
skiff("ca", "init", "--dir", at("foreign"), "--fleet", "acme")
skiff("ca", "issue", "--ca", at("foreign"), "--kind", "device", "--name", "n-device", "-o", at("intruder"))
check(handshake("distributor", "intruder", "localhost") is not None, "a foreign fleet's device is turned away")
done()
