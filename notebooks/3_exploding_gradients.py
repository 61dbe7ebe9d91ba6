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
# # 3 · Exploding gradients
#
# A network that feeds its output back to itself, again and again, has a loss with cliffs. On the face of a cliff the
# gradient is huge, and one step along it can undo all the steps before. Here is such a cliff, and gradient descent that
# meets it twice: without a limit and with one.

# %% tags=["hide-input"]
import csv
import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import clipcore
from clipcore.demo.data import Data, load_data
from clipcore.demo.optimizers import Adam
from clipcore.demo.options import Options
from clipcore.demo.rnn import Elman
from clipcore.demo.running import train

BEFORE, AFTER, LIMIT = "#999999", "#0072b2", "#d55e00"
WITHOUT, WITH = "#cc79a7", AFTER  # clipping
plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})


def loss_and_gradient(w, b):
    """One unit, repeated fifty times: h ← σ(w·h + b), from h = 1/2. The loss is (h − 0.7)²."""
    h, by_w, by_b = 0.5, 0.0, 0.0
    for _ in range(50):
        new = (1 + np.tanh((w * h + b) / 2)) / 2  # σ, without overflow
        slope = new * (1 - new)
        by_w, by_b, h = slope * (h + w * by_w), slope * (1 + w * by_b), new
    return (h - 0.7) ** 2, np.array([2 * (h - 0.7) * by_w, 2 * (h - 0.7) * by_b])


def descend(max_norm, rate=1.0, steps=200, start=(6.0, -1.5)):
    """Return the places (w, b), the losses and the norms of the gradients, step by step."""
    place, way = np.array(start), []
    for _ in range(steps):
        loss, gradient = loss_and_gradient(*place)
        way.append((place, loss, clipcore.l2_norm(gradient, axis=0)))
        place = place - rate * clipcore.clip_by_l2_norm(gradient, max_norm, axis=0)
    return tuple(np.array(column) for column in zip(*way, strict=True))


ways = {"no limit": descend(math.inf), "max_norm 0.3": descend(0.3)}
looks = {"no limit": (WITHOUT, 3.0), "max_norm 0.3": (WITH, 1.2)}
places, losses, norms = ways["no limit"]
leap = int(norms.argmax())  # the step that throws it out

figure = plt.figure(figsize=(10, 4.1))
relief = figure.add_subplot(1, 2, 1, projection="3d", computed_zorder=False)
w, beside = np.meshgrid(np.linspace(2.5, 6.5, 60), np.linspace(-1.2, 1.5, 217))  # the cliff along a grid line
b = beside - w / 2
heights = loss_and_gradient(w, b)[0]
shade = {"cmap": "Greys", "vmin": -0.1, "vmax": 0.6}
relief.plot_surface(w, b, heights, rcount=217, ccount=60, antialiased=False, **shade)
relief.view_init(40, 72)
relief.set_box_aspect((4, 4, 2.6), zoom=1.2)
relief.set(xticks=range(3, 7), yticks=range(-4, 1), zticks=(0, 0.2, 0.4))
relief.set(xlabel="w", ylabel="b", zlabel="loss")
relief.set_title("The loss of one unit, repeated fifty times")
relief.plot(*places[0], losses[0] + 0.01, "ko", zorder=6)

plan = figure.add_subplot(1, 2, 2)
w, beside = np.meshgrid(np.linspace(2.5, 6.5, 60), np.linspace(-2.3, 2.5, 481))
plan.contourf(w, beside - w / 2, loss_and_gradient(w, beside - w / 2)[0], 15, **shade)
for name, (path, heights, _) in ways.items():
    colour, width = looks[name]
    plan.plot(*path.T, ".-", color=colour, linewidth=width, markersize=3 * width, label=name)
    inside = slice(None, leap + 1) if name == "no limit" else slice(None)
    relief.plot(*path[inside].T, heights[inside] + 0.01, color=colour, linewidth=width, zorder=5)
thrown = places[leap + 1]
plan.text(5.45, -1.05, f"thrown to\n({thrown[0]:.0f}, {thrown[1]:.0f})", color="#8a3b66", va="center")
plan.plot(*places[0], "ko", label="start")
plan.set(xlim=(6.5, 2.5), ylim=(-0.8, -3.5), xlabel="w", ylabel="b")  # turned as on the left
plan.set_title("The same from above: the darker, the higher")
plan.legend(loc="lower right")
plt.show()

# %% [markdown]
# Both walks begin at the same place, with the same learning rate, and cross the plain by the same steps. At the wall
# both overshoot to its top, where the slope is gentle again, and step back. At the next touch they land on
# its face. The one without a limit is thrown out of the picture and never returns: where it lands, all is flat. The
# other steps back a little, touches the wall again and again, and follows it into the valley. One line of code is the
# difference:

# %%
loss, gradient = loss_and_gradient(*places[leap])
step, norm = clipcore.clip_by_global_norm(gradient, 0.3)
print(f"On the wall:  gradient {gradient.round()}, its norm {norm:,.0f}")
print(f"Clipped:      gradient {step.round(3)}, its norm {clipcore.l2_norm(step):.3f}, the same direction")
for name, (_, heights, sizes) in ways.items():
    print(f"{name:12}  loss: lowest {heights.min():.5f}, last {heights[-1]:.5f}; last norm {sizes[-1]:.5f}")

same = np.count_nonzero(np.cumsum(norms > 0.3) == 0)  # steps over the plain
assert np.array_equal(places[: same + 1], ways["max_norm 0.3"][0][: same + 1])
top = int(losses[:leap].argmax())  # the first touch
assert losses[top] > losses[leap] > 2 * losses[top - 1]
assert norms[top] < 0.3
assert norms.max() > 1000
assert norms[-1] == 0  # thrown out, and stuck there
assert ways["max_norm 0.3"][1].min() < 0.01 < losses.min()

# %% [markdown]
# Such walls, and the clip by norm as the remedy, are from [Pascanu et al. 2013](https://arxiv.org/abs/1211.5063). A
# year before, Mikolov had cut gradients by value ([citations](../docs/citations.md)).
#
# ## Where the wall comes from
#
# The unit computes $h ← σ(w h + b)$, fifty times. By the chain rule, the gradient is a sum of products, with up to
# fifty factors $w·σ′$ in each. Along the wall the unit stays near ½ for long, where $σ′ = ¼$: all factors are then near
# $w/4$.

# %%
for w in (3, 4, 5, 6):
    print(f"w = {w}: {w / 4:.2f} ** 50 = {(w / 4) ** 50:.1e}")

# %% [markdown]
# From $w = 4$ on the wall gets steeper and steeper; below it fades away. Look at the picture again: so it does.
#
# In a network with many units the factors are matrices, the *Jacobians* of the steps. With the recurrent kernel $W$, a
# gradient that goes back $t$ steps is multiplied by $W$ (and by the slopes of the activation) $t$ times. Where the
# slopes are 1, what becomes of it in the long run is decided by the *spectral radius* of $W$, the largest magnitude of
# an eigenvalue:

# %% tags=["hide-input"]
rng = np.random.default_rng(3)
radii = {0.9: "#e69f00", 1.0: "#56b4e9", 1.1: "#cc79a7"}
random = rng.standard_normal((64, 64))
random /= abs(np.linalg.eigvals(random)).max()  # its spectral radius is 1
sequences = rng.uniform(size=(32, 101, 2))


def backwards(kernel):
    """Return the norms of an Elman layer's gradient by its inputs, from the last to the first, as multiples."""
    layer = Elman(2, 64, np.random.default_rng(0))
    layer.parameters["recurrent_kernel"] = kernel
    layer.forward(sequences)
    by_input = layer.backward(np.ones((32, 64)))  # (sequence, time, feature)
    norms = clipcore.l2_norm(by_input, axis=(0, 2))[::-1]
    return norms / norms[0]


growth, back = {}, {}
for radius in radii:
    powers = [np.linalg.matrix_power(radius * random, t) for t in range(101)]
    growth[radius] = np.array([np.linalg.norm(power, ord=2) for power in powers])
    back[radius] = backwards(radius * np.eye(64))
switched = backwards(1.1 * random)

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True)
for radius, colour in radii.items():
    left.plot(growth[radius], color=colour, linewidth=2)
    left.plot(radius ** np.arange(101.0), ":", color=colour)
    right.plot(back[radius], color=colour, linewidth=2, label=f"radius {radius} × identity")
right.plot(switched, "--", color=radii[1.1], label="random, radius 1.1")
left.set(yscale="log", ylim=(1e-6, 1e6), xlabel="t", ylabel="times the first")
left.set_title("A random 64 × 64 kernel: ‖Wᵗ‖ (dotted: radiusᵗ)")
right.set(xlabel="steps back", title="An Elman layer: its gradient by what it read")
right.legend(loc="upper left", fontsize=9)
plt.show()

for radius in radii:
    assert 0.1 < growth[radius][100] / radius**100 < 100
    assert 0.5 < back[radius][100] / radius**100 < 2
assert growth[0.9].max() > 1
assert switched[100] < 1e-6

# %% [markdown]
# Left, the norm of the powers of a matrix. It first grows by a bit, even at radius 0.9, for a norm sees more than
# eigenvalues; then the radius decides. Right, an Elman layer with ReLUs, $\max(0, x)$: how much its last output depends
# on what it read, step by step into the past. Its kernel is the radius times the identity, as at the start of the
# network below, and the radius is nearly all that matters. Not so with the random kernel (dashed): at each step it mixes
# all units, and those whose ReLU is off, with a slope of 0, stop their part of what comes back. What is multiplied by
# more than 1 at each step **explodes**, by less than 1 it **vanishes**, and the way between is narrow:

# %%
for radius in (0.99, 1.01, 1.1):
    print(f"{radius} ** 100 = {radius**100:.3g}")

# %% [markdown]
# Clipping is a remedy for the first only. It makes large gradients shorter, and never makes a small one longer.
#
# ## A network that adds
#
# `clipcore.demo` has small networks in NumPy, made to be read ([what clipping does](../docs/demo.md)). This one is an
# Elman network with 64 units. It reads fifty numbers, two of which are marked, and is to give the sum of those two: the
# *adding problem* of Hochreiter and Schmidhuber. It trains twice with Adam, from the same start.


# %%
def sums(count, rng, length=50):
    """Return sequences of (number, mark), and the sums of the two numbers that are marked."""
    numbers, marks = rng.uniform(size=(count, length)), np.zeros((count, length))
    rows, half = np.arange(count), length // 2
    first, second = rng.integers(half, size=count), rng.integers(half, length, size=count)
    marks[rows, first] = marks[rows, second] = 1
    return np.stack([numbers, marks], axis=2), (numbers[rows, first] + numbers[rows, second])[:, None]


rng = np.random.default_rng(0)
adding = Data("sums of two numbers of fifty", *sums(3200, rng), *sums(500, rng))
ask = {"optimizer": "adam", "learning_rate": 0.003, "epochs": 4, "seed": 2}
free = train(Options.of("rnn", clip="none", **ask), adding)
held = train(Options.of("rnn", clip="global", max_norm=0.1, **ask), adding)

for name, run in {"no clipping": free, "max_norm 0.1": held}.items():
    print(f"{name:12}  test error by epoch:", *(f"{epoch['test_error']:.3f}" for epoch in run.epochs))
print(f"Always guessing the mean gives a mean squared error of 1/6 = {1 / 6:.3f}.")

# %% tags=["hide-input"]
docs = next(folder for folder in (Path("../docs"), Path("..")) if (folder / "demo" / "runs.csv").exists())
table = (docs / "demo" / "runs.csv").read_text(encoding="utf-8").splitlines()
kept = [row for row in csv.DictReader(table) if row["table"] == "rnn"]

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.4))
left.plot([step.loss for step in free.history], color=WITHOUT, label="no clipping")
left.plot([step.loss for step in held.history], color=WITH, linewidth=1, label="max_norm 0.1")
left.axhline(1 / 6, color="black", linestyle=":", label="guessing")
left.set(yscale="log", xlabel="step", title="Loss")
left.legend()
middle.plot([step.norm_before for step in free.history], color=WITHOUT, label="no clipping")
middle.plot([step.norm_before for step in held.history], color=BEFORE, linewidth=1, label="before clipping")
middle.plot([step.norm_after for step in held.history], color=WITH, label="after clipping")
middle.set(yscale="log", xlabel="step", title="Norm of the gradients")
middle.legend()
for place, limit in enumerate(("", "0.1", "1.0")):
    for row in kept:
        if row["max_norm"] == limit:
            mark, height = ("x", 1.0) if row["diverged"] == "True" else ("o", float(row["test_error"]))
            shift = 0.1 * (int(row["seed"]) - 2)
            right.plot(place + shift, height, mark, color=WITH if limit else WITHOUT)
right.axhline(1 / 6, color="black", linestyle=":")
right.axhspan(0.6, 2, color="#eeeeee")  # above the axis: no values here
right.text(1.5, 1.0, "diverged", ha="center", va="center")
right.text(1.5, 0.18, "guessing", ha="center", va="bottom")
right.set(yscale="log", ylim=(2e-3, 2), yticks=(0.01, 0.1), xticks=range(3), xlim=(-0.5, 2.5))
right.set_xticklabels(("no\nclipping", "max_norm\n0.1", "max_norm\n1"))
right.minorticks_off()
right.set(title="Test error, full size, five seeds")
plt.show()

# %%
best_held, best_free = (min(epoch["test_error"] for epoch in run.epochs) for run in (held, free))
assert best_held < 0.1 < best_free
assert all(step.clipped for step in held.history)
assert all(float(row["test_error"]) < 0.05 for row in kept if row["max_norm"])
assert all(float(row["test_error"]) > 0.1 for row in kept if not row["max_norm"])

# %% [markdown]
# The picture on the right is not computed here. It shows runs that were kept in a file: a hundred numbers, four times
# the data, twice the epochs, a third of the learning rate ([how they were made](../docs/demo.md)). Clipped, all learn
# to add; unclipped, none does.
#
# But does [Adam](https://arxiv.org/abs/1412.6980) not divide each gradient by its size? It does: by the root of a
# running mean of squares. So both runs begin alike, and both are over the cliff after the first step. What differs is
# what is remembered. At each step a thousandth of that mean is forgotten, and a thousandth is new (early in training
# more). So one gradient that is a thousand times too large enters it as a thousand usual squares, stays for long, and
# makes all steps too short:

# %%
beta2 = 0.999  # Adam's usual
enters = (1 - beta2) * 1000**2  # in usual squares
for later in (0, 1000, 2000, 4000, 7000):
    print(f"{later:4} steps later: steps are {math.sqrt(1 + enters * beta2**later):4.1f} times too short")
lasts = math.log(enters) / -math.log(beta2)
print(f"For {lasts:,.0f} steps it outweighs all the others together.")
assert math.isclose(enters * beta2**lasts, 1)

# %% [markdown]
# Here is the norm that Adam remembers at the end of each run, next to the norm of a usual gradient:


# %%
def remembered(norms):
    """Return the norm that belongs to Adam's mean of squares: recent ones count more."""
    return np.sqrt(np.average(np.square(norms), weights=beta2 ** np.arange(len(norms))[::-1]))


ratio = {}
for name, run in {"no clipping": free, "max_norm 0.1": held}.items():
    norms = np.array([step.norm_after for step in run.history])
    usual = np.median(norms[-50:])
    ratio[name] = remembered(norms) / usual
    print(f"{name:12}  remembered {remembered(norms):8.3g}, usual {usual:4.3g}: {ratio[name]:.3g} times")
assert ratio["no clipping"] > 20
assert ratio["max_norm 0.1"] < 1.5

# %% [markdown]
# Plain gradient descent remembers nothing and divides by nothing. Its first step is as long as the gradient is large:

# %%
plain = train(Options.of("rnn", clip="none", optimizer="sgd", learning_rate=0.01, epochs=1), adding)
print(f"Steps taken: {len(plain.history)}. Then {plain.diverged}.")
assert plain.diverged
assert len(plain.history) < 10

# %% [markdown]
# ## Digits, and a learning rate far too large
#
# Not only recurrent networks explode. A network with two hidden layers learns handwritten digits by plain gradient
# descent, at a learning rate of 4. A step that is too long leads to where gradients are larger, and the next step is
# longer.

# %%
digits = load_data("mlp")
ask = {"optimizer": "sgd", "learning_rate": 4.0, "epochs": 8}
free = train(Options.of("mlp", clip="none", **ask), digits)
held = train(Options.of("mlp", clip="global", max_norm=0.1, **ask), digits)

reached = held.scores()["test_accuracy"]
print(f"no clipping:  after {len(free.history)} steps {free.diverged}")
print(f"max_norm 0.1: test accuracy {reached:.3f}, {held.share_clipped:.0%} of the steps clipped")
assert free.diverged
assert not held.diverged
assert reached > 0.9
half = len(held.history) // 2
assert sum(step.clipped for step in held.history[:half]) > sum(step.clipped for step in held.history[half:])

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4))
left.plot([step.loss for step in held.history], color=WITH, linewidth=1, label="max_norm 0.1")
left.plot([step.loss for step in free.history], color=WITHOUT, linewidth=3, marker="o", label="no clipping")
left.set(yscale="log", xlabel="step", title="Loss")
left.legend()
right.plot([step.norm_before for step in held.history], color=BEFORE, linewidth=1, label="before clipping")
right.plot([step.norm_after for step in held.history], color=WITH, label="after clipping")
right.plot([step.norm_before for step in free.history], color=WITHOUT, linewidth=3, marker="o")
right.axhline(0.1, color=LIMIT, linestyle="--", label="limit")
right.set(yscale="log", xlabel="step", title="Norm of the gradients")
right.legend()
plt.show()

# %% [markdown]
# Blue lies on the limit while the network is young, and leaves it as gradients shrink: clipping acts where it is
# needed, and then has less and less to do.
#
# ## Not the same as a smaller learning rate
#
# A smaller learning rate would have worked for the digits. What does the limit add? Here are 25 short trainings, each
# square with its accuracy:

# %% tags=["hide-input"]
rates, limits = (0.01, 0.1, 1.0, 10.0, 100.0), (math.inf, 1.0, 0.1, 0.01, 0.001)
accuracy, share = np.zeros((5, 5)), np.zeros((5, 5))
for i, limit in enumerate(limits):
    for j, rate in enumerate(rates):
        clip = {"clip": "none"} if limit == math.inf else {"clip": "global", "max_norm": limit}
        run = train(Options.of("mlp", optimizer="sgd", learning_rate=rate, epochs=3, **clip), digits)
        accuracy[i, j] = math.nan if run.diverged else run.scores()["test_accuracy"]
        share[i, j] = run.share_clipped

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True)
for axes, numbers, title in ((left, accuracy, "Test accuracy"), (right, share, "Share of steps clipped")):
    axes.imshow(numbers, cmap="Blues", vmin=0, vmax=1.1, aspect="auto")
    axes.set(xticks=range(5), xticklabels=[f"{rate:g}" for rate in rates])
    axes.set(xlabel="learning rate", title=title)
    axes.set(yticks=range(5), yticklabels=["no limit", *(f"{limit:g}" for limit in limits[1:])])
    for (i, j), number in np.ndenumerate(numbers):
        word = "diverged" if np.isnan(accuracy[i, j]) and axes is left else f"{number:.2f}"
        axes.text(j, i, word, ha="center", va="center", color="white" if number > 0.6 else "black")
left.set(ylabel="max_norm")
plt.show()

# %%
assert np.isnan(accuracy[0, 3:]).all()  # no limit, large rates
assert accuracy[3, 3] > 0.8  # the same rate under a limit
assert (share[2:] == 1).all()
assert ((share[1, 1:] > 0) & (share[1, 1:] < 1)).all()
assert np.ptp(accuracy[[2, 3, 4], [1, 2, 3]]) < 0.05  # a diagonal on which all steps are clipped

# %% [markdown]
# - Top row: the learning rate alone decides, and a large one fails.
# - Bottom rows: all steps are clipped, and only the *product* of limit and rate counts. Accuracies are nearly the same
#   along the diagonals. Where the product is too large, no limit helps.
# - Second row, from rate 0.1 on: some steps are clipped. Here the two are different things. A smaller rate makes *every*
#   step shorter; a limit shortens the steps that stand out, and leaves the others as they are.
#
# So a rate may suit the plain while a limit guards the wall. Fifty walks in the first picture, from starts nearby, at
# two learning rates. With the smaller they may take more steps. Where are they at the end?

# %%
starts = np.array([[6.0], [-1.5]]) + np.random.default_rng(1).uniform(-0.25, 0.25, (2, 50))
for rate in (1.0, 0.5):
    for max_norm in (math.inf, 0.3):
        walks, heights, _ = descend(max_norm, rate, steps=int(150 / rate), start=starts)
        w, b = walks[-1]
        lost = np.count_nonzero((w < 2.5) | (w > 6.5) | (b < -3.5) | (b > -0.8))
        arrived = np.count_nonzero(heights[-1] < 0.02)
        print(f"rate {rate:<4}  max_norm {max_norm:3}  in the valley {arrived}, out of the picture {lost}")
        assert arrived >= 45 and lost == 0 if max_norm == 0.3 else arrived <= 40 and lost >= 10

# %% [markdown]
# A smaller rate does not make the wall less steep: the walks come to it later, and many are thrown out all the same.
# With the limit they arrive. Why a limit can make descent faster is worked out in
# [Zhang et al. 2020](https://arxiv.org/abs/1905.11881).
#
# ## Measure, then choose
#
# Which limit? Look at the norms of a run that goes well. `clip_by_global_norm` returns the norm it has measured
# ([log norms](../docs/how_to/log_norms.md)), and under an infinite limit it changes nothing:

# %%
tree = {"kernel": np.array([3.0, -4.0]), "bias": np.array([12.0])}
same, norm = clipcore.clip_by_global_norm(tree, math.inf)
print(norm, same)

# %% [markdown]
# The demo logs it for every step. A high quantile of such a log is a first limit:

# %%
ask = {"optimizer": "momentum", "learning_rate": 0.1, "epochs": 5}
watched = train(Options.of("mlp", clip="none", **ask), digits)
norms = np.array([step.norm_before for step in watched.history])
quantiles = {"median": 0.5, "quantile 0.9": 0.9, "quantile 0.99": 0.99}
limits = {name: float(np.quantile(norms, q)) for name, q in quantiles.items()} | {"far too small": 0.001}

shares, reached = {}, {}
for name, limit in {"no clipping": math.inf, **limits}.items():
    clip = {"clip": "none"} if limit == math.inf else {"clip": "global", "max_norm": limit}
    runs = [train(Options.of("mlp", seed=seed, **clip, **ask), digits) for seed in range(5)]
    shares[name], reached[name] = runs[0].share_clipped, sorted(run.scores()["test_accuracy"] for run in runs)
    least, _, middle, _, most = reached[name]
    print(f"{name:13}  limit {limit:<6.3g} clipped {shares[name]:4.0%}", end="  ")
    print(f"test accuracy of five seeds {least:.3f} to {most:.3f}, median {middle:.3f}")
few = len(norms) // 10
for name in ("quantile 0.9", "quantile 0.99"):
    above = norms > limits[name]
    print(f"above {name:13}: {above.sum():2} steps, {above[:few].sum()} of them among the first {few}")

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4))
left.plot(norms, ".", color=BEFORE)
tints = dict(zip(limits, ("#e69f00", LIMIT, "#56b4e9", "#009e73"), strict=True))
above = 1 - np.arange(1, len(norms) + 1) / len(norms)
right.plot(np.sort(norms), above, color=BEFORE, label="above it in the log")
for name, limit in limits.items():
    left.axhline(limit, color=tints[name], linestyle="--", label=name)
    right.plot(limit, shares[name], "o", color=tints[name], markersize=8)
right.plot([], [], "ko", markersize=8, label="clipped in a run with it")
left.set(yscale="log", xlabel="step", title="A log of norms, and four limits")
left.legend(fontsize=8, loc="center left")
right.set(xscale="log", xlabel="limit", ylabel="share of the steps", title="How many steps a limit clips")
right.legend(loc="lower left")
plt.show()

# %%
learn = [name for name in reached if name != "far too small"]
medians = [reached[name][2] for name in learn]
assert min(min(reached[name]) for name in learn) > 0.9 > 0.5 > max(reached["far too small"])
assert max(medians) - min(medians) < max(reached[name][-1] - reached[name][0] for name in learn)
assert np.median(norms[-22:]) < np.median(norms[:22])  # the last epoch, the first
assert np.count_nonzero(norms[:few] > limits["quantile 0.9"]) >= 3  # by chance there would be one
assert shares["far too small"] == 1

# %% [markdown]
# No clipping and the three larger limits do about equally well: between their medians lies less than between the best
# and the worst seed. What differs is which steps they clip. Most norms shrink as the network learns, so that the steps
# above quantile 0.9 crowd at the beginning; those above quantile 0.99 are the few that stand out at any time. The log
# is only a first answer. Clipping changes where training goes, and with it the norms that come after, so the dots are
# not on the curve.
#
# Watch the share of clipped steps. Where all are clipped from beginning to end, the limit no longer picks out what is
# rare: under plain gradient descent it has become a learning rate (below); under Adam it makes all gradients count alike
# (exercise 4), as in the network that adds. [Choose a threshold](../docs/how_to/choose_a_threshold.md) has a table of
# what to do.
#
# ## What it costs
#
# **A limit below all norms is a learning rate.** Every step of plain gradient descent has the same length then,
# whatever the gradient said of how far to go:

# %%
gradient = np.random.default_rng(0).standard_normal(5)
for size in (1, 100, 10_000):
    clipped = clipcore.clip_by_l2_norm(size * gradient, 0.001)
    print(f"{size:6} × gradient →", clipped)
    assert np.allclose(clipped, 0.001 * gradient / clipcore.l2_norm(gradient))

# %% [markdown]
# **Clipping has an opinion on what is rare.** The mean of clipped gradients is not the clipped mean. Nine batches say
# "down a little", the tenth says "up, by far":

# %%
gradients = np.array([-1.0] * 9 + [20.0])
clipped = clipcore.clip_by_l2_norm(gradients[:, None], 1.0, axis=1)
print(f"mean of the gradients {gradients.mean():+.2f}, mean of the clipped ones {clipped.mean():+.2f}")
assert gradients.mean() > 0 > clipped.mean()

# %% [markdown]
# If the tenth is an accident, that is what you want. If it is the rare batch that matters, it is not. A limit that acts
# on few steps keeps the difference small.
#
# ## Exercises
#
# **1.** How long was the leap in the first picture, and why does that walk never come back?

# %% tags=["hide-cell"]
places, losses, norms = ways["no limit"]
length = clipcore.l2_norm(places[leap + 1] - places[leap])
print(f"{length:,.1f} long: the norm of the gradient, {norms[leap]:,.1f}, times the learning rate of 1.")
h = (1 + np.tanh((places[-1][0] * 0.5 + places[-1][1]) / 2)) / 2
print(f"There the unit gives {h}, and σ′ = h(1 − h) = {h * (1 - h)}: the gradient is zero, to the last bit.")
assert math.isclose(length, norms[leap])

# %% [markdown]
# **2.** A gradient that goes back a hundred steps is to grow a thousandfold at most. How large may the spectral radius
# be?

# %% tags=["hide-cell"]
radius = 1000 ** (1 / 100)
print(f"The hundredth root of 1000: {radius:.4f}. (And a bit less, for norms grow more at first.)")
assert math.isclose(radius**100, 1000)

# %% [markdown]
# **3.** A colleague sums the loss over a batch of 64 where you take the mean. You clip to 1. Which limit and which
# learning rate give your colleague the same training as yours? Is it the same to the last bit?

# %% tags=["hide-cell"]
mine = {"kernel": np.random.default_rng(5).standard_normal((8, 8)), "bias": np.ones(8)}
theirs = {name: 64 * leaf for name, leaf in mine.items()}
clipped, _ = clipcore.clip_by_global_norm(mine, 1.0)
clipped_theirs, _ = clipcore.clip_by_global_norm(theirs, 64.0)
print("A limit 64 times larger and a learning rate 64 times smaller: the factor of the clip stays the same.")
print("To the last bit, too: 64 is a power of two, so that multiplying by it rounds nothing,")
print("and that a clip then gives 64 times the same bits is one of the laws of clipcore (scale).")
for name in mine:
    assert np.array_equal(64 * clipped[name], clipped_theirs[name])

# %% [markdown]
# **4.** In the adding run every step was clipped. Would Adam have gone elsewhere with a quarter of the limit?

# %% tags=["hide-cell"]
rng = np.random.default_rng(4)
large, small = Adam(0.001), Adam(0.001)
for _ in range(100):
    gradient = rng.standard_normal(50)
    far = large.directions(clipcore.clip_by_l2_norm(gradient, 0.1))
    near = small.directions(clipcore.clip_by_l2_norm(gradient, 0.025))
difference = clipcore.l2_norm(far[0] - near[0]) / clipcore.l2_norm(far[0])
print(f"Hardly: the directions differ by {difference:.1e} of their length, and that is Adam's ε.")
print("Adam divides by the size of what it gets, so a limit that clips all steps cancels out.")
print("What remains is that all gradients count alike in Adam's mean of squares, and none can spoil it.")
assert difference < 1e-3

# %% [markdown]
# **5.** Learn one number $w$ from examples $x$, with the loss $½(w - x)^2$ and the gradient of each example clipped.
# Without a limit $w$ becomes the mean of the examples. What does it become under a tiny limit?

# %% tags=["hide-cell"]
x = np.random.default_rng(6).exponential(size=1001)  # mostly small, now and then large
found = {}
for limit in (math.inf, 1.0, 0.01):
    w, rate = 0.0, 0.5 / min(1, limit)
    for _ in range(200):
        w -= rate * clipcore.clip_by_l2_norm((w - x)[:, None], limit, axis=1).mean()
    found[limit] = w
    print(f"limit {limit:<4}  w = {w:.3f}")
print(f"The mean is {x.mean():.3f}, the median {np.median(x):.3f}. Under a tiny limit every example pulls")
print("equally hard, and w rests where as many are above as below.")
print("(Statisticians know what lies between: it is Huber's estimator.)")
assert math.isclose(found[math.inf], x.mean())
assert abs(found[0.01] - np.median(x)) < 0.02
assert np.median(x) < found[1.0] < x.mean()
