#!/usr/bin/env python3
"""Holds the folder order and the size limits of docs/architecture.md.

A folder may include its own headers and those of the folders in its row of the Makefile's DEPS_ table; a third-party header may be
included in its home folder only.  A function has at most 80 lines and a cyclomatic complexity of 20, a file 800 lines.
Prints TAP when asked to (--tap), otherwise one line a fault; exit 1 when there is one.
"""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MAX_FUNCTION, MAX_COMPLEXITY, MAX_FILE = 80, 20, 800
HOME = {  # third-party header -> the folders that may see it
    r"grpc/": {"wire"}, r"lmdb\.h": {"store", "distributor"}, r"mbedtls/|psa/": {"trust"}, r"sodium": {"trust"},
    r"curl/": {"fetch"}, r"microhttpd": {"http"}, r"openssl/": {"base"}, r"jansson": {"base"}, r"zstd": {"delta"}, r"lzma": {"delta"},
    r"cuda": {"kernels"},
}


def tracked():
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.c", "*.h", "*.cu"], cwd=ROOT, capture_output=True, text=True).stdout
    return [f for f in out.splitlines() if os.path.exists(os.path.join(ROOT, f))]


def folder_rules():
    rules = {}
    for line in open(os.path.join(ROOT, "Makefile")):
        m = re.match(r"DEPS_(\w+)\s*:=\s*(.*)$", line)
        if m:
            rules[m.group(1)] = set(m.group(2).split()) | {m.group(1)}
    return rules


def strip(text):
    """Comments, strings and character constants blanked, so that braces and words in them do not count; lines keep their numbers."""
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'',
                  lambda m: re.sub(r"[^\n]", " ", m.group(0)), text, flags=re.S)


def includes(path, text, rules):
    top = path.split("/")[0]
    if top not in rules:
        return
    for m in re.finditer(r'^\s*#\s*include\s*([<"])([^">]+)[">]', text, re.M):
        line, name = text.count("\n", 0, m.start()) + 1, m.group(2)
        first = name.split("/")[0]
        if "/" in name and first in rules and first not in rules[top]:
            yield f"{path}:{line}: {top}/ may not include {name}"
        for pattern, homes in HOME.items():
            if m.group(1) == "<" and re.match(pattern, name) and top not in homes:
                yield f"{path}:{line}: <{name}> belongs to {', '.join(sorted(homes))}/"


def functions(text):
    """(name, first line, lines, complexity) of each function definition: a brace at column 0 ends one."""
    lines = text.split("\n")
    start = None
    for i, line in enumerate(lines):
        if start is None and (line.startswith("{") or (line.rstrip().endswith("{") and re.match(r"[A-Za-z_].*\)\s*\{$", line))):
            head = i
            while head > 0 and not lines[head].rstrip().endswith((")", ") {", "){")):
                head -= 1
            start = i
            while head > 0 and lines[head][:1] in (" ", "\t"):
                head -= 1
            m = re.search(r"(\w+)\s*\(", lines[head])
            name = m.group(1) if m else "?"
        elif start is not None and line.startswith("}"):
            body = "\n".join(lines[start:i + 1])
            complexity = 1 + len(re.findall(r"\b(?:if|for|while|case)\b|&&|\|\||\?", body))
            yield name, start + 1, i - start + 1, complexity
            start = None


def faults():
    rules = folder_rules()
    for path in tracked():
        raw = open(os.path.join(ROOT, path), errors="replace").read()
        yield from includes(path, raw, rules)
        n = raw.count("\n")
        if n > MAX_FILE and "/tables/" not in path:
            yield f"{path}: {n} lines, more than {MAX_FILE}"
        if path.endswith(".h"):
            continue
        for name, line, length, complexity in functions(strip(raw)):
            if length > MAX_FUNCTION:
                yield f"{path}:{line}: {name}: {length} lines, more than {MAX_FUNCTION}"
            if complexity > MAX_COMPLEXITY:
                yield f"{path}:{line}: {name}: complexity {complexity}, more than {MAX_COMPLEXITY}"


def main():
    found = list(faults())
    if "--tap" in sys.argv:
        print("1..1")
        print(("not ok" if found else "ok") + " 1 - folder order, function and file sizes")
        for f in found:
            print("# " + f)
    else:
        print("\n".join(found) or "in order")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
