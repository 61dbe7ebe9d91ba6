"""Gradients and weights of FSDP2 and of DTensors, clipped over many ranks as on one machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks_cases import Case, array_of
from ranks_judge import flaws
from ranks_run import each_rank, need

from clipcore.verify.laws import Group

LIMIT = 0.25


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_dtensors_are_clipped_as_one_tree(count: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    need(request, "torch", "ml_dtypes")
    answers = each_rank("integration_torch_ranks.py", count, tmp_path)
    for error, partial, all_nan in (each.pop("refused") for each in answers):
        assert error.startswith("clip_grad_norm_: NaN or infinity in norm, which is tensor(nan")
        assert "The total norm of order 2.0 for gradients is not finite" in error
        assert partial.startswith(
            "clip_weights_: a parameter is yet to be summed over ranks; redistribute it"
        )
        assert all_nan == "True"
    for each in answers:
        ranged = each.pop("ranged")
        assert ranged == answers[0].get("ranged", ranged)
        for values in map(array_of, ranged["once"]):
            assert 0 < abs(values).max() <= 0.1
        weights = list(map(array_of, ranged["again"]))
        assert [bool(abs(weight).max() <= 0.1) for weight in weights] == [
            weight.ndim > 1 for weight in weights
        ]
    assert len(answers[0]) == 20
    for name in answers[0]:
        of_tree = [each[name] for each in answers]
        before, after = ([array_of(bits) for bits in of_tree[0][key]] for key in ("before", "once"))
        case = Case(name, [before, *[[]] * (count - 1)], LIMIT)
        # what one rank gathers is the whole tree; the others must gather the same
        assert all(each["once"] == of_tree[0]["once"] for each in of_tree)
        alone = [of_tree[0], *({**each, "once": [], "again": []} for each in of_tree[1:])]
        assert list(flaws(case, alone, 4)) == []
        assert Group(tuple(before), tuple(after), LIMIT).clipped
        assert of_tree[0]["kept"] == [not ("summed" in name and place == 0) for place in range(len(before))]
