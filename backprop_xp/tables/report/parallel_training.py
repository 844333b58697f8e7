"""The training of ``train --parallel``: each rank streams its row groups of a dataset.

A hash of each row's number, or of its group, chooses the validation and the test rows. All rows
decide the kinds of the columns and the odd cells; all training rows teach the categories, the
classes, and means and deviations. Quantiles, free text and the other models of the report are
learnt from a sample of them, which a hash of each row's number draws.
"""

import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from backprop_xp.backends import Selection, resolve
from backprop_xp.checks import integer, real
from backprop_xp.tables.columns.counts import merged_pieces
from backprop_xp.tables.columns.detection import Detected, kinds_of
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.columns.sample import merged, samples_of
from backprop_xp.tables.columns.scaling import Spread, learn_scaling
from backprop_xp.tables.interface.tabular_base import Callback
from backprop_xp.tables.model.blas_threads import one_blas_thread
from backprop_xp.tables.model.fitted_model import TabularModel
from backprop_xp.tables.model.model_file import read_model, write_model
from backprop_xp.tables.model.model_training import Source, learn, started
from backprop_xp.tables.model.presets import PRESETS, Recipe, recipe_for
from backprop_xp.tables.model.rows import Rows
from backprop_xp.tables.model.table_network import totals_of_codes
from backprop_xp.tables.model.tabular_parameters import Task, checked_parameters
from backprop_xp.tables.model.training_split import Split
from backprop_xp.tables.readers.cells import is_categorical
from backprop_xp.tables.readers.row_groups import row_groups, share_of
from backprop_xp.tables.report.column_warnings import column_warnings
from backprop_xp.tables.report.evaluation import Predicted, evaluation_of, with_report
from backprop_xp.tables.report.other_models import OtherModels
from backprop_xp.tables.report.problem import ColumnChoice, chosen_features, lines_about
from backprop_xp.tables.report.shares import Share
from backprop_xp.tables.report.split import SplitRule, groups_of, hashed
from backprop_xp.tables.report.table_training import (
    Estimator,
    estimator_for,
    lines_about_rare,
    reported,
)
from backprop_xp.tables.report.target import Target, find_target
from backprop_xp.tables.report.totals import Totals, training_totals
from backprop_xp.training.processes import exchange
from backprop_xp.training.processes.one_process import OneProcess

Say = Callable[[str], object]
Ranks: TypeAlias = exchange.Ranks | OneProcess

# Training rows of the sample, and validation rows beside them, which end the boosting; the maximum
# of validation rows, and of test rows. They count the rows of all ranks.
_SAMPLE, _STOP, _MAX_HELD = 100_000, 10_000, 200_000
# The share of the test rows, as for a table in memory.
_TEST = "0.15"
# Rows of the largest batch that a preset chooses.
_MAX_BATCH = 2**14


class Prepared(NamedTuple):
    """What a rank learns from: its share and its test rows, and what the other models learn from.

    The latter are samples of the training and the validation rows of all ranks, by these names.
    """

    share: Share
    source: Source
    test: Rows
    sample: Mapping[str, Rows]


def train_ranks(
    communicator: Any,
    source: str,
    target: str,
    columns: ColumnChoice,
    parameters: Mapping[str, Any],
    *,
    validation: str,
    test: str | None,
    task: Task | None,
    out: Path,
    resume: bool,
    say: Say,
    callbacks: Sequence[Callback],
    failed: Callable[[OSError], object],
) -> Estimator:
    """Return the estimator that all ranks train on a dataset; the first one writes its file.

    An error on one rank is raised on all. ``failed`` is called with that of the last write. Without
    a communicator this process is the only rank.
    """
    ranks = OneProcess() if communicator is None else exchange.Ranks(communicator)
    is_first, where = not ranks.rank, {name: parameters[name] for name in ("backend", "device")}
    given = {**parameters, "verbose": True}
    try:
        with reported(say), one_blas_thread():
            choice, seed = resolve(**where, dtype=given["dtype"]), given["random_state"]
            parts = {"validation": validation, "test": _TEST if test is None else test}
            share = _share(ranks, source, target, columns, parts, seed)
            known = _prepared(ranks, communicator, share, given, choice, task, say)
            share, rows = known.share, known.source
            count = rows.counts["training"]
            if given["batch_size"] is None and recipe_for(given, count).batch_size > _MAX_BATCH:
                given["batch_size"] = _MAX_BATCH
            estimator = estimator_for(share.target, given)
            values = checked_parameters(estimator, share.target.task)
            is_resumed = is_first and resume and out.exists()
            start = started(
                values,
                rows,
                choice,
                (out, *read_model(out, choice)) if is_resumed else None,
                seed=share.seed,
                has_names=True,
                target=target,
                metadata={**share.shares, **({"group": share.group} if share.group else {})},
            )
            if start.is_over and (start.state is None or "report" in start.model.metadata):
                raise ValueError(f"the training in {out} is finished.")
            learned = learn(
                values,
                rows,
                choice,
                start,
                checkpoint=out if is_first else None,
                callbacks=callbacks if is_first else [],
            )
            network = type(estimator)._of(learned.model, **where)
            model = _with_report(ranks, network, known, out)
            try:
                if is_first:
                    write_model(out, model, learned.optimizer, learned.state)
            except OSError as error:
                failed(error)
            ranks.agree()
    except BaseException as error:
        if not hasattr(error, "state"):  # the ranks have agreed on an error of ``bx.fit``
            ranks.agree(error)
        raise
    return type(estimator)._of(model, **where)


def _share(
    ranks: Ranks,
    source: str,
    target: str,
    columns: ColumnChoice,
    parts: Mapping[str, str],
    seed: int,
) -> Share:
    """Return a rank's share of a dataset, of which no rows have been read.

    ``parts`` are the shares of the validation rows and, if any, the test rows.
    """
    groups, schema = row_groups(source)
    count, shares = sum(group.rows for group in groups), dict[str, float]()
    for name, given in parts.items():
        try:
            share = real(float(given), name, above=0.0, below=1.0)
        except ValueError as error:
            raise ValueError(f"--{name} is a share of the rows with --parallel: {error}") from None
        shares[name] = min(share, _MAX_HELD / count)
    if sum(shares.values()) >= 1.0:
        raise ValueError("--validation and --test leave no training rows.")
    return Share(
        groups=share_of(groups, ranks.rank, ranks.size),
        total=count,
        features=chosen_features(schema.empty_table().to_pandas(), target, columns),
        weights=columns.weights,
        group=columns.group,
        shares=shares,
        sample=_SAMPLE / count,
        seed=integer(seed, "random_state", at_least=0),
        target=Target(target, "regression", ""),
    )


def _detected(
    ranks: Ranks, share: Share, task: Task | None, kinds: Mapping[str, str]
) -> tuple[Share, Detected, dict[str, Rows], dict[str, Rows]]:
    """Return the share with its target, the kinds of the columns, samples, and this rank's rows.

    The samples are of the training and the validation rows of all ranks. The rows are those of the
    other parts.
    """
    raw: dict[str, list[tuple[np.ndarray, pa.RecordBatch]]] = {}

    def seen() -> Iterator[dict[str, pd.Series]]:
        """Yield the columns of all rows in pieces; keep the sample and the other parts."""
        for part, *piece in share.pieces(share.features, *share.shares, "training", "sample"):
            if part != "training":
                raw.setdefault(part, []).append((piece[0], piece[1]))
            if part != "sample":
                rows = share.rows(*piece)
                features = rows.counted().features
                yield {n: features[n] for n in share.features} | {name: rows.features[name]}

    name = share.target.name
    each = ranks.exchange(samples_of(seen()))
    samples = {n: merged([one[n] for one in each]) for n in each[0]}
    if not (sample := samples.pop(name)).present:
        raise ValueError(f"the target {name!r} is missing in every row.")
    target = find_target(sample, task, is_categorical=is_categorical(sample.column))
    detected = kinds_of(samples, kinds)
    texts = [name for name, one in detected.columns.items() if one.from_strings]
    share = share._replace(target=target, texts=texts)
    numbers = {part: np.concatenate([at for at, _ in pieces]) for part, pieces in raw.items()}
    tables = {
        part: pa.Table.from_batches([batch for _, batch in pieces]).combine_chunks()
        for part, pieces in raw.items()
    }
    parts = {part: share.rows(numbers[part], tables[part]) for part in share.shares}
    most = _STOP / (share.shares["validation"] * share.total)
    few = pa.array(hashed(numbers["validation"], share.seed + 1) < most)
    drawn = {"training": tables["sample"], "validation": tables["validation"].filter(few)}
    each = ranks.exchange(drawn)
    drawn = {part: pa.concat_tables([one[part] for one in each]) for part in drawn}
    sampled = {
        part: share.rows(np.arange(len(rows)), rows).counted() for part, rows in drawn.items()
    }
    return share, detected, sampled, parts


def _totals(share: Share, detected: Detected, held: Collection[Rows]) -> Totals:
    """Return the totals of this rank, whose other rows are ``held``."""
    columns = {name: one for name, one in detected.columns.items() if one.is_counted}
    counted = detected._replace(columns=columns)
    pieces = (share.rows(*piece) for _, *piece in share.pieces([*columns], "training"))
    found = merged_pieces(training_totals(rows, share.target, counted) for rows in pieces)
    for rows in held:
        found = found.with_held(rows, counted)
    if not found.target.rows:
        raise ValueError("its row groups have no training rows: start fewer processes.")
    return found


def _features(
    ranks: Ranks, share: Share, detected: Detected, totals: Totals, sample: Rows, preset: Recipe
) -> tuple[Features, np.ndarray]:
    """Return the features that the training rows of all ranks teach, and their code totals.

    The first rank alone learns from the sample.
    """
    most, columns, scaling = preset.category and preset.category.above, detected.columns, None
    if not ranks.rank:
        weights = sample.scaled_weights()
        counts = {
            name: totals.counts.get(name) or one.count(sample.features[name], weights)
            for name, one in columns.items()
        }
        columns = detected.finished(counts, most, share.seed)
    columns = ranks.exchange(columns)[0]
    none = learn_scaling([], preset.scaling)
    features = Features(columns, detected.left_out, none, tuple(share.features))
    codes, spread = np.zeros(sum(features.codes)), Spread.of(np.empty((0, features.n_scaled)))
    names = [name for name, one in columns.items() if one.n_codes or one.is_scaled]
    for _, *piece in share.pieces(names, "training"):
        rows = share.rows(*piece).counted()
        codes += totals_of_codes(features, rows.features, rows.weights, None)
        spread = spread.merge(Spread.of(features.numbers_of(rows.features), rows.weights))
    each = ranks.exchange((codes, spread))
    if not ranks.rank:
        whole = functools.reduce(Spread.merge, (spread for _, spread in each))
        numbers = features.numbers_of(sample.features)
        scaling = learn_scaling([numbers], preset.scaling, sample.scaled_weights(), whole)
    scaling = ranks.exchange(scaling)[0]
    return replace(features, scaling=scaling), sum(codes for codes, _ in each)


def _prepared(
    ranks: Ranks,
    communicator: Any,
    share: Share,
    given: Mapping[str, Any],
    choice: Selection,
    task: Task | None,
    say: Say,
) -> Prepared:
    """Return what this rank learns from."""
    kinds = given["kinds"] or {}
    share, detected, sampled, others = _detected(ranks, share, task, kinds)
    totals = ranks.exchange(_totals(share, detected, others.values()))
    held = {name: rows.counted() for name, rows in others.items()}
    whole = functools.reduce(Totals.merge, totals)
    detected = detected.with_odd(whole.odd, kinds)
    count, weight, *_ = whole.target
    classes = tuple(sorted(whole.by_class))
    if classes:
        weights = np.asarray([whole.by_class[name] for name in classes])
        training = Rows(pd.DataFrame(), pd.Series(range(len(classes))), weights)
    else:
        mean, deviation = whole.target.means[0], math.sqrt(whole.target.squares[0] / weight)
        training = Rows(pd.DataFrame(), pd.Series([mean - deviation, mean + deviation]), None)
    share = share._replace(target=share.target._replace(classes=classes), unit=weight / count)
    learnt = detected, whole, sampled["training"], PRESETS[given["preset"]]
    features, codes = _features(ranks, share, *learnt)
    each = ranks.exchange({name: len(rows.target) for name, rows in held.items()})
    n_held = {name: sum(one[name] for one in each) for name in held}
    for name, n in n_held.items():
        if not n:
            what = "rows" if share.group is None else f"groups of {share.group!r}"
            raise ValueError(f"too few {what} for --{name}: give more, or choose a larger share.")
    without = share.total - count - sum(n_held.values()) - whole.weightless
    lines = [*lines_about(share.target, without, whole.weightless), *detected.lines()]
    for name, part in share.shares.items():
        if part * share.total >= _MAX_HELD - 1:
            lines.append(f"--{name} is {part:.3g}: at most {_MAX_HELD:,} rows")
    if not ranks.rank:
        lines += _lines_about_sample(share, detected, sampled["training"])
    for line in lines:
        say(line)
    own = totals[ranks.rank].target.rows
    known = {name: share.indexed(rows) for name, rows in held.items()}

    def stream(model: TabularModel, recipe: Recipe, by_class: Any) -> tuple[dict[str, Any], Any]:
        batches = math.ceil(count / recipe.batch_size)
        host = resolve(backend="numpy", dtype=model.record["where"]["dtype"])
        arrays = functools.partial(share.arrays, model, by_class, host)
        data = {
            "x": functools.partial(share.batches, arrays, own, min(own, batches)),
            "validation": share.arrays(model, by_class, choice, known["validation"]),
            "communicator": communicator,
        }
        return data, codes

    split = Split(training, known["validation"], np.asarray(classes) if classes else None)
    counts = {"training": count, "validation": n_held["validation"]}
    sampled = {name: share.indexed(rows) for name, rows in sampled.items()}
    return Prepared(share, Source(features, split, counts, stream), known["test"], sampled)


def _lines_about_sample(share: Share, detected: Detected, sample: Rows) -> Iterator[str]:
    """Yield what is said about the columns of a table in memory, from a sample of training rows."""
    target, rows = share.target, np.arange(len(sample.target))
    values = pd.Series(target.values(sample.target), name=target.name)
    classes = np.unique(values, return_inverse=True)[1] if target.classes else None
    units = None if share.group is None else groups_of(sample.features[share.group])
    rule = SplitRule(rows, classes, units, by_time=False, seed=0)
    yield from column_warnings(detected.columns, sample._replace(target=values), rule, None)
    yield from lines_about_rare(target, values)


def _with_report(ranks: Ranks, network: Estimator, known: Prepared, out: Path) -> TabularModel:
    """Return a model with the residuals and the report of the held rows of all ranks.

    The first rank's other models learn from the sample.
    """
    model, sample = network.model_, known.sample
    others = None if ranks.rank else OtherModels.of(network, **sample)
    others = ranks.exchange(others)[0]
    held, found = {"validation": known.source.split.validation, "test": known.test}, []
    for name, rows in held.items():
        predictions = {name: model.outputs(rows.features)[0]}
        if name == "test":
            predictions |= others.predictions(rows.features)
        own = Predicted(rows.target.to_numpy(), rows.weights, predictions)
        found.append(Predicted.joined(ranks.exchange(own)))
    parts = {**model.record["rows"], "test": len(found[-1].y)}
    learnt, evaluation = len(sample["training"].target), evaluation_of(model.classes, found)
    is_all = learnt == parts["training"]
    made = with_report(network, [evaluation], parts, out, sample=None if is_all else learnt)
    return replace(made, residuals=evaluation.residuals.get("validation"))
