"""Reports as a few environments would write them: invented numbers, the same on every call."""

from __future__ import annotations

import random
from typing import Final, NamedTuple

from clipcore.verify.report import LAWS, Count, Finding, Level, Report, ReportFile, Skipped

VALUE, L1, L2 = "clip_by_value", "clip_by_l1_norm", "clip_by_l2_norm"
GLOBAL, WEIGHTS = "clip_by_global_norm", "clip_weights"
_LIMIT: Final = "import numpy as np\n\nx = np.array({values}, np.{dtype})\nfn(x, {limit})"
_NO_DIRECTION: Final = (VALUE, WEIGHTS)


class Fault(NamedTuple):
    """One way in which an invented implementation fails."""

    law: str
    level: Level
    message: str
    expected: str
    got: str
    ulps: float | None
    example: str
    share: float  # of the cases that break


def _example(values: str, limit: str, dtype: str = "float32") -> str:
    return _LIMIT.format(values=values, limit=limit, dtype=dtype)


BOUND = Fault(
    "bound",
    "exact",
    "the norm of the result exceeds the limit",
    "at most 1.0",
    "1.0000000342",
    0.287,
    _example("[0.9, 0.70710678]", "1.0"),
    0.16,
)
TIGHT = Fault(
    "tightness",
    "exact",
    "the result was clipped too far",
    "at least 0.9999997615814209",
    "0.9999990010",
    12.8,
    _example("[3.0, 4.0]", "1.0"),
    0.31,
)
IDENTITY = Fault(
    "identity",
    "exact",
    "a group within the limit was changed",
    "3.0",
    "2.999999523162842",
    2.0,
    _example("[3.0, 4.0]", "5.000001"),
    0.21,
)
AGAIN = Fault(
    "idempotence",
    "exact",
    "clipping twice differs from clipping once",
    "0.5",
    "0.4999995231628418",
    16.0,
    _example("[1.0, 1.0]", "1.0"),
    0.4,
)
SCALE = Fault(
    "scale",
    "exact",
    "the result did not scale bit for bit",
    "0.0234374962747097",
    "0.023437071591615677",
    228.0,
    _example("[3.0, 4.0]", "7.000000000000006"),
    0.33,
)
RANGE = Fault(
    "range",
    "robust",
    "a normal element became zero",
    "0.7071067811865476",
    "0.0",
    1.19e7,
    _example("[1e30, 1e30]", "1.0"),
    0.11,
)
NORM = Fault(
    "norm",
    "robust",
    "the norm is not within 2^-44 of the exact one",
    "1.4142135623730951e+30",
    "inf",
    float("inf"),
    _example("[1e30, 1e30]", "1.0"),
    0.14,
)
FORMULA = Fault(
    "formula",
    "rounded",
    "an element is more than 4 ulp from the formula",
    "0.6000000238418579",
    "0.599999904632568",
    8.0,
    _example("[0.003, 0.004]", "0.005"),
    0.27,
)
DIRECTION = Fault(
    "direction",
    "exact",
    "a component is more than 4 ulp from x·C/‖x‖",
    "0.043971244245767586",
    "0.043971166014671326",
    21.0,
    _example("[0.003, 0.004]", "0.004999"),
    0.2,
)
FAR = RANGE._replace(law="direction", message="a component came back as zero", share=0.06)
FORM = Fault(
    "form",
    "robust",
    "a leaf came back with another dtype or shape",
    "(dtype('float16'), (2,))",
    "(dtype('float32'), (2,))",
    None,
    _example("[300, 300]", "1.0", "float16"),
    0.09,
)
EMPTY = Fault(
    "edges",
    "robust",
    "empty leaf: an exception instead of the leaf",
    "[]",
    "IndexError: list index out of range",
    None,
    _example("[]", "1.0"),
    0.04,
)
NAN = Fault(
    "edges",
    "robust",
    "NaN under a limit that is not reached: the group is not answered as under 'propagate'",
    "[nan nan]",
    "[nan 1.]",
    None,
    _example("[np.nan, 1.0]", "2.0"),
    0.02,
)
ZERO = Fault(
    "edges",
    "robust",
    "zero vector: not returned unchanged",
    "[0. 0.]",
    "[nan nan]",
    None,
    _example("[0.0, 0.0]", "1.0"),
    0.03,
)
CALL = Fault(
    "call",
    "robust",
    "an exception",
    "a result",
    "TypeError: can't convert complex128 to Tensor",
    None,
    _example("[3 + 4j]", "1.0", "complex128"),
    0.05,
)
ORDER = Fault(
    "formula",
    "robust",
    "the bounds are cast to the dtype of x by rounding to nearest",
    "0.0999755859375",
    "0.1000366210937",
    1.0,
    _example("[0.5]", "-0.1, 0.1", "float16"),
    0.06,
)
LOOSE = BOUND._replace(message="an element is above its bound", example=ORDER.example, share=0.06)

ROUNDING = (BOUND, TIGHT, IDENTITY, AGAIN, SCALE)
OVERFLOW = (RANGE, NORM, FAR)
EPSILON = (FORMULA, DIRECTION, TIGHT, IDENTITY, AGAIN, SCALE)


class Peer(NamedTuple):
    """One invented implementation."""

    subject: str
    operation: str
    faults: tuple[Fault, ...]
    differs: str = ""  # formula by which the faults at level rounded are right


TORCH = (
    Peer("torch.nn.utils.clip_grad_norm_", GLOBAL, (*EPSILON, BOUND, *OVERFLOW, CALL, NAN), "torch"),
    Peer("torch.nn.utils.clip_grad_value_", VALUE, (ORDER, LOOSE, CALL)),
    Peer("torch.clamp", VALUE, (LOOSE,)),
    Peer("torch.clamp_", WEIGHTS, (ORDER, LOOSE)),
    Peer("torch.renorm", L2, (*EPSILON, *OVERFLOW, ZERO, CALL), "torch"),
    Peer("lightning.clip_gradients", GLOBAL, (*EPSILON, *OVERFLOW, EMPTY), "torch"),
    Peer("accelerate.clip_grad_norm_", GLOBAL, (*EPSILON, *OVERFLOW, CALL, NAN), "torch"),
    Peer("deepspeed.clip_grad_norm_", GLOBAL, (*EPSILON, *OVERFLOW, EMPTY, ZERO), "torch"),
    Peer("opacus.per_sample_clip", L2, (*EPSILON, *OVERFLOW), "torch"),
    Peer("ignite.clip_grad_norm", GLOBAL, (*EPSILON, *OVERFLOW), "torch"),
)
JAX = (
    Peer("optax.clip_by_global_norm", GLOBAL, (*ROUNDING, *OVERFLOW, EMPTY)),
    Peer("optax.adaptive_grad_clip", L2, (FORMULA, *ROUNDING, *OVERFLOW)),
    Peer("optax.clip", VALUE, ()),
    Peer("optax.per_example_global_norm_clip", GLOBAL, (*ROUNDING, *OVERFLOW, FORM)),
    Peer("jax.numpy.clip", VALUE, (LOOSE,)),
    Peer("flax.clip_by_norm", L2, (*ROUNDING, *OVERFLOW)),
)
KERAS = (
    Peer("tensorflow.clip_by_norm", L2, (*ROUNDING, *OVERFLOW, FORM)),
    Peer("tensorflow.clip_by_global_norm", GLOBAL, (*ROUNDING, *OVERFLOW, NAN, EMPTY)),
    Peer("tensorflow.clip_by_value", VALUE, (ORDER, LOOSE, NAN)),
    Peer("tensorflow.clip_by_average_norm", L2, (FORMULA, *ROUNDING, *OVERFLOW)),
    Peer("keras.clipnorm", L2, (*ROUNDING, *OVERFLOW, FORM)),
    Peer("keras.global_clipnorm", GLOBAL, (*ROUNDING, *OVERFLOW, NAN)),
    Peer("keras.clipvalue", VALUE, ()),
)
OWN = tuple(Peer(f"clipcore.{operation}", operation, ()) for operation in (GLOBAL, L1, L2, VALUE, WEIGHTS))
HAND = (
    Peer("numpy.clip", VALUE, (LOOSE,)),
    Peer("handwritten.clip_by_l1_norm", L1, (*EPSILON, BOUND, *OVERFLOW), "torch"),
    Peer("handwritten.clip_by_global_norm", GLOBAL, (*EPSILON, BOUND, *OVERFLOW), "torch"),
)


def sample_files() -> list[ReportFile]:
    """Return the files of four environments, one of them older and partly superseded."""
    common = {"python": "3.13.5", "platform": "Linux-6.1.0-x86_64-with-glibc2.41", "numpy": "2.4.6"}
    ours = {**common, "clipcore": "0.2.0"}
    versions = {"torch": "2.9.1", "optax": "0.2.6", "tensorflow": "2.20.0", "keras": "3.12.0", "jax": "0.8.1"}
    no_metal = "mlx is not installed: it needs macOS or its CPU build"
    no_paddle = "paddle is not installed in this environment"
    return [
        _file("2026-11-14", {**ours, "numpy": "2.3.5"}, TORCH[:2], {**versions, "torch": "2.8.0"}, {}),
        _file("2026-11-20", ours, (*OWN, *HAND), versions, {"torch.clamp": "torch is not installed"}),
        _file("2026-11-20", ours, TORCH, versions, {"mlx.optimizers.clip_grad_norm": no_metal}),
        _file("2026-11-20", ours, JAX, versions, {"paddle.nn.ClipGradByGlobalNorm": no_paddle}),
        _file("2026-11-21", {**ours, "python": "3.12.11"}, KERAS, versions, {"mxnet.clip": "no Python 3.12"}),
    ]


def _file(
    date: str,
    environment: dict[str, str],
    peers: tuple[Peer, ...],
    versions: dict[str, str],
    skipped: dict[str, str],
) -> ReportFile:
    own = {"clipcore": environment["clipcore"], "numpy": environment["numpy"]}
    return ReportFile(
        date,
        environment,
        [report(peer, {**versions, **own}.get(peer.subject.split(".")[0], "")) for peer in peers],
        [Skipped(subject, reason) for subject, reason in skipped.items()],
    )


def report(peer: Peer, version: str = "") -> Report:
    """Return what is known of an invented implementation."""
    rng = random.Random(f"{peer.subject} {peer.operation}")
    counts = {law: Count(rng.randrange(180, 4200)) for law in LAWS if _asked(law, peer.operation)}
    findings = [_finding(fault, counts[fault.law], peer, rng) for fault in peer.faults if fault.law in counts]
    if peer.operation in _NO_DIRECTION:
        why = "takes no limit, so it has no direction"
        findings.append(Finding("direction", "exact", "skip", why))
    order = {"rounded": 0, "robust": 1, "exact": 2}
    findings.sort(key=lambda finding: order[finding.level])
    return Report(
        subject=peer.subject,
        operation=peer.operation,
        formula="contract",
        asked="exact",
        seed=0,
        max_examples=200,
        findings=tuple(findings),
        counts=counts,
        version=version,
        definition=peer.differs or "contract",
    )


def _asked(law: str, operation: str) -> bool:
    if operation in _NO_DIRECTION:
        return law not in ("direction", "tightness", "scale", "norm")
    return law != "norm" or operation == GLOBAL


def _finding(fault: Fault, count: Count, peer: Peer, rng: random.Random) -> Finding:
    cases = max(1, round(count.tried * fault.share * rng.uniform(0.5, 1.2)))
    difference = peer.differs if fault in (FORMULA, IDENTITY) else ""
    count.broken += cases
    count.differing += cases if difference else 0
    return Finding(
        fault.law,
        fault.level,
        "fail",
        fault.message,
        fault.example,
        fault.expected,
        fault.got,
        fault.ulps,
        cases,
        difference,
    )


HOSTILE: Final = "</script></style><img src=x onerror=window.hit=1>\"'&amp;|`@@rows@@${1}\u2028"


def hostile_file() -> ReportFile:
    """Return a file in which every text tries to become part of the page."""
    finding = Finding(
        "bound",
        "exact",
        "fail",
        f"message {HOSTILE}",
        f"fn({HOSTILE!r})\n```\n# **bold**",
        f"expected {HOSTILE}",
        f"got {HOSTILE}",
        float("inf"),
        3,
        f"difference {HOSTILE}",
    )
    held = Report(
        f"evil/name.{HOSTILE}",
        f"operation {HOSTILE}",
        f"formula {HOSTILE}",
        "exact",
        0,
        10,
        (finding,),
        {"bound": Count(9, 3, 0), "call": Count(9)},
        f"1.0 {HOSTILE}",
        f"definition {HOSTILE}",
    )
    environment = {f"python {HOSTILE}": f"3 {HOSTILE}"}
    skipped = [Skipped(f"skipped {HOSTILE}", f"reason {HOSTILE} \ud800")]
    return ReportFile(f"2026-11-21 {HOSTILE}", environment, [held], skipped)
