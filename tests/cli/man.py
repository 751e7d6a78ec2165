"""The manual pages and --help speak of the same verbs and options, whichever of the two was changed last."""
import os
import re
import subprocess

from tap import check, done

BUILD, ROOT = os.environ["SKF_BUILD"], os.environ["SKF_ROOT"]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")


def text_of(program, *args):
    r = subprocess.run([os.path.join(BUILD, program), *args, "--help"], capture_output=True, text=True)
    check(r.returncode == 0 and r.stdout and not r.stderr, " ".join((program, *args, "--help")), r.returncode, r.stderr)
    return r.stdout


def page_of(name):
    with open(os.path.join(ROOT, "docs", "man", name + ".1")) as f:
        return re.sub(r"\\f[BIR]", "", f.read().replace("\\-", "-"))


def same(what, page, text, common=frozenset()):
    said, there = set(OPTION.findall(page)) | common, set(OPTION.findall(text))
    check(there <= said, f"{what}: the page has every option", "lacks", sorted(there - said))
    check(said - there <= common, f"{what}: and no other", "has", sorted(said - there - common))


for program in ("skiffd", "skiff-agent", "skiff-gateway", "skiff-worker"):
    same(program, page_of(program), text_of(program))

page = page_of("skiff")
verbs = re.search(r"verbs: (.*)", text_of("skiff")).group(1).split()
fleet = {"--centre", "--tls", "--json", "--allow-open-keys"}  # told once for all verbs of the fleet
sections = {m.group(1): m.group(2) for m in re.finditer(r'\.SS "skiff (\S+)[^\n]*\n(.*?)(?=\n\.S[SH] |\Z)', page, re.S)}
check(sorted(sections) == sorted(verbs), "skiff: the page has each verb and no other", sorted(sections), verbs)
for verb in verbs:
    help_text = text_of("skiff", verb)
    heading = re.search(rf'\.SS "skiff {verb}[^\n]*', page).group()
    always = {"--help"} | (fleet if "--centre" in help_text else set())
    same("skiff " + verb, heading + sections.get(verb, ""), help_text, frozenset(always))
done()
