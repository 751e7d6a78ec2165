"""Every logit of a text by the runtime, which no command prints: tests/unit/runtime_arch does."""
# Both sides compute in float32 from the same float32 weights, with keys and values rounded to halves, so what is left is the order of sums:
# some 1e-6.  But where a key lies right between two halves the two may round it apart, and what sees it differs by 1e-4: the median of all
# differences is held tightly, the largest less so.
MIDDLE, MOST = 2e-5, 1e-3  # of the largest logit
import os
import subprocess

import numpy as np


def logits_of(build, model, ids, context=None, env=None):
    """[len(ids)][vocabulary] float32, from `model` opened for `context` tokens (the model's own)."""
    command = [os.path.join(build, "tests", "unit", "runtime_arch"), "logits", str(model), str(context or 0)] + [str(i) for i in ids]
    p = subprocess.run(command, capture_output=True, env=dict(os.environ, **(env or {})))
    if p.returncode:
        raise RuntimeError(p.stderr.decode(errors="replace").strip() or f"exit status {p.returncode}")
    return np.frombuffer(p.stdout, np.float32).reshape(len(ids), -1)


def apart(got, want):
    """The median and the largest difference, by the largest logit."""
    d = np.abs(got - want) / np.abs(want).max()
    return float(np.median(d)), float(d.max())


def is_same(got, want):
    middle, most = apart(got, want)
    return got.shape == want.shape and middle <= MIDDLE and most <= MOST
