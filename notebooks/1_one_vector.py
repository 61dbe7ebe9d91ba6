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
# # 1 · What clipping does to one vector
#
# A gradient is a list of numbers: an arrow that points to where the error grows fastest. A step of training goes the other
# way, and the longer the arrow, the longer the step. To *clip* it is to make it smaller where it is above a limit, and to
# leave it alone where it is not. Here are four ways to do that, applied to the same arrows:

# %% tags=["hide-input"]
import json
from fractions import Fraction

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML

import clipcore

BEFORE, AFTER, LIMIT = "#999999", "#0072b2", "#d55e00"
plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})

clips = {
    "by value": lambda x, limit: clipcore.clip_by_value(x, -limit, limit),
    "by ℓ∞ norm": lambda x, limit: clipcore.clip_by_global_norm(x, limit, ord=np.inf)[0],
    "by L2 norm": clipcore.clip_by_l2_norm,
    "by L1 norm": clipcore.clip_by_l1_norm,
}
balls = {  # the arrows that a limit of 1 allows, by their outline
    "by value": np.array([[1, 1], [-1, 1], [-1, -1], [1, -1], [1, 1]]),
    "by ℓ∞ norm": np.array([[1, 1], [-1, 1], [-1, -1], [1, -1], [1, 1]]),
    "by L2 norm": np.stack([f(np.linspace(0, 2 * np.pi, 100)) for f in (np.cos, np.sin)], axis=1),
    "by L1 norm": np.array([[1, 0], [0, 1], [-1, 0], [0, -1], [1, 0]]),
}


def plane(axes, name, reach):
    """Prepare a plane with the ball of limit 1."""
    axes.fill(*balls[name].T, color=LIMIT, alpha=0.12)
    axes.plot(*balls[name].T, color=LIMIT, linewidth=1)
    axes.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach), title=name, xticks=[], yticks=[])
    axes.axhline(0, color="lightgrey", linewidth=0.5, zorder=0)
    axes.axvline(0, color="lightgrey", linewidth=0.5, zorder=0)


angles = 2 * np.pi * (np.arange(24) + 0.5) / 24
lengths = np.where(np.arange(24) % 3, 1.9, 0.5)  # every third arrow is short
arrows = np.stack([lengths * np.cos(angles), lengths * np.sin(angles)], axis=1)

figure, row = plt.subplots(1, 4, figsize=(10, 2.9))
for axes, (name, clip) in zip(row, clips.items(), strict=True):
    plane(axes, name, reach=2.1)
    clipped = np.array([clip(arrow, 1.0) for arrow in arrows])
    for before, after in zip(arrows, clipped, strict=True):
        axes.plot(*np.stack([before, after]).T, color=BEFORE, linewidth=1)
    axes.scatter(*arrows.T, s=14, color=BEFORE, label="before")
    axes.scatter(*clipped.T, s=14, color=AFTER, label="after", zorder=3)
row[0].legend(loc="lower left", fontsize=8)
plt.show()

# %% [markdown]
# Every dot is the tip of an arrow that starts in the middle. The orange shape is what the limit allows: mathematicians call
# it a *ball*. Tips outside of it (grey) are brought back (blue); tips inside stay where they are. Look at the lines along
# which they travel:
#
# - **by norm** (the three on the right; a *norm* $‖x‖$ is a measure of how large an arrow is) tips travel towards the
#   middle. The arrow gets shorter and keeps its direction.
# - **by value** each coordinate is cut by itself. Tips travel straight to the nearest side of the square, and all that
#   are beyond a corner end in it: arrows that pointed in different directions are now the same.
#
# The first two have the same square, and do different things to what is outside of it. The norms differ in
# how they measure an arrow $x = (x_1, x_2, …)$:
#
# | norm | formula | of (4, 3) |
# |---|---|---|
# | L1 | $\|x_1\| + \|x_2\| + …$ | 7 |
# | L2, the usual length | $\sqrt{x_1^2 + x_2^2 + …}$ | 5 |
# | ℓ∞ | the largest $\|x_i\|$ | 4 |

# %%
arrow = np.array([4.0, 3.0])
print("L1 norm:", clipcore.l1_norm(arrow))
print("L2 norm:", clipcore.l2_norm(arrow))
print("ℓ∞ norm:", clipcore.global_norm(arrow, ord=np.inf))

# %% [markdown]
# A clip by norm multiplies all numbers by one factor, $\min(1, C/‖x‖)$ for the limit $C$: where the norm is twice too large,
# every number is halved. A clip by value knows no factor: it is $\min(\max(x_i, -C), C)$ for each number. With the limit 3.5:

# %%
print("by value:  ", clipcore.clip_by_value(arrow, -3.5, 3.5))
print("by ℓ∞ norm:", clipcore.clip_by_global_norm(arrow, 3.5, ord=np.inf)[0])
print("by L2 norm:", clipcore.clip_by_l2_norm(arrow, 3.5))
print("by L1 norm:", clipcore.clip_by_l1_norm(arrow, 3.5))

# %% [markdown]
# Three of these are functions of their own. The clip by ℓ∞ norm is an option of the global clip, which comes below; it is here
# because it shares its square with the clip by value.
#
# ## Move the limit
#
# The same arrow (4, 3) under all four clips, while the limit grows. Where does the arrow turn? Where does it stop changing?

# %% tags=["hide-input"]
limits = np.linspace(0.25, 8, 32)
frames = {name: [clip(arrow, limit).tolist() for limit in limits] for name, clip in clips.items()}
drawing = """
<div id="limit-slider" style="max-width: 56rem">
<label>limit <input type="range" min="0" max="31" value="11" style="width: 60%"> <output></output></label>
<div style="display: flex; flex-wrap: wrap; gap: 0.5rem"></div>
</div>
<script>
(() => {
  const limits = LIMITS, frames = FRAMES, balls = BALLS;
  const root = document.getElementById("limit-slider");
  const [input, shown] = root.querySelectorAll("input, output");
  const line = (x, y, colour, width) => `<line x2="${x}" y2="${-y}" stroke="${colour}" stroke-width="${width}"/>`;
  const draw = () => {
    const limit = limits[input.value];
    shown.textContent = limit.toFixed(2);
    root.lastElementChild.innerHTML = Object.entries(frames).map(([name, tips]) => {
      const [x, y] = tips[input.value];
      const outline = balls[name].map(([a, b]) => `${a * limit},${-b * limit}`).join(" ");
      return `<div style="flex: 1 1 9rem; max-width: 13rem; text-align: center">
        <svg viewBox="-5 -5 10 10" style="width: 100%" role="img" aria-label="${name}, limit ${limit.toFixed(2)}">
        <polygon points="${outline}" fill="#d55e0022" stroke="#d55e00" stroke-width="0.06"/>
        ${line(4, 3, "#999999", 0.12)}${line(x, y, "#0072b2", 0.25)}<circle cx="${x}" cy="${-y}" r="0.3" fill="#0072b2"/>
        </svg><div>${name}<br>(${x.toFixed(2)}, ${y.toFixed(2)})</div></div>`;
    }).join("");
  };
  input.addEventListener("input", draw);
  draw();
})();
</script>
"""
for word, value in {
    "LIMITS": limits.tolist(),
    "FRAMES": frames,
    "BALLS": {name: ball.round(3).tolist() for name, ball in balls.items()},
}.items():
    drawing = drawing.replace(word, json.dumps(value, ensure_ascii=False))
HTML(drawing)

# %% [markdown]
# The same without moving anything: the path of the tip as the limit grows, and its direction on the way.

# %% tags=["hide-input"]
path = {name: np.array([clip(arrow, limit) for limit in limits]) for name, clip in clips.items()}
looks = {"by value": "-", "by ℓ∞ norm": "-", "by L2 norm": "--", "by L1 norm": ":"}
colours = dict(zip(clips, ("#e69f00", "#56b4e9", "#0072b2", "#cc79a7"), strict=True))

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4))
for name, tips in path.items():
    style = {"color": colours[name], "linestyle": looks[name], "label": name, "linewidth": 2}
    left.plot(*tips.T, marker="o", markersize=3, **style)
    right.plot(limits, np.degrees(np.arctan2(tips[:, 1], tips[:, 0])), **style)
left.set(
    aspect="equal",
    xlim=(0, 4.5),
    ylim=(0, 3.5),
    title="The tip, limit 0.25 to 8",
    xlabel="first",
    ylabel="second",
)
right.set(title="Direction of the result", xlabel="limit", ylabel="degrees", ylim=(30, 50))
right.legend()
plt.show()

# %% [markdown]
# By norm the tip moves along the arrow, whatever the norm, and the direction is the same for every limit. By value it
# leaves the arrow: for every limit below 4 the direction is another, and from 3 down both numbers are cut to the same size, so
# that only their signs remain of the gradient. Each clip stops changing the arrow where its limit reaches the norm:

# %%
norms = {"by value": 4, "by ℓ∞ norm": 4, "by L2 norm": 5, "by L1 norm": 7}
for name, norm in norms.items():
    assert not np.array_equal(clips[name](arrow, norm - 0.01), arrow)
    assert np.array_equal(clips[name](arrow, norm), arrow)
assert np.array_equal(np.sign(arrow) * 3, clips["by value"](arrow, 3))

# %% [markdown]
# ## What is inside stays, to the last bit
#
# An arrow within its limit is returned as it is, and one that was clipped is within the limit: *exactly*, in the arithmetic
# of fractions, where nothing is rounded. The formula as it is usually written does not do that
# ([notebook 2](2_floating_point.py) shows why). Here for 300 vectors of eight float64 numbers:


# %%
def by_hand(x, limit):
    return x * min(1, limit / np.linalg.norm(x))


def exact_square(x):
    """The square of the length, without any rounding."""
    return sum(Fraction(float(number)) ** 2 for number in x)


rng = np.random.default_rng(1)
vectors = rng.standard_normal((300, 8)) * 10
for name, clip in {"by hand": by_hand, "clipcore": clipcore.clip_by_l2_norm}.items():
    too_long = sum(exact_square(clip(x, 1.0)) > 1 for x in vectors)
    changed_again = sum(not np.array_equal(clip(x, 1.0), clip(clip(x, 1.0), 1.0)) for x in vectors)
    print(f"{name}: {too_long} of 300 are longer than the limit, {changed_again} change when clipped twice")

# %%
small = np.array([0.25, -0.0])
assert exact_square(clipcore.clip_by_l2_norm(vectors[0], 1.0)) <= 1
assert clipcore.clip_by_l2_norm(small, 1.0).tobytes() == small.tobytes()  # the sign of zero too
assert not clipcore.clip_by_l2_norm(np.zeros(3), 1.0).any()  # nothing is divided by zero
assert not clipcore.clip_by_l2_norm(arrow, 0.0).any()  # a limit of 0 leaves zeros

# %% [markdown]
# ## From one vector to a network: two more clips
#
# A network computes in layers. Each has a matrix of weights, its *kernel*, and a list of offsets, its *bias*, and the gradient
# has an array for each of them. Such a dict of arrays is a *tree*, the arrays are its *leaves*. If each leaf is clipped by its
# own norm, large ones shrink and small ones do not, and the step as a whole points elsewhere. The **global norm** treats all
# of them as one long vector: one norm, one factor, the direction of the whole step is kept.
#
# The gradient below has two leaves of one number each, 6 and 2, and the limit is 2. `clip_by_global_norm` returns the clipped
# gradients, and the norm that they had before:

# %%
gradients = {"kernel": np.array([6.0]), "bias": np.array([2.0])}
each = {name: clipcore.clip_by_l2_norm(leaf, 2.0) for name, leaf in gradients.items()}
together, norm = clipcore.clip_by_global_norm(gradients, 2.0)
print("each by its own norm:", each)
print("by the global norm:  ", together, "norm before:", norm)
weights = {"kernel": np.array([1.7, -0.2]), "bias": np.array([-3.0])}
print("weights in a range:  ", clipcore.clip_weights(weights, -1, 1))

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.2))
for label, tree, colour in (
    ("before", gradients, BEFORE),
    ("each leaf by its own norm", each, "#e69f00"),
    ("by the global norm", together, AFTER),
):
    tip = (tree["kernel"].item(), tree["bias"].item())
    left.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 2})
    left.plot(*tip, color=colour, label=label)
left.set(
    aspect="equal",
    xlim=(0, 6.3),
    ylim=(0, 3.4),
    xlabel="kernel",
    ylabel="bias",
    title="Two leaves of one number each, limit 2",
)
left.legend(loc="upper right")

weight = {"with clip_weights": np.array(0.0), "without": np.array(0.0)}
course = {name: [] for name in weight}
for gradient in 2 * np.sin(np.arange(60) / 6) + rng.standard_normal(60):
    weight = {name: value - 0.15 * gradient for name, value in weight.items()}
    weight["with clip_weights"] = clipcore.clip_weights(weight["with clip_weights"], -1, 1)
    for name, value in weight.items():
        course[name].append(value)
right.axhspan(-1, 1, color=LIMIT, alpha=0.12)
for name, colour in (("without", BEFORE), ("with clip_weights", AFTER)):
    right.plot(course[name], color=colour, marker=".", label=name)
right.set(xlabel="step", ylabel="weight", title="A weight and its range")
right.legend()
plt.show()

# %% [markdown]
# The last of the five is another thing altogether. **`clip_weights`** does not touch gradients: after the step it puts every
# *weight* back into a range (the picture on the right). It is `clip_by_value` for all leaves of a network,
# and is used where a method needs bounded weights ([notebook 4](4_weights.py)).
#
# | you want | clip | direction of the gradient |
# |---|---|---|
# | no single number above the limit | `clip_by_value` | changes |
# | one array limited, by the sum of its magnitudes | `clip_by_l1_norm` | stays, within the array |
# | one array limited, by its length | `clip_by_l2_norm` | stays, within the array |
# | the whole step limited | `clip_by_global_norm` | stays |
# | weights in a range, after the step | `clip_weights` | it is not about gradients |
#
# Not sure which? For gradients, `clip_by_global_norm`. Its price: one huge leaf makes the steps of all others small. L1 is
# rare in training; it is the stricter the more numbers an array has (exercise 3).
#
# ## Exercises
#
# Think first, then open the answer.
#
# **1.** An arrow (100, 0.001) is clipped by value to ±1. Which number changes more, and what happens to the direction? Which
# small number instead of 0.001 makes the arrow turn most?

# %% tags=["hide-cell"]
turned = {}
for second in (0.001, 1.0, 2.0, 50.0, 100.0):
    before, after = np.array([100.0, second]), clipcore.clip_by_value(np.array([100.0, second]), -1, 1)
    turned[second] = np.degrees(np.arctan2(*after[::-1]) - np.arctan2(*before[::-1]))
    print(f"(100, {second:g}) → ({after[0]:g}, {after[1]:g}), turned by {turned[second]:.2f}°")
print(
    "Only the first number of (100, 0.001) changes, and the arrow hardly turns: it still lies along an axis."
)
print("It turns most where the second is just at the limit. (100, 100) is cut as hard, and does not turn.")
assert max(turned, key=turned.get) == 1.0
assert turned[0.001] < 0.1
assert turned[100.0] == 0

# %% [markdown]
# **2.** The same limit of 1 for L1, L2 and ℓ∞: which leaves the longest arrow (by the usual length), which the shortest?
# Does the order ever change?

# %% tags=["hide-cell"]
kept = {
    name: clipcore.l2_norm(clips[name](arrow, 1.0)) for name in ("by L1 norm", "by L2 norm", "by ℓ∞ norm")
}
print({name: f"{length:.3f}" for name, length in kept.items()})
print("Longest by ℓ∞, shortest by L1. Along an axis all three are equal.")
print(
    "L1 is never below L2, and L2 never below ℓ∞, so the factor C/‖x‖ is smallest for L1: the order never changes."
)
print("In the first picture: the diamond lies in the circle, the circle in the square.")
for x in vectors:
    assert clipcore.l1_norm(x) >= clipcore.l2_norm(x) >= clipcore.global_norm(x, ord=np.inf)

# %% [markdown]
# **3.** A gradient of a million numbers, each about 1. What is its L1 norm, what its L2 norm? What does that say about one
# limit for networks of different sizes?

# %% tags=["hide-cell"]
million = np.ones(1_000_000, np.float32)
print(
    f"L1 {clipcore.l1_norm(million):g}, L2 {clipcore.l2_norm(million):g}, ℓ∞ {clipcore.global_norm(million, ord=np.inf):g}"
)
print(
    "L2 grows with the square root of the size, L1 with the size: the same limit is much stricter in a larger network."
)
assert clipcore.l1_norm(million) == 1e6
assert clipcore.l2_norm(million) == 1e3

# %% [markdown]
# **4.** Is the result of `clip_by_l1_norm` the point of the diamond that is nearest to the arrow?

# %% tags=["hide-cell"]
point = np.array([2.0, 0.5])
scaled = clipcore.clip_by_l1_norm(point, 1.0)
corner = np.array([1.0, 0.0])
print(f"No. (2, 0.5) is scaled to {scaled}, {clipcore.l2_norm(point - scaled):.3f} away;")
print(f"the corner {corner} is nearer, {clipcore.l2_norm(point - corner):.3f} away.")
print("The nearest point is called the projection, and usually changes the direction. For L2 the clip is it.")
print("For the square the projection is the clip by value: look at the first picture again.")
assert clipcore.l2_norm(point - corner) < clipcore.l2_norm(point - scaled)

# %% [markdown]
# **5.** Two leaves, (3, 4) and (0.3, 0.4), are each clipped by L2 to 1. What is the global norm of the result? Can it be above
# 1, and what is the most it can be for 100 leaves?

# %% tags=["hide-cell"]
leaves = [clipcore.clip_by_l2_norm(np.array(leaf), 1.0) for leaf in ([3.0, 4.0], [0.3, 0.4])]
print(
    f"{clipcore.global_norm(leaves):.4f}: each leaf may have norm 1, so 100 leaves may have √100 = 10 together."
)
assert 1 < clipcore.global_norm(leaves) < 2
