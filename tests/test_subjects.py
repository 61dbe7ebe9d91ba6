"""The ready-made subjects: right on ordinary cases where their framework is, and saying what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes  # noqa: F401  # gives NumPy the name bfloat16
import numpy as np
import pytest

from clipcore.verify.calling import NotOffered
from clipcore.verify.form import leaves
from clipcore.verify.formulas import FORMULAS, extended
from clipcore.verify.judge import NORM_CLIPS, NORMS, VALUE_CLIPS
from clipcore.verify.subject import Callee
from clipcore.verify.subjects import ReadyMade, _keras, missing, ready_made, version_of
from clipcore.verify.subjects._ready_made import check_flat, check_leaves, check_number, check_tree, symmetric

# what a framework warns of while it is imported is its own affair
pytestmark = pytest.mark.filterwarnings("ignore")

SUBJECTS = ready_made()
FRAMEWORKS = ("torch", "opacus", "jax", "optax", "jax_privacy", "tensorflow", "keras", "mlx", "paddle")
TOLERANCE = {"float16": 2e-3, "bfloat16": 1e-2, "float32": 1e-6, "float64": 1e-6}

Case = tuple[Any, tuple[Any, ...], Any]  # the first argument, the others, what comes back

CASES: dict[str, list[Case]] = {
    "clip_by_value": [
        ([-3.0, 0.5, 2.0], (-1.0, 1.0), [-1.0, 0.5, 1.0]),
        ([[-3.0, 0.5], [2.0, 1.0]], (-4.0, 4.0), [[-3.0, 0.5], [2.0, 1.0]]),
        ([-3.0, 0.5, 2.0], (0, None), [0.0, 0.5, 2.0]),
    ],
    "clip_weights": [
        ({"w": [[-3.0, 0.5]], "b": [2.0]}, (-1.0, 1.0), {"w": [[-1.0, 0.5]], "b": [1.0]}),
        ({"w": [[-3.0, 0.5]], "b": [2.0]}, (-4.0, 4.0), {"w": [[-3.0, 0.5]], "b": [2.0]}),
    ],
    "clip_by_l1_norm": [
        ([3.0, -4.0], (3.5,), [1.5, -2.0]),
        ([3.0, -4.0], (10.0,), [3.0, -4.0]),
        ([0.0, 0.0], (1.0,), [0.0, 0.0]),
    ],
    "clip_by_l2_norm": [
        ([-3.0, 0.0, 4.0], (2.5,), [-1.5, 0.0, 2.0]),
        ([3.0, 4.0], (10.0,), [3.0, 4.0]),
        ([0.0, 0.0], (1.0,), [0.0, 0.0]),
    ],
    "clip_by_global_norm": [
        ([[3.0, 0.0], [[-4.0]]], (2.5,), ([[1.5, 0.0], [[-2.0]]], 5.0)),
        ([[3.0, 0.0], [[-4.0]]], (10.0,), ([[3.0, 0.0], [[-4.0]]], 5.0)),
    ],
    "l1_norm": [([3.0, -4.0], (), 7.0), ([[3.0], [-4.0]], (), 7.0)],
    "l2_norm": [([3.0, -4.0], (), 5.0), ([[3.0], [-4.0]], (), 5.0)],
    "global_norm": [([[3.0, 0.0], [[-4.0]]], (), 5.0), ([[0.0]], (), 0.0)],
}
PROJECTED: list[Case] = [
    ([3.0, -4.0], (3.5,), [1.25, -2.25]),
    ([3.0, -4.0, 0.5], (1.0,), [0.0, -1.0, 0.0]),
    ([3.0, -4.0], (10.0,), [3.0, -4.0]),
]


def identity(subject: ReadyMade) -> str:
    return f"{subject.name}-{subject.operation}"


def made(values: Any, operation: str, dtype: str) -> Any:
    """The first argument of a case with its arrays made, those of a tree one by one."""
    if operation in ("clip_by_global_norm", "global_norm"):
        return [np.array(each).astype(dtype) for each in values]
    if operation == "clip_weights":
        return {key: np.array(each).astype(dtype) for key, each in values.items()}
    return np.array(values).astype(dtype)


def close(result: Any, expected: Any, operation: str, dtype: str) -> None:
    """Whatever came back has these numbers; a norm is looked at where there is one."""
    if operation == "clip_by_global_norm":
        expected, norm = expected
        if isinstance(result, tuple):
            result, measured = result
            np.testing.assert_allclose(np.asarray(measured, np.float64), norm, rtol=TOLERANCE[dtype])
    right_ones = expected if operation in NORMS else made(expected, operation, "float64")
    for got, right in zip(leaves(result), leaves(right_ones), strict=True):
        assert got.shape == right.shape
        np.testing.assert_allclose(got.astype(np.float64), right, rtol=TOLERANCE[dtype])


def opened(subject: ReadyMade, request: pytest.FixtureRequest) -> Any:
    """The subject ready to be called; where that cannot be, the test is skipped with the reason."""
    reason = missing(subject)
    on_gpu = "cupy" in subject.needs  # which is not asked for where all the rest is
    if reason and not on_gpu and request.config.getoption("--require-all", default=False):
        pytest.fail(f"{subject.name} {reason}")
    if reason:
        pytest.skip(f"{subject.name} {reason}")
    return subject.build().opened()


def tried(callee: Callee, subject: ReadyMade, dtype: str) -> int:
    """How many of the ordinary cases are offered; each of them must come out right."""
    cases = PROJECTED if subject.definition == "l1-projection" else CASES[subject.operation]
    count = 0
    for values, arguments, expected in cases:
        seen = callee.observe(made(values, subject.operation, dtype), arguments)
        if seen.error != NotOffered.__name__:
            assert (seen.error, seen.message) == ("", "")
            assert seen.faults == []
            close(seen.result, expected, subject.operation, dtype)
            count += 1
    return count


@pytest.mark.parametrize("subject", SUBJECTS, ids=identity)
def test_an_ordinary_case_comes_out_right(subject: ReadyMade, request: pytest.FixtureRequest) -> None:
    with opened(subject, request) as callee:
        for dtype in TOLERANCE:
            if subject.dtypes is None or dtype in subject.dtypes:
                assert tried(callee, subject, dtype) >= (1 if "NonNeg" in subject.name else 2)


@pytest.mark.parametrize("subject", [s for s in SUBJECTS if s.operation in NORM_CLIPS], ids=identity)
def test_the_definition_is_the_one_that_is_followed(
    subject: ReadyMade, request: pytest.FixtureRequest
) -> None:
    # where what is added to a norm or set below it counts for more than rounding
    formula, order = FORMULAS[subject.definition], NORM_CLIPS[subject.operation]
    with opened(subject, request) as callee:
        for size, ratio in itertools.product((1e-5, 1e-7), (1, 100)):
            x, limit = np.array([3 * size, 4 * size], np.float32), size * ratio
            seen = callee.observe([x] if subject.operation == "clip_by_global_norm" else x, (limit,))
            result = seen.result[0] if isinstance(seen.result, tuple) else seen.result
            exact = [Fraction(value) for value in x.tolist()]
            norm = extended(sum(abs(value) ** order for value in x.tolist()) ** (1 / order))
            element = formula.element(subject.operation, norm, extended(limit), exact)
            expected = [float(element(value)) for value in exact]
            np.testing.assert_allclose(leaves(result)[0], expected, rtol=1e-5, atol=1e-6 * size)


@pytest.mark.parametrize(
    "subject", [each for each in SUBJECTS if "int32" in (each.dtypes or ())], ids=identity
)
def test_integers_are_cut_too(subject: ReadyMade, request: pytest.FixtureRequest) -> None:
    with opened(subject, request) as callee:
        for arguments, expected in (((-1, 1), [-1, 0, 1]), ((0, None), [0, 0, 2])):
            x = np.array([-3, 0, 2], np.int32)
            tree = [x] if subject.operation == "clip_weights" else x
            seen = callee.observe(tree, arguments)
            if seen.error != NotOffered.__name__:
                assert np.array_equal(leaves(seen.result)[0], expected)
                break
        else:
            pytest.fail("neither bounds were offered")


@pytest.mark.parametrize(
    "subject", [each for each in SUBJECTS if each.name.startswith("clipcore")], ids=identity
)
def test_clipcore_keeps_the_dtype_wherever_it_runs(
    subject: ReadyMade, request: pytest.FixtureRequest
) -> None:
    if subject.operation in NORMS:
        return
    with opened(subject, request) as callee:
        values, arguments, _ = CASES[subject.operation][0]
        result = callee.observe(made(values, subject.operation, "float64"), arguments).result
        result = result[0] if subject.operation == "clip_by_global_norm" else result
        assert {leaf.dtype.name for leaf in leaves(result)} == {"float64"}


@pytest.mark.parametrize("subject", [s for s in SUBJECTS if s.operation in NORM_CLIPS], ids=identity)
@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_frameworks_get_wrong_is_passed_on(
    subject: ReadyMade, limit: float, request: pytest.FixtureRequest
) -> None:
    with opened(subject, request) as callee:
        tree = made(*((CASES[subject.operation][0][0]), subject.operation, "float32"))
        assert callee.observe(tree, (limit,)).error != NotOffered.__name__


@pytest.mark.parametrize(
    ("name", "operation", "tree", "arguments"),
    [
        ("torch.clip_grad_norm_", "clip_by_global_norm", {"w": np.ones(2)}, (1.0,)),
        ("torch.clip_grad_norm_", "clip_by_global_norm", [[np.ones(2)]], (1.0,)),
        ("torch.clip_grad_value_", "clip_by_value", np.ones(2), (-1.0, 2.0)),
        ("torch.clamp", "clip_by_value", np.ones(2), (None, None)),
        ("torch.clamp", "clip_by_value", np.ones(2), (np.zeros(2), 1.0)),
        ("torch.get_total_norm", "global_norm", [np.ones(2), None], ()),
        ("opacus.DPOptimizer", "clip_by_global_norm", [], (1.0,)),
        ("optax.clip", "clip_by_value", np.ones(2), (None, 1.0)),
        ("optax.adaptive_grad_clip", "clip_by_l2_norm", np.ones((2, 2)), (1.0,)),
        ("tf.clip_by_value", "clip_by_value", np.ones(2), (None, 1.0)),
        ("tf.clip_by_global_norm", "clip_by_global_norm", {"w": np.ones(2)}, (1.0,)),
        ("mlx.clip_grad_norm", "clip_by_global_norm", [np.ones(2), None], (1.0,)),
        ("mlx.clip", "clip_by_value", np.ones(2), (None, None)),
        ("paddle.ClipGradByValue", "clip_by_value", np.ones(2), (None, 1.0)),
        ("paddle.ClipGradByNorm", "clip_by_l2_norm", np.ones(2, np.float32), (np.array(1.0),)),
        (f"keras[{_keras._backend()}].clipnorm", "clip_by_l2_norm", np.ones(2), (None,)),
        (f"keras[{_keras._backend()}].NonNeg", "clip_by_value", np.ones(2), (0, 1)),
    ],
)
def test_what_an_interface_does_not_have_is_not_offered(
    name: str, operation: str, tree: Any, arguments: tuple[Any, ...], request: pytest.FixtureRequest
) -> None:
    [subject] = [each for each in SUBJECTS if (each.name, each.operation) == (name, operation)]
    with opened(subject, request) as callee:
        assert callee.observe(tree, arguments).error == NotOffered.__name__


@pytest.mark.parametrize(
    ("name", "order", "expected"),
    [
        ("torch.clip_grad_norm_", 1, 7.0),
        ("torch.clip_grad_norm_[foreach=False]", 1, 7.0),
        ("torch.clip_grad_norm_", float("inf"), 4.0),
        ("torch.get_total_norm", 1, 7.0),
        ("optax.tree.norm", 1, 7.0),
        ("optax.tree.norm", float("inf"), 4.0),
        ("paddle.clip_grad_norm_", 1, 7.0),
    ],
)
def test_the_order_of_the_norm_reaches_the_framework(
    name: str, order: float, expected: float, request: pytest.FixtureRequest
) -> None:
    subject = next(each for each in SUBJECTS if each.name == name)
    with opened(subject, request) as callee:
        arguments = (100.0,) if subject.operation in NORM_CLIPS else ()
        result = callee.observe([np.array([3.0, 0.0]), np.array([-4.0])], arguments, {"ord": order}).result
        assert float(result[1] if subject.operation in NORM_CLIPS else result) == pytest.approx(expected)


@pytest.mark.parametrize(
    "name",
    [
        "tf.clip_by_norm",
        "jax.numpy.linalg.norm",
        "torch.linalg.vector_norm",
        f"keras[{_keras._backend()}].MaxNorm",
        f"keras[{_keras._backend()}].MinMaxNorm",
    ],
)
@pytest.mark.parametrize("axis", [0, (0,)])
def test_the_axis_reaches_the_framework(name: str, axis: Any, request: pytest.FixtureRequest) -> None:
    [*_, subject] = [each for each in SUBJECTS if each.name == name]
    with opened(subject, request) as callee:
        x = np.array([[3.0, 6.0], [4.0, 8.0]], np.float32)
        expected: Any = [5.0, 10.0] if subject.operation == "l2_norm" else [[3.0, 3.0], [4.0, 4.0]]
        arguments = (5.0,) if subject.operation in NORM_CLIPS else ()
        result = callee.observe(x, arguments, {"axis": axis}).result
        np.testing.assert_allclose(result, expected, rtol=1e-6)


# --- the registry ------------------------------------------------------------------------------------------


def test_name_and_operation_tell_the_subjects_apart() -> None:
    assert len({identity(subject) for subject in SUBJECTS}) == len(SUBJECTS)
    assert [identity(subject) for subject in ready_made()] == [identity(subject) for subject in SUBJECTS]


@pytest.mark.parametrize("subject", SUBJECTS, ids=identity)
def test_what_is_said_of_a_subject_is_known_to_the_kit(subject: ReadyMade) -> None:
    assert subject.operation in (*NORM_CLIPS, *NORMS, *VALUE_CLIPS)
    assert subject.definition in FORMULAS
    assert "," not in subject.distribution
    assert subject.note.endswith(".")
    assert subject.needs


def test_every_operation_of_clipcore_and_every_formula_by_hand_is_there() -> None:
    by_name = {name: {s.operation for s in SUBJECTS if s.name == name} for name in ("clipcore", "by-hand")}
    assert by_name["clipcore"] == {*NORM_CLIPS, *NORMS, *VALUE_CLIPS}
    assert by_name["by-hand"] == {*NORM_CLIPS, *VALUE_CLIPS}


def test_no_framework_is_imported_before_a_subject_is_built() -> None:
    script = (
        "import sys; from clipcore.verify.subjects import missing, ready_made, version_of\n"
        "found = [(missing(each), version_of(each)) for each in ready_made()]\n"
        f"print([name for name in {FRAMEWORKS} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_cupy_without_a_gpu_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    (subject,) = (each for each in SUBJECTS if (each.name, each.operation) == ("clipcore.cupy", "l2_norm"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: True)
    for available, reason in (
        (False, "needs an NVIDIA GPU that CuPy can use, and there is none"),
        (True, ""),
    ):
        cuda = SimpleNamespace(is_available=lambda available=available: available)
        monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
        assert missing(subject) == reason


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    reasons = {subject.name: missing(subject) for subject in SUBJECTS}
    assert reasons["torch.clamp"] == "needs torch, which is not installed"
    assert reasons["opacus.DPOptimizer"] == "needs opacus and torch, which are not installed"
    assert all(reasons.values())


def test_nothing_is_missing_where_all_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    cuda = SimpleNamespace(is_available=lambda: True)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    assert not any(missing(subject) for subject in SUBJECTS)


def test_the_version_is_that_of_the_distribution() -> None:
    [subject] = [each for each in SUBJECTS if identity(each) == "by-hand-clip_by_value"]
    assert version_of(subject) == np.__version__
    assert version_of(replace(subject, distribution="clipcore numpy")).endswith(
        f" with numpy {np.__version__}"
    )
    assert version_of(replace(subject, distribution="no-such-distribution")) == ""


def test_a_distribution_may_bring_a_module_of_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"numerical": ["numpy"]})
    assert version_of(replace(SUBJECTS[0], distribution="numerical")) == np.__version__


# --- the backend of Keras ----------------------------------------------------------------------------------


@pytest.fixture
def without_keras(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No Keras imported yet, and a home for its configuration."""
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path


def test_keras_runs_on_tensorflow_by_default(without_keras: Path) -> None:
    assert _keras.subjects()[0].name == "keras[tensorflow].clipnorm"
    (without_keras / "keras.json").write_text("no JSON")
    assert _keras.subjects()[0].needs == ("keras", "tensorflow")


def test_keras_runs_on_what_its_file_says(without_keras: Path) -> None:
    (without_keras / "keras.json").write_text(json.dumps({"backend": "torch"}))
    assert _keras.subjects()[0].name == "keras[torch].clipnorm"


def test_the_environment_goes_before_the_file(without_keras: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (without_keras / "keras.json").write_text(json.dumps({"backend": "torch"}))
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert _keras.subjects()[0].distribution == "keras jax"


# --- what an interface does not have -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lower", "upper"), [(-1.0, 1.0), (1, -1), (np.float32(-2), 2.0), (0.0, 0.0), (-0.0, 0.0)]
)
def test_symmetric_bounds_are_one_number(lower: Any, upper: Any) -> None:
    assert symmetric(lower, upper) == upper


def test_nan_twice_is_symmetric() -> None:
    assert np.isnan(symmetric(float("nan"), float("nan")))


@pytest.mark.parametrize(
    ("lower", "upper"),
    [(-1.0, 2.0), (None, 1.0), (-1.0, None), (-np.ones(2), np.ones(2)), (float("nan"), 1.0), ("-1", "1")],
)
def test_other_bounds_are_refused(lower: Any, upper: Any) -> None:
    with pytest.raises(NotOffered):
        symmetric(lower, upper)


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), None, "1", True, float("nan")])
def test_what_is_no_array_is_passed_on(value: Any) -> None:
    check_number(value)


@pytest.mark.parametrize("value", [np.array(1.0), np.ones(2)])
def test_an_array_is_no_number(value: Any) -> None:
    with pytest.raises(NotOffered):
        check_number(1.0, value)


def test_a_flat_list_is_no_dict_and_holds_no_list() -> None:
    check_flat([np.ones(2), None, "a"], list)
    check_flat((np.ones(2),), list, tuple)
    others: list[Any] = [{"w": np.ones(2)}, iter([np.ones(2)]), (np.ones(2),), [[np.ones(2)]], [{}]]
    for tree in others:
        with pytest.raises(NotOffered):
            check_flat(tree, list)


def test_none_is_found_wherever_it_stands() -> None:
    check_leaves({"w": [np.ones(2), ("a", 1)]})
    for tree in (None, [None], {"w": (np.ones(2), [None])}):
        with pytest.raises(NotOffered):
            check_leaves(tree)


def test_a_generator_is_no_tree() -> None:
    check_tree([np.ones(2)])
    with pytest.raises(NotOffered):
        check_tree(iter([np.ones(2)]))
