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
# # 2 · Norms in floating point
#
# Clipping by norm takes one line of code, and everybody writes the same one: `x * min(1, limit / norm)`. Here is what
# it does to 300 random float32 vectors, whose norm should be at most 1 afterwards. One unit of the vertical axis is
# $2^{-24}$: rounding to float32 changes a number by so much at most, relative to the number.

# %% tags=["hide-input"]
import math
from fractions import Fraction
from itertools import accumulate

import matplotlib.pyplot as plt
import numpy as np

import clipcore

BEFORE, AFTER, LIMIT = "#999999", "#0072b2", "#d55e00"
HAND = "#e69f00"
plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})


def by_hand(x, limit):
    return x * min(1, limit / np.linalg.norm(x))


def exact_square(x):
    """The square of the norm, without any rounding."""
    return sum(Fraction(float(number)) ** 2 for number in x)


def distance(x, limit):
    """How far the norm is above the limit, in units of 2^-24 of the limit."""
    excess = float(exact_square(x) / Fraction(limit) ** 2 - 1)  # rounded last: its sign is right
    return 2**24 * excess / (1 + math.sqrt(1 + excess))


rng = np.random.default_rng(2)
vectors = (10 * rng.standard_normal((300, 10))).astype(np.float32)
recipes = {"by hand": by_hand, "clipcore": clipcore.clip_by_l2_norm}
off = {name: np.array([distance(clip(x, 1.0), 1.0) for x in vectors]) for name, clip in recipes.items()}

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), sharey=True, width_ratios=(3, 1))
for name, colour in (("by hand", HAND), ("clipcore", AFTER)):
    left.scatter(np.arange(300), off[name], s=9, color=colour, label=name)
    right.hist(off[name], bins=np.arange(-4, 4.1, 0.25), orientation="horizontal", color=colour, alpha=0.7)
for axes in (left, right):
    axes.axhspan(-4, 0, color=LIMIT, alpha=0.08)
    axes.axhline(0, color=LIMIT)
left.set(xlabel="vector", ylabel="norm − 1, in $2^{-24}$", ylim=(-4.5, 3.5))
left.set_title("Exact distance from the limit")
left.text(298, 2.7, "longer than the limit", color=LIMIT, ha="right")
left.text(298, -3.8, "what clipcore promises", color=LIMIT, ha="right")
left.legend(loc="upper left", ncols=2)
right.set(xlabel="vectors", title="How often")
plt.show()

# %%
for name, distances in off.items():
    longer, low, high = (distances > 0).sum(), distances.min(), distances.max()
    print(
        f"{name:8} {longer:3} of 300 are longer than the limit; from {low:+.2f} to {high:+.2f} units away from it"
    )
assert (off["by hand"] > 0).sum() > 60
assert (off["clipcore"] <= 0).all()
assert (off["clipcore"] >= -4).all()

# %% [markdown]
# Rounding is a small matter, and the smallest of four. The same line can also return zeros, leave a gradient as it is
# that is twice too long, or, where a library sums naively, work with a norm that is some percent off. This notebook goes
# through them, largest first, and ends with a clip of a dozen lines that does none of it.
#
# (*By hand* is that line as it stands. The README's loop adds $10^{-6}$ to the norm: below.)
#
# ## The judge is a fraction
#
# A floating-point number is a whole number times a power of two. So it is a fraction, and Python's `Fraction` adds and
# multiplies fractions without rounding. A norm has a root in it, but the question "is the norm at most $C$?" needs
# none: compare the sum of squares with $C^2$.

# %%
print("0.1 in float32 is", Fraction(float(np.float32(0.1))))
x = np.array([2.0, 3.0], np.float32)
for name, clip in {"by hand": by_hand, "clipcore": clipcore.clip_by_l2_norm}.items():
    square = sum(Fraction(float(number)) ** 2 for number in clip(x, 1.0))
    print(f"{name:8} {square}, above 1: {square > 1}")
    assert (square > 1) == (name == "by hand")

# %% [markdown]
# This sum is called `exact_square` from here on. Where this notebook says that a result is too long, it was asked;
# floats only draw the pictures.
#
# ## Squares that do not fit
#
# The largest number of float16 is 65504. 300 is far below it, the square of 300 is not: it becomes infinity, and so
# does the norm. What follows depends on how the line is written. No NaN or infinity goes in, and there is a right
# answer:

# %%
for x, limit in ((np.array([300.0] * 4, np.float16), 300.0), (np.array([1e30, 1e30], np.float32), 1e10)):
    with np.errstate(over="ignore", invalid="ignore"):
        norm = np.linalg.norm(x)
        print(x.dtype, x, "to norm", limit)
        print("  true norm:         ", clipcore.l2_norm(x))
        print("  norm by hand:      ", norm)
        print("  x * (limit / norm):", x * (limit / norm))
        print("  x * limit / norm:  ", x * limit / norm)
    clipped = clipcore.clip_by_l2_norm(x, limit)
    print("  clipcore:          ", clipped)
    assert math.isinf(norm)
    assert not (x * (limit / norm)).any()
    assert -4 * np.finfo(x.dtype).eps / 2 <= distance(clipped, limit) / 2**24 < 0

# %% [markdown]
# Zeros are the worse answer: nothing complains, and the step moves nothing, just where the gradient was largest and a
# clip was needed ([notebook 3](3_exploding_gradients.py)). (Why does clipcore not return 150? The second half of this
# notebook is about that last step.)
#
# Squares can also be too small. Then they vanish, and the norm with them. Here is the norm of four equal numbers,
# divided by the true one, over all sizes that float16 and float32 have:

# %% tags=["hide-input"]
figure, row = plt.subplots(1, 2, figsize=(11, 3.2), sharey=True)
for axes, dtype, first, last in ((row[0], np.float16, -24, 14.9), (row[1], np.float32, -149, 126.9)):
    size = (2.0 ** np.linspace(first, last, 300)).astype(dtype)
    true = 2 * size.astype(np.float64)  # √4 is 2
    with np.errstate(over="ignore", under="ignore"):
        ratio = np.array([float(np.linalg.norm(np.full(4, a))) for a in size]) / true
    own = np.array([float(clipcore.l2_norm(np.full(4, a))) for a in size]) / true
    assert (abs(own - 1) < 2**-44).all()
    lost = (ratio == 0) | np.isinf(ratio)
    print(f"{np.dtype(dtype)}: for {lost.mean():.0%} of the sizes the norm by hand is 0 or ∞")
    assert lost.mean() > 0.4
    axes.plot(true, np.minimum(ratio, 2), color=HAND, linewidth=2, label="by hand")
    axes.plot(true, own, color=AFTER, linewidth=2, linestyle="--", label="clipcore")
    axes.set(xscale="log", xlabel="true norm", title=np.dtype(dtype).name, ylim=(-0.2, 2.2))
row[0].set_yticks([0, 1, 2], ["0", "1", "∞"], fontsize=11)
row[0].set_ylabel("measured / true")
row[1].set_xticks([1e-45, 1e-30, 1e-15, 1, 1e15, 1e30])
row[1].legend(loc="upper left", bbox_to_anchor=(0.02, 0.95))
plt.show()

# %% [markdown]
# A square has twice the exponent, and for half of all exponents there is no room for that. In float32 such numbers are
# far away. In float16 they are not: $5 · 10^{-5}$ is an everyday gradient. (Gradients that are too small for the format
# are why training in 16 bits first multiplies the loss by a large number:
# [Micikevicius et al., 2018](https://arxiv.org/abs/1710.03740).) By hand the norm of four of them is 0. The limit
# divided by 0 is infinity, the smaller of 1 and infinity is 1, and the vector comes back unclipped:

# %%
tiny = np.array([5e-5] * 4, np.float16)
with np.errstate(divide="ignore"):
    print("true norm:", clipcore.l2_norm(tiny), " by hand:", np.linalg.norm(tiny))
    print("to norm 5e-5 by hand:    ", by_hand(tiny, 5e-5))
    print("to norm 5e-5 by clipcore:", clipcore.clip_by_l2_norm(tiny, 5e-5))
    assert np.linalg.norm(tiny) == 0
    assert exact_square(by_hand(tiny, 5e-5)) > 3 * Fraction(5e-5) ** 2
    assert exact_square(clipcore.clip_by_l2_norm(tiny, 5e-5)) <= Fraction(5e-5) ** 2

# %% [markdown]
# The cure is old: bring the numbers into range before squaring, by a power of two (J. L. Blue, 1978; E. Anderson, 2017)
# or in a wider format. clipcore does both. A number of float32 has 24 bits, its square at most 48. float64 has 53, and
# exponents enough: it holds the square of every number of float16, bfloat16 and float32, *exactly*. For float64 there
# is nothing wider on every machine, so numbers of extreme size are first multiplied by a power of two, and the exponent
# is kept beside the sum.

# %%
numbers = rng.integers(0, 2**32, 3000, dtype=np.uint32).view(np.float32)  # any bits at all
numbers = numbers[np.isfinite(numbers)].astype(np.float64)
assert all(Fraction(float(a * a)) == Fraction(float(a)) ** 2 for a in numbers)

huge, least = np.array([1e200, 1e200]), np.array([1e-200, 1e-200])
with np.errstate(over="ignore", under="ignore"):
    print("by hand: ", np.linalg.norm(huge), np.linalg.norm(least))
print("clipcore:", clipcore.l2_norm(huge), clipcore.l2_norm(least))

# %% [markdown]
# ## Sums that stop growing
#
# Between one number and the next there is a gap. Above $2^{24}$ it is 2 in float32. One more than $2^{24}$ lies in the
# middle of the gap, is rounded back, and the sum stays where it was. In float16 the same happens at $2^{11}$:

# %%
large = np.float32(2**24)
print("float32, 2^24 + 1 == 2^24:", large + np.float32(1) == large)
print("float16, ten thousand ones:", np.cumsum(np.ones(10_000, np.float16))[-1])
assert large + np.float32(1) == large
assert np.cumsum(np.ones(10_000, np.float16))[-1] == 2**11

# %% [markdown]
# A norm is the root of a sum with a square for each weight, and a network with $2^{24}$ weights, 16 million, is a small
# one today. On the left are running sums of ones. On the right are norms of random numbers, in float32; the judge there
# adds squares as Python's whole numbers, which have as many digits as they need.

# %% tags=["hide-input"]
counts = 2 ** np.arange(8, 26)
ends = np.union1d(counts, np.arange(2**20, 2**25, 2**20))  # of pieces that need little memory


def running_sums(pieces):
    """The sum of float32 numbers added one after the other, after each piece."""
    total = np.float32(0)
    for piece in pieces:
        total = np.cumsum(np.append(total, piece), dtype=np.float32)[-1]
        yield total


def relative_error(square, exact):
    """How far off a norm is, from its square and the exact one."""
    excess = float(Fraction(square) / exact - 1)
    return abs(excess) / (1 + math.sqrt(1 + excess))


def exact_sum_of_squares(piece):
    """Of whole numbers: int64 has room for each square but not for the sum, so it adds two halves."""
    squares = piece.astype(np.int64) ** 2
    return (int((squares >> 24).sum()) << 24) + int((squares % 2**24).sum())


x = 2**20 * rng.standard_normal(2**25, dtype=np.float32)
np.rint(x, out=x)  # whole numbers, so that the judge is quick
pieces = [x[start:end] for start, end in zip([0, *ends], ends, strict=False)]
running = dict(zip(ends, running_sums(piece * piece for piece in pieces), strict=True))
exact = dict(zip(ends, accumulate(map(exact_sum_of_squares, pieces)), strict=True))
squares = {
    "running sum": lambda n: float(running[n]),
    "np.linalg.norm": lambda n: Fraction(float(np.linalg.norm(x[:n]))) ** 2,
    "np.sum, pairwise": lambda n: float(np.sum(np.square(x[:n]))),
    "clipcore": lambda n: Fraction(float(clipcore.l2_norm(x[:n]))) ** 2,
}
errors = {name: [relative_error(square(n), exact[n]) for n in counts] for name, square in squares.items()}

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8))
assert [*running_sums([np.ones(2**20, np.float32)] * 32)][15:] == [2**24] * 17
assert np.cumsum(np.ones(2**16, np.float16))[2**11 - 1 :].tolist() == [2**11] * (2**16 - 2**11 + 1)
ones = 2.0 ** np.arange(4, 28)
left.plot(ones, ones, color=AFTER, linestyle="--", label="the true sum")
left.plot(ones, np.minimum(ones, 2**24), color=HAND, linewidth=2, label="float32: stays at $2^{24}$")
left.plot(ones, np.minimum(ones, 2**11), color="#cc79a7", linewidth=2, label="float16: stays at $2^{11}$")
left.set(xscale="log", yscale="log", xlabel="ones added", ylabel="running sum", title="Sums of ones")
left.legend(loc="upper left")
styles = {"running sum": HAND, "np.linalg.norm": BEFORE, "np.sum, pairwise": "#009e73", "clipcore": AFTER}
for name, colour in styles.items():
    right.plot(counts, errors[name], color=colour, marker=".")
    right.text(1.6 * counts[-1], errors[name][-1], name, color=colour, va="center")
right.axhline(2**-44, color=LIMIT, linewidth=1)
right.text(counts[0], 2**-43.5, "$2^{-44}$: clipcore's promise", color=LIMIT, va="bottom")
right.set(xscale="log", yscale="log", xlim=(150, 2e10), ylim=(1e-19, 10), xticks=[1e3, 1e5, 1e7])
right.minorticks_off()
right.set(xlabel="numbers", ylabel="relative error", title="Norms of float32 numbers")
plt.show()

# %%
print(f"running sum, 2^25 numbers: the norm is {errors['running sum'][-1]:.1%} off")
assert errors["running sum"][-1] > 0.01
assert max(errors["np.sum, pairwise"]) < 1e-6
assert max(errors["clipcore"]) < 2**-44

# %% [markdown]
# What counts is not how many numbers there are, but how many additions follow one another in the longest *chain*
# (N. J. Higham, 1993).
#
# - A running sum of $n$ numbers is one chain of $n$ additions, and each of them may round.
# - **Pairwise** summation adds the sums of the two halves, and so on inside each: about $\log_2 n$ additions in a
#   chain. `np.sum` does so where the numbers lie next to each other in memory.
# - `np.linalg.norm` leaves the order to the library that computes dot products, which is not the same everywhere.
# - **clipcore** adds in float64, rows of 256 and then sums of rows: never more than 404 additions in a chain, for any
#   number of elements. Were all of them rounded the same way, the relative error of the sum would still be below

# %%
print(f"404 · 2^-53 = {404 * 2**-53:.2e}, which is below 2^-44 = {2**-44:.2e}")
assert 404 * 2**-53 < 2**-44

# %% [markdown]
# A clip by a norm that is some percent too small leaves a result that is as much too long.
#
# ## The last bit
#
# Now let everything fit, and the sum be short. In `x * (limit / norm)` three things are still rounded: the norm, the
# factor, and each product. For the vector (2, 3) and the limit 1, in units of $2^{-24}$:

# %%
x = np.array([2.0, 3.0], np.float32)
norm = np.linalg.norm(x)
factor = 1 / norm
print(f"the norm is rounded by    {2**24 * (float(norm) / math.sqrt(13) - 1):+.2f}")
print(f"the factor is rounded by  {2**24 * float(Fraction(float(factor)) * Fraction(float(norm)) - 1):+.2f}")
for number in x:
    exact = Fraction(float(number)) * Fraction(float(factor))
    rounding = Fraction(float(number * factor)) / exact - 1
    print(f"{number:.0f} · factor is rounded by   {2**24 * float(rounding):+.2f}")
print(f"the norm of the result is {distance(x * factor, 1.0):+.2f} from the limit")

# %% [markdown]
# Each is one unit at most, up or down as it happens. So results lie on both sides of the limit, as in the first
# picture. Who minds?
#
# - **Differential privacy** adds noise whose size is computed from the limit
#   ([Abadi et al., 2016](https://arxiv.org/abs/1607.00133)). What is longer was not accounted for.
# - **A check** that `norm(clipped) <= limit` fails now and then. So it gets a tolerance, and the next
#   check another one.
# - **Clipping again** may change what was clipped already. Then results depend on how often somebody clipped.
#
# ## Two repairs that do not repair
#
# **Add a little to the norm.** PyTorch's `clip_grad_norm_` divides by `norm + 1e-6`, and others with it. That keeps a
# zero norm from being a divisor. Does it keep the bound, too?


# %%
def with_epsilon(x, limit):
    return x * min(1, limit / (np.linalg.norm(x) + 1e-6))


# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8))
relative = np.logspace(-1, 2, 200)
left.plot(relative, np.minimum(relative, 1), color=LIMIT, linewidth=4, alpha=0.4, label="without 1e-6")
for exponent, colour, line in ((-4, "#56b4e9", "-"), (-6, "#009e73", "--"), (-7, "#cc79a7", "-.")):
    limit = 10.0**exponent
    after = relative * np.minimum(1, limit / (relative * limit + 1e-6))
    left.plot(relative, after, color=colour, linestyle=line, label=f"norm + 1e-6, limit $10^{{{exponent}}}$")
left.set(xscale="log", xlabel="norm before / limit", ylabel="norm after / limit", ylim=(0, 1.3))
left.set_title("Small limits: clipped too far")
left.legend(loc="upper left", fontsize=8, ncols=2)

norms = np.logspace(0.1, 4, 300)
scaled = (vectors * (norms / clipcore.l2_norm(vectors, axis=1))[:, np.newaxis]).astype(np.float32)
reached = np.array([distance(with_epsilon(x, 1.0), 1.0) for x in scaled])
right.plot(norms, -(2**24) * 1e-6 / norms, color=BEFORE, linewidth=2, label="what 1e-6 takes away")
right.scatter(norms, reached, s=9, color=HAND, label="norm of the result")
right.axhspan(-4, 0, color=LIMIT, alpha=0.08)
right.axhline(0, color=LIMIT)
right.set(xscale="log", xlabel="norm before", ylabel="norm after − 1, in $2^{-24}$")
right.set_title("Limit 1: no help where norms are large")
right.legend(loc="lower right")
plt.show()

# %%
large, small = reached[norms > 100], -reached[norms < 2]
print(f"norm above 100: {(large > 0).mean():.0%} of the results are longer than the limit")
print(f"norm below 2: the results are {small.min():.0f} to {small.max():.0f} units too short")
edge = np.array([2.0**-20, 0.0], np.float32)
print(f"norm {edge[0]:.3g}, and so is the limit: {edge[0]:.3g} becomes {with_epsilon(edge, 2.0**-20)[0]:.3g}")
assert (large > 0).mean() > 0.15
assert small.min() > 4
assert with_epsilon(edge, 2.0**-20)[0] < 0.5 * edge[0]

# %% [markdown]
# The epsilon takes about $10^{-6}/‖x‖$ of the length. Where the norm is large, that is less than a rounding, and
# protects nothing. Where it is small, that is more than all roundings together, and shortens what was right. With a
# limit of its own size it takes half, even of a vector that is within the limit.
#
# **Lower the factor.** Measure the norm in float64, so that it is nearly exact. Then take the next smaller factor, one
# *ulp* (unit in the last place) less.


# %%
def lowered(x, limit, ulps):
    norm = math.sqrt(np.sum(x.astype(np.float64) ** 2))
    if norm <= limit:
        return x.copy()
    factor = np.float32(limit / norm)
    for _ in range(ulps):
        factor = np.nextafter(factor, np.float32(0))
    return x * factor


too_long = sum(exact_square(lowered(x, 1.0, 1)) > 1 for x in vectors)
print(f"one ulp less: {too_long} of the 300 vectors are longer than the limit")
assert too_long < 10

# %% [markdown]
# Random tests hardly find anything wrong. So take its worst case: equal numbers, whose products are all rounded the
# same way.

# %%
found = [
    (n, a)
    for n in range(2, 20)
    for a in range(2, 200)
    if n * Fraction(float(lowered(np.full(n, a, np.float32), 1.0, 1)[0])) ** 2 > 1
]
n, a = found[0]
result = lowered(np.full(n, a, np.float32), 1.0, 1)
factor = np.nextafter(np.float32(1 / math.sqrt(n * a**2)), np.float32(0))
missing = 1 - float(factor) * a * math.sqrt(n)
rounding = Fraction(float(result[0])) / (a * Fraction(float(factor))) - 1
print(f"{n} times {a}: the factor is {2**24 * missing:.3f} units below the ideal one,")
print(f"each product is rounded up by {2**24 * float(rounding):.3f},")
print(f"and the norm is {distance(result, 1.0):+.3f} from the limit")
assert exact_square(result) > 1

# %% [markdown]
# The factor had been rounded up before it was lowered. What is left of the ulp may be half a unit, and a product can be
# rounded up by nearly a whole one. Then lower it by two? That is enough for every product, if the norm is accurate. But
# some vectors become shorter than they need be, and a gap stays open:

# %%
two = np.array([distance(lowered(x, 1.0, 2), 1.0) for x in vectors])
print(f"two ulps less: the norms are {-two.max():.2f} to {-two.min():.2f} units below the limit")
hair = np.array([1.0, 2**-30], np.float32)
print("[1, 2^-30] has norm", math.sqrt(np.sum(hair.astype(np.float64) ** 2)), "in float64.")
print("Exactly, its square is above 1 by", exact_square(hair) - 1)
print("Clipped to 1, it is returned as it is:", np.array_equal(lowered(hair, 1.0, 2), hair))
assert two.max() <= 0
assert two.min() < -4
assert exact_square(lowered(hair, 1.0, 2)) > 1

# %% [markdown]
# Even float64 cannot see that this vector is too long. For every precision there is such a vector: a norm that was
# rounded to the limit does not tell which side it came from.
#
# ## A clip that keeps its bound, in a dozen lines
#
# clipcore's road is **measure → decide → scale**. This is a toy of it, for float32 vectors of up to a million numbers.

# %%
U = 2.0**-24  # the most that one rounding in float32 changes, relatively


def toy_clip(x, limit):
    wide = x.astype(np.float64)
    norm = math.sqrt(wide @ wide)  # measure: the squares are exact, their sum is nearly so
    excess = norm / limit - 1
    if abs(excess) < 2**-30:  # decide: too close for floating point to tell
        excess = exact_square(x) - Fraction(limit) ** 2
    if excess <= 0:
        return x.copy()
    ideal = limit / norm * (1 - U * (1 + 1 / 64))  # leave room for every product to be rounded up
    factor = np.float32(ideal)
    if float(factor) > ideal:  # float(): NumPy would compare the two in float32, where they are equal
        factor = np.nextafter(factor, np.float32(0))
    return x * factor  # scale: one rounding each


# %% [markdown]
# Why it holds, in three steps (for numbers that are not nearly zero; exercise 5 is about those):
#
# 1. **Far from the limit, float64 decides.** A sum of a million squares is within $10^6 · 2^{-53} < 2^{-33}$ of the
#    exact one, and its root within half of that. A difference of $2^{-30}$ is no accident.
# 2. **Close to it, fractions decide.** That is slow, and rare. So what is within the limit comes back bit for bit. A
#    result that is within the limit is too, so clipping twice is clipping once.
# 3. **The factor leaves room.** With $u = 2^{-24}$, rounding makes a product at most $1 + u$ times as large. So the
#    result has norm $(1 + u)$ · factor · $‖x‖$ at most. The factor is at most $(1 - u - u/64) · C/‖x‖$, but for the
#    error of float64, which is below $2^{-32}$. Multiplied, in fractions again, that is below $C$:

# %%
u = Fraction(1, 2**24)
assert (1 + u) * (1 - u - u / 64) * (1 + Fraction(1, 2**32)) < 1

for x in [*vectors, *(np.full(n, a, np.float32) for n, a in found), hair]:
    once = toy_clip(x, 1.0)
    assert -4 < distance(once, 1.0) <= 0
    assert toy_clip(once, 1.0).tobytes() == once.tobytes()
print(f"{len(vectors) + len(found) + 1} vectors: the toy keeps its bound, and clipping twice changes nothing")

# %% [markdown]
# All recipes next to each other, for the 300 vectors, and for the one that is a hair too long:

# %% tags=["hide-input"]
recipes = {
    "by hand": by_hand,
    "norm + 1e-6": with_epsilon,
    "one ulp less": lambda x, limit: lowered(x, limit, 1),
    "two ulps less": lambda x, limit: lowered(x, limit, 2),
    "toy": toy_clip,
    "clipcore": clipcore.clip_by_l2_norm,
}
figure, axes = plt.subplots(figsize=(11, 3.2))
print(f"{'':13}{'longer than the limit':>22}{'changed by clipping twice':>27}{'[1, 2^-30] clipped to 1':>25}")
for height, (name, clip) in enumerate(recipes.items()):
    results = [clip(x, 1.0) for x in vectors]
    longer = sum(exact_square(result) > 1 for result in results)
    changed = sum(clip(result, 1.0).tobytes() != result.tobytes() for result in results)
    kept = "too long" if exact_square(clip(hair, 1.0)) > 1 else "within"
    print(f"{name:13}{longer:22}{changed:27}{kept:>25}")
    if name in ("toy", "clipcore"):
        assert (longer, changed, kept) == (0, 0, "within")
    distances = [distance(result, 1.0) for result in results]
    colour = AFTER if name in ("toy", "clipcore") else HAND
    axes.scatter(distances, height + rng.uniform(-0.25, 0.25, 300), s=5, color=colour)
axes.axvspan(-4, 0, color=LIMIT, alpha=0.08)
axes.axvline(0, color=LIMIT)
axes.set_yticks(range(6), [*recipes])
axes.invert_yaxis()
axes.set(xlabel="norm of the result − 1, in $2^{-24}$", title="Exact distance from the limit")
plt.show()

# %% [markdown]
# ## What clipcore adds to the toy
#
# The same three steps, without the toy's gaps ([why it holds](../docs/contract.md#why-it-holds)):
#
# - **Any size.** With 404 additions at most in a chain, the norm is within $2^{-44}$ for any number of elements.
# - **float64.** Its squares do not fit into float64. Each number is split into a head of few bits, whose squares add up
#   without rounding, and a small tail. The norm, and the factor until it is rounded once at the end, are pairs of
#   float64.
# - **float16 and bfloat16.** The factor has so few bits that every product is exact in float32. So there, too, each
#   element is rounded only once.
# - **Tiny limits.** The numbers nearest to zero have fewer bits, and step 3 fails. Where the limit is so small that
#   this matters, such numbers are cut towards zero instead of rounded.
# - **Tightness.** Between two powers of two, numbers are evenly spaced. Relative to their size they are sparse just
#   above a power of two, and twice as dense just below. There the toy loses most when it rounds its factor down:

# %% tags=["hide-input"]
figure, row = plt.subplots(1, 2, figsize=(11, 3.4), sharey=True)
factors = 2.0 ** np.linspace(-2.3, -0.001, 900)
directions = rng.standard_normal((900, 24))
directions /= np.sqrt((directions**2).sum(axis=1, keepdims=True))
stretched = (directions / factors[:, np.newaxis]).astype(np.float32)
for axes, (name, clip) in zip(row, (("toy", toy_clip), ("clipcore", clipcore.clip_by_l2_norm)), strict=True):
    off[name] = np.array([distance(clip(x, 1.0), 1.0) for x in stretched])
    assert ((off[name] <= 0) & (off[name] >= -4)).all()
    axes.scatter(factors, off[name], s=5, color=AFTER)
    axes.axhspan(-4, 0, color=LIMIT, alpha=0.08)
    axes.axhline(0, color=LIMIT)
    axes.set_xscale("log", base=2)
    axes.set(xlabel="factor that the vector needs", title=name, ylim=(-4.3, 0.4))
assert off["toy"].min() < off["clipcore"].min()
row[0].set_ylabel("norm of the result − 1, in $2^{-24}$")
plt.show()

# %% [markdown]
# In float32 and float64, clipcore does not multiply by a factor just above a power of two. It *divides* by the
# reciprocal, which lies just below one, where numbers are dense. It changes over at $\sqrt{1/2}$, and so on for each
# power of two. With that, a clipped norm is never more than $4u$ short of its limit, as long as no element is nearly
# zero.
#
# So there are three promises: never above the limit; close below it; and bit for bit the same where there is nothing to
# do. They hold on NumPy, and for plain tensors of torch on the CPU: not inside a derivative or a compiler, and for bfloat16
# only with ml_dtypes. Elsewhere a program may be traced before there are values, and nobody can look at them:
# [what holds there](../docs/contract.md#on-other-libraries). The arithmetic is in one
# file, `clipcore/_decide.py`; the papers are among the [citations](../docs/citations.md). In [notebook 6](6_verify.py)
# fractions judge any clip, also your own.
#
# ## Exercises
#
# **1.** Four equal numbers in float16: from which size on is the norm by hand infinite? Calculate it, then try.

# %% tags=["hide-cell"]
print(f"4a² passes 65504, the largest number of float16, at a = {math.sqrt(65504 / 4):.2f}.")
with np.errstate(over="ignore"):
    for a in (120, 130):
        x = np.full(4, a, np.float16)
        print(f"a = {a}: norm by hand {np.linalg.norm(x)}, by clipcore {clipcore.l2_norm(x)}")
        assert np.isinf(np.linalg.norm(x)) == (a == 130)

# %% [markdown]
# **2.** A running sum in float16 adds 0.1 again and again. Where does it stay?

# %% tags=["hide-cell"]
stop = np.cumsum(np.full(10_000, 0.1, np.float16))[-1]
print(f"At {stop:g}. The next number is {np.spacing(stop):g} away, and 0.1 is less than half of that.")
assert stop == 256
assert np.spacing(stop) / 2 > 0.1

# %% [markdown]
# **3.** A way round overflow: divide by the largest magnitude $m$, and take $m · ‖x/m‖$. What does it cost, and why
# nothing where $m$ is replaced by a power of two near it?

# %% tags=["hide-cell"]
x = vectors[0]
largest = np.abs(x).max()
for m in (largest, np.float32(2.0 ** math.floor(math.log2(largest)))):
    rounded = sum(Fraction(float(a / m)) * Fraction(float(m)) != Fraction(float(a)) for a in x)
    print(f"divided by {m}: {rounded} of 10 numbers are rounded")
print("A power of two changes exponents only. So clipcore scales by powers of two.")
assert rounded == 0

# %% [markdown]
# **4.** Why does the toy not work for float64 vectors, with $u = 2^{-53}$?

# %% tags=["hide-cell"]
a = 1 + 2.0**-52
print("Squares are rounded: the square of 1 + 2^-52 is off by", float(Fraction(a) ** 2 - Fraction(a * a)))
print("So the norm is off by about as much as u, and u/64 is no room for that.")
doubles = 10 * rng.standard_normal((300, 10))
toy = sum(exact_square(x * (1 / math.sqrt(x @ x) * (1 - 2.0**-53))) > 1 for x in doubles)
own = sum(exact_square(clipcore.clip_by_l2_norm(x, 1.0)) > 1 for x in doubles)
print(f"Lowered by u, {toy} of 300 float64 vectors are longer than the limit; of clipcore's, {own}.")
assert toy > own == 0

# %% [markdown]
# **5.** Find a float32 vector and a limit for which the toy breaks its bound. (The smallest number of float32 is
# $s = 2^{-149}$, and all numbers near it are multiples of it.)

# %% tags=["hide-cell"]
s = 2.0**-149
x, limit = np.full(4, 3 * s, np.float32), 5.5 * s
result, own = toy_clip(x, limit), clipcore.clip_by_l2_norm(x, limit)
print("Four times 3s have norm 6s. The limit is 5.5s, so each should become 2.75s at most.")
print(f"The toy returns {result / np.float32(s)} times s: the product was rounded up to the next multiple.")
print(f"clipcore returns {own / np.float32(s)} times s: cut towards zero.")
assert exact_square(result) > Fraction(limit) ** 2 >= exact_square(own)

# %% [markdown]
# **6.** A vector was clipped to norm 0.1. Is its norm at most one tenth?

# %% tags=["hide-cell"]
above = float(Fraction(0.1) - Fraction(1, 10))
print(f"It is at most the number that Python makes of 0.1. That is above one tenth, by {above:.2g}.")
print("For one tenth at most, ask for the next smaller number,", math.nextafter(0.1, 0))
assert Fraction(0.1) > Fraction(1, 10) > Fraction(math.nextafter(0.1, 0))
