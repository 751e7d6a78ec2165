"""The peer of the runtime: llama.cpp, its own tools and its server, built for this machine from the source that the Python package llama-cpp-python carries.
Debian 12's gcc and clang 14 build an AMX path that crashes; clang-19, a Debian package too, builds a good one."""
import glob
import json
import os
import shutil
import subprocess
import sys
import tarfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "tools"))
import environment  # noqa: E402

PACKAGE = "llama-cpp-python==0.3.36"
TOOLS = ("llama-bench", "llama-batched-bench", "llama-server")
FLAGS = ("-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF")


def run(command, what, log):
    with open(log, "ab") as f:
        if subprocess.run(command, stdout=f, stderr=f).returncode:
            print(f"the peer: {what} failed, see {log}")
            return False
    return True


def prepare():
    """{tool: path}, built once (some 15 minutes on two cores); None where it cannot be had. SKF_LLAMA names a folder that has the tools already;
    SKF_LLAMA=none leaves the peer out."""
    if os.environ.get("SKF_LLAMA") == "none":
        return None
    folder = os.environ.get("SKF_LLAMA") or os.path.join(environment.SHARED, "peers-llama")
    made = {t: os.path.join(folder, "bin", t) for t in TOOLS}
    if all(map(os.path.exists, made.values())):
        return made
    compilers = [shutil.which("clang-19"), shutil.which("clang++-19")]
    if not all(compilers) or not shutil.which("cmake"):
        print("no peer in this run: it wants Debian's packages clang-19 and cmake")
        return None
    source, log = folder + ".source", folder + ".log"
    os.makedirs(source, exist_ok=True)
    print(f"building llama.cpp, once ({log})", flush=True)
    if not run([sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:", "--dest", source, PACKAGE], "pip download", log):
        return None
    with tarfile.open(glob.glob(os.path.join(source, "*.tar.gz"))[0]) as t:
        t.extractall(source, filter="data")
    tree = glob.glob(os.path.join(source, "*", "vendor", "llama.cpp"))[0]
    if not run(["cmake", "-S", tree, "-B", folder, f"-DCMAKE_C_COMPILER={compilers[0]}", f"-DCMAKE_CXX_COMPILER={compilers[1]}", *FLAGS], "cmake", log):
        return None
    if not run(["cmake", "--build", folder, "-j", str(os.cpu_count()), "--target", *TOOLS], "the build", log):
        return None
    return made


def rates(tools, model, threads):
    """llama-bench: prefill of 512 tokens and decoding of 128 from an empty context; None when it fails."""
    r = subprocess.run([tools["llama-bench"], "-m", model, "-t", str(threads), "-p", "512", "-n", "128", "-r", "1", "-o", "json"], capture_output=True, text=True)
    if r.returncode:
        return None
    rows = json.loads(r.stdout)
    return {"prefill_tokens_per_s": next(x["avg_ts"] for x in rows if x["n_prompt"]), "decode_tokens_per_s": next(x["avg_ts"] for x in rows if x["n_gen"])}


def together(tools, model, threads, streams):
    """llama-batched-bench: decoding of 128 tokens by each of so many streams, all tokens a second; None when it fails."""
    r = subprocess.run([tools["llama-batched-bench"], "-m", model, "-t", str(threads), "-c", str(streams * 256), "-npp", "4", "-ntg", "128", "-npl", str(streams),
                        "--output-format", "jsonl"], capture_output=True, text=True)
    lines = [json.loads(x) for x in r.stdout.splitlines() if x.startswith("{")]
    return lines[-1]["speed_tg"] if r.returncode == 0 and lines else None
