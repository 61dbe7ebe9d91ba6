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
# # 5 · One call, any library
#
# Gradients are arrays of many libraries: tensors of PyTorch, arrays of JAX, blocks of dask. Each library comes with a clip of
# its own, or leaves you to write one, and each rounds in its own way. Here are 200 float32 gradients, the same everywhere,
# clipped to norm 1: on the left by what one usually calls in that library, on the right by one function that takes them all:

# %% tags=["hide-input"]
import importlib.util
import math
import subprocess
import sys
from fractions import Fraction

import array_api_compat
import matplotlib.pyplot as plt
import numpy as np

import clipcore

BEFORE, AFTER, LIMIT = "#999999", "#0072b2", "#d55e00"
plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})


def load(name):
    """Import a library; None where it is not installed."""
    found = importlib.util.find_spec(name.partition(".")[0])
    return importlib.import_module(name) if found else None


strict, torch, jax, optax = map(load, ("array_api_strict", "torch", "jax", "optax"))
dask, mlx, mlx_optimizers = map(load, ("dask.array", "mlx.core", "mlx.optimizers"))

arrays = {"NumPy": np.array}  # how each library makes an array of NumPy's
if strict:
    arrays["array-api-strict"] = strict.asarray
if torch:
    arrays["PyTorch"] = torch.tensor
if jax:
    arrays["JAX"] = jax.numpy.asarray
if dask:
    arrays["dask"] = lambda x: dask.from_array(x, chunks=50)
    load("dask").config.set(scheduler="synchronous")
if mlx:
    arrays["MLX"] = mlx.array


def run(name, function, *arguments):
    """Call a function; on JAX compile it first, as one does there."""
    return (jax.jit(function) if name == "JAX" else function)(*arguments)


def to_numpy(x):
    return np.from_dlpack(x) if type(x).__module__.startswith("array_api_strict") else np.asarray(x)


def exact_square(x):
    """The square of the length, without any rounding."""
    return sum(Fraction(float(number)) ** 2 for number in x)


def by_hand(x, xp):
    norm = xp.sqrt(xp.sum(x * x, axis=1, keepdims=True))
    return x * xp.minimum(1 / norm, xp.ones_like(norm))


def by_torch(x):
    layers = [torch.nn.Parameter(torch.zeros(x.shape[1])) for _ in x]
    for layer, row in zip(layers, x, strict=True):
        layer.grad = row.clone()
        torch.nn.utils.clip_grad_norm_([layer], 1.0)
    return torch.stack([layer.grad for layer in layers])


def by_optax(x):
    clip = optax.clip_by_global_norm(1.0)
    return jax.vmap(lambda row: clip.update(row, clip.init(row))[0])(x)


def by_mlx(x):
    return mlx.stack([mlx_optimizers.clip_grad_norm([row], 1.0)[0][0] for row in x])


usual = {
    "NumPy": ("by hand", lambda x: by_hand(x, np)),
    "array-api-strict": ("by hand", lambda x: by_hand(x, strict)),
    "PyTorch": ("clip_grad_norm_", by_torch),
    "JAX": ("optax", by_optax) if optax else ("by hand", lambda x: by_hand(x, jax.numpy)),
    "dask": ("by hand", lambda x: by_hand(x, dask)),
    "MLX": ("clip_grad_norm", by_mlx),
}
rng = np.random.default_rng(5)
gradients = (10 * rng.standard_normal((200, 32))).astype(np.float32)
missing = [name for name in usual if name not in arrays]
if missing:
    print("Not installed here, and left out below:", ", ".join(missing))

clipped, off = {}, {}
for name, make in arrays.items():
    theirs = to_numpy(run(name, usual[name][1], make(gradients)))
    ours = to_numpy(run(name, lambda x: clipcore.clip_by_l2_norm(x, 1.0, axis=1), make(gradients)))
    clipped[name] = ours
    # Squares of float32 are float64 without rounding, and fsum rounds once: d, and its sign, is that of ‖x‖² - 1.
    # A square of 1 + d with a tiny d is a norm of 1 + d/2. In units of 2**-24:
    squares = [rows.astype(np.float64) ** 2 for rows in (theirs, ours)]
    off[name] = [[math.fsum([*row, -1]) / 2 * 2**24 for row in rows] for rows in squares]

figure, panels = plt.subplots(1, 2, figsize=(11, 0.9 + 0.6 * len(arrays)), sharex=True, sharey=True)
for side, (axes, colour) in enumerate(zip(panels, (BEFORE, AFTER), strict=True)):
    for place, name in enumerate(arrays):
        height = place + np.linspace(-0.28, 0.28, 200)
        axes.scatter(off[name][side], height, s=5, color=colour)
    axes.axvspan(0, 8, color=LIMIT, alpha=0.12)
    axes.axvline(0, color=LIMIT, linewidth=1)
    axes.set(xlim=(-8, 8), xlabel="exact norm − limit, in units of 2⁻²⁴ of the limit")
panels[0].set(title="The usual clip", yticks=range(len(arrays)))
panels[0].set_yticklabels([f"{name}\n{usual[name][0]}" for name in arrays])
panels[1].set(title="clipcore, on arrays of that library")
panels[0].invert_yaxis()
panels[1].text(4, len(arrays) - 0.7, "above the limit", color=LIMIT, ha="center", va="bottom", fontsize=9)
plt.show()

# %% [markdown]
# Every dot is one clipped gradient, placed by how far its exact norm is from the limit. The unit is the spacing of float32
# numbers just below 1. Dots in the orange half are *longer than the limit*. On the right there are none.

# %%
for name, (theirs, ours) in off.items():
    above = [sum(d > 0 for d in each) for each in (theirs, ours)]
    print(f"{name:17} above the limit: {above[0]:3} of 200, with clipcore {above[1]}")
    assert max(ours) <= 0
assert max(off["NumPy"][0]) > 0

# %% [markdown]
# [Notebook 2](2_floating_point.py) is about the rounding. This one is about the words *on arrays of that library*.
#
# ## One function, any array
#
# Five clips, written once, called with an arrow (3, −4) of each library. Nothing is said about the library; the arrays say it.
# (`run` calls the function; on JAX through `jax.jit`, as one does there.)


# %%
def five_calls(x):
    tree = {"kernel": x}
    together, norm = clipcore.clip_by_global_norm(tree, 2.5)
    return [
        clipcore.clip_by_value(x, -2, 2),
        clipcore.clip_by_l1_norm(x, 3.5),
        clipcore.clip_by_l2_norm(x, 2.5),
        together["kernel"],
        clipcore.clip_weights(tree, -2, 2)["kernel"],
    ], norm


arrow = np.array([3.0, -4.0], np.float32)
for name, make in arrays.items():
    x = make(arrow)
    results, norm = run(name, five_calls, x)
    kind = f"{type(results[0]).__module__.partition('.')[0]} {type(results[0]).__name__}"
    print(
        f"{name:17}", *(to_numpy(result).round(3).tolist() for result in results), kind, "| norm", norm.dtype
    )
    assert all(type(result) is type(x) and result.dtype == x.dtype for result in results)
    assert np.allclose([to_numpy(result) for result in results[1:4]], [1.5, -2.0], rtol=2**-20)

# %% [markdown]
# What comes in comes out: the same library, the same dtype, the same device. The norm is a 0-d array of that library too, of
# float64 where the library has it. (JAX has it only if you ask, with `jax_enable_x64`.)

# %%
examples = [np.full(4, 300.0, np.float16)]  # its squares are no float16
if strict:
    examples.append(strict.full(4, 300.0, dtype=strict.float32, device=strict.Device("device1")))
if torch:
    examples.append(torch.full((4,), 300.0, dtype=torch.bfloat16))
for x in examples:
    result = clipcore.clip_by_l2_norm(x, 1.0)
    print(type(result).__name__, result.dtype, array_api_compat.device(result))
    assert result.dtype == x.dtype
    assert array_api_compat.device(result) == array_api_compat.device(x)

# %% [markdown]
# No library is imported before an array of it arrives:

# %%
code = "import sys, clipcore; print({'torch', 'jax', 'dask', 'mlx', 'tensorflow'} & set(sys.modules))"
imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
print("imported with clipcore:", imported)
assert imported.strip() == "set()"

# %% [markdown]
# Clips by value take integers as well. A bound that is no integer is rounded inwards, so that it still holds:

# %%
for name, make in arrays.items():
    whole = make(np.array([-3, 0, 7], np.int32))
    result = run(name, lambda x: clipcore.clip_by_value(x, -2.5, 2.5), whole)
    print(f"{name:17}", result.dtype, to_numpy(result))
    assert to_numpy(result).tolist() == [-2, 0, 2]

# %% [markdown]
# Two libraries in one call are refused. Of which should the result be? You know; clipcore does not guess.

# %%
first, last = np.array, [*arrays.values()][-1]
message = ""
try:
    clipcore.clip_by_global_norm({"kernel": first(arrow), "bias": last(arrow)}, 1.0)
except TypeError as error:
    message = str(error)
print(message or "NumPy alone: nothing to mix")
assert message or len(arrays) == 1

# %% [markdown]
# ## Trees stay trees
#
# A model's gradients and weights come as a *tree*: dicts, lists and tuples, nested, with arrays as *leaves*. Flax nests dicts;
# PyTorch's `state_dict` is one flat ordered dict. Containers, keys and their order come back as they were, and `None` stays
# in its place.

# %%
tree = {"params": {"Dense_0": {"kernel": np.full((2, 3), 4.0), "bias": np.zeros(3)}, "frozen": None}}
small, norm = clipcore.clip_by_global_norm(tree, 1.0)
print("norm before:", norm)
print(small)
assert small["params"].keys() == tree["params"].keys()

# %%
if torch:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    state = clipcore.clip_weights(
        model.state_dict(), -0.1, 0.1, where=lambda path, _: path[0].endswith("weight")
    )
    model.load_state_dict(state)
    for key, leaf in state.items():
        print(f"{type(state).__name__}[{key!r}], largest {leaf.abs().max():.4f}")
    assert all(leaf.double().abs().max() <= 0.1 for key, leaf in state.items() if key.endswith("weight"))
    assert list(state) == list(model.state_dict())
else:
    print("PyTorch is not installed")

# %% [markdown]
# `where=` chose the weights by their path, and left the biases alone.
#
# ## How one function can do that
#
# Every clip by norm is three steps. **Measure** reads the elements. **Decide** compares a norm and a limit, and chooses a factor.
# **Scale** writes the elements. What differs from one library to another is how elements are read and written, and that
# part is an *engine*:

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(11, 3.6))
axes.set(xlim=(0, 11), ylim=(0.5, 3.8))
axes.axis("off")


def box(x, y, width, text, colour, fontsize=10):
    axes.add_patch(
        plt.Rectangle((x, y), width, 0.9, facecolor=colour + "33", edgecolor=colour, linewidth=1.5)
    )
    axes.text(x + width / 2, y + 0.45, text, ha="center", va="center", fontsize=fontsize)


def arrow_to(start, end, colour="black"):
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.5})


box(0.1, 2.8, 1.8, "your arrays", BEFORE)
box(2.6, 2.8, 1.6, "measure\n‖x‖", AFTER)
box(4.9, 2.8, 1.6, "decide\nmin(1, C/‖x‖)", LIMIT)
box(7.2, 2.8, 1.6, "scale\nx · factor", AFTER)
box(9.4, 2.8, 1.5, "arrays of the\nsame library", BEFORE)
for start, end in ((1.9, 2.6), (4.2, 4.9), (6.5, 7.2), (8.8, 9.4)):
    arrow_to((start, 3.25), (end, 3.25))
axes.text(4.55, 3.35, "norm", ha="center", va="bottom", fontsize=9)
axes.text(6.85, 3.35, "factor", ha="center", va="bottom", fontsize=9)
box(0.1, 0.6, 3.1, "NumPy's engine\nNumPy, PyTorch on the CPU", AFTER)
box(3.6, 0.6, 4.4, "the portable engine, pure array API\nJAX, dask, MLX, TensorFlow, Paddle, …", AFTER)
box(8.4, 0.6, 2.5, "CuPy's engine\nits own kernels", AFTER)
axes.plot([1.65, 9.65], [2, 2], color=AFTER, linewidth=1.5)
for x in (1.65, 5.8, 9.65):
    axes.plot([x, x], [1.5, 2], color=AFTER, linewidth=1.5)
for x in (3.4, 8.0):
    arrow_to((x, 2), (x, 2.8), AFTER)
axes.text(5.7, 2.1, "an engine, chosen by the arrays", ha="center", va="bottom", fontsize=9, color=AFTER)
plt.show()

# %% [markdown]
# Most libraries agree on names and meanings: the [array API standard](https://data-apis.org/array-api/latest/), with
# `array_api_compat` to fill the gaps. The portable engine is written in it. For libraries without that namespace (MLX,
# TensorFlow, Paddle) clipcore brings a small module that has the same names. A tensor of PyTorch on the CPU lies in memory
# that NumPy can read, so NumPy's engine serves it, unless something besides its values is followed: a derivative, a compiler.
# (bfloat16, which NumPy has only with ml_dtypes, goes to the portable engine where that is missing.)
#
# The portable engine never asks *is this norm above the limit?* in Python. It computes both answers and selects with `where`. So
# it works where there is no value yet to look at: inside a compiler, in a lazy graph, under differentiation.
#
# ## JAX: compiled once, for every limit
#
# A training step under `jax.jit`. The limit is an argument like any other:

# %%
if jax:
    traced = []

    @jax.jit
    def step(weights, gradients, max_norm):
        traced.append(1)  # runs only while JAX compiles
        clipped, norm = clipcore.clip_by_global_norm(gradients, max_norm)
        return jax.tree.map(lambda w, g: w - 0.1 * g, weights, clipped), norm

    weights = {"Dense_0": {"bias": np.zeros(3, np.float32), "kernel": np.ones((2, 3), np.float32)}}
    ones = jax.tree.map(np.ones_like, weights)
    for max_norm in (4.0, 2.0, 1.0):
        moved, norm = step(weights, ones, max_norm)
        print(f"limit {max_norm}: norm before {norm:.4f}, kernel {moved['Dense_0']['kernel'][0, 0]:.4f}")
    print("compiled", len(traced), "time")
    assert len(traced) == 1
else:
    print("JAX is not installed")

# %% [markdown]
# ## Each example by itself: vmap, axis
#
# One person's data should not show in a trained network. If the gradient of *each example* is at most C long, then to add or
# remove an example moves the sum by at most C, whichever it is, and noise in proportion to C hides it: the idea of
# [Abadi et al. 2016](https://arxiv.org/abs/1607.00133). (clipcore clips; the noise, and the account of it, are other tools' work.)
#
# Twelve examples for a model of two weights. The gradient of the first is far outside of the picture on the left:

# %%
features = rng.standard_normal((12, 2)).astype(np.float32)
targets = (features @ np.array([1.0, -0.5]) + 0.3 * rng.standard_normal(12)).astype(np.float32)
features[0], targets[0] = [4.0, 3.0], -4.0  # an example like no other
start = np.zeros(2, np.float32)
each = (features @ start - targets)[:, None] * features  # the gradient of each example
private = clipcore.clip_by_l2_norm(each, 1.0, axis=1)  # each row by itself

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharex=True, sharey=True)
circle = np.stack([f(np.linspace(0, 2 * np.pi, 100)) for f in (np.cos, np.sin)])
reach = 1.1 * max(np.abs(each[1:, 0]).max(), np.abs(each[1:, 1]).max() / 0.75)
for axes, rows, title in zip(panels, (each, private), ("As they are", "Each clipped to 1"), strict=True):
    axes.fill(*circle, color=LIMIT, alpha=0.12)
    axes.plot(*circle, color=LIMIT, linewidth=1)
    axes.scatter(*rows[1:].T, s=16, color=BEFORE, label="eleven examples")
    axes.scatter(*rows[0], s=90, marker="*", color="#cc79a7", label="the first one", zorder=3)
    for people, colour, label in ((rows[1:], "#e69f00", "mean without it"), (rows, AFTER, "mean with it")):
        tip = people.mean(axis=0)
        axes.annotate(
            "", tip, (0, 0), arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 2.5}, zorder=4
        )
        axes.plot(*tip, color=colour, linewidth=2.5, label=label)
    axes.set(title=title, aspect="equal", xlim=(-reach, reach), ylim=(-0.75 * reach, 0.75 * reach))
first_one = f"the first one: ({each[0, 0]:.0f}, {each[0, 1]:.0f}) ↗"
panels[0].text(
    0.98, 0.95, first_one, color="#cc79a7", ha="right", va="top", fontsize=9, transform=panels[0].transAxes
)
panels[1].legend(loc="lower right", fontsize=8)
plt.show()

# %% [markdown]
# On the left one example turns the step of all. On the right it counts as any other. In JAX the gradients of the examples are
# a tree with one more axis, and `vmap` clips each example's tree by its global norm:

# %%
moved, turned = [], []
for rows in (each, private):
    without, of_all = rows[1:].sum(axis=0), rows.sum(axis=0)
    moved.append(math.dist(of_all, without))
    turned.append(math.degrees(math.acos(without @ of_all / math.hypot(*without) / math.hypot(*of_all))))
print(f"the first one moves the sum by {moved[0]:.2f} unclipped, by {moved[1]:.2f} clipped")
print(f"and turns it by {turned[0]:.0f}° unclipped, by {turned[1]:.0f}° clipped")
assert turned[0] > 45 > 15 > turned[1]
assert moved[1] < 1.001  # float32 sums round
assert all(exact_square(row) <= 1 for row in private)

if jax:

    def loss(weights, x, y):
        return (x[0] * weights["first"] + x[1] * weights["second"] - y) ** 2 / 2

    def clip_each(weights, x, y):
        per_example = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(weights, x, y)
        return jax.vmap(lambda tree: clipcore.clip_by_global_norm(tree, 1.0)[0])(per_example)

    trees = jax.jit(clip_each)({"first": 0.0, "second": 0.0}, features, targets)
    print("vmap:", {name: leaf.shape for name, leaf in trees.items()})
    assert np.allclose(np.stack([trees["first"], trees["second"]], axis=1), private, rtol=1e-4, atol=1e-5)
else:
    print("JAX is not installed")

# %% [markdown]
# ## A derivative passes through
#
# Sometimes a clip is inside of what is differentiated, as in meta-learning. Its derivative is the identity while the arrow is
# within the limit, and beyond it that of $x · C/‖x‖$. Take an arrow $(t, 0)$ with $t > C$. Made longer, *along* itself, it is
# clipped to the same arrow: the derivative is 0. Pushed sideways, *across*, the result turns along: the derivative is $C/t$.


# %%
def by_hand_one(x, xp):
    return x * xp.clip(1.0 / xp.linalg.norm(x), None, 1.0)


lengths = np.concatenate([np.linspace(0, 0.95, 11), np.linspace(1.05, 3, 14)]).astype(np.float32)
arrows = np.stack([lengths, 0 * lengths], axis=1)
slopes = {}
if torch:
    x = torch.tensor(arrows, requires_grad=True)
    clipcore.clip_by_l2_norm(x, 1.0, axis=1).sum().backward()
    slopes["PyTorch"] = x.grad.numpy()  # of an arrow (t, 0): first along it, then across
    x = torch.zeros(2, requires_grad=True)
    by_hand_one(x, torch).sum().backward()
    print("PyTorch at zero: by hand", x.grad.tolist(), "clipcore", slopes["PyTorch"][0].tolist())
    assert x.grad.isnan().all()
if jax:
    slope = jax.jit(jax.grad(lambda x: clipcore.clip_by_l2_norm(x, 1.0, axis=1).sum()))
    slopes["JAX"] = np.asarray(slope(arrows))
    zero = jax.jit(jax.grad(lambda x: by_hand_one(x, jax.numpy).sum()))(jax.numpy.zeros(2))
    print("JAX at zero:     by hand", zero.tolist(), "clipcore", slopes["JAX"][0].tolist())
    assert np.isnan(zero).all()
if not slopes:
    print("Neither PyTorch nor JAX is installed: the picture shows the formula alone")

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 3.4))
axes.axvspan(0, 1, color=LIMIT, alpha=0.12, label="within the limit")
axes.plot([0, 1, 1, 3], [1, 1, 0, 0], color="#e69f00", linewidth=2, label="formula, along")
fine = np.linspace(0, 3, 200)
axes.plot(fine, 1 / np.maximum(fine, 1), color="#56b4e9", linewidth=2, label="formula, across")
for (name, values), marker in zip(slopes.items(), "ox", strict=False):
    twice = np.concatenate([lengths, lengths])
    axes.plot(twice, values.T.ravel(), marker, color="black", fillstyle="none", label=f"clipcore in {name}")
if slopes:
    axes.annotate("by hand:\nNaN at 0", (0, 1), (0.2, 0.5), arrowprops={"arrowstyle": "->"}, fontsize=9)
axes.legend(fontsize=9)
axes.set(
    xlabel="length t of the arrow",
    ylabel="derivative",
    title="Derivative of a clip to norm 1",
    ylim=(-0.1, 1.2),
)
plt.show()

# %%
formula = np.stack([np.where(lengths < 1, 1, 0), 1 / np.maximum(lengths, 1)], axis=1)
for values in slopes.values():
    assert np.allclose(values, formula, atol=1e-5)

# %% [markdown]
# At zero the formula divides by zero. The quotient is thrown away, for `min` takes the 1; its derivative is infinite all the
# same, and zero times infinity is NaN. clipcore puts a 1 in the place of the norm wherever it will not use the quotient.
#
# ## PyTorch: in place
#
# Gradients take as much memory as the weights. `out=` writes the result where they are:

# %%
if torch:
    model(torch.randn(16, 4)).square().sum().mul(100).backward()
    tensors = [parameter.grad for parameter in model.parameters()]
    addresses = [tensor.data_ptr() for tensor in tensors]
    same, norm = clipcore.clip_by_global_norm(tensors, 1.0, out=tensors)
    print(f"norm before {norm:.3f}, after {clipcore.global_norm(tensors):.9f}")
    assert same is tensors
    assert norm > 1
    assert [parameter.grad.data_ptr() for parameter in model.parameters()] == addresses
    assert sum(exact_square(tensor.flatten()) for tensor in tensors) <= 1
else:
    print("PyTorch is not installed")

# %% [markdown]
# For a training loop, `clipcore.integrations.torch` has this under the name you know, `clip_grad_norm_`. How clips go into
# `torch.compile` is on [the page on PyTorch](../docs/torch.md).
#
# ## dask: nothing is computed early
#
# A dask array is a plan: blocks, and what is to be done with them. Clipping one adds to the plan. We count how often a block is
# really made:

# %%
if dask:
    made = []

    def block(block_info=None):
        made.append(block_info[None]["chunk-location"])
        return np.full((1000,), 3.0, np.float32)

    lazy = dask.map_blocks(block, chunks=((1000,) * 8,), dtype=np.float32, meta=np.empty(0, np.float32))
    planned = clipcore.clip_by_l2_norm(lazy, 1.0)
    print(
        f"planned: {type(planned).__name__} of {planned.npartitions} blocks, {len(planned.__dask_graph__())} tasks"
    )
    print("blocks made so far:", len(made))
    assert not made
    result = planned.compute()
    print("blocks made by compute():", len(made), "| the result is a", type(result).__name__)
    assert len(made) == 8
    assert exact_square(result) <= 1
else:
    print("dask is not installed")

# %% [markdown]
# Nothing in the plan asked for a value, and each block is made once, although clipping reads it twice: to measure, and to scale.
#
# ## The same bits everywhere?
#
# Not quite, and it is worth knowing where. Back to the 200 gradients of the first picture, and what clipcore made of them:

# %%
for name, rows in list(clipped.items())[1:]:
    equal = np.mean(rows == clipped["NumPy"])
    ulp = np.max(np.abs(rows - clipped["NumPy"]) / np.spacing(np.abs(clipped["NumPy"])))
    print(
        f"{name:17} {equal:4.0%} of the numbers are NumPy's to the bit, none is more than {ulp:.0f} ulp away"
    )
    assert name != "PyTorch" or equal == 1  # the same engine
    assert ulp <= 16

# %% [markdown]
# PyTorch's numbers are NumPy's: the same engine made them. The portable engine computes another factor, a little below
# $C/‖x‖$ too, and its results are within a few *ulp* (the spacing of float32 numbers at that place). Without float64 the norm is
# known less well, and the factor has to be lower to be safe: so JAX's dots in the first picture are further left. All obey the limit.
#
# There is one place where engines truly differ: **the limit itself**. A norm is computed with some error; call the promised bound
# on it ε. Where the exact norm is closer to the limit than that, floating point cannot tell on which side it is. NumPy's
# engine then decides in integers, exactly. The portable engine cannot (it would have to look), and may leave such an array as it is:
# at most ε too long. Let us look for it: arrays that are too long by less and less, each with its numbers in 25 orders.

# %% tags=["hide-input"]
base = (10 * rng.standard_normal(63)).astype(np.float32)
limit = math.sqrt(exact_square(base))
while Fraction(limit) ** 2 > exact_square(base):
    limit = math.nextafter(limit, 0)  # the largest float64 that is not above the norm of base
levels = [20, 24, 28, 32, 36, 40, 44, 48, 52]
# One number more makes the norm longer by 2**-k of it.
extra = [np.float32(math.sqrt(2 * 2.0**-k) * limit) for k in levels]
tests = np.stack([rng.permutation(np.append(base, number)) for number in extra for _ in range(25)])
excess = [float(exact_square([*base, number]) / Fraction(limit) ** 2 - 1) / 2 for number in extra]
assert min(excess) > 0

left, promised = {}, {}
for name, make in arrays.items():
    results, norms = run(
        name, lambda x: (clipcore.clip_by_l2_norm(x, limit, axis=1), clipcore.l2_norm(x, axis=1)), make(tests)
    )
    same = (to_numpy(results) == tests).all(axis=1)
    left[name] = same.reshape(len(levels), 25).sum(axis=1)
    exactly = name in ("NumPy", "PyTorch")
    promised[name] = 0 if exactly else 2.0**-44 if "float64" in str(norms.dtype) else 2.0**-21

figure, axes = plt.subplots(figsize=(9, 0.9 + 0.45 * len(arrays)))
table = np.stack(list(left.values()))
axes.imshow(np.where(table > 0, table, np.nan), cmap="Oranges", vmin=-10, vmax=40, aspect="auto")
for row, (name, counts) in enumerate(left.items()):
    for column, count in enumerate(counts):
        axes.text(column, row, count, ha="center", va="center", fontsize=10)
    start = sum(size > promised[name] for size in excess) - 0.5
    if promised[name]:
        axes.plot([start, start], [row - 0.5, row + 0.5], color=AFTER, linewidth=3)
axes.set(
    yticks=range(len(left)),
    xticks=range(len(levels)),
    xlabel="the exact norm is above the limit by this share of it",
)
axes.set_yticklabels(left)
axes.set_xticklabels([f"2$^{{-{k}}}$" for k in levels])
axes.set_title("How many of 25 are left as they are, though too long (blue: ε, as promised)")
plt.show()

# %%
for name, counts in left.items():
    missed = max([size for size, count in zip(excess, counts, strict=True) if count], default=0)
    print(f"{name:17} may miss an excess of {promised[name]:.1e} of the limit, here missed {missed:.1e}")
    assert missed <= promised[name]

# %% [markdown]
# Left of the blue line no such array may be left as it is, and none is; NumPy and PyTorch need no line. To its right the promise
# ends, not the accuracy: ε holds in any order, for up to 2³¹ elements, and most arrays are luckier. One thing more cannot be
# mended from outside: on the CPU, JAX and TensorFlow take subnormal numbers for zeros.
#
# [The contract](../docs/contract.md#on-other-libraries) states ε for every library, and
# [the reference](../docs/api/clip_by_global_norm.md) which dtypes each takes, with a note for every gap. TensorFlow and
# Paddle, not shown here, take the same calls; CuPy has an engine of its own ([on a GPU](../docs/gpu.md)).
#
# ## Write one yourself
#
# Norms with `axis=` are enough to build a clip that clipcore does not have, for all libraries at once. Adaptive clipping
# ([Brock et al. 2021](https://arxiv.org/abs/2102.06171)) gives each unit of a layer its own limit: a share of the norm
# of its weights.


# %%
def adaptive_clip(gradient, weight, share=0.1, least=1e-3):
    xp = array_api_compat.array_namespace(gradient, weight)
    norm = clipcore.l2_norm(gradient, axis=1)  # of each unit
    limit = share * clipcore.clip_by_value(clipcore.l2_norm(weight, axis=1), least, None)
    factor = limit / xp.maximum(norm, limit)  # min(1, limit / norm), and never 0 / 0
    return gradient * xp.astype(factor, gradient.dtype)[:, None]


weight = rng.standard_normal((10, 32)).astype(np.float32)
gradient = rng.permuted(weight, axis=1) * np.linspace(0.02, 0.3, 10, dtype=np.float32)[:, None]
adapted = adaptive_clip(gradient, weight)
for name, make in arrays.items():
    if name == "MLX":
        print("MLX               has no array API namespace of its own")
        continue
    result = run(name, adaptive_clip, make(gradient), make(weight))
    print(f"{name:17} {type(result).__name__}, {result.dtype}")
    assert type(result) is type(make(gradient))
    assert np.allclose(to_numpy(result), adapted, rtol=1e-5)

# %% tags=["hide-input"]
shares = [clipcore.l2_norm(rows, axis=1) / clipcore.l2_norm(weight, axis=1) for rows in (gradient, adapted)]
figure, axes = plt.subplots(figsize=(9, 3.2))
axes.bar(np.arange(10) - 0.2, shares[0], 0.4, color=BEFORE, label="before")
axes.bar(np.arange(10) + 0.2, shares[1], 0.4, color=AFTER, label="after")
axes.axhline(0.1, color=LIMIT, label="the limit")
axes.set(
    xticks=range(10),
    xlabel="unit",
    ylabel="‖gradient‖ / ‖weight‖",
    title="Adaptive clipping, unit by unit",
)
axes.legend()
plt.show()

# %% [markdown]
# `array_namespace` is all that the function needs to know about a library. What it does not have is the exact bound: its factor is
# rounded to nearest, as in every formula written by hand. Exercise 6 mends that.
#
# ## Exercises
#
# Think first, then open the answer.
#
# **1.** One tree with a float16 leaf and a float32 leaf: is it refused, as two libraries are? What is the dtype of the norm, and
# what are those of the results?

# %% tags=["hide-cell"]
mixed = [np.full(4, 300.0, np.float16), np.full(4, 300.0, np.float32)]
halves, norm = clipcore.clip_by_global_norm(mixed, 1.0)
print(
    f"No: there is no doubt what is meant. Norm {norm:.3f} of {norm.dtype}; results {[leaf.dtype.name for leaf in halves]}."
)
print("The norm is measured in float64, where 300² is no problem; as a float16 it would be infinite.")
assert [leaf.dtype for leaf in halves] == [leaf.dtype for leaf in mixed]
with np.errstate(over="ignore"):
    assert np.isinf(np.float16(300) ** 2)

# %% [markdown]
# **2.** Would `if norm > max_norm:` work in the compiled training step above? What does the portable engine do instead?

# %% tags=["hide-cell"]
if jax:

    @jax.jit
    def branching(x, max_norm):
        norm = jax.numpy.linalg.norm(x)
        return x * max_norm / norm if norm > max_norm else x

    refused = False
    try:
        branching(arrow, 1.0)
    except jax.errors.TracerBoolConversionError as error:
        refused = True
        print(f"No: {type(error).__name__}. While JAX compiles, the norm has no value to branch on.")
    assert refused
else:
    print("JAX is not installed. It would refuse: while it compiles, the norm has no value to branch on.")
print("The portable engine computes both answers and selects, element by element:")
norm = clipcore.l2_norm(arrow)
print(np.where(norm > 1, arrow * (1 / norm), arrow))

# %% [markdown]
# **3.** Cut the same numbers into other chunks, or put them into another order. Does the norm change? By how much may it?

# %% tags=["hide-cell"]
numbers = gradients.ravel()
norm = float(clipcore.l2_norm(numbers))
pieces = np.array_split(rng.permutation(numbers), 7)
norms = {"NumPy, 7 leaves in another order": float(clipcore.global_norm(pieces))}
if dask:
    for chunks in (1000, 5000):
        lazy = dask.from_array(numbers, chunks=chunks)
        norms[f"dask, chunks of {chunks}"] = float(clipcore.l2_norm(lazy).compute())
else:
    print("dask is not installed")
for name, other in norms.items():
    print(f"{name}: off by {abs(other - norm) / norm:.1e} of the norm")
    assert abs(other - norm) <= 2 * 2.0**-44 * norm
print(f"Each may be off the exact one by ε = 2⁻⁴⁴, {2.0**-44:.1e} of it, in whatever order they are added:")
print("on NumPy for any number of them, in the portable engine for up to 2³¹.")

# %% [markdown]
# **4.** Clip each of the twelve examples to 1 and sum, or sum and clip to 12: both are at most 12 long. Why does only the first
# hide a single example?

# %% tags=["hide-cell"]
after = [math.dist(*(clipcore.clip_by_l2_norm(rows.sum(axis=0), 12.0) for rows in (each, each[1:])))]
after.append(math.dist(private.sum(axis=0), private[1:].sum(axis=0)))
print(f"Sum first: one example moves the result by {after[0]:.1f}. Clip each first: by {after[1]:.3f}.")
print(
    "A limit on the sum says nothing of the share that one example has in it; a limit on each example is that share."
)
assert after[0] > 2 > after[1]

# %% [markdown]
# **5.** Some libraries limit the root mean square, ‖x‖₂/√n for n elements, instead of the norm. Write that clip for any library
# in one line.


# %% tags=["hide-cell"]
def clip_by_rms(x, threshold):
    return clipcore.clip_by_l2_norm(x, threshold * math.sqrt(math.prod(x.shape)))


for make in (first, last):  # two of the libraries
    result = clip_by_rms(make(arrow), 0.5)
    rms = np.sqrt(np.mean(to_numpy(result).astype(float) ** 2))
    print(
        f"{type(result).__module__} {type(result).__name__}: {to_numpy(result)}, root mean square {rms:.6f}"
    )
    assert np.isclose(rms, 0.5, rtol=2**-20)

# %% [markdown]
# **6.** Change `adaptive_clip`, for NumPy, so that the limit of each unit holds exactly. How many units exceed it in the
# version above?


# %% tags=["hide-cell"]
def adaptive_clip_exactly(gradient, weight, share=0.1, least=1e-3):
    limits = share * np.maximum(clipcore.l2_norm(weight, axis=1), least)
    return np.stack(
        [clipcore.clip_by_l2_norm(row, limit) for row, limit in zip(gradient, limits, strict=True)]
    )


weight = rng.standard_normal((100, 32)).astype(np.float32)
gradient = 5 * rng.standard_normal((100, 32)).astype(np.float32)
limits = 0.1 * clipcore.l2_norm(weight, axis=1)
for clip in (adaptive_clip, adaptive_clip_exactly):
    rows = clip(gradient, weight)
    above = sum(
        exact_square(row) > Fraction(float(limit)) ** 2 for row, limit in zip(rows, limits, strict=True)
    )
    print(f"{clip.__name__}: {above} of 100 units are above their limit")
assert above == 0
