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
# # 4 · Clipping weights
#
# The other clips limit a step. This one forbids places: after every step each weight is put back into a range. One
# method lives by it, the Wasserstein GAN. A *generator* makes points out of noise and should learn to make them where
# the data are; a second network, the *critic*, shows it the way. Here the critic's kernels (the matrices of its layers,
# not the biases) were kept in three ranges, all else is the same:

# %% tags=["hide-input"]
import csv
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

import clipcore
from clipcore.demo.data import load_data
from clipcore.demo.optimizers import SGD
from clipcore.demo.options import Options
from clipcore.demo.running import train
from clipcore.demo.training import mlp
from clipcore.demo.wgan import modes_found, sliced_distance

BEFORE, AFTER, LIMIT = "#999999", "#0072b2", "#d55e00"
plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})
threadpool_limits(1)  # matrices this small need no more than one thread


def is_kernel(path, _):
    return path[-1] == "kernel"


def clip(network, limit):
    clipcore.clip_weights(network.parameters, -limit, limit, where=is_kernel, out=network.parameters)


def wgan(data, limit, rounds=400, batch=64, rate=0.2):
    """Train both networks in turn; the learning rate falls to zero."""
    rng = np.random.default_rng(0)
    critic, generator = mlp([2, 32, 32, 1], rng), mlp([2, 32, 32, 2], rng)
    lower_made_raise_real = np.repeat([-1 / batch, 1 / batch], batch)[:, None]
    raise_made = np.full((batch, 1), -1 / batch)
    clip(critic, limit)
    for round_ in range(rounds):
        optimizer = SGD(rate * (1 - round_ / rounds))
        for _ in range(5):  # the critic's steps, each with a clip
            real = data[rng.integers(len(data), size=batch)]
            critic.forward(np.concatenate([real, generator.forward(rng.normal(size=(batch, 2)))]))
            critic.backward(lower_made_raise_real)
            optimizer.step(critic.parameters, critic.gradients)
            clip(critic, limit)
        critic.forward(generator.forward(rng.normal(size=(batch, 2))))  # the generator's step
        generator.backward(critic.backward(raise_made))
        optimizer.step(generator.parameters, generator.gradients)
    return critic, generator


ring = load_data("wgan")  # eight Gaussians on a circle
with np.errstate(all="ignore"):  # what goes wrong is what is shown
    trained = {limit: wgan(ring.x, limit) for limit in (0.03, 0.25, 0.5)}
    noise = np.random.default_rng(0).normal(size=(2000, 2))
    made = {limit: generator.forward(noise) for limit, (_, generator) in trained.items()}
    distance = {limit: sliced_distance(points, ring.x_test) for limit, points in made.items()}

side = np.linspace(-1.6, 1.6, 80)
grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
marks = {limit: critic.forward(grid).reshape(80, 80) for limit, (critic, _) in trained.items()}
marks = {limit: mark - mark.mean() for limit, mark in marks.items()}
levels = np.linspace(-1, 1, 13) * np.abs(marks[0.25]).max()  # one scale of grey for all three

figure, row = plt.subplots(1, 3, figsize=(10, 3.9))
for axes, limit, size in zip(row, made, ("too small", "fits", "too large"), strict=True):
    axes.contourf(side, side, marks[limit], levels=levels, cmap="Greys", alpha=0.6, extend="both")
    axes.scatter(*ring.x_test[:800].T, s=3, color="#e69f00", label="data")
    axes.scatter(*made[limit][:800].T, s=3, color=AFTER, label="made by the generator")
    within = (np.abs(made[limit]) < 1.6).all(axis=1)
    if within.mean() < 0.5 or made[limit].std(axis=0).max() < 0.05:
        note = (
            "all are in one place"
            if within.all()
            else f"{within.mean():.0%} of the points\nare in this picture"
        )
        axes.text(0, 0, note, ha="center", va="center", color=AFTER, backgroundcolor="white")
    title = f"range ±{limit}, {size}:\n{modes_found(made[limit])[0]} of 8 clusters found"
    axes.set(aspect="equal", xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), xticks=[], yticks=[], title=title)
row[0].legend(loc="upper left", fontsize=8, markerscale=3)
plt.show()

# %%
for limit, far in distance.items():
    print(f"range ±{limit}: made points and data are {far:.3f} apart")
assert distance[0.25] < 0.5 * min(distance[0.03], distance[0.5])

# %% [markdown]
# The grey behind the points is the critic seen from above, as a landscape: dark is high, and the generator moves its
# points uphill. (A cluster counts as found where at least 1/16 of the points, half of its fair share, lie within three
# deviations of its centre.) Under the small range the land is flat, and there is nowhere to go. Under the large one,
# twice the one that fits, it is so steep that it leaves the scale of grey, and the points are thrown off. Why so small
# a difference matters so much, and where a range for the weights helps and where it does not, is what follows.
#
# ## One function, one line
#
# `clip_weights` takes the weights as a *tree*: arrays in dicts or lists, nested as you like. The arrays are its
# *leaves*. Every number of every leaf is cut to the range:

# %%
critic = {
    "dense": {"kernel": np.array([[0.5, -0.02], [-3.0, 0.1]]), "bias": np.array([2.0, 0.0])},
    "norm": {"scale": np.array([1.0, 1.0])},
}
print(clipcore.clip_weights(critic, -0.1, 0.1))

# %% [markdown]
# `where=`, called as `where(path, leaf)`, picks leaves; the others are copied as they are. `out=` writes into arrays
# that are there already: given the tree itself, the network is clipped in place.

# %%
same = clipcore.clip_weights(critic, -0.1, 0.1, where=lambda path, _: path[-1] == "kernel", out=critic)
assert same is critic
print(critic)

# %% [markdown]
# A bound of `None` is no bound: `clip_weights(tree, 0, None)` keeps weights from becoming negative. And the range
# holds *as given*. In float32 there is no 0.1. The nearest one lies above, so the weight becomes the one below:

# %%
weight = clipcore.clip_weights({"kernel": np.array([3.0], np.float32)}, -0.1, 0.1)["kernel"]
print(f"float32(0.1) is {np.float32(0.1):.10f}, the clipped weight {weight[0]:.10f}")
assert float(weight[0]) <= 0.1 < float(np.float32(0.1))

# %% [markdown]
# ## A bounded weight bounds the slope
#
# What is a range good for? Take a critic of one input, so that it can be drawn: three kernels, with ReLUs between
# them, $\max(0, x)$ for each number $x$. How steep can it be? A kernel stretches distances by at most its norm (`ord` 2
# of a matrix, its largest singular value), a ReLU stretches nothing, a bias only shifts. So no slope is above the
# product of the kernels' norms. And a kernel of $n × m$ numbers within $±c$ has a norm of at most $c\sqrt{nm}$:
#
# $$\text{slope} \;≤\; ‖K_1‖ · ‖K_2‖ · ‖K_3‖ \;≤\; c^3 · \sqrt{1·32} · \sqrt{32·32} · \sqrt{32·1} \;=\; 1024\,c^3.$$
#
# A function whose slope is at most $L$ everywhere is called *$L$-Lipschitz*. A range for the kernels makes the critic
# one.


# %%
def random_critic(limit):
    rng = np.random.default_rng(0)
    network = mlp([1, 32, 32, 1], rng)
    for layer in network.parameters.values():
        layer["kernel"] *= 10  # large weights, so that every range has something to clip
        layer["bias"][:] = rng.normal(size=layer["bias"].shape)  # so that it bends in many places
    clipcore.clip_weights(network.parameters, -limit, limit, where=is_kernel, out=network.parameters)
    return network


def kernels(network):
    return [layer["kernel"] for layer in network.parameters.values()]


def product_of_norms(network):
    return np.prod([np.linalg.norm(kernel, 2) for kernel in kernels(network)])


x = np.linspace(-3, 3, 600)[:, None]
limits = 2.0 ** np.arange(-6, 1)
steepest, product = [], []
for limit in limits:
    network = random_critic(limit)
    network.forward(x)
    steepest.append(np.abs(network.backward(np.ones_like(x))).max())  # the derivative by the input
    product.append(product_of_norms(network))

assert all(steepest <= np.array(product) * (1 + 1e-9))  # a hair for the rounding of the products
assert all(product <= 1024 * limits**3 * (1 + 1e-9))

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
for limit, colour in zip((0.125, 0.25, 0.5), ("#56b4e9", AFTER, "#cc79a7"), strict=True):
    mark = random_critic(limit).forward(x)
    left.plot(x, mark - mark[len(x) // 2], color=colour, linewidth=2, label=f"range ±{limit}")
left.set(title="The same network, clipped to three ranges", xlabel="input", ylabel="mark (0 in the middle)")
left.legend()
right.loglog(limits, 1024 * limits**3, color=LIMIT, label="what the range allows, 1024 c³")
right.loglog(limits, product, "s-", color="#e69f00", markersize=4, label="product of the kernels' norms")
right.loglog(limits, steepest, "o-", color=AFTER, markersize=4, label="largest slope that is there")
right.set(title="The range bounds the slope", xlabel="range c", ylabel="slope", ylim=(None, 1e5))
right.legend(loc="upper left", fontsize=9)
plt.show()

# %% [markdown]
# Note the third power. With $k$ kernels it is $c^k$: twice the range allows $2^k$ times the slope, here $2^3 = 8$. So
# in the first picture the range that fits and the one that is too large are not far apart.
#
# ## What the WGAN needs it for
#
# How far are the made points from the data? Think of two heaps of sand: the *Wasserstein distance* is how far a grain
# has to travel, in the mean, where all of them travel as little as possible. On a line that is easy. The leftmost
# grain goes to the leftmost place, and so on: sort both, and take the differences.

# %%
rng = np.random.default_rng(0)
real = np.concatenate([rng.normal(-1.5, 0.3, 100), rng.normal(2.0, 0.3, 100)])
fake = rng.normal(0.0, 0.5, 200)
exact = np.abs(np.sort(real) - np.sort(fake)).mean()
print(f"exact distance: {exact:.4f}")

# %% [markdown]
# In the plane, or among images, nothing can be sorted. But the distance is also another thing (the duality of
# Kantorovich and Rubinstein): the most by which *any* function of slope at most 1 marks the real points higher than
# the fake ones, in the mean. On a line that best function is known: it climbs with slope 1 where more of the fake
# than of the real points lie to the left, and falls where fewer do. (What was printed under the first picture is a
# substitute: the distance along a line, in the mean over 64 directions.)

# %%
points = np.sort(np.concatenate([real, fake]))
fake_to_the_left, real_to_the_left = (
    np.searchsorted(np.sort(sample), points[:-1], side="right") for sample in (fake, real)
)
slopes = np.sign(fake_to_the_left - real_to_the_left)
best = np.concatenate([[0.0], np.cumsum(slopes * np.diff(points))])
by_marks = np.interp(real, points, best).mean() - np.interp(fake, points, best).mean()
print(f"by the best marks: {by_marks:.4f}")
assert np.isclose(by_marks, exact)

# %% [markdown]
# So a network can look for it: raise the marks of the real, lower those of the fake, and never be too steep. The last
# part is the clip ([Arjovsky et al. 2017](https://arxiv.org/abs/1701.07875)). The whole loop of a critic:


# %%
def learn(real, fake, limit, steps=600, rate=0.3, seed=1):
    critic, optimizer, count = mlp([1, 32, 32, 1], np.random.default_rng(seed)), SGD(rate), len(real)
    clipcore.clip_weights(critic.parameters, -limit, limit, where=is_kernel, out=critic.parameters)
    both = np.concatenate([real, fake])[:, None]
    direction = np.repeat([-1 / count, 1 / count], count)[:, None]
    estimates = []
    for _ in range(steps):
        marks = critic.forward(both)
        estimates.append(marks[:count].mean() - marks[count:].mean())
        if estimates[-1] > 1e9:  # lost
            break
        critic.backward(direction)
        optimizer.step(critic.parameters, critic.gradients)
        clipcore.clip_weights(critic.parameters, -limit, limit, where=is_kernel, out=critic.parameters)
    return critic, estimates


critics = {limit: learn(real, fake, limit) for limit in (0.05, 0.1, 0.2, np.inf)}
for limit, (critic, _) in critics.items():
    marks = critic.forward(points[:, None])[:, 0]
    slope = np.abs(np.diff(marks) / np.diff(points)).max()
    estimate = np.interp(real, points, marks).mean() - np.interp(fake, points, marks).mean()
    assert estimate / slope <= exact * (1 + 1e-9)  # no function of slope 1 does better than the best one
    assert slope <= 1024 * limit**3 * (1 + 1e-9)
    assert 0.5 * exact < estimate / slope < 0.95 * exact or limit == np.inf
    print(
        f"range ±{limit:<4} estimate {estimate:8.2g}  largest slope {slope:8.2g}  "
        f"estimate / slope {estimate / slope:.2f}  exact {exact:.2f}"
    )

assert critics[np.inf][1][-1] > 1e9  # without a range it was lost
for limit in (0.05, 0.1, 0.2):
    assert critics[limit][1][-1] < 1.05 * critics[limit][1][300]  # from there on it hardly grows

# %% tags=["hide-input"]
colours = {0.05: "#56b4e9", 0.1: AFTER, 0.2: "#cc79a7", np.inf: BEFORE}
names = {limit: "no range" if limit == np.inf else f"range ±{limit}" for limit in critics}
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.6))
beside = left.twinx()
beside.hist(real, bins=30, color="#e69f00", alpha=0.35, label="real")
beside.hist(fake, bins=30, color="#009e73", alpha=0.35, label="fake")
beside.set(yticks=[], ylim=(0, 70))
beside.legend(loc="lower right", fontsize=9)
left.plot(points, best - best.mean(), color="black", linestyle="--", label="best")
for limit in (0.05, 0.1, 0.2):
    marks = critics[limit][0].forward(points[:, None])[:, 0]
    marks = marks / np.abs(np.diff(marks) / np.diff(points)).max()
    left.plot(points, marks - marks.mean(), color=colours[limit], label=names[limit])
left.set(title="Marks over their largest slope", xlabel="point", ylabel="mark", ylim=(-3.2, 3.2))
left.set_zorder(1)
left.patch.set_visible(False)
left.legend(loc="upper center", fontsize=9, ncols=2)
for limit, (_, estimates) in critics.items():
    middle.plot(np.maximum(estimates, 1e-5), color=colours[limit], label=names[limit], linewidth=2)
middle.axhline(exact, color="black", linestyle="--", label="exact distance")
middle.set(title="The estimate while it learns", xlabel="step", ylabel="estimate")
middle.set(yscale="log", ylim=(1e-3, 1e3))
middle.legend(fontsize=9)
weights = np.concatenate([kernel.ravel() for kernel in kernels(critics[0.1][0])])
right.hist(weights, bins=np.linspace(-0.1, 0.1, 41), color=AFTER)
for end in (-0.1, 0.1):
    right.axvline(end, color=LIMIT, linestyle="--")
right.set(title="Its weights, range ±0.1", xlabel="weight", ylabel="how many", xlim=(-0.12, 0.12))
plt.show()

# %% [markdown]
# With a range, the estimate levels off, and it can never pass $1024\,c^3$ times the distance. It is not the distance
# but the distance times a factor, somewhat less than the critic's largest slope. Nobody knows that factor, but the
# range keeps it bounded, and to follow slopes a generator needs no more. Without a range the marks grow for ever: the
# estimate tells the size of the critic's weights, not of a distance.
#
# A Wasserstein GAN is this loop and one step more. After every few steps of the critic, each with its clip, the
# generator makes one step uphill; its own weights are free. Its gradients come through the critic: one that is flat
# gives it none, one that is too steep throws it off. That is the first picture.
#
# ## Weights pile up at the ends
#
# The right panel above: to be as steep as it may, the critic pushes its weights to the two ends of their range
# ([Gulrajani et al. 2017](https://arxiv.org/abs/1704.00028)). There most of them can say only plus or minus, so that
# such a critic draws simple functions. These are the shares of the weights that lie exactly at an end:


# %%
def share_at_an_end(network, limit):
    weights = np.concatenate([kernel.ravel() for kernel in kernels(network)])
    return np.mean(np.abs(weights) == limit)


for limit in (0.05, 0.1, 0.2):
    share = share_at_an_end(critics[limit][0], limit)
    print(f"on the line, range ±{limit:<4}: {share:.0%}")
    assert share > 0.4
for limit in trained:
    print(f"on the ring, range ±{limit:<4}: {share_at_an_end(trained[limit][0], limit):.0%}")
assert share_at_an_end(trained[0.25][0], 0.25) < 0.3

# %% [markdown]
# On the ring, in the range that works, it is far less. There the generator moves too, and what the critic pushed up
# it soon has to push down again.
#
# ## Which range
#
# The ring again, in runs of `clipcore train wgan` that were made once and are kept in a file: larger networks, more
# steps, five seeds for every range, with plain gradient descent (SGD) and with Adam. On the right is the norm of the
# gradients that reach the generator, up to where a run diverged.

# %% tags=["hide-input"]
places = (Path("../docs/demo/runs.csv"), Path("../demo/runs.csv"))  # from this file, and from the built page
with next(path for path in places if path.exists()).open(encoding="utf-8", newline="") as stream:
    runs = list(csv.DictReader(stream))


def column(name, **wanted):
    """Return one column of the runs of which all of this is true, as numbers."""
    return [float(run[name]) for run in runs if all(run[key] == value for key, value in wanted.items())]


NONE = 10.0  # where runs without a range are drawn
ways = {
    "SGD": ({"table": "wgan", "normalization": "none"}, LIMIT, 0.97, "o"),
    "Adam": ({"table": "adam"}, AFTER, 1.03, "s"),
}
found, norms = {}, {}
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
for name, (wanted, colour, aside, marker) in ways.items():
    ranges = sorted({run["range"] for run in runs if all(run[key] == value for key, value in wanted.items())})
    ranges = [*(end for end in ranges if end), *(end for end in ranges if not end)]  # none is last
    where = np.array([float(end or NONE) for end in ranges])
    for axes, measure, kept in ((left, "modes", found), (right, "median_generator_norm", norms)):
        values = [column(measure, range=end, **wanted) for end in ranges]
        kept[name] = {end: median(seeds) for end, seeds in zip(ranges, values, strict=True)}
        label = f"{name}, median of five"
        axes.plot(where * aside, kept[name].values(), color=colour, linewidth=2, label=label)
        for place, seeds in zip(where * aside, values, strict=True):
            axes.scatter([place] * 5, seeds, color=colour, marker=marker, s=18, alpha=0.6)
for axes in (left, right):
    axes.set(xscale="log", xlabel="range ±", xlim=(0.007, 14))
    axes.set_xticks([0.01, 0.03, 0.1, 0.3, 1, 3, NONE], ["0.01", "0.03", "0.1", "0.3", "1", "3", "none"])
    axes.minorticks_off()
left.set(title="Clusters found, of eight", ylabel="clusters")
left.legend(loc="center right", fontsize=9)
right.set(title="What reaches the generator", ylabel="norm of its gradients", yscale="log")
plt.show()

# %%
assert found["SGD"]["0.1"] == found["SGD"]["0.2"] == 8
assert max(found["SGD"][end] for end in ("0.03", "1.0", "")) <= 1  # too small, too large, none
steps_up = [norms["SGD"][end] for end in ("0.03", "0.1", "0.2", "0.3", "1.0")]
assert steps_up == sorted(steps_up)  # the larger the range, the larger what reaches the generator
assert found["Adam"]["0.01"] <= 1
assert min(found["Adam"][end] for end in ("0.1", "0.3", "1.0", "3.0")) == 8
assert norms["Adam"]["3.0"] > 1000 * norms["Adam"]["0.01"]

# %% [markdown]
# With SGD the range that works is narrow. With Adam all but the smallest do: it divides every gradient by its own
# size, so that a critic a thousand times too steep makes steps of about the same length. That hides what the range
# does. (SGD was not given the smallest range, and Adam not the case without one.)
#
# The authors of the WGAN kept their weights within ±0.01, the range that is too small here: in other networks, trained
# with RMSProp. What a range allows depends on width and depth as well as on $c$, so it does not carry over from one
# network to another.
#
# ## Normalisation instead
#
# Can a range help an ordinary network too? Handwritten digits, two hidden layers, four learning rates, of which the
# last two are too large; from the same file. Beside the ranges: no clipping, and no clipping but batch or layer
# normalisation ([Ioffe and Szegedy 2015](https://arxiv.org/abs/1502.03167), [Ba et al.
# 2016](https://arxiv.org/abs/1607.06450)).

# %% tags=["hide-input"]
rates = ["0.03", "0.1", "0.3", "1.0"]
columns = {f"±{end}": {"range": end} for end in ("0.01", "0.03", "0.1", "0.3", "1.0", "3.0")}
columns |= {
    "none": {"clip": "none", "normalization": "none"},
    "batch norm": {"clip": "none", "normalization": "batch"},
    "layer norm": {"clip": "none", "normalization": "layer"},
}
accuracy = {
    (way, rate): median(column("test_accuracy", table="mlp", learning_rate=rate, **wanted))
    for way, wanted in columns.items()
    for rate in rates
}
table = np.array([[accuracy[way, rate] for way in columns] for rate in rates])

figure, axes = plt.subplots(figsize=(10, 3.3))
drawn = axes.imshow(table, cmap="cividis", vmin=0, vmax=1, aspect="auto")
for (i, j), value in np.ndenumerate(table):
    axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="black" if value > 0.5 else "white")
for edge in (5.5, 6.5):
    axes.axvline(edge, color="white", linewidth=4)
axes.set_xticks(range(9), list(columns))
axes.set_yticks(range(4), rates)
axes.set(xlabel="range of the kernels, or what instead", ylabel="learning rate")
axes.set_title("Digits: test accuracy, median of five seeds")
figure.colorbar(drawn, ax=axes, label="accuracy")
plt.show()

# %%
assert max(accuracy["±0.03", rate] for rate in rates) < 0.7  # no room to learn
assert accuracy["none", "0.3"] < 0.3  # too fast …
assert min(accuracy[way, "0.3"] for way in ("±0.1", "±0.3", "batch norm", "layer norm")) > 0.95  # … and saved
ranges = [way for way in columns if way.startswith("±")]
for rate in ("0.03", "0.1"):
    assert max(accuracy[way, rate] for way in ranges) < accuracy["none", rate] + 0.005  # nothing to save

# %% [markdown]
# Three things can be read off. A small range leaves no room for what is to be learnt. A range that fits lets a
# learning rate pass that fails without one; normalisation does the same, and needs no range. And where the learning
# rate suits the network, in the upper rows, clipping weights gains nothing: the six ranges do as well as no clipping,
# or worse.
#
# ## Leave the scales alone
#
# Normalisation has weights of its own: a *scale* for each feature, which begins at 1. Put it into a range of ±0.1
# with all the others, and a layer passes on a tenth of what it did, or less. The same digits with batch
# normalisation, kernels clipped to ±0.1; in one network only they, in the other all parameters:

# %% tags=["hide-input"]
digits = load_data("mlp")
scales = {}
for which in ("kernels", "all"):
    way = {"clip": "weights", "range": 0.1, "where": which, "normalization": "batch"}
    layers = train(Options.of("mlp", epochs=6, **way), digits).trainer.network.parameters.values()
    scales[which] = np.concatenate([layer["scale"] for layer in layers if "scale" in layer])
kept = {which: column("test_accuracy", table="scale", where=which) for which in scales}

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.3), width_ratios=(2, 1))
bins = 0.05 * np.arange(-4, 46) * (1 + 1e-9)  # the ends of the range lie just inside of bins
left.hist(scales["kernels"], bins=bins, color=AFTER, label="left alone")
left.hist(scales["all"], bins=bins, color="#e69f00", label="clipped with the rest")
left.axvspan(-0.1, 0.1, color=LIMIT, alpha=0.12, label="the range")
left.set(title="The 128 scales after training (live, six epochs)", xlabel="scale", ylabel="how many")
left.legend()
for place, (which, colour) in enumerate((("kernels", AFTER), ("all", "#e69f00"))):
    right.scatter(place + 0.08 * np.arange(-2, 3), kept[which], color=colour)  # side by side, by seed
right.set_xticks([0, 1], ["left alone", "clipped"])
right.set(title="Test accuracy, five seeds\n(from the file)", xlim=(-0.5, 1.5), ylabel="accuracy")
plt.show()

# %%
assert np.abs(scales["all"]).max() <= 0.1
assert scales["kernels"].min() > 0.5
assert min(kept["kernels"]) > max(kept["all"])  # every seed
costs = np.array(kept["kernels"]) - kept["all"]
print("Accuracy lost, seed by seed:", *(f"{cost:.3f}" for cost in costs))
assert 0.01 < min(costs) < max(costs) < 0.035

# %% [markdown]
# A range for the scales costs one to three points in a hundred here. So give `where=`, by the names of the leaves. In
# [Keras](../docs/keras.md) the callback picks kernels by itself; in [PyTorch](../docs/torch.md) and
# [Optax](../docs/optax.md) all parameters are clipped unless `where=` says otherwise.
#
# ## Where a range does not help
#
# - **Training is fine without it.** A range that never binds does nothing, and one that does takes room away.
# - **A batch has a huge gradient.** A range shortens no step: after it, weights lie at the ends by their gradients'
#   signs, and what they knew is gone. For that, clip gradients ([notebook 3](3_exploding_gradients.py)).
# - **The critic has a normalisation.** It divides by a deviation, so the product of the kernels' norms bounds no
#   slope any more. And it replaces no range: in the file, critics with batch or layer normalisation and no range all
#   diverge with SGD.
# - **You need the distance itself**, or a critic that can draw anything. The estimate has an unknown factor, and
#   weights at their ends draw simple functions. The authors of the WGAN themselves call it “a clearly terrible way” to
#   bound a slope. What came later: a penalty on the slope ([Gulrajani et al. 2017](https://arxiv.org/abs/1704.00028)),
#   kernels divided by their norm ([Miyato et al. 2018](https://arxiv.org/abs/1802.05957), exercise 5).

# %%
for normalization in ("batch", "layer"):
    seeds = [run for run in runs if (run["table"], run["normalization"]) == ("wgan", normalization)]
    diverged = sum(run["diverged"] == "True" for run in seeds)
    print(f"WGAN, {normalization} normalisation, no range: {diverged} of {len(seeds)} diverged")
    assert diverged == len(seeds)

# %% [markdown]
# More pictures and all the numbers are in [what clipping does](../docs/demo.md); how to put it into a loop, in [the
# WGAN](../docs/how_to/wgan.md).
#
# ## Exercises
#
# Think first, then open the answer.
#
# **1.** Is the bound $1024\,c^3$ too careful, or is there a network in the range $±c$ that is as steep as that?

# %% tags=["hide-cell"]
network = mlp([1, 32, 32, 1], np.random.default_rng(0))
for kernel in kernels(network):
    kernel[:] = 0.1  # all at the end of the range, and of one sign
for x in (1.0, 2.0):
    print(f"f({x:g}) = {network.forward(np.array([[x]])).item():.4f}")
slope = (network.forward(np.array([[2.0]])) - network.forward(np.array([[1.0]]))).item()
print(f"Slope {slope:.4f}, and 1024 · 0.1³ = {1024 * 0.1**3:.4f}.")
print("There is one: with every weight at the upper end. Weights pile up at the ends for that reason.")
assert np.isclose(slope, 1024 * 0.1**3)

# %% [markdown]
# **2.** Which range bounds the slope of these three kernels by 1? And of six kernels, the four in the middle of 32 ×
# 32?

# %% tags=["hide-cell"]
print(f"1024 c³ = 1: c = {1024 ** (-1 / 3):.4f}")
print(f"√32 · 32⁴ · √32 = 32⁵, so 32⁵ c⁶ = 1: c = {32 ** (-5 / 6):.4f}")
deep = mlp([1, *[32] * 5, 1], np.random.default_rng(0))
limit = 32 ** (-5 / 6)
clipcore.clip_weights(deep.parameters, -limit, limit, where=is_kernel, out=deep.parameters)
print(f"A random deep network in that range: product of its norms {product_of_norms(deep):.2g}, far below 1.")
assert product_of_norms(deep) <= 1

# %% [markdown]
# **3.** The fake points move away from where the real ones are, step by step. Does the critic's estimate, in one
# range, grow as the distance does?

# %% tags=["hide-cell"]
estimates, ratios = [], []
for shift in (1.0, 2.0, 4.0, 8.0):
    moved = fake + shift
    far = np.abs(np.sort(fake) - np.sort(moved)).mean()
    estimates.append(learn(fake, moved, 0.1)[1][-1])
    ratios.append(estimates[-1] / far)
    print(f"distance {far:.2f}, estimate {estimates[-1]:.2f}, ratio {ratios[-1]:.2f}")
print("It does, by about the same factor, also where the two no longer overlap:")
print("a generator that is far off still learns in which direction to go.")
assert estimates == sorted(estimates)
assert max(ratios) < 2 * min(ratios)

# %% [markdown]
# **4.** `where=` also gets the leaf. Why is `leaf.ndim >= 2` a fair guess for "kernels, and no scales", and where
# does it go wrong?

# %% tags=["hide-cell"]
layers = {
    "dense": {"kernel": np.full((2, 3), 5.0), "bias": np.full(3, 5.0)},
    "batch norm": {"scale": np.full(3, 5.0)},
    "embedding": {"table": np.full((10, 3), 5.0)},
    "layer norm over height and width": {"scale": np.full((4, 4), 5.0)},
}
clipped = clipcore.clip_weights(layers, -0.1, 0.1, where=lambda _, leaf: leaf.ndim >= 2)
for name, layer in clipped.items():
    for leaf, values in layer.items():
        print(f"{name}, {leaf}: {'clipped' if values.max() <= 0.1 else 'left alone'}")
print("Kernels have two axes or more, biases and most scales one. But the table of an embedding has two as")
print("well, and so has the scale of a layer normalisation over two axes. Names are safer.")

# %% [markdown]
# **5.** Instead of a range: divide every kernel by its norm (`ord` 2) wherever that is above 1. What bounds the
# slope, and is the estimate nearer to the exact distance than with the range ±0.1?

# %% tags=["hide-cell"]
critic, optimizer = mlp([1, 32, 32, 1], np.random.default_rng(1)), SGD(0.3)
both, direction = np.concatenate([real, fake])[:, None], np.repeat([-1 / 200, 1 / 200], 200)[:, None]
by_norm, by_range = [], critics[0.1][1]  # the estimates, step by step
for _ in range(600):
    for kernel in kernels(critic):
        kernel /= max(1, np.linalg.norm(kernel, 2))
    marks = critic.forward(both)
    by_norm.append(marks[:200].mean() - marks[200:].mean())
    critic.backward(direction)
    optimizer.step(critic.parameters, critic.gradients)
print(f"The slope is at most 1 · 1 · 1, in the range ±0.1 at most {1024 * 0.1**3:.3f}: nearly the same.")
print(f"The estimates are {by_norm[-1]:.2f} and {by_range[-1]:.2f}, the exact distance is {exact:.2f}.")
print(f"Both have levelled off: half-way they were {by_norm[300]:.2f} and {by_range[300]:.2f}.")
print(
    "Kernels kept by their norm use more of the slope that they may have: the idea of spectral normalisation."
)
assert 1.3 * by_range[-1] < by_norm[-1] <= exact * (1 + 1e-9)
assert by_norm[-1] < 1.05 * by_norm[300]

# %% [markdown]
# **6.** Could one keep the weights in a range by clipping the *gradients* to it?

# %% tags=["hide-cell"]
weights = {"kernel": np.zeros(3)}
for _ in range(1000):
    step = clipcore.clip_by_value(np.array([5.0, -5.0, 0.05]), -0.1, 0.1)
    weights = {"kernel": weights["kernel"] - 0.1 * step}
print(f"No: short steps lead far too. After 1000 of them the weights are {weights['kernel'].round(2)}.")
assert np.abs(weights["kernel"]).min() > 0.1
