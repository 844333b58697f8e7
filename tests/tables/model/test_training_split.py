"""The validation rows of each member of an ensemble: how they are drawn, and what they decide."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

import backprop_xp as bx
from backprop_xp.tables.model import model_training
from backprop_xp.tables.model.rows import Rows
from backprop_xp.tables.model.training_split import Split, drawn_split
from backprop_xp.training.rows.preprocessing import split_rows

pytestmark = pytest.mark.once
QUICK: dict[str, Any] = {"hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}


def _split(rows: int, share: float, members: int, classes: int = 0, seed: int = 0) -> Split:
    target = np.arange(rows) % classes if classes else np.arange(rows, dtype="float64")
    given = Rows(pd.DataFrame({"a": np.arange(rows)}), pd.Series(target), None)
    return drawn_split(given, np.arange(classes) if classes else None, share, members, seed)


def _held_out(split: Split) -> np.ndarray:
    assert split.held_out is not None
    return split.held_out


@pytest.mark.parametrize("classes", [0, 4])
def test_members_hold_out_different_rows_and_learn_from_all_others(classes: int) -> None:
    split = _split(80, 0.2, 3, classes)
    held_out = _held_out(split)
    assert held_out.shape == (3, 16)
    assert split.counts == {"training": 64, "validation": 16}
    assert len(np.unique(held_out)) == 48
    assert split.validation.features["a"].tolist() == np.unique(held_out).tolist()
    _, learnt_rows = split.parts["training"]
    assert learnt_rows is not None
    for own, learnt in zip(held_out, learnt_rows, strict=True):
        assert sorted([*own, *learnt]) == [*range(80)]
        if classes:
            assert np.bincount(own % classes).tolist() == [4, 4, 4, 4]
    first = split.of_first_member()
    assert first.training.features["a"].tolist() == learnt_rows[0].tolist()
    assert first.validation.features["a"].tolist() == held_out[0].tolist()
    assert not np.array_equal(held_out, _held_out(_split(80, 0.2, 3, classes, seed=1)))


def test_more_members_than_shares_hold_out_less() -> None:
    held_out = _held_out(_split(101, 0.2, 8, classes=5))
    assert held_out.shape == (8, 12)
    assert len(np.unique(held_out)) == 96


@pytest.mark.parametrize("rows", [4, 5, 9])
def test_of_few_rows_some_members_hold_out_the_same(rows: int) -> None:
    held_out = _held_out(_split(rows, 0.2, 8))
    assert held_out.shape == (8, 1)
    assert len(np.unique(held_out)) == rows - 2
    assert len(np.unique(_held_out(_split(12, 0.2, 8, classes=5)))) == 7
    with pytest.raises(ValueError, match=r"^3 rows cannot be split .* a validation share of"):
        _split(3, 0.2, 8)


def test_one_member_has_validation_rows_that_are_no_training_rows() -> None:
    expected, split = split_rows(50, {"validation": 0.3}, 0), _split(50, 0.3, 1)
    assert [at for _, at in split.parts.values()] == [None, None]
    for name, rows in (("training", split.training), ("validation", split.validation)):
        assert rows.features["a"].tolist() == expected[name].tolist()
    first = split.of_first_member()
    assert first.training is split.training
    assert first.validation is split.validation


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_members_share_the_rows_and_fit_gets_the_indices_that_each_holds_out(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def fit(*arguments: Any, **options: Any) -> Any:
        given.update(options)
        return bx.fit(*arguments, **options)

    monkeypatch.setattr(model_training, "fit", fit)
    y = np.arange(60) % classes if classes else np.arange(60.0)
    table, weight = pd.DataFrame({"a": np.sin(np.arange(60.0))}), 1.0 + np.arange(60)
    kind: Any = bx.TabularClassifier if classes else bx.TabularRegressor
    model = kind(n_members=3, **QUICK)
    model.fit(table, y, sample_weight=weight)
    np.testing.assert_array_equal(given["validation"], _held_out(_split(60, 0.15, 3, classes)))
    # All share the rows, of which fit takes each its own.
    np.testing.assert_allclose(
        bx.to_host(given["sample_weight"]) * weight.mean(), weight, rtol=1e-6
    )
    np.testing.assert_array_equal(bx.to_host(given["x"]), model.model_.features.transform(table))
    if classes == 3:
        np.testing.assert_array_equal(bx.to_host(given["y"]), y)


@pytest.mark.parametrize("members", [1, 3, 30])
def test_the_errors_of_an_interval_are_those_of_members_that_did_not_learn_a_row(
    members: int,
) -> None:
    table = pd.DataFrame({"a": np.sin(np.arange(24.0)), "b": np.cos(np.arange(24.0))})
    y = 3.0 * table["a"].to_numpy() + np.arange(24) % 5
    model = bx.TabularRegressor(n_members=members, **QUICK).fit(table, y)
    split = model._split(model._given(Rows(table, pd.Series(y), None), None), 0)
    network, x = model.network_, model.model_.features.transform(table)
    mean, scale = model.model_.scale
    expected = []
    for row in split.validation.features.index:
        thetas = [
            theta
            for i, theta in enumerate(model.theta_.reshape(members, -1))
            if split.held_out is None or row in split.held_out[i]
        ]
        outputs = [network.predict(theta, x[[row]])[0, 0] * scale + mean for theta in thetas]
        expected.append(abs(y[row] - np.mean(outputs)))
    residuals = model.model_.residuals
    assert residuals is not None
    # Some hundred roundings of float32: the numbers of rows and of members differ.
    np.testing.assert_allclose(residuals[:, 0], expected, rtol=1e-4)
