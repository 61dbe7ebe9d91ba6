# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6 · Verify your own implementation
#
# A clip is two lines of code, and its unit test passes. `clipcore.verify` calls it with inputs made to break it, judges the results in
# exact arithmetic, and shows the smallest call that goes wrong. We write a clip, break it, mend it, and see how
# far it comes. First, how far others came:

# %% tags=["hide-input"]
import inspect
import math
import os
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.patches import Rectangle

import clipcore
from clipcore.verify import Subject, assert_conforms, verify
from clipcore.verify.atlas_table import merge
from clipcore.verify.report import LAWS, read

BEFORE, AFTER, LIMIT = "#999999", "#0072b2", "#d55e00"
plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})
SHARES = LinearSegmentedColormap.from_list("broken", ["#fdebd9", "#f3a25c", LIMIT])
SCALE = PowerNorm(0.5, 0, 0.5)  # of the cases; the square root, so that rare faults are seen too


def chart(axes, rows, laws):
    """Draw laws by implementations: kept, not tried, or broken by so many of the cases."""
    for y, counts in enumerate(rows.values()):
        for x, law in enumerate(laws):
            count = counts.get(law)
            wrong = count.broken - count.differing if count else 0
            if wrong:
                colour, text, ink = SHARES(SCALE(wrong / count.tried)), f"{wrong}", "black"
            elif count and count.broken:
                colour, text, ink = (
                    "#cc79a7",
                    f"≠ {count.broken}",
                    "black",
                )  # right by the library's own formula
            elif count and count.tried:
                colour, text, ink = AFTER, "✓", "white"
            else:
                colour, text, ink = "#eeeeee", "–", "black"
            axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=colour, linewidth=0))
            axes.text(x, y, text, ha="center", va="center", color=ink, fontsize=9)
    axes.set(xlim=(-0.5, len(laws) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(range(len(laws)), laws)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)


folder = next(path for path in (Path("../docs/atlas"), Path("../atlas")) if path.is_dir())
atlas = merge([read(path) for path in sorted(folder.glob("*.json"))])


def broken_laws(report):
    return sum(count.broken > count.differing for count in report.counts.values())


judged = {
    row.report.subject: row.report for row in atlas.rows if row.report.operation == "clip_by_global_norm"
}
del judged["torch.clip_grad_norm_[foreach=False]"]  # the same numbers as with foreach
judged = dict(sorted(judged.items(), key=lambda item: (broken_laws(item[1]), item[0])))

figure, axes = plt.subplots(figsize=(12, 6.4))
chart(axes, {name: report.counts for name, report in judged.items()}, list(LAWS))
for y, report in enumerate(judged.values()):
    axes.text(len(LAWS) - 0.3, y, report.level or "none", va="center", fontsize=9)
axes.text(len(LAWS) - 0.3, -0.75, "level", va="center")
figure.suptitle("Clips by the global norm, and the laws they keep (✓) or break (in so many cases)")
bar = figure.colorbar(plt.cm.ScalarMappable(SCALE, SHARES), ax=axes, shrink=0.4, aspect=14, pad=0.09)
bar.set_ticks([0.01, 0.1, 0.25, 0.5], labels=["1 %", "10 %", "25 %", "50 %"])
bar.set_label("share of the cases that break it")
plt.show()

# %% [markdown]
# Each row is a function that people train networks with, each column a law. Blue is kept in all cases that were tried. The darker the
# orange, the larger the share that broke it; grey was not tried. The cases aim at what goes wrong, so a share says
# how many doors are open, not how often somebody walks through one. This is [the atlas](../docs/atlas/atlas.md) in one picture; at the
# end we read a few of its rows.
#
# ## Two lines and a friendly test
#
# The clip by the L2 norm as everybody writes it, [Pascanu et al., 2013](https://arxiv.org/abs/1211.5063), and a test as
# everybody writes it:


# %%
def first(x, max_norm):
    norm = np.linalg.norm(x)
    return x * min(1, max_norm / norm)


def friendly_test(clip):
    for dtype in (np.float16, np.float32):
        x = np.array([3.0, -4.0], dtype)
        assert np.allclose(clip(x, 2.5), [1.5, -2.0])  # clipped
        assert np.allclose(clip(x, 10.0), x)  # left alone
        assert np.linalg.norm(clip(np.full(100, 0.1, dtype), 0.5)) < 0.501  # longer than two
    return "passed"


print("the friendly test:", friendly_test(first))

# %% [markdown]
# Now the same function for `verify`. It wants to know which clip of clipcore this is meant to be, for that says what the right
# answers are. Two dtypes and few random cases keep it quick; the cases that aim at something are tried in any case.

# %%
quick = {"dtypes": ["float16", "float32"], "max_examples": 10}
report = verify(first, "clip_by_l2_norm", level="rounded", **quick)
print(report)

# %% [markdown]
# ## Read a finding
#
# A report holds a *finding* for each law that was broken. A finding has all that is needed to understand it:

# %%
finding = report.findings[0]
print("law:     ", finding.law, "–", LAWS[finding.law])
print("level:   ", finding.level)
print("expected:", finding.expected)
print("got:     ", finding.got)
print("cases:   ", finding.cases, "of", report.counts[finding.law].tried)
print("example:", *finding.example.splitlines(), sep="\n  ")

# %% [markdown]
# The example is code to paste: it calls a function named `fn`. It is the smallest call that was found to show this, for a failing
# case is made smaller as long as it still fails. (The idea is that of property-based testing, and of
# [Hypothesis](../docs/citations.md).) One number is left:


# %%
def replay(finding, fn):
    """Run the lines of an example, and return what the last one gives."""
    *lines, call = finding.example.splitlines()
    names = {"fn": fn}
    exec("\n".join(lines), names)
    return eval(call, names)


number = float(finding.example.partition("[")[2].partition("]")[0])
with np.errstate(over="ignore"):
    print("what it gives:   ", replay(finding, first))
    print("the norm it sees:", np.linalg.norm(np.float16([number])))
print(
    f"the square of {number:g} is {number**2:g}, and the largest number of float16 is {np.finfo(np.float16).max}"
)
assert number**2 > np.finfo(np.float16).max
assert replay(finding, first) == 0
assert replay(finding, clipcore.clip_by_l2_norm) != 0

# %% [markdown]
# The square does not fit into float16, the norm becomes infinite, the factor zero, and the gradient is gone. No
# exception, no NaN: just a step of nothing. In mixed precision this happens to ordinary numbers.
#
# ## Three levels
#
# How much is asked? A *level* contains those before it:
#
# | level | inputs | what is asked |
# |---|---|---|
# | rounded | ordinary numbers, up to 1000 of them | within 4 ulp (units in the last place) of the formula; equal where clearly inside; dtype and shape kept, the input not written |
# | robust | every number of the dtype, any size, any memory layout | the same, and the edge table: zero, empty, 0-d, NaN, infinity, bad arguments |
# | exact | limits a hair from the norm | the laws without tolerance: bound, identity, tightness, direction, idempotence, scale |
#
# We can watch: this function passes on what it is called with, and writes it down.

# %%
calls = []


def spy(x, max_norm):
    calls.append((x, max_norm))
    return clipcore.clip_by_l2_norm(x, max_norm)


ordinary = {"dtypes": ["float32"], "max_examples": 60}
assert verify(spy, "clip_by_l2_norm", level="rounded", **ordinary).passed
first_robust = len(calls)
calls.clear()
assert verify(spy, "clip_by_l2_norm", level="robust", **ordinary).passed  # rounded first, then what is new
print(f"{first_robust} calls at level rounded, {len(calls) - first_robust} more at level robust")

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(11, 4.2))
for label, part, colour, size in (
    ("robust adds", calls[first_robust:], AFTER, 12),
    ("rounded", calls[:first_robust], "#e69f00", 14),
):
    points = []
    for x, max_norm in part:
        is_limit = isinstance(max_norm, float | np.floating) and 0 < max_norm < math.inf
        if (
            is_limit
            and getattr(x, "dtype", None) == np.float32
            and x.size
            and np.isfinite(x).all()
            and x.any()
        ):
            points.append((np.log2(np.abs(x).max()), math.log2(max_norm) - math.log2(clipcore.l2_norm(x))))
    axes.scatter(*np.transpose(points), s=size, color=colour, label=label, alpha=0.8)
axes.axhspan(-230, 0, color=LIMIT, alpha=0.06)
axes.axhline(0, color=LIMIT, linewidth=1)
axes.text(129, 2, "inside", ha="right", va="bottom", color="#a04000")
axes.text(129, -3, "to be clipped", ha="right", va="top", color="#a04000")
axes.axvline(-126, color=BEFORE, linewidth=1, linestyle="--")
axes.text(-127, -225, "subnormal", ha="right", va="bottom", rotation=90, color="#666666")
axes.set(xlim=(-152, 131), ylim=(-230, 40), xlabel="largest magnitude in x, as a power of 2")
axes.set(
    ylabel="limit / norm, as a power of 2",
    title="What verify calls a float32 clip with: finite inputs, finite limits",
)
axes.legend(loc="lower left", bbox_to_anchor=(0.12, 0.04))
plt.show()

# %% [markdown]
# Ordinary numbers are the small cluster. All around it is what a gradient can hold when training goes wrong, which is when
# clipping is needed.
#
# ## Mend it
#
# **The norm in float64.** No square of a number of float16 or float32 overflows there.


# %%
def second(x, max_norm):
    norm = np.linalg.norm(x.astype(np.float64))
    return x * min(1, max_norm / norm)


print("the friendly test:", friendly_test(second))
reports = {"first": report, "second": verify(second, "clip_by_l2_norm", level="rounded", **quick)}
print(reports["second"])

# %% [markdown]
# The number is right, and something else broke: the norm is a float64, the factor too, and so is the result. Half a network
# in float64 from here on, and `np.allclose` does not look at dtypes. The range is mended, yet the level is still `None`.
#
# **The product in the dtype of x:**


# %%
def third(x, max_norm):
    norm = np.linalg.norm(x.astype(np.float64))
    return np.multiply(x, min(1, max_norm / norm), dtype=x.dtype)


reports["third"] = verify(third, "clip_by_l2_norm", level="robust", **quick)
print("level:", reports["third"].level)
assert [reports[name].level for name in ("first", "second", "third")] == [None, None, "rounded"]

# %% [markdown]
# *Rounded*: right for ordinary numbers. For many users that is all they need. The level above was asked as well, and has its own
# complaints:

# %%
for finding in reports["third"].findings:
    print(f"{finding.law}: {finding.message[:96]}")
    print(
        f"    {finding.example.splitlines()[-1]}",
        f"    ≠ by the formula {finding.difference!r}" if finding.difference else "",
    )

# %% [markdown]
# Four kinds of trouble:
#
# - **range**, **formula**: the factor is rounded to the dtype of x, and there it may be tiny: few digits are left of it, or none.
# - **NaN**: the norm is NaN, and `min(1, nan)` is 1 in Python, for every comparison with NaN is false. So a gradient
#   that holds one NaN passes as if it were inside. The contract makes all of it NaN, so that nobody misses it.
# - **form**, **call**: 0-d arrays come back as scalars, and foreign byte order is an exception.
# - **edges**: a limit of −1, or text in the place of an array, is taken, or refused by the wrong exception.
#
# Some carry a ≠: a framework wants it so by its own formula. We come to that. Zero vectors pass, by luck: 1/0 is infinite, and
# 0/0 is NaN, which `min` ignores once more (with a warning).
#
# **Decide first, divide later.** What is inside is copied, so there is no division by a zero norm. Arguments are checked once
# for all, and the product is taken in float64 and rounded at the end.


# %%
def checked(x, max_norm):
    """Return an array and a float, or raise what the contract says."""
    if not isinstance(x, np.ndarray | np.generic) or x.dtype.kind != "f":
        raise TypeError(f"x is {x!r:.40}; give an array of floats")
    if np.ndim(max_norm):
        raise ValueError("max_norm has dimensions; give one number")
    limit = max_norm.item() if isinstance(max_norm, np.ndarray | np.generic) else max_norm
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise TypeError(f"max_norm={max_norm!r} is no number")
    if not (0 <= limit <= sys.float_info.max or limit == math.inf):
        raise ValueError(f"max_norm={max_norm!r} is no limit; give a number from 0 upwards")
    return np.asarray(x), float(limit)


def fourth(x, max_norm):
    x, limit = checked(x, max_norm)
    wide = x.astype(np.float64)
    norm = np.linalg.norm(wide)
    if norm <= limit or limit == math.inf:
        return x.copy()
    factor = limit / norm if norm < math.inf else math.nan
    return np.asarray(wide * factor, dtype=x.dtype)


reports["fourth"] = verify(fourth, "clip_by_l2_norm", **quick)  # all levels
print(reports["fourth"])
assert reports["fourth"].level == "robust"

# %% [markdown]
# *Robust*: nothing that anybody passes to it makes it go wrong by more than a few roundings. What is left is the roundings
# themselves: half of them go up, and then the result is longer than the limit.
#
# **Round towards zero.** Then no element is longer than the ideal one, so neither is the norm, if the factor leaves a little room for the
# error of the norm. Where the norm is so close to the limit that float64 cannot tell on which side,
# fractions can ([notebook 2](2_floating_point.py) has the whole argument).


# %%
def fifth(x, max_norm):
    x, limit = checked(x, max_norm)
    wide = x.astype(np.float64)
    norm = np.linalg.norm(wide)
    inside = norm <= limit
    if abs(norm - limit) <= 2**-30 * limit < math.inf:  # too close to tell
        inside = sum(Fraction(float(number)) ** 2 for number in wide.flat) <= Fraction(limit) ** 2
    if inside or limit == math.inf:
        return x.copy()
    factor = limit / norm * (1 - 2**-36) if norm < math.inf else math.nan
    ideal = wide * factor
    nearest = ideal.astype(x.dtype)
    towards_zero = np.nextafter(nearest, nearest.dtype.type(0))
    return np.where(abs(nearest) > abs(ideal), towards_zero, nearest).astype(x.dtype)


reports["fifth"] = verify(fifth, "clip_by_l2_norm", **quick)
print(reports["fifth"])
assert reports["fifth"].level == "exact"

# %% [markdown]
# *Exact*, all laws without tolerance, in fifteen lines and one look at fractions. (For float16 and float32. What float64 needs is an
# exercise; large arrays and other libraries are what clipcore adds.) The five versions, law by law:

# %% tags=["hide-input"]
steps = {
    "1 · as everybody writes it": "first",
    "2 · norm in float64": "second",
    "3 · product in the dtype of x": "third",
    "4 · decide first, check arguments": "fourth",
    "5 · round towards zero": "fifth",
}
figure, axes = plt.subplots(figsize=(12, 2.9))
chart(
    axes,
    {label: reports[name].counts for label, name in steps.items()},
    [law for law in LAWS if law != "norm"],
)
for y, name in enumerate(steps.values()):
    axes.text(len(LAWS) - 1.3, y, reports[name].level or "none", va="center", fontsize=9)
axes.text(len(LAWS) - 1.3, -0.85, "level", va="center")
figure.suptitle(
    "Five versions of one function: kept (✓), broken in so many cases, or of a level that was not asked (–)"
)
plt.show()

# %% [markdown]
# Each step mends what it was meant to mend, and the second one broke what nobody had thought of. That is why it pays to ask after every
# change.
#
# ## A difference is not a bug
#
# PyTorch divides by the norm plus $10^{-6}$. By the contract's formula that is wrong everywhere:


# %%
def with_epsilon(x, max_norm):
    norm = np.linalg.norm(x.astype(np.float64))
    return np.multiply(x, min(1, max_norm / (norm + 1e-6)), dtype=x.dtype)


by_contract = verify(with_epsilon, "clip_by_l2_norm", level="rounded", **quick)
by_torch = verify(with_epsilon, "clip_by_l2_norm", formula="torch", **quick)
print(by_contract, "\n")
print(by_torch)
assert all(finding.difference == "torch" for finding in by_contract.findings)
assert by_torch.passed

# %% [markdown]
# But it is what PyTorch says that it does. So the finding names the formula by which the result is right, and
# `formula="torch"` judges by that one: passed. Ten frameworks have a formula of their own; they are judged at level
# rounded, for only clipcore's contract says what should be so at the levels above.
#
# ## Bugs that hide
#
# Three more that pass every comparison of numbers. Which line is wrong?


# %%
def in_place(x, max_norm):
    norm = np.linalg.norm(x.astype(np.float64))
    if norm > max_norm:
        x *= x.dtype.type(max_norm / norm)
    return x.copy()


def shared(x, max_norm):
    norm = np.linalg.norm(x.astype(np.float64))
    if norm <= max_norm:
        return x
    return np.multiply(x, max_norm / norm, dtype=x.dtype)


def per_slice(x, max_norm, axis=None):
    norm = np.sqrt(np.sum(np.square(x, dtype=np.float64), axis=axis))
    return np.multiply(x, np.minimum(1, max_norm / norm), dtype=x.dtype)


for clip in (in_place, shared, per_slice):
    found = verify(clip, "clip_by_l2_norm", level="rounded", **quick)
    print(clip.__name__, "→", friendly_test(clip), "the friendly test, level", found.level)
    for finding in found.findings:
        print(f"    {finding.law}: {finding.message[:88]}\n        {finding.example.splitlines()[-1][:110]}")
    assert not found.passed

# %% [markdown]
# - `in_place` writes to the gradient of its caller.
# - `shared` returns the caller's own array. Who changes the result, perhaps by adding noise to it, changes the gradient.
# - `per_slice` forgot `keepdims=True`. For most shapes that is an exception. For a *square* matrix it is not: the norm of row 1 is
#   applied to column 1.
#
# The last was found because `axis` is in its signature. Keywords (`axis`, `ord`, `nonfinite`, `out`, `where`) are tried where a function
# names them, and what it does not offer is not asked of it:

# %%
whole = verify(lambda x, max_norm: per_slice(x, max_norm), "clip_by_l2_norm", level="rounded", **quick)
print("without axis in the signature:", whole.level)
assert whole.passed

# %% [markdown]
# ## Keep it so
#
# In a test suite it is one line. Where a law is broken it raises an `AssertionError` whose text is the report.


# %%
def test_my_clip():
    assert_conforms(fourth, "clip_by_l2_norm", level="rounded", **quick)


test_my_clip()
try:
    assert_conforms(second, "clip_by_l2_norm", level="rounded", **quick)
except AssertionError as error:
    print("AssertionError:", str(error).splitlines()[2])

# %% [markdown]
# The same seed gives the same cases, so a test that fails, fails again. Without `dtypes` all of them are tried, bfloat16 too.
#
# Functions of another shape are described by a `Subject`. This one takes a list, writes into it, and returns the norm, as
# PyTorch's does:


# %%
def clip_grads_(arrays, max_norm):
    norm = math.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in arrays))
    if norm > max_norm:
        for x in arrays:
            x *= x.dtype.type(max_norm / norm)
    return norm


report = verify(Subject(clip_grads_, in_place=True), "clip_by_global_norm", level="rounded", **quick)
print(report)
assert report.passed

# %% [markdown]
# From a shell, the function is named by its module. The exit status is 0 where it passes and 1 where it does not, so any pipeline can
# run it:

# %%
with tempfile.TemporaryDirectory() as folder:
    Path(folder, "my_module.py").write_text(
        "import numpy as np\n\n\n" + inspect.getsource(second), encoding="utf-8"
    )
    command = "clipcore verify my_module:second --operation clip_by_l2_norm --dtype float32 --level rounded"
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=folder,
        env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
print("$", command)
print(done.stdout)
print("exit status", done.returncode)
assert done.returncode == 1

# %% [markdown]
# What if it is not Python, or might crash?
#
# | your function | way |
# |---|---|
# | takes arrays of PyTorch, JAX, TensorFlow, … | `arrays="torch"` |
# | writes into its arguments, takes parameter objects | `Subject(fn, in_place=True)`, `prepare=`, `collect=` |
# | may crash or hang, or lives under another Python | `Subject("module:function", interpreter="/path/to/python")`: a process of its own |
# | is in C, C++ or Rust and can be loaded | wrap it with `ctypes`, a few lines: [verify a kernel](../docs/how_to/verify_a_kernel.md) |
# | cannot be loaded at all | `clipcore vectors --out vectors.json`: thousands of calls with their exact answers, for [any language](../docs/vectors.md) |
#
# [Verifying a clip](../docs/verify.md) has the details.
#
# ## Read the atlas
#
# Back to the first picture. [The atlas](../docs/atlas/atlas.md) has a table like it for all clips and norms, and the smallest example for every
# cell that is not kept. What its columns mean:

# %% tags=["hide-input"]
for law, meaning in LAWS.items():
    print(f"{law:12} {meaning}")

# %% [markdown]
# ✗ is broken by so many cases, ≠ differs by definition alone, — was not tried. *Level* is the highest one that was reached.
# *Own formula ✓* says that a function does, on ordinary numbers, what its own documentation says. So a row with *none, own formula ✓* has no
# bug there; one with *none, own formula ✗* has.
#
# Three rows that surprised us. Each finding is replayed with a line of NumPy that computes what the library computes.


# %%
def looked_up(subject, operation, law, difference=""):
    row = next(
        row for row in atlas.rows if (row.report.subject, row.report.operation) == (subject, operation)
    )
    return next(each for each in row.report.findings if (each.law, each.difference) == (law, difference))


def max_norm_constraint(w, limit):  # Keras: w · clip(‖w‖, 0, C) / (1e-7 + ‖w‖)
    norm = np.sqrt(np.sum(np.square(w)))
    return w * (np.clip(norm, 0, np.float32(limit)) / (np.float32(1e-7) + norm))


finding = looked_up("keras[torch].MaxNorm", "clip_by_l2_norm", "identity", "keras-max-norm")
print(f"keras MaxNorm\n{finding}\n")
w = np.ones((), np.float32)
for _ in range(100_000):
    w = max_norm_constraint(w, np.inf)
print(f"here: {replay(finding, max_norm_constraint)}; after 100,000 steps: {w:.4f}")
assert replay(finding, max_norm_constraint) < 1
assert w < 0.995

# %% [markdown]
# **A constraint that shrinks what it allows.** Here the limit is infinite, so there is nothing to do. But the norm is divided by itself plus
# $10^{-7}$, and the weight is multiplied by that ratio after every step of training: a weight decay nobody asked for.


# %%
def smaller_reciprocal(tree, limit):  # TensorFlow: C · min(1/‖x‖, 1/C)
    limit = tree[0].dtype.type(limit)
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in tree))
    return [x * (limit * np.minimum(1 / norm, 1 / limit)) for x in tree]


findings = [
    f for f in judged["tf.clip_by_global_norm"].findings if f.law == "formula" and "float32" in f.example
]
print(f"tf.clip_by_global_norm\n{findings[0]}\n")
print("here:", replay(findings[0], smaller_reciprocal))
x = np.array([1.0], np.float32)
limits = np.random.default_rng(6).uniform(2, 100, 1000).astype(np.float32)
changed = [smaller_reciprocal([x], limit)[0] != x for limit in limits]
print(f"of 1000 random limits, {np.mean(changed):.0%} change the number 1, which is within all of them")
assert replay(findings[0], smaller_reciprocal)[0] != x
assert 0.02 < np.mean(changed) < 0.5

# %% [markdown]
# **What is clearly inside is changed.** The factor for what is inside is $C · (1/C)$. In fractions that is 1. In floating
# point it is often the number just below.

# %%
finding = looked_up("by-hand", "clip_by_value", "bound")
print(f"np.clip\n{finding}\n")
result = replay(finding, np.clip)
print(f"here: {result}, which is exactly {float(result[0])!r}")
print(
    "the same finding:",
    ", ".join(
        row.report.subject
        for row in atlas.rows
        if row.report.operation == "clip_by_value"
        and any(each.law == "bound" and each.example == finding.example for each in row.report.findings)
    ),
)
assert float(result[0]) > -0.1

# %% [markdown]
# **Even a cut can miss its bound.** −0.1 is no number of float16. Rounded to the nearest, the bound is a little above what was asked, and so is the result.
# clipcore rounds bounds inwards, so that they hold as given. Nobody is hurt by this one. It shows what *exact* means.
#
# ## Your own, in five minutes
#
# 1. `pip install "clipcore[verify]"`.
# 2. `verify(your_function, "clip_by_global_norm", level="rounded", dtypes=["float32"], max_examples=10)`: a second or two. Print the report.
# 3. Is every finding a difference? Name the formula: `formula="torch"`.
# 4. Paste the smallest example, mend, ask again. Then `level="robust"`, then no level and no `dtypes`.
# 5. Put `assert_conforms` into the tests, at the level that you reached.
#
# ## Exercises
#
# Think first, then open the answer.
#
# **1.** Somebody gives `np.clip(x, -max_norm, max_norm)` as a clip by the L2 norm. Does it pass the friendly test? Which law
# does it break, and at which level?


# %% tags=["hide-cell"]
def by_value(x, max_norm):
    return np.clip(x, -max_norm, max_norm)


try:
    friendly_test(by_value)
except AssertionError:
    print("The friendly test is enough for this one: it fails at the first line.")
report = verify(by_value, "clip_by_l2_norm", level="rounded", **quick)
print(report)
assert report.findings[0].law == "formula"

# %% [markdown]
# **2.** `min(1, max_norm / norm)` or `min(max_norm / norm, 1)`: is there a difference? Try a zero vector with the limit 0, and a NaN.

# %% tags=["hide-cell"]
for x in (np.array([0.0, 0.0]), np.array([np.nan, 2.0])):
    with np.errstate(invalid="ignore"):
        ratio = np.float64(0.0) / np.linalg.norm(x)
    print(f"{x} · min(1, ratio) = {x * min(1, ratio)},  {x} · min(ratio, 1) = {x * min(ratio, 1)}")
    assert not np.isnan(min(1, ratio))
    assert np.isnan(min(ratio, 1))
print("min keeps its first argument unless the second is smaller, and nothing is smaller or larger than NaN.")
print(
    "One order hides the NaN of a broken gradient, the other makes NaN of a zero one. Neither is right for both."
)

# %% [markdown]
# **3.** The fifth version is exact for float16 and float32. Without asking `verify`: which float64 vector breaks it, and how would you measure the norm?


# %% tags=["hide-cell"]
def scaled_norm(x):
    largest = np.abs(x).max(initial=0.0)
    return largest * np.linalg.norm(x / largest) if largest else 0.0


x = np.array([3e200, 4e200])
with np.errstate(over="ignore"):
    print("np.linalg.norm:", np.linalg.norm(x), " the fifth version:", fifth(x, 1.0))
print("scaled by the largest:", scaled_norm(x), " math.hypot, which scales too:", math.hypot(*x))
assert np.isclose(scaled_norm(x), 5e200)
print(
    "Squares of float64 overflow in float64. Divided by the largest magnitude, every square is at most 1; this goes back to"
)
print(
    "Blue (1978). Where the norm itself is beyond float64, as of [1.7e308, 1.7e308], the largest must be kept apart as well."
)
print("clipcore:", clipcore.clip_by_l2_norm(np.array([1.7e308, 1.7e308]), 1.0))

# %% [markdown]
# **4.** Does the fourth version change a vector that it has clipped before? `verify` lists no idempotence for it. Look for yourself: 2000 random
# vectors, clipped twice.

# %% tags=["hide-cell"]
rng = np.random.default_rng(4)
again = {"fourth": 0, "fifth": 0}
for _ in range(2000):
    x = (10 * rng.standard_normal(8)).astype(np.float32)
    for clip in (fourth, fifth):
        once = clip(x, 1.0)
        again[clip.__name__] += clip(once, 1.0).tobytes() != once.tobytes()
print(again)
print("Whatever is longer than the limit after clipping is clipped again, and often that changes a bit.")
assert again["fifth"] == 0

# %% [markdown]
# **5.** Which law is broken by most of the implementations in the atlas that are not clipcore's, and which by the fewest?

# %% tags=["hide-cell"]
others = [row for row in atlas.rows if row.library != "clipcore"]
ranking = []
for law in LAWS:
    states = [row.cell(law).state for row in others]
    tried = sum(state != "untried" for state in states)
    ranking.append((sum(state == "breaks" for state in states) / tried, law, tried))
for share, law, tried in sorted(ranking, reverse=True):
    print(f"{law:12} broken by {share:4.0%} of {tried}")
print("The edges and the extreme numbers: what nobody tries by hand.")
