#!/usr/bin/env python3
"""The wire: pushing 94 MB over loopback with mutual TLS in messages of several sizes, against curl over HTTP/1.1 with the same
certificates from nginx (or, where there is none, from `openssl s_server`); what an idle authenticated stream costs the server.

Runs are interleaved, so that a busy machine is busy for both. The clients' start and handshake are not measured on either side.
"""
import argparse
import os
import shutil
import socket
import subprocess
import tempfile
import time

import common

TLS = os.path.join(common.ROOT, "tests", "vectors", "tls")
TOTAL = 94 << 20
GOAL = 0.6


def pem(name):
    return os.path.join(TLS, name)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def serve_nginx(nginx, folder, port):
    conf = os.path.join(folder, "nginx.conf")
    temp = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    with open(conf, "w") as f:
        f.write(f"""daemon off; worker_processes 2; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{ access_log off; sendfile on; {temp}
  server {{ listen 127.0.0.1:{port} ssl; root {folder}; ssl_protocols TLSv1.3; ssl_buffer_size 16k;
    ssl_certificate {pem('server.crt')}; ssl_certificate_key {pem('server.key')};
    ssl_client_certificate {pem('ca.crt')}; ssl_verify_client on; }} }}""")
    return subprocess.Popen([nginx, "-p", folder, "-c", conf, "-e", os.path.join(folder, "error.log")])


def serve_openssl(folder, port):
    return subprocess.Popen(["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-HTTP", "-quiet", "-cert", pem("server.crt"), "-key", pem("server.key"),
                             "-CAfile", pem("ca.crt"), "-Verify", "1", "-verify_return_error"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def http_server(folder, port):
    # Debian keeps it in a folder of its own; SKF_NGINX names another.
    nginx = os.environ.get("SKF_NGINX") or shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    p, name = (serve_nginx(nginx, folder, port), "nginx") if nginx else (serve_openssl(folder, port), "openssl s_server")
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return p, name
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"bench: {name} does not listen")


def curl(port):
    """MB/s of one download, from the end of the handshake on."""
    r = subprocess.run(["curl", "-sS", "--http1.1", "--cacert", pem("ca.crt"), "--cert", pem("device.crt"), "--key", pem("device.key"), "-o", "/dev/null",
                        "-w", "%{time_appconnect} %{time_total} %{size_download}", f"https://127.0.0.1:{port}/payload"], capture_output=True, text=True, check=True)
    begun, end, size = r.stdout.split()
    if int(size) != TOTAL:
        raise SystemExit(f"bench: curl got {size} bytes")
    return TOTAL / (float(end) - float(begun)) / 1e6


def pull(peer, address, size):
    r = subprocess.run([peer, "pull", address, str(size), str(TOTAL)], capture_output=True, text=True, check=True, cwd=common.ROOT)
    return TOTAL / float(r.stdout) / 1e6


def status(pid, key):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith(key):
            return int(line.split()[1])


def cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle(peer, count):
    """(KB of RSS, CPU seconds) that each idle connection with one stream costs a fresh server, its handshake included."""
    server = subprocess.Popen([peer, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=common.ROOT)
    address = server.stdout.readline().split()[-1]
    pull(peer, address, 65536)
    rss, used = status(server.pid, "VmRSS:"), cpu(server.pid)
    client = subprocess.Popen([peer, "idle", address, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=common.ROOT)
    if client.stdout.readline() != "open\n":
        raise SystemExit("bench: the idle streams did not open")
    time.sleep(0.5)
    got = ((status(server.pid, "VmRSS:") - rss) / count, (cpu(server.pid) - used) / count)
    for p in (client, server):
        p.stdin.close()
        p.wait()
    return got


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--runs", type=int, default=7)
    ap.add_argument("--idle", type=int, default=500)
    a = ap.parse_args()
    build = os.path.abspath(a.build)
    peer = os.path.join(build, "tests", "unit", "wire_peer")
    subprocess.run(["make", "-s", f"BUILD={build}", peer], cwd=common.ROOT, check=True, stdout=subprocess.DEVNULL)
    sizes = (65536, 262144, 1048576)
    got = {size: [] for size in sizes}
    http = []
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        with open(os.path.join(folder, "payload"), "wb") as f:
            f.write(bytes(TOTAL))
        port = free_port()
        web, name = http_server(folder, port)
        server = subprocess.Popen([peer, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=common.ROOT)
        address = server.stdout.readline().split()[-1]
        try:
            curl(port), pull(peer, address, sizes[0])
            for _ in range(a.runs):
                http.append(curl(port))
                for size in sizes:
                    got[size].append(pull(peer, address, size))
        finally:
            server.stdin.close()
            server.wait()
            web.terminate()
            web.wait()
    base = common.summary(http)
    rows = [{"what": f"curl HTTP/1.1 from {name}", "MB_per_s": base}]
    print(f"curl HTTP/1.1 from {name}: {base['median']:.0f} MB/s (median of {a.runs}; {base['min']:.0f} to {base['max']:.0f})")
    for size in sizes:
        s = common.summary(got[size])
        rows.append({"what": f"push, {size >> 10} KiB messages", "MB_per_s": s, "of_curl": s["median"] / base["median"]})
        print(f"push, {size >> 10:4d} KiB messages: {s['median']:.0f} MB/s ({s['min']:.0f} to {s['max']:.0f}), {s['median'] / base['median']:.2f} of curl (goal {GOAL})")
    kb, seconds = idle(peer, a.idle)
    rows.append({"what": f"idle stream, of {a.idle}", "server_rss_kb": kb, "handshake_cpu_ms": seconds * 1000})
    print(f"idle stream, of {a.idle}: {kb:.0f} KB of the server's memory (goal 130), handshake {seconds * 1000:.1f} ms CPU (goal 3)")
    common.write("wire", rows, bytes=TOTAL, peer=name)


main()
