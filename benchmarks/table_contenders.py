"""The models that ``tables.py`` compares: a function for each, in the table ``CONTENDERS``.

A function takes the training part, the validation part, the features of the test rows, the task and
a seed. It returns the predictions for the test rows: numbers ``(rows,)`` or probabilities ``(rows,
classes)``. It has ``OMP_NUM_THREADS`` threads.

Every library has its default settings. The boosted trees add at most 2,000 trees and keep the best
number of them on the validation part, after 50 trees without a lower loss. The trees, and RealMLP,
take categories in their native way. All get the same columns from skrub: strings with at most 250
values are categories, other strings become 30 coordinates, dates become numbers.
"""

import functools
import importlib
import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from skrub import DatetimeEncoder, StringEncoder, TableVectorizer, ToCategorical
from table_data import Part, Task, score

Predict: TypeAlias = Callable[[Part, Part, pd.DataFrame, Task, int], np.ndarray]
THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
# HistGradientBoosting accepts 255 categories.
CATEGORIES = 250
TREES, PATIENCE = 2000, 50
PENALTIES = {
    "classification": (1e3, 1e2, 1e1, 1.0, 0.1),
    "regression": tuple(10.0 ** np.arange(-2, 6)),
}


class Contender(NamedTuple):
    """A function, and the package it needs."""

    predict: Predict
    package: str


def vectorizer(seed: int, **options: Any) -> TableVectorizer:
    """Return the columns' preparation that all contenders but ours share."""
    return TableVectorizer(
        cardinality_threshold=CATEGORIES,
        high_cardinality=StringEncoder(random_state=seed),
        datetime=DatetimeEncoder(add_weekday=True),
        **options,
    )


def with_categories(seed: int, *tables: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the tables with numbers and pandas categories, those of the first table."""
    prepare = vectorizer(seed, low_cardinality=ToCategorical())
    first = prepare.fit_transform(tables[0])
    frames = [first, *(prepare.transform(table) for table in tables[1:])]
    for column in first.select_dtypes("category"):
        known = first[column].cat.categories
        for frame in frames:
            frame[column] = frame[column].cat.set_categories(known)
    # LightGBM refuses names with some of the characters of JSON.
    return [frame.set_axis([f"c{i}" for i in range(frame.shape[1])], axis=1) for frame in frames]


def as_numbers(seed: int) -> Pipeline:
    """Return the preparation of linear models and networks: no category, no missing value."""
    impute = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    return make_pipeline(vectorizer(seed), impute, StandardScaler())


def outputs(model: Any, x: Any, task: Task) -> np.ndarray:
    """Return a fitted model's numbers or probabilities."""
    return np.asarray(model.predict_proba(x) if task == "classification" else model.predict(x))


def trivial(train: Part, validation: Part, test: pd.DataFrame, task: Task, seed: int) -> np.ndarray:
    if task == "regression":
        return np.full(len(test), train.y.mean())
    return np.tile(np.bincount(train.y) / len(train.y), (len(test), 1))


def linear(train: Part, validation: Part, test: pd.DataFrame, task: Task, seed: int) -> np.ndarray:
    """Logistic or ridge regression; the validation part chooses the penalty."""
    prepare = as_numbers(seed)
    x, x_validation = prepare.fit_transform(train.X), prepare.transform(validation.X)
    x_test = prepare.transform(test)
    # Each fit starts at the last one, from the greatest penalty down.
    logistic = LogisticRegression(warm_start=True, max_iter=300)
    found: list[tuple[float, np.ndarray]] = []
    for penalty in PENALTIES[task]:
        if task == "classification":
            model = logistic.set_params(C=1 / penalty)
        else:
            model = Ridge(alpha=penalty)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, train.y)
        loss = score(task, validation.y, outputs(model, x_validation, task))["loss"]
        found.append((loss, outputs(model, x_test, task)))
    return min(found, key=lambda one: one[0])[1]


def hist_gradient_boosting(
    train: Part, validation: Part, test: pd.DataFrame, task: Task, seed: int
) -> np.ndarray:
    x, x_validation, x_test = with_categories(seed, train.X, validation.X, test)
    kind = (
        HistGradientBoostingClassifier
        if task == "classification"
        else HistGradientBoostingRegressor
    )
    model = kind(max_iter=TREES, early_stopping=True, n_iter_no_change=PATIENCE, random_state=seed)
    model.fit(x, train.y, X_val=x_validation, y_val=validation.y)
    # It keeps the trees after the best number of them; the first score has none.
    best = max(int(np.argmax(model.validation_score_)), 1)
    stages = (
        model.staged_predict_proba(x_test)
        if task == "classification"
        else model.staged_predict(x_test)
    )
    return next(stage for i, stage in enumerate(stages, start=1) if i == best)


def lightgbm(
    train: Part, validation: Part, test: pd.DataFrame, task: Task, seed: int
) -> np.ndarray:
    library = importlib.import_module("lightgbm")
    x, x_validation, x_test = with_categories(seed, train.X, validation.X, test)
    kind = library.LGBMClassifier if task == "classification" else library.LGBMRegressor
    model = kind(n_estimators=TREES, random_state=seed, n_jobs=THREADS, verbosity=-1)
    stop = library.early_stopping(PATIENCE, verbose=False)
    model.fit(x, train.y, eval_X=x_validation, eval_y=validation.y, callbacks=[stop])
    return outputs(model, x_test, task)


def xgboost(train: Part, validation: Part, test: pd.DataFrame, task: Task, seed: int) -> np.ndarray:
    library = importlib.import_module("xgboost")
    x, x_validation, x_test = with_categories(seed, train.X, validation.X, test)
    kind = library.XGBClassifier if task == "classification" else library.XGBRegressor
    model = kind(
        n_estimators=TREES,
        early_stopping_rounds=PATIENCE,
        enable_categorical=True,
        random_state=seed,
        n_jobs=THREADS,
    )
    model.fit(x, train.y, eval_set=[(x_validation, validation.y)], verbose=False)
    return outputs(model, x_test, task)


def catboost(
    train: Part, validation: Part, test: pd.DataFrame, task: Task, seed: int
) -> np.ndarray:
    library = importlib.import_module("catboost")
    x, x_validation, x_test = with_categories(seed, train.X, validation.X, test)
    categories = list(x.select_dtypes("category"))
    for frame in (x, x_validation, x_test):
        frame[categories] = frame[categories].astype("object").fillna("missing")
    kind = library.CatBoostClassifier if task == "classification" else library.CatBoostRegressor
    model = kind(
        iterations=TREES,
        early_stopping_rounds=PATIENCE,
        cat_features=categories,
        random_seed=seed,
        thread_count=THREADS,
        verbose=False,
        allow_writing_files=False,
    )
    model.fit(x, train.y, eval_set=(x_validation, validation.y))
    return outputs(model, x_test, task)


def sklearn_mlp(
    train: Part, validation: Part, test: pd.DataFrame, task: Task, seed: int
) -> np.ndarray:
    """The defaults with early stopping, on as many rows as the others, which it draws itself."""
    prepare = as_numbers(seed)
    x = np.concatenate([prepare.fit_transform(train.X), prepare.transform(validation.X)])
    y = np.concatenate([train.y, validation.y])
    kind = MLPClassifier if task == "classification" else MLPRegressor
    model = kind(
        early_stopping=True, validation_fraction=len(validation.y) / len(y), random_state=seed
    )
    if task == "regression":
        model = TransformedTargetRegressor(model, transformer=StandardScaler())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 epochs are its default
        model.fit(x, y)
    return outputs(model, prepare.transform(test), task)


def realmlp(train: Part, validation: Part, test: pd.DataFrame, task: Task, seed: int) -> np.ndarray:
    """RealMLP with its tuned defaults; for probabilities as its authors advise for the log-loss."""
    library = importlib.import_module("pytabkit")
    frames = with_categories(seed, train.X, validation.X, test)
    medians = frames[0].select_dtypes("number").median()
    gaps = [name for name in medians.index if frames[0][name].isna().any()]
    frames = [  # it takes no missing numbers
        frame.fillna(medians).assign(
            **{f"{name}_missing": frame[name].isna() * 1.0 for name in gaps}
        )
        for frame in frames
    ]
    options = {"random_state": seed, "n_threads": THREADS, "device": "cpu"}
    if task == "classification":
        model = library.RealMLP_TD_Classifier(
            **options, use_ls=False, val_metric_name="cross_entropy"
        )
    else:
        model = library.RealMLP_TD_Regressor(**options)
    x, x_validation, x_test = frames
    categories = list(x.select_dtypes("category"))
    model.fit(x, train.y, x_validation, validation.y, cat_col_names=categories)
    return outputs(model, x_test, task)


def tabular(
    preset: str, train: Part, validation: Part, test: pd.DataFrame, task: Task, seed: int
) -> np.ndarray:
    """This library's estimators with a preset: each member holds out its own validation rows."""
    bx = importlib.import_module("backprop_xp")
    kind = bx.TabularRegressor if task == "regression" else bx.TabularClassifier
    x, y = pd.concat([train.X, validation.X]), np.concatenate([train.y, validation.y])
    model = kind(preset, random_state=seed, validation_fraction=len(validation.y) / len(y))
    return outputs(model.fit(x, y), test, task)


CONTENDERS: dict[str, Contender] = {
    "fast": Contender(functools.partial(tabular, "fast"), "backprop_xp"),
    "default": Contender(functools.partial(tabular, "default"), "backprop_xp"),
    "best": Contender(functools.partial(tabular, "best"), "backprop_xp"),
    "HistGradientBoosting": Contender(hist_gradient_boosting, "sklearn"),
    "LightGBM": Contender(lightgbm, "lightgbm"),
    "XGBoost": Contender(xgboost, "xgboost"),
    "CatBoost": Contender(catboost, "catboost"),
    "scikit-learn MLP": Contender(sklearn_mlp, "sklearn"),
    "linear": Contender(linear, "sklearn"),
    "trivial": Contender(trivial, "numpy"),
    "RealMLP": Contender(realmlp, "pytabkit"),
}


def contender(name: str) -> Contender:
    """Return the contender of a name, or the function ``module:function``.

    Raises ValueError for an unknown name.
    """
    if name in CONTENDERS:
        return CONTENDERS[name]
    module, found, function = name.partition(":")
    if not found:
        raise ValueError(f"there is no contender {name!r}: {', '.join(CONTENDERS)}")
    return Contender(getattr(importlib.import_module(module), function), module.partition(".")[0])
