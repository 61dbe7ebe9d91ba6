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
import textwrap
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
SCALE = PowerNorm(0.5, 0, 0.5)  # of the cases; as a square root, so that rare faults are seen too


def chart(axes, rows, laws):
    """Draw laws by implementations: kept, not tried, or broken by so many of the cases."""
    for y, counts in enumerate(rows.values()):
        for x, law in enumerate(laws):
            count = counts.get(law)
            wrong = count.broken - count.differing if count else 0
            if wrong:
                colour, text, ink = SHARES(SCALE(wrong / count.tried)), f"{wrong:,}", "black"
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
    axes.set_xticks(range(len(laws)), laws, rotation=30, ha="left", rotation_mode="anchor")
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

figure, axes = plt.subplots(figsize=(12, 1.6 + 0.35 * len(judged)))
chart(axes, {name: report.counts for name, report in judged.items()}, list(LAWS))
for y, report in enumerate(judged.values()):
    axes.text(len(LAWS) - 0.4, y, report.level or "none", va="center")
axes.text(len(LAWS) - 0.4, -0.75, "level", va="center", fontweight="bold")
figure.suptitle(
    "Clipping by the global norm: laws kept (✓), broken in so many cases, not tried (–)", fontsize=13
)
bar = figure.colorbar(
    plt.cm.ScalarMappable(SCALE, SHARES), ax=axes, location="bottom", shrink=0.35, aspect=30, pad=0.02
)
bar.set_ticks([0.01, 0.05, 0.1, 0.2, 0.5], labels=["1 %", "5 %", "10 %", "20 %", "50 %"])
bar.set_label("share of the cases that break it")
plt.show()

# %% [markdown]
# Each row is an implementation, each column a law. Blue is kept in all cases that were tried; the darker the orange, the larger the
# share that broke it. Grey was not tried: a function that returns no norm cannot return a wrong one. The cases aim at what goes
# wrong, so a share says how many doors are open, not how often somebody walks through one. This is
# [the atlas](../docs/atlas/atlas.md) as a picture. At the end we read a few of its rows.
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
        assert np.linalg.norm(clip(np.full(100, 0.1, dtype), 0.5)) < 0.501  # a longer one
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
# case is made smaller as long as it still fails, as in property-based testing ([Hypothesis](../docs/citations.md)). Numbers are
# decimal where that is exactly the number, else hexadecimal. Here one number is left:


# %%
def replay(finding, fn):
    """Run the lines of an example, and return what the last one gives."""
    *lines, call = finding.example.splitlines()
    names = {"fn": fn}
    exec("\n".join(lines), names)
    return eval(call, names)


number = float(finding.example.partition("[")[2].partition("]")[0])
largest = float(np.finfo(np.float16).max)
with np.errstate(over="ignore"):
    lost = replay(finding, first)
    print("what it gives:   ", lost)
    print("the norm it sees:", np.linalg.norm(np.float16([number])))
print(f"the square of {number:g} is {number**2:g}, and the largest number of float16 is {largest:g}")
assert number**2 > largest
assert lost == 0
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
# | exact | limits a hair from the norm | laws 1 to 6, 8 and 9 of [the contract](../docs/contract.md#laws) as they stand: bound, identity, tightness, direction, idempotence, scale, range, form; and a returned norm within ε |
#
# We can watch: this function passes on what it is called with, and writes it down.

# %%
calls = []


def spy(x, max_norm):
    calls.append((x, max_norm))
    return clipcore.clip_by_l2_norm(x, max_norm)


more = {"dtypes": ["float32"], "max_examples": 40}
assert verify(spy, "clip_by_l2_norm", level="rounded", **more).passed
of_rounded = len(calls)
calls.clear()
assert verify(spy, "clip_by_l2_norm", level="robust", **more).passed  # rounded comes first, then what is new
print(f"{of_rounded} calls at level rounded, {len(calls) - of_rounded} more at level robust")

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), sharex=True)
for label, part, colour in (
    ("robust adds", calls[of_rounded:], AFTER),
    ("rounded", calls[:of_rounded], "#e69f00"),
):
    points = []
    for x, max_norm in part:
        is_limit = isinstance(max_norm, float | np.floating) and 0 < max_norm < math.inf
        if is_limit and getattr(x, "dtype", None) == np.float32 and np.isfinite(x).all() and x.any():
            size = math.log2(np.abs(x).max())
            points.append((size, x.size, math.log2(max_norm) - math.log2(clipcore.l2_norm(x))))
    sizes, elements, limits = np.transpose(points)
    left.scatter(sizes, elements, s=13, color=colour, label=label, alpha=0.8)
    right.scatter(sizes, limits, s=13, color=colour, label=label, alpha=0.8)
for axes in (left, right):
    axes.axvspan(-160, -126, color=BEFORE, alpha=0.15, linewidth=0)
    axes.set(xlim=(-153, 132), xlabel="largest magnitude in x, as a power of 2")
left.text(-139.5, 2e4, "subnormal", ha="center", va="center", rotation=90, color="#666666")
left.set(yscale="log", ylabel="elements", title="What verify calls a float32 clip with: arrays …")
left.legend(loc="upper left", bbox_to_anchor=(0.12, 1))
right.axhspan(-400, 0, color=LIMIT, alpha=0.08, linewidth=0)
right.axhline(0, color=LIMIT, linewidth=1)
right.text(-88, 60, "inside", ha="center", va="center", color="#a04000")
right.text(-88, -60, "to be clipped", ha="center", va="center", color="#a04000")
right.set_yscale("symlog", linthresh=4)
ticks = [-200, -20, -4, -2, 0, 2, 4, 20]
right.set(ylim=(-400, 150), yticks=ticks, yticklabels=ticks)
right.set(ylabel="limit / norm, as a power of 2", title="… and limits")
plt.show()

# %% [markdown]
# Ordinary numbers are the orange strip. All around it is what a gradient can hold when training goes wrong, and that is when
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
# The number is right, and something else broke: the norm is a float64, so is the factor, and so is the result. The weights that it is
# subtracted from become float64 too. `np.allclose` does not look at dtypes. The range is mended, yet the level is still `None`.
#
# **The product in the dtype of x:**


# %%
def third(x, max_norm):
    norm = np.linalg.norm(x.astype(np.float64))
    return np.multiply(x, min(1, max_norm / norm), dtype=x.dtype)


assert verify(third, "clip_by_l2_norm", level="rounded", **quick).passed
quick = {"dtypes": ["float32"], "max_examples": 10}  # from here on one dtype: the levels above ask more
reports["third"] = verify(third, "clip_by_l2_norm", level="robust", **quick)
print("level:", reports["third"].level)
assert [reports[name].level for name in ("first", "second", "third")] == [None, None, "rounded"]

# %% [markdown]
# *Rounded*: right for ordinary numbers, and many users need no more. The level above was asked as well, and has its own complaints:

# %%
for finding in reports["third"].findings:
    print(f"{finding.law}: {textwrap.shorten(finding.message, 90, placeholder=' …')}")
    difference = f"   ≠ by the formula {finding.difference!r}" if finding.difference else ""
    print(f"    {finding.example.splitlines()[-1]}{difference}")
assert not any("zero vector" in finding.message for finding in reports["third"].findings)

# %% [markdown]
# Four kinds of trouble:
#
# - **range**: the factor is rounded to the dtype of x, and may be too small for it. Then nothing is left.
# - **edges, NaN**: the norm is NaN, and `min(1, nan)` is 1 in Python, for every comparison with NaN is false. So a gradient
#   that holds one NaN passes as if it were inside. The contract makes all of it NaN, so that nobody misses it.
# - **edges, refused**: a limit of −1 is taken, and text in the place of an array is refused by another exception.
# - **form**, **call**: 0-d arrays come back as scalars, and foreign byte order is an exception.
#
# Some carry a ≠: a framework wants it so. We come to that. Zero vectors pass, by luck: 1/0 is infinite, and
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
# *Robust*, for float32: in every case tried the result is right but for a few roundings, or there is a proper exception. What
# is left is the roundings themselves: some go up, and the result is longer than the limit.
#
# **Round towards zero.** Then no element is larger than the ideal one, so neither is the norm, if the factor leaves a little room for the
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
# *Exact*, for float32: no case tried breaks laws 1 to 6, 8 or 9, and it took a few lines more. (What float64 needs is an
# exercise; large arrays, trees and other libraries are what clipcore adds.) The five versions, law by law, the first two for
# float16 as well:

# %% tags=["hide-input"]
steps = {
    "1 · as everybody writes it": "first",
    "2 · norm in float64": "second",
    "3 · product in the dtype of x": "third",
    "4 · decide first, check arguments": "fourth",
    "5 · round towards zero": "fifth",
}
figure, axes = plt.subplots(figsize=(12, 3.3))
chart(
    axes,
    {label: reports[name].counts for label, name in steps.items()},
    [law for law in LAWS if law != "norm"],
)
for y, name in enumerate(steps.values()):
    axes.text(len(LAWS) - 1.4, y, reports[name].level or "none", va="center")
axes.text(len(LAWS) - 1.4, -0.8, "level", va="center", fontweight="bold")
figure.suptitle(
    "Five versions of one function: kept (✓), broken in so many cases, not asked yet (–)", fontsize=13
)
plt.show()

# %% [markdown]
# Each step mends what it was meant to mend, and the second one broke what nobody had thought of. That is why it pays to ask after every
# change.
#
# ## A difference is not a bug
#
# PyTorch divides by the norm plus $10^{-6}$. By the contract's formula, what comes out is too short:


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
# `formula="torch"` judges by that one: passed. (At level rounded, whatever level is asked, and `report.level` says so: the levels
# above are about clipcore's own contract.) These are known:

# %%
try:
    verify(with_epsilon, "clip_by_l2_norm", formula="mine")
except ValueError as error:
    print(error)

# %% [markdown]
# ## Bugs that hide
#
# Three more that pass the friendly test. Which line is wrong?


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
        print(f"    {finding.law}: {textwrap.shorten(finding.message, 90, placeholder=' …')}")
        print(f"        {textwrap.shorten(finding.example.splitlines()[-1], 100, placeholder=' …')}")
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
# The same seed gives the same cases, so a test that fails, fails again. Without `dtypes` all of them are tried.
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
    command = "clipcore verify my_module:second --operation clip_by_l2_norm --dtype float32 --level rounded --examples 10"
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=folder,
        env={**os.environ, "PYTHONUTF8": "1", "FORCE_COLOR": ""},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
print("$", command)
print(done.stdout.strip())
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
# ✗ is broken by so many cases, ≠ differs by definition alone, — was not tried. *Level* is the highest one that was reached. *Own
# formula ✓* says that a function does, with ordinary numbers, what its own documentation says: where it differs from the
# contract there, it means to.
#
# Three rows that surprise. Each finding is replayed with the formula of its library, in NumPy.


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
for _ in range(10_000):
    w = max_norm_constraint(w, np.inf)
print(f"here: {replay(finding, max_norm_constraint)}; after 10,000 steps: {w:.4f}")
assert replay(finding, max_norm_constraint) < 1
assert w < 0.9995

# %% [markdown]
# **A constraint that shrinks what it allows.** The limit is infinite, so there is nothing to do. But the weights are multiplied by their norm,
# divided by the same norm plus $10^{-7}$, after every step of training: a small weight decay that nobody asked for.


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
# point it is not always.

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
# **Even a cut can miss its bound.** −0.1 is no number of float16. Rounded to the nearest, the bound is a little above what was asked,
# and so is the result. clipcore rounds bounds inwards, so that they hold as given. Hardly anybody is hurt by this one, but it shows
# how literally *exact* is meant.
#
# ## Your own, in five minutes
#
# 1. `pip install ".[verify]"`, in a checkout of clipcore.
# 2. `report = verify(your_function, "clip_by_global_norm", level="rounded", dtypes=["float32"], max_examples=10)`, with the name of the clip
#    that yours is like, and `print(report)`. Does it write into its arguments? Then
#    `verify(Subject(your_function, in_place=True), …)`.
# 3. Is every finding a difference of definition? Name yours: `formula="torch"`.
# 4. Paste the smallest example, mend, ask again. Then `level="robust"`, then no level and no `dtypes`, which asks everything.
# 5. Put `assert_conforms` into your tests, at the level that you reached.
#
# The second step for the two commonest shapes. A clip by the global norm takes a list of arrays and a limit. One kind returns
# a new list, and the norm beside it if it likes. The other writes into the arrays of the list, as `clip_grads_` above does. That
# one is asked twice: without `in_place=True`, `verify` takes the number that it returns for the clipped list.


# %%
def your_function(arrays, max_norm):
    norm = math.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in arrays))
    factor = min(1, max_norm / norm) if norm else 1
    return [np.multiply(x, factor, dtype=x.dtype) for x in arrays], norm


for way in (your_function, clip_grads_, Subject(clip_grads_, in_place=True)):
    report = verify(way, "clip_by_global_norm", level="rounded", **quick)
    print(report)
    print()
    assert report.passed == (way is not clip_grads_)

# %% [markdown]
# A ✓ says that no case which was tried broke the law: a verification finds bugs, and proves nothing. clipcore's own functions have
# [an argument](../docs/contract.md#why-it-holds) as well.
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
print("min keeps its first argument unless the second is smaller, and no comparison with NaN is true.")
print("One order hides the NaN of a broken gradient, the other makes NaN of a gradient of zeros.")

# %% [markdown]
# **3.** The fifth version was asked about float32 only. Find a float64 vector that breaks it, without calling `verify`. How would you measure
# its norm? What else is wrong for float64?


# %% tags=["hide-cell"]
def scaled_norm(x):
    largest = np.abs(x).max(initial=0.0)
    return largest * np.linalg.norm(x / largest) if largest else 0.0


x = np.array([3e200, 4e200])
with np.errstate(over="ignore"):
    result = fifth(x, 1.0)
    print("np.linalg.norm:", np.linalg.norm(x), " the fifth version:", result)
print("scaled by the largest magnitude:", scaled_norm(x), " math.hypot:", math.hypot(*x))
print("The squares overflow. Divided by the largest magnitude, every square is at most 1 (Blue, 1978).")
print("A norm that is itself beyond float64 must be kept in two parts. clipcore does:")
print("[1.7e308, 1.7e308] →", clipcore.clip_by_l2_norm(np.array([1.7e308, 1.7e308]), 1.0))
away = (0.6 - fifth(np.array([3.0, 4.0]), 1.0)[0]) / np.spacing(0.6)
print(f"And the room of 2^-36 in the factor is far too much for float64: {away:,.0f} ulp.")
assert not np.isfinite(result).any()
assert np.isclose(scaled_norm(x), 5e200)
assert away > 4

# %% [markdown]
# **4.** Does the fourth version change what it has clipped already? Does the fifth? Try random vectors, and say why.

# %% tags=["hide-cell"]
rng = np.random.default_rng(4)
again = {"fourth": 0, "fifth": 0}
for _ in range(2000):
    x = (10 * rng.standard_normal(8)).astype(np.float32)
    for clip in (fourth, fifth):
        once = clip(x, 1.0)
        again[clip.__name__] += clip(once, 1.0).tobytes() != once.tobytes()
print(f"of 2000 vectors that are clipped twice, {again} change the second time")
print(
    "Of the fourth version many results are a bit longer than the limit. They are clipped again, by a factor just below 1,"
)
print("and some element may round to another number. Of the fifth none is longer, so it comes back as it is.")
assert again["fifth"] == 0

# %% [markdown]
# **5.** Leave clipcore's own rows out of the atlas. Which law is broken in the largest share of the rows where it was tried, and
# which in the smallest?

# %% tags=["hide-cell"]
others = [row for row in atlas.rows if row.library != "clipcore"]
shares = {}
for law in LAWS:
    states = [row.cell(law).state for row in others]
    tried = len(states) - states.count("untried")
    if tried:
        shares[law] = Fraction(states.count("breaks"), tried), tried
for law, (share, tried) in sorted(shares.items(), key=lambda item: -item[1][0]):
    print(f"{law:12} broken in {float(share):4.0%} of the {tried} rows that tried it")
for words, pick in (("largest", max), ("smallest", min)):
    wanted = pick(share for share, _ in shares.values())
    print(f"The {words} share: {' and '.join(law for law, (share, _) in shares.items() if share == wanted)}.")
