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
# # 7 · Who shares the norm: per leaf, per axis, global
#
# "Clip the gradient to norm 0.5" leaves a question open: the norm *of what*? Of each array, of each slice of an array, of all
# arrays together? It is the question in which libraries differ most.
#
# Here is the gradient of a small network that reads handwritten digits. It is a *tree*: a dict or list of arrays, which are
# its *leaves*. This one has four, a kernel and a bias for each of two layers. It is clipped three times, each time with the
# limit 0.5:

# %% tags=["hide-input"]
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import optree
from matplotlib.colors import to_rgba
from matplotlib.patches import FancyBboxPatch

import clipcore
from clipcore.demo.data import load_data
from clipcore.demo.layers import softmax_cross_entropy
from clipcore.demo.training import mlp

BEFORE, AFTER, LIMIT = "#999999", "#0072b2", "#d55e00"
plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})

digits = load_data("mlp")  # 8 × 8 pixels each
images, labels = digits.x[:64], digits.y[:64]
network = mlp([64, 16, 10], np.random.default_rng(1))  # two dense layers, so four leaves


def gradient(network, images, labels):
    """The gradient of the mean loss, as a tree: a dict of arrays."""
    _, by_output = softmax_cross_entropy(network.forward(images), labels)
    network.backward(by_output)
    layers = enumerate(network.gradients.values(), 1)
    return {f"{name} {i}": leaf for i, layer in layers for name, leaf in layer.items()}


def flat(tree):
    """All elements of a tree as one vector."""
    return np.concatenate([leaf.ravel() for leaf in tree.values()])


def angle(tree, other):
    """The angle between two trees, in degrees."""
    a, b = flat(tree), flat(other)
    return np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1)))


limit = 0.5
gradients = gradient(network, images, labels)
results = {
    "before": gradients,
    "each leaf": {name: clipcore.clip_by_l2_norm(leaf, limit) for name, leaf in gradients.items()},
    "each unit": {name: clipcore.clip_by_l2_norm(leaf, limit, axis=0) for name, leaf in gradients.items()},
    "all together": clipcore.clip_by_global_norm(gradients, limit)[0],
}
colours = dict(zip(results, (BEFORE, "#e69f00", "#cc79a7", AFTER), strict=True))

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.4), width_ratios=(3, 1.3, 1.3))
for k, (name, tree) in enumerate(results.items()):
    norms = [clipcore.l2_norm(leaf) for leaf in tree.values()]
    left.bar(np.arange(4) + 0.2 * k - 0.3, norms, 0.2, color=colours[name], label=name)
    middle.bar(k, clipcore.global_norm(tree), color=colours[name])
    right.bar(k, angle(tree, gradients), color=colours[name])
left.set(title="Length of each leaf", xticks=range(4), xticklabels=gradients)
left.legend()
middle.set(title="Length of the whole")
right.set(title="Turned by … degrees")
for axes in (left, middle):
    axes.axhline(limit, color=LIMIT, linewidth=1, linestyle="--")
left.text(3.45, limit, "limit", color=LIMIT, ha="right", va="bottom", fontsize=9)
for axes in (middle, right):
    axes.set_xticks(range(4), results, rotation=30, ha="right")
plt.show()

# %% [markdown]
# Each **leaf** by itself: the two kernels end at the limit and the biases, which were below it, stay as they are. Each
# **unit** by itself (a column of a kernel, the weights that lead to one neuron; a bias is taken as a whole): most of the
# gradient passes. **All together**: every bar shrinks by the same factor, and only here does the gradient still point where
# it pointed.
#
# All three are correct. Each keeps its own promise, and the promises differ:

# %%
for name, tree in results.items():
    print(f"{name:12}  norm {clipcore.global_norm(tree):.3f}, turned by {angle(tree, gradients):4.1f}°")
assert all(clipcore.l2_norm(leaf) <= limit for leaf in results["each leaf"].values())
assert all((clipcore.l2_norm(leaf, axis=0) <= limit).all() for leaf in results["each unit"].values())
assert clipcore.global_norm(results["all together"]) <= limit
assert clipcore.global_norm(results["each unit"]) > 0.75 * clipcore.global_norm(gradients)
assert clipcore.global_norm(results["each unit"]) > clipcore.global_norm(results["each leaf"]) > 1.2 * limit
assert all(np.array_equal(results["each leaf"][name], gradients[name]) for name in ("bias 1", "bias 2"))
assert min(angle(results[name], gradients) for name in ("each leaf", "each unit")) > 5
assert angle(results["all together"], gradients) < 0.001

# %% [markdown]
# ## A group has one norm and one factor
#
# The elements that share a norm are a **group**. A group $x$ is multiplied by one factor, $\min(1, C/‖x‖)$. That is all: what
# follows in this notebook is about how to draw the groups. Here is a tree of four small leaves, and what becomes of it with the
# limit 1.5: a blue box around each group, and in it the factor.

# %% tags=["hide-input"]
rng = np.random.default_rng(3)
tiny = {
    "kernel 1": rng.standard_normal((4, 3)) * [1.2, 0.7, 0.3],
    "bias 1": rng.standard_normal(3),
    "kernel 2": rng.standard_normal((3, 2)) * 3,
    "bias 2": rng.standard_normal(2),
}
corners = {"kernel 1": (0, 0), "bias 1": (0, 4.8), "kernel 2": (3.8, 0), "bias 2": (3.8, 4.8)}
groups = {  # the axes to sum over, None for all of a leaf
    "each element: axis=()": (),
    "each column: axis=0": 0,
    "each row: axis=-1": -1,
    "each leaf": None,
    "all together": "global",
}


def clip_groups(tree, limit, axis, **options):
    """Clip a tree, its groups given by an axis or "global"."""
    if axis == "global":
        return clipcore.clip_by_global_norm(tree, limit, **options)[0]
    return {name: clipcore.clip_by_l2_norm(leaf, limit, axis=axis, **options) for name, leaf in tree.items()}


def rounded(axes, x, y, wide, high, colour, edge=AFTER):
    """Draw a box."""
    style = {"boxstyle": "round,pad=0,rounding_size=0.25", "facecolor": colour, "edgecolor": edge}
    axes.add_patch(FancyBboxPatch((x + 0.07, y + 0.07), wide - 0.14, high - 0.14, linewidth=1.5, **style))


def draw(axes, title, axis, look, edge=AFTER):
    """Draw a box around each group; look(name, place) gives the colour and the text of an element."""
    axes.set(xlim=(-0.5, 6.3), ylim=(6.3, -1.1), aspect="equal", title=title)
    axes.axis("off")
    if axis == "global":
        rounded(axes, -0.35, -0.9, 6.5, 7.0, "none")
    for name, (x, y) in corners.items():
        axes.text(x + 0.1, y - 0.15, name, fontsize=9, color="#555555")
        rows, columns = np.atleast_2d(tiny[name]).shape
        high = 1 if axis in ((), -1) else rows
        wide = 1 if axis == () or (axis == 0 and rows > 1) else columns
        for i in range(0, rows, high):
            for j in range(0, columns, wide):
                colour, text = look(name, (i, j)[-tiny[name].ndim :])
                rounded(axes, x + j, y + i, wide, high, colour, "none" if axis == "global" else edge)
                axes.text(x + j + wide / 2, y + i + high / 2, text, fontsize=9, ha="center", va="center")


def panels_for(tree):
    """Draw a tree, element by element, and return a panel for each way to draw groups."""
    _, panels = plt.subplots(2, 3, figsize=(9, 6.4))

    def value(name, place):
        number = tree[name][place]
        return ("#e69f00", "NaN") if np.isnan(number) else ("none", f"{number:.1f}")

    draw(panels[0, 0], "the tree, rounded", (), value, edge="#cccccc")
    return panels.ravel()[1:]


for axes, (title, axis) in zip(panels_for(tiny), groups.items(), strict=True):
    factors = {name: leaf / tiny[name] for name, leaf in clip_groups(tiny, 1.5, axis).items()}

    def shrunk(name, place, factors=factors):
        factor = factors[name][place]
        return to_rgba(AFTER, 0.5 * (1 - factor) + 0.02), "1" if factor == 1 else f"{factor:.2f}"

    draw(axes, title, axis, shrunk)
plt.show()

# %% [markdown]
# The darker, the more is taken away. An element that joins a group never makes its norm smaller: so the same limit
# never takes less from a group than from a part of it. The panel beside the tree is familiar: where every element is its own
# group, the clip by norm *is* the clip by value (exercise 1).
#
# In clipcore there are three ways to say it:
#
# | group | call |
# |---|---|
# | slices of an array | `clip_by_l2_norm(x, C, axis=…)` |
# | an array | `clip_by_l2_norm(x, C)`, for each leaf |
# | all leaves | `clip_by_global_norm(tree, C)` |
#
# For each leaf of a dict a comprehension does it, for a nested tree `optree.tree_map` (clipcore brings optree):

# %%
nested = {"body": [np.array([3.0, 4.0]), None], "head": (np.array([0.3, 0.4]),)}
print("each leaf:   ", optree.tree_map(lambda leaf: clipcore.clip_by_l2_norm(leaf, 2.5), nested))
print("all together:", clipcore.clip_by_global_norm(nested, 2.5)[0])

# %% [markdown]
# ## Slices of an array: `axis=`
#
# `axis` means what it means in NumPy: the axes that are summed over. The shape that remains counts the groups. Beside it the
# formula, by hand:


# %%
def by_hand(x, limit, axis=None):
    norm = np.sqrt(np.sum(x**2, axis=axis, keepdims=True))
    return x * (limit / np.maximum(norm, limit))


kernel = gradients["kernel 1"]  # (inputs, units)
for axis in (0, 1, None):
    np.testing.assert_allclose(
        clipcore.clip_by_l2_norm(kernel, 0.2, axis=axis), by_hand(kernel, 0.2, axis), rtol=1e-12
    )
    print(f"axis={axis}, groups: {clipcore.l2_norm(kernel, axis=axis).size}")

# %% [markdown]
# Which axes belong to a unit depends on how a library lays out its kernels:
#
# | kernel | Keras, Flax, TensorFlow | one unit | torch | one unit |
# |---|---|---|---|---|
# | dense | (inputs, units) | `axis=0` | (units, inputs) | `axis=1` |
# | convolution | (height, width, inputs, channels) | `axis=(0, 1, 2)` | (channels, inputs, height, width) | `axis=(1, 2, 3)` |
#
# It is the same clip. Only the names of the axes change:

# %%
keras_kernel = rng.standard_normal((3, 3, 8, 16))
torch_kernel = keras_kernel.transpose(3, 2, 0, 1)
ours = clipcore.clip_by_l2_norm(keras_kernel, 1.0, axis=(0, 1, 2))
theirs = clipcore.clip_by_l2_norm(torch_kernel, 1.0, axis=(1, 2, 3))
np.testing.assert_allclose(ours.transpose(3, 2, 0, 1), theirs, rtol=1e-12)
print(clipcore.l2_norm(torch_kernel, axis=(1, 2, 3)).shape, "norms: one for each channel")

# %% [markdown]
# ## One example at a time
#
# The gradient of a batch is the mean of the gradients of its examples. What if one example is wrong? We train such a network
# a little, then give one image of the batch a wrong label, and look at each example's gradient: a matrix with one *row* for
# each example, so `axis=1`.

# %%
trained = mlp([64, 16, 10], np.random.default_rng(0))
picker = np.random.default_rng(0)
for _ in range(300):
    batch = picker.integers(0, len(digits.x), 64)
    gradient(trained, digits.x[batch], digits.y[batch])
    for layer, found in zip(trained.parameters.values(), trained.gradients.values(), strict=True):
        for name, weights in layer.items():
            weights -= 0.1 * found[name]

with_error = labels.copy()
with_error[0] = (labels[0] + 5) % 10
examples = np.array([flat(gradient(trained, images[[i]], with_error[[i]])) for i in range(64)])
clipped_examples = clipcore.clip_by_l2_norm(examples, limit, axis=1)

lengths = clipcore.l2_norm(examples, axis=1)
whole_batch = flat(gradient(trained, images, with_error))
np.testing.assert_allclose(examples.mean(axis=0), whole_batch, atol=1e-12)  # indeed the mean
print(f"the wrong example is {lengths[0] / np.median(lengths):.0f} times as long as the median")
assert lengths.argmax() == 0
assert lengths[0] > 20 * np.median(lengths)

# %% tags=["hide-input"]
steps = {
    "no clipping": lambda rows: {"step": rows.sum(axis=0)},
    "the sum clipped": lambda rows: {"step": clipcore.clip_by_l2_norm(rows.sum(axis=0), limit)},
    "each example clipped": lambda rows: {"step": clipcore.clip_by_l2_norm(rows, limit, axis=1).sum(axis=0)},
}
turned = {name: angle(step(examples), step(examples[1:])) for name, step in steps.items()}

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), width_ratios=(2, 1.3))
ranking = np.argsort(-lengths)
after = clipcore.l2_norm(clipped_examples, axis=1)
left.bar(range(64), lengths[ranking], color=BEFORE, label="before")
left.bar(range(64), after[ranking], color=AFTER, label="each clipped by itself")
left.axhline(limit, color=LIMIT, linewidth=1, linestyle="--", label="limit")
left.set(title="Length of each example's gradient", xlabel="examples, the longest first")
left.annotate(
    "the wrong label", (0.6, 0.95 * lengths[0]), (6, 0.9 * lengths[0]), arrowprops={"arrowstyle": "->"}
)
left.legend(loc="center right")
right.barh(list(turned), list(turned.values()), color=(BEFORE, "#e69f00", AFTER))
right.invert_yaxis()
right.set(title="One wrong label turns the step by …", xlabel="degrees")
plt.show()

# %%
for name, degrees in turned.items():
    print(f"{name:21} the wrong example turns the step by {degrees:.1f}°")
assert abs(turned["the sum clipped"] - turned["no clipping"]) < 0.01
assert turned["each example clipped"] < 0.5 * turned["no clipping"]

# %% [markdown]
# A clip of the sum keeps its direction, and with it all that the wrong example has done to it. Where each example is a group,
# none counts for more than the limit: the limit bounds how far any one of them can move the sum.
#
# It hides none of them. Whoever knows the other examples can subtract them from the sum, and sees where the gradient of the
# one that is left pointed. *Differential privacy* is built on the bound: it adds noise in proportion to it, and only the noise
# hides an example ([Abadi et al. 2016](https://arxiv.org/abs/1607.00133)).

# %%
total = clipped_examples.sum(axis=0)
moved = [clipcore.l2_norm(total - np.delete(clipped_examples, i, axis=0).sum(axis=0)) for i in range(64)]
print(f"leaving out any one example moves the sum by {max(moved):.3f} at most, the limit is {limit}")
assert (clipcore.l2_norm(clipped_examples, axis=1) <= limit).all()
assert max(moved) <= limit + 1e-12  # the sums and their difference round

others = clipped_examples[1:].sum(axis=0)
found = angle({"left": total - others}, {"left": examples[0]})
print(f"what is left without the others points {found:.1f}° away from the gradient of the first example")
assert found < 0.001

# %% [markdown]
# Where each example's gradient is a tree, `clip_by_global_norm` of that tree is the same clip:

# %%
tree = gradient(trained, images[[0]], with_error[[0]])
np.testing.assert_allclose(
    flat(clipcore.clip_by_global_norm(tree, limit)[0]), clipped_examples[0], atol=1e-12
)

# %% [markdown]
# ## All leaves together
#
# Nothing new: concatenate all leaves to one vector, take its norm. `clip_by_global_norm` does so without the concatenation,
# and returns the norm before beside the tree. With `ord=` the norm is L1, L2 or ℓ∞: other lengths, so other factors. The
# direction stays with each, since there is one group ([notebook 1](1_one_vector.py) has their pictures).

# %%
vector = flat(gradients)
norm_by_hand = {1: np.abs(vector).sum(), 2: np.sqrt((vector**2).sum()), np.inf: np.abs(vector).max()}
for order, expected in norm_by_hand.items():
    clipped, norm = clipcore.clip_by_global_norm(gradients, 0.1, ord=order)
    np.testing.assert_allclose(norm, expected, rtol=1e-12)
    np.testing.assert_allclose(flat(clipped), vector * (0.1 / expected), rtol=1e-12)
    assert angle(clipped, gradients) < 0.001
    print(f"ord={order}: norm {norm:.3f}, factor {0.1 / norm:.4f}")

# %% [markdown]
# ## What each library calls it
#
# A function clips over what it has in its hands. One that takes a tensor shares within the tensor; one that takes a list of
# parameters, or a tree, can share over all of them. The names rarely say which:
#
# | they say | who shares a norm | in clipcore |
# |---|---|---|
# | `torch.nn.utils.clip_grad_norm_`, and on it Lightning's `gradient_clip_val`, fastai's `GradientClip` | the parameters of the call; in Lightning those of one optimiser | `clip_by_global_norm(tree, C)` |
# | Keras `global_clipnorm=`, `tf.clip_by_global_norm`, `optax.clip_by_global_norm`, Paddle `ClipGradByGlobalNorm`, MLX `clip_grad_norm`, MXNet `clip_global_norm`, Chainer `GradientClipping` | all leaves | `clip_by_global_norm(tree, C)` |
# | torch's `norm_type=1` or `inf` | all leaves | `clip_by_global_norm(tree, C, ord=1)` or `ord=inf` |
# | Keras `clipnorm=`, `tf.clip_by_norm(t, C)`, Paddle `ClipGradByNorm`, Burn's `Norm` | each leaf | `clip_by_l2_norm(leaf, C)` |
# | `optax.clip_by_block_rms(t)` | each leaf of n elements, √n times the limit | `clip_by_l2_norm(leaf, t * n**0.5)` |
# | `tf.compat.v1.clip_by_average_norm(x, t)` | each leaf, n times the limit | `clip_by_l2_norm(leaf, t * n)` |
# | `tf.clip_by_norm(t, C, axes=0)`, Keras `MaxNorm(C, axis=0)` (of weights) | slices | `clip_by_l2_norm(x, C, axis=0)` |
# | `optax.per_example_global_norm_clip`, Opacus, JAX-Privacy | all leaves of one example | `clip_by_l2_norm(rows, C, axis=1)` |
# | `optax.per_example_layer_norm_clip`, of L leaves | one leaf of one example, with C/√L | `clip_by_l2_norm(rows_of_leaf, C / L**0.5, axis=1)` |
# | `optax.adaptive_grad_clip`, timm's `adaptive_clip_grad` | each unit, a limit from its weights | exercise 5 |
# | `torch.nn.utils.clip_grad_value_`, Keras `clipvalue=`, `optax.clip` | nobody: each element by itself | `clip_by_value(leaf, -C, C)` |
#
# Keras has two, and the same number given to `clipnorm` and to `global_clipnorm` makes two different trainings. Even one method
# can be two clips: the [code of AutoClip](https://github.com/pseeth/autoclip)
# ([Seetharaman et al. 2020](https://arxiv.org/abs/2007.14469)) clips the global norm in its version for torch, and each variable
# by itself in the one for TensorFlow.
#
# Their formulas in NumPy, beside clipcore's calls, on the same gradient (without the tiny constant that some add to
# the norm; [Coming from another clip](../docs/migration.md) lists those):

# %%
C, t, n_leaves = 0.2, 0.001, len(gradients)
leaf = gradients["kernel 1"]
n, norm = leaf.size, np.linalg.norm(leaf)
part, little = examples[:, :n], C / n_leaves**0.5  # of each example, what belongs to this leaf
clip = clipcore.clip_by_l2_norm
checks = {  # the gradient, clipcore, the formula
    "all leaves": (vector, flat(clipcore.clip_by_global_norm(gradients, C)[0]), by_hand(vector, C)),
    "each leaf": (leaf, clip(leaf, C), leaf * C / max(norm, C)),
    "block RMS": (leaf, clip(leaf, t * n**0.5), leaf / max(1, np.sqrt(np.mean(leaf**2)) / t)),
    "average norm": (leaf, clip(leaf, t * n), leaf * t * min(n / norm, 1 / t)),
    "slices": (leaf, clip(leaf, C, axis=0), by_hand(leaf, C, axis=0)),
    "each example": (examples, clip(examples, C, axis=1), by_hand(examples, C, axis=1)),
    "each leaf of it": (part, clip(part, little, axis=1), by_hand(part, little, axis=1)),
    "each element": (leaf, clipcore.clip_by_value(leaf, -t, t), np.clip(leaf, -t, t)),
}
for name, (before, ours, formula) in checks.items():
    np.testing.assert_allclose(ours, formula, rtol=1e-12)
    assert np.linalg.norm(ours) < 0.99 * np.linalg.norm(before)  # something was clipped
    print(f"{name:15} agrees")

# %% [markdown]
# ## The same limit means different things
#
# Let each of L leaves have norm C: together they have $\sqrt{C^2 + … + C^2} = C\sqrt L$. So a limit for each leaf limits the
# whole as well, but less. The same holds for any groups, be they leaves, units or shards: of G groups, at most $C\sqrt G$.

# %% tags=["hide-input"]
limits = np.geomspace(0.02, 3, 40)
axes_of = {"each leaf": None, "each unit": 0, "all together": "global"}
reached = {}
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
for name, axis in axes_of.items():
    sizes = (
        [1] if axis == "global" else [clipcore.l2_norm(leaf, axis=axis).size for leaf in gradients.values()]
    )
    bound = limits * sum(sizes) ** 0.5
    trees = [clip_groups(gradients, C, axis) for C in limits]
    whole = np.array([clipcore.global_norm(tree) for tree in trees])
    reached[name] = whole / bound
    left.loglog(limits, whole, color=colours[name], label=name, linewidth=2)
    left.loglog(limits, bound, color=colours[name], linestyle=":", linewidth=1)
    right.semilogx(limits, [angle(tree, gradients) for tree in trees], color=colours[name], linewidth=2)
left.axhline(clipcore.global_norm(gradients), color=BEFORE, linewidth=1, zorder=0)
left.text(0.02, 1.08 * clipcore.global_norm(gradients), "before", color="#666666", fontsize=9)
left.set(title="Length of the whole (dotted: C·√groups)", xlabel="limit C", ylim=(0.015, 4))
right.set(title="Turned by … degrees", xlabel="limit C")
ticks = (0.02, 0.1, 0.5, 2)
left.set_yticks(ticks, ticks)
for axes in (left, right):
    axes.minorticks_off()
    axes.set_xticks(ticks, ticks)
left.legend(loc="lower right")
plt.show()

# %%
for name, share in reached.items():
    print(f"{name:12} limit {limits[0]:g}: the whole reaches {share[0]:.3f} of C·√groups")
    assert (share <= 1 + 1e-12).all()  # under no limit more
assert min(share[0] for share in reached.values()) > 0.95

# %% [markdown]
# Changing from one kind to the other takes another limit. To be *safe* is easy: where each leaf has at most C/√L, the
# whole has at most C. To be *equal* is not possible with limits chosen beforehand. The safe limit is stricter than it need
# be, unless all leaves exceed it, and in general the direction is another one:

# %%
whole, _ = clipcore.clip_by_global_norm(gradients, limit)
safe = {name: clipcore.clip_by_l2_norm(leaf, limit / n_leaves**0.5) for name, leaf in gradients.items()}
for name, tree in {"all together, C": whole, "each leaf, C/√L": safe}.items():
    print(f"{name}: norm {clipcore.global_norm(tree):.3f}, turned by {angle(tree, gradients):.1f}°")
assert clipcore.global_norm(safe) < 0.99 * limit
assert angle(safe, gradients) > 10

# %% [markdown]
# ## Cut it, and clip the pieces
#
# Large trainings cut a gradient twice: its *elements* lie on many machines, and its *examples* come in micro-batches, one after
# another. Clipping each piece by itself makes groups, meant or not:

# %% tags=["hide-input"]
ranks = [1, 2, 4, 8, 16, 32]
local, shared = [], []
for count in ranks:
    shards = np.array_split(vector, count)
    local.append(np.concatenate([clipcore.clip_by_l2_norm(shard, limit) for shard in shards]))
    norm = clipcore.global_norm(shards)
    shared.append(
        np.concatenate([clipcore.clip_by_global_norm(shard, limit, norm=norm)[0] for shard in shards])
    )

cuts = [1, 2, 4, 8, 16, 32, 64]
each, once, shortest = [], [], []
for count in cuts:
    pairs = zip(np.split(images, count), np.split(labels, count), strict=True)
    micro = np.array([flat(gradient(network, *pair)) for pair in pairs])
    shortest.append(clipcore.l2_norm(micro, axis=1).min())
    each.append(clipcore.clip_by_l2_norm(micro, limit, axis=1).mean(axis=0))
    once.append(clipcore.clip_by_l2_norm(micro.mean(axis=0), limit))

figure, panels = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True)
panels[0].plot(ranks, np.linalg.norm(local, axis=1), "o-", color="#e69f00", label="each clips its own part")
panels[0].plot(ranks, np.linalg.norm(shared, axis=1), "o-", color=AFTER, label="one norm for all")
panels[1].plot(cuts, np.linalg.norm(each, axis=1), "o-", color="#e69f00", label="each is clipped")
panels[1].plot(cuts, np.linalg.norm(once, axis=1), "o-", color=AFTER, label="their mean is clipped")
for axes, counts, what in zip(panels, (ranks, cuts), ("machines", "micro-batches"), strict=True):
    axes.axhline(limit, color=LIMIT, linewidth=1, linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, counts)
    axes.set(xlabel=what, ylim=(0, None))
    axes.legend(loc="upper left")
panels[0].set(title="Elements on many machines", ylabel="length after clipping")
panels[1].set(title="Examples in micro-batches")
panels[0].text(32, limit - 0.04, "limit ", color=LIMIT, ha="right", va="top", fontsize=9)
plt.show()

# %%
on_ranks, in_cuts = np.linalg.norm(local, axis=1) / limit, np.linalg.norm(each, axis=1) / limit
print(f"on {ranks[-1]} machines, each by itself:      {on_ranks[-1]:.2f} times the step of one machine")
print(f"in {cuts[-1]} micro-batches, each by itself: {in_cuts[-1]:.2f} times the step of the batch")
above = sum(clipcore.l2_norm(shard) > limit for shard in np.array_split(vector, ranks[-1]))
print(f"{above} of {ranks[-1]} pieces on machines are above the limit")
print(f"the shortest of all micro-batches has {min(shortest) / limit:.1f} times the limit")
assert (np.diff(on_ranks) > 0).all()
assert above < 0.1 * ranks[-1]
assert np.linalg.norm(local[-1]) > 0.98 * np.linalg.norm(vector)
assert (np.diff(in_cuts) < 0).all()
assert min(shortest) > 2 * limit
np.testing.assert_allclose(shared, [shared[0]] * len(ranks), rtol=1e-12)
np.testing.assert_allclose(once, [once[0]] * len(cuts), atol=1e-12)

# %% [markdown]
# Where pieces are clipped by themselves, the result depends on how many there are: a training on eight machines is not the
# one on four. Left, the more pieces, the smaller they are: in the end hardly any exceeds the limit, and the gradient passes
# almost as it was. Right, every micro-batch is clipped, however many there are. But they point in different directions: each has at most
# the limit, and their mean has less.
#
# The blue lines are flat. For micro-batches it is a matter of order: add up, take the mean, then clip, once
# ([Gradient accumulation](../docs/how_to/gradient_accumulation.md)). For machines it takes a norm of norms.
#
# ## One norm over many machines
#
# Squares add up wherever they lie, so **the norm of the norms is the norm**. Each machine (a *rank*) measures its part, all
# learn the norm of the whole, and each scales its part with it:

# %%
shards = np.array_split(vector, 4)
norms = np.array([clipcore.global_norm(shard) for shard in shards])  # on each rank
norm = clipcore.global_norm(norms)  # sent around
parts = [clipcore.clip_by_global_norm(shard, limit, norm=norm)[0] for shard in shards]  # on each rank
np.testing.assert_allclose(norm, np.linalg.norm(vector), rtol=1e-12)
np.testing.assert_allclose(np.concatenate(parts), clipcore.clip_by_l2_norm(vector, limit), rtol=1e-12)

# %% [markdown]
# `all_reduce=` does this in one call. You say how an array is summed over the ranks, and every rank calls the same line.
# In practice that is `torch.distributed`, `jax.lax.psum` or MPI. Here the ranks are four threads that meet at a barrier:


# %%
class Meeting:
    """Every rank brings a small array; all leave with the sum, or the maximum."""

    def __init__(self, ranks):
        self.brought, self.barrier = [None] * ranks, threading.Barrier(ranks, timeout=60)

    def all_reduce(self, rank, array, op):
        self.brought[rank] = array
        self.barrier.wait()  # all have brought theirs
        reduced = {"sum": np.sum, "max": np.max}[op](self.brought, axis=0)
        self.barrier.wait()  # all have taken theirs
        return reduced


meeting = Meeting(4)


def on_rank(rank):
    all_reduce = partial(meeting.all_reduce, rank)
    return clipcore.clip_by_global_norm(shards[rank], limit, all_reduce=all_reduce)


with ThreadPoolExecutor(4) as pool:
    answers = list(pool.map(on_rank, range(4)))
norms = [float(norm) for _, norm in answers]
print("the norm that each rank got:", norms)
assert len(set(norms)) == 1  # the same bits
np.testing.assert_allclose(
    np.concatenate([part for part, _ in answers]), clipcore.clip_by_l2_norm(vector, limit), rtol=1e-12
)

# %% [markdown]
# All ranks take the same decision, because they get the same bits, in whatever order their numbers are added. How, what it
# costs (eight numbers), and what counts once when leaves are replicated: [Many machines](../docs/many_machines.md).
#
# ## What is not there does not count
#
# A leaf that is `None` stays `None` and is in no group. That is right for frozen parameters. A gradient that is computed and
# then thrown away, on the contrary, still takes its share of the limit, and the others move less for it:

# %%
head_only = {name: leaf if name.endswith("2") else None for name, leaf in gradients.items()}
for title, tree in {"frozen layer measured": gradients, "frozen layer None": head_only}.items():
    clipped, norm = clipcore.clip_by_global_norm(tree, limit)
    kept = clipcore.l2_norm(clipped["kernel 2"]) / clipcore.l2_norm(gradients["kernel 2"])
    print(f"{title:22} norm {norm:.2f}, layer 2 is multiplied by {kept:.2f}")
assert clipped["kernel 1"] is None
assert clipcore.global_norm(head_only) < 0.7 * clipcore.global_norm(gradients)

# %% [markdown]
# ## Sharing the norm means sharing the NaN
#
# One element of the small tree becomes NaN. The norm of its group is NaN then, and so is the factor, and so is the whole
# group. Orange is NaN after the clip:

# %% tags=["hide-input"]
broken = {name: leaf.copy() for name, leaf in tiny.items()}
broken["kernel 1"][1, 2] = np.nan
spread = {}
for axes, (title, axis) in zip(panels_for(broken), groups.items(), strict=True):
    clipped = clip_groups(broken, 1.0, axis)
    spread[title] = int(np.isnan(flat(clipped)).sum())

    def spoilt(name, place, clipped=clipped):
        return ("#e69f00", "NaN") if np.isnan(clipped[name][place]) else (to_rgba(AFTER, 0.06), "")

    draw(axes, title, axis, spoilt)
plt.show()

# %%
print(spread)
assert list(spread.values()) == [1, 4, 3, 12, 23]  # the sizes of its groups

# %% [markdown]
# That is the default, `nonfinite="propagate"`: nobody can overlook it. `"zero"` makes zeros of the group instead, and
# `"raise"` names the leaf. With `"zero"` the group decides what is lost: one example of a batch, one leaf, or the step:

# %%
whole = clipcore.clip_by_global_norm(broken, 1.0, nonfinite="zero")[0]
leaves = clip_groups(broken, 1.0, None, nonfinite="zero")
print("what still moves, all together:", [name for name, leaf in whole.items() if leaf.any()])
print("what still moves, each leaf:   ", [name for name, leaf in leaves.items() if leaf.any()])
try:
    clipcore.clip_by_global_norm(broken, 1.0, nonfinite="raise")
except FloatingPointError as error:
    print("raise:", error)
assert not flat(whole).any()
assert [name for name, leaf in leaves.items() if not leaf.any()] == ["kernel 1"]

# %% [markdown]
# ## Which group?
#
# | you want | group | call |
# |---|---|---|
# | a shorter step that points where it pointed | all leaves | `clip_by_global_norm(tree, C)` |
# | no leaf above the limit, whatever the others do | each leaf | `clip_by_l2_norm(leaf, C)` |
# | no unit above the limit | slices | `clip_by_l2_norm(kernel, C, axis=0)` |
# | no example to count for more than C | each example | `clip_by_l2_norm(rows, C, axis=1)` |
# | no number above the limit | each element | `clip_by_value(leaf, -C, C)` |
#
# Whoever reports a limit should report its group with it: "global norm 0.5", not "clipped at 0.5".
#
# ## Exercises
#
# **1.** Each element is a group of its own: `axis=()` sums over nothing. Why is that a clip by value? Which call do you prefer?

# %% tags=["hide-cell"]
x = np.array([-3.0, 0.5, 2.0])
by_norm, by_value = clipcore.clip_by_l2_norm(x, 1.0, axis=()), clipcore.clip_by_value(x, -1, 1)
print(by_norm, by_value)
np.testing.assert_allclose(by_norm, by_value, rtol=1e-12)
print("The norm of a number is its magnitude: x · min(1, C/|x|) is x where |x| ≤ C, else C with its sign.")
print("clip_by_value says what is meant, and multiplies nothing, so that nothing is rounded.")

# %% [markdown]
# **2.** Give the four leaves *different* limits so that the global norm is at most C for certain, and large leaves may keep
# more than small ones.

# %% tags=["hide-cell"]
sizes = {name: leaf.size for name, leaf in gradients.items()}
share = {name: limit * (size / sum(sizes.values())) ** 0.5 for name, size in sizes.items()}
clipped = {name: clipcore.clip_by_l2_norm(leaf, share[name]) for name, leaf in gradients.items()}
print({name: f"{part:.3f}" for name, part in share.items()})
print(f"squares of the limits add up to C²; the global norm is {clipcore.global_norm(clipped):.3f}")
print("Any limits do, if their squares add up to C². These go with the size of the leaf (optax's")
print("per_example_layer_norm_clip has them as uniform=False).")
np.testing.assert_allclose(sum(part**2 for part in share.values()), limit**2, rtol=1e-12)
assert clipcore.global_norm(clipped) <= limit * (1 + 1e-12)

# %% [markdown]
# **3.** Two optimisers each train one layer, and each clips its own gradients to 0.5. Is that the same as one clip of all to
# 0.5? Write it so that both calls share one norm.

# %% tags=["hide-cell"]
layer_1 = {name: leaf for name, leaf in gradients.items() if name.endswith("1")}
layer_2 = {name: leaf for name, leaf in gradients.items() if name.endswith("2")}
apart = clipcore.clip_by_global_norm(layer_1, limit)[0] | clipcore.clip_by_global_norm(layer_2, limit)[0]
norm = clipcore.global_norm([layer_1, layer_2])
shared = {}
for part in (layer_1, layer_2):
    shared |= clipcore.clip_by_global_norm(part, limit, norm=norm)[0]
print(f"two norms: {clipcore.global_norm(apart):.3f}, turned by {angle(apart, gradients):.1f}°")
print(f"one norm:  {clipcore.global_norm(shared):.3f}, turned by {angle(shared, gradients):.1f}°")
print("No: two groups, so up to √2 times the limit. (For the two networks of a GAN that is what is meant.)")
assert clipcore.global_norm(apart) > 1.3 * limit
assert angle(shared, gradients) < 0.001

# %% [markdown]
# **4.** Four shards have known L1 norms. What is the norm of the whole? Their ℓ∞ norms are known: what is it then? What goes
# wrong with the root of the sum of the squares?

# %% tags=["hide-cell"]
for order, join in ((1, np.sum), (np.inf, np.max)):
    norms = np.array([clipcore.global_norm(shard, ord=order) for shard in shards])
    right, wrong = join(norms), clipcore.global_norm(norms, ord=2)
    print(f"ord={order}: {right:.3f}, by squares {wrong:.3f}")
    np.testing.assert_allclose(right, clipcore.global_norm(vector, ord=order), rtol=1e-12)
    np.testing.assert_allclose(right, clipcore.global_norm(norms, ord=order), rtol=1e-12)
    assert abs(wrong / right - 1) > 0.2
print("Sum for L1, maximum for ℓ∞: the norm of norms, with the same ord. Squares fit L2 alone.")
print("With too small a norm the clip takes too little, with too large a one too much.")

# %% [markdown]
# **5.** Adaptive clipping ([Brock et al. 2021](https://arxiv.org/abs/2102.06171)) limits the gradient of each unit to a share λ
# of the norm of its weights, which counts as 0.001 at least. Write it with `l2_norm(axis=…)` for λ = 0.3. It is not in
# clipcore, where a limit is one number: can `clip_by_l2_norm` do it all the same?

# %% tags=["hide-cell"]
share = 0.3
weights = network.parameters["dense_0"]["kernel"]
unit_limits = share * np.maximum(clipcore.l2_norm(weights, axis=0), 1e-3)
unit_norms = clipcore.l2_norm(kernel, axis=0)
adaptive = kernel * (unit_limits / np.maximum(unit_norms, unit_limits))
same = unit_limits * clipcore.clip_by_l2_norm(kernel / unit_limits, 1.0, axis=0)
np.testing.assert_allclose(same, adaptive, rtol=1e-12)
print(f"{(unit_norms > unit_limits).sum()} of {len(unit_limits)} units are clipped,")
print(f"at limits from {unit_limits.min():.3f} to {unit_limits.max():.3f}")
print("Yes: measure each unit in its own limit (divide), clip to 1, multiply again. The last product rounds,")
print("so the bound holds up to that rounding.")
assert (clipcore.l2_norm(same, axis=0) <= unit_limits * (1 + 1e-12)).all()
assert 0 < (unit_norms > unit_limits).sum() < len(unit_limits)

# %% [markdown]
# **6.** An example of a batch overflows: its row holds an infinity. Sum the clipped rows so that the other examples still count.

# %% tags=["hide-cell"]
damaged = examples.copy()
damaged[5, 7] = np.inf
total = clipcore.clip_by_l2_norm(damaged, limit, axis=1, nonfinite="zero").sum(axis=0)
np.testing.assert_allclose(total, np.delete(clipped_examples, 5, axis=0).sum(axis=0), atol=1e-12)
print("nonfinite='zero': its group, the row, becomes zeros, and the sum is that of the 63 others.")
print(
    "For a mean, divide by 63. Where privacy is at stake by 64 all the same: 63 would give the example away."
)
