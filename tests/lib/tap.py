"""TAP for tests in Python: `check(condition, what)`, then `done()`."""
import sys

_count = 0
_failed = 0


def check(condition, what, *detail):
    global _count, _failed
    _count += 1
    print(f"{'ok' if condition else 'not ok'} {_count} - {what}", flush=True)
    if not condition:
        _failed += 1
        for d in detail:
            for line in str(d).splitlines():
                print(f"# {line}", flush=True)
    return condition


def skip(what, why):
    global _count
    _count += 1
    print(f"ok {_count} - {what} # SKIP {why}", flush=True)


def note(text):
    print(f"# {text}", flush=True)


def done():
    print(f"1..{_count}", flush=True)
    sys.exit(1 if _failed else 0)
