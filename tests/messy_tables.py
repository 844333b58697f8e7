"""Messy tables: real ones from packages, and generated ones with the faults of real ones.

Each function returns a DataFrame and the name of its target, the same at every call.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sklearn import datasets

Messy = tuple[pd.DataFrame, str]


def penguins() -> Messy:
    from palmerpenguins import load_penguins

    return load_penguins(), "species"


def passengers(rows: int = 800) -> Messy:
    """A table like the Titanic's: names, mostly missing cabins, fares, a class, a sex."""
    draw = np.random.default_rng(1)
    sex = draw.choice(["male", "female"], rows, p=[0.65, 0.35])
    grade = draw.choice([1, 2, 3], rows, p=[0.25, 0.2, 0.55])
    age = np.where(draw.random(rows) < 0.2, np.nan, draw.gamma(6.0, 5.0, rows).round(1))
    fare = (draw.lognormal(4.5, 0.5, rows) / grade).round(4)
    title = np.where(sex == "male", "Mr.", draw.choice(["Mrs.", "Miss."], rows))
    cabin = pd.Series([f"{draw.choice(list('ABCDE'))}{draw.integers(1, 130)}" for _ in range(rows)])
    score = 2.2 * (sex == "female") - 0.8 * (grade - 2) - 0.02 * np.nan_to_num(age, nan=30.0)
    frame = {
        "passenger": np.arange(1, rows + 1),
        "class": grade,
        "name": [f"{name(draw)}, {t} {name(draw)}" for t in title],
        "sex": sex,
        "age": age,
        "fare": fare,
        "cabin": cabin.where(draw.random(rows) < 0.23),
        "embarked": pd.Series(draw.choice(["S", "C", "Q"], rows)).where(draw.random(rows) < 0.99),
        "survived": (score + draw.logistic(size=rows) > 0.3).astype(int),
    }
    return pd.DataFrame(frame), "survived"


def cars(rows: int = 400) -> Messy:
    """Numbers with their units, as strings; the target is a number."""
    draw = np.random.default_rng(2)
    power, weight = draw.integers(60, 300, rows), draw.integers(700, 2300, rows)
    maker = draw.choice(["Audi", "BMW", "Fiat", "Ford", "Opel", "Skoda"], rows)
    used = 2.0 + 0.004 * weight + 0.01 * power - (maker == "Fiat") + 0.5 * draw.normal(size=rows)
    frame = {
        "maker": maker,
        "power": [f"{p} hp" for p in power],
        "weight": [f"{w:,} kg" for w in weight],
        "doors": draw.choice(["2/3", "4/5"], rows),
        "mileage": [f"{m:,} km" for m in draw.integers(0, 250_000, rows)],
        "litres per 100 km": used.round(1),
    }
    return pd.DataFrame(frame), "litres per 100 km"


def rentals(rows: int = 700) -> Messy:
    """Days as strings, with an effect of season and weekend; the target is a count."""
    draw = np.random.default_rng(3)
    days = pd.date_range("2021-01-01", periods=rows, freq="D")
    season = 1.0 - np.cos(2.0 * np.pi * (days.strftime("%j").astype(int).to_numpy() - 20) / 365.0)
    weather = draw.choice(["clear", "cloudy", "rain"], rows, p=[0.5, 0.3, 0.2])
    count = 800 * season + 300 * days.strftime("%w").isin(["0", "6"]) - 400 * (weather == "rain")
    frame = {
        "day": days.strftime("%d.%m.%Y"),
        "weather": weather,
        "opened": draw.choice(pd.date_range("2010-01-01", "2020-01-01").astype(str), rows),
        "rentals": (600 + count + 80 * draw.normal(size=rows)).round().astype(int).clip(0),
    }
    return pd.DataFrame(frame), "rentals"


def reviews(rows: int = 500) -> Messy:
    """A column of free text, which alone determines the target."""
    draw = np.random.default_rng(4)
    pleased = draw.random(rows) < 0.5
    kinds = {True: ["wonderful", "great", "loved it", "perfect"], False: ["awful", "broke", "late"]}
    filler = ["the parcel", "it arrived", "my sister", "the colour", "on Monday", "as ordered"]
    text = [
        f"{draw.choice(filler)} {draw.choice(kinds[bool(p)])} {draw.choice(filler)}, "
        f"{draw.choice(filler)}!"
        for p in pleased
    ]
    stars = draw.integers(1, 6, rows)
    return pd.DataFrame({"text": text, "orders": stars, "pleased": pleased}), "pleased"


def wines() -> Messy:
    """Columns with one missing value in a hundred, except the target."""
    bunch: Any = datasets.load_wine(as_frame=True)
    frame = bunch.frame.copy()
    holes = np.random.default_rng(5).random(frame.shape) < 0.01
    holes[:, list(frame).index("target")] = False
    return frame.mask(holes), "target"


def forty() -> Messy:
    """A table of forty rows."""
    bunch: Any = datasets.load_iris(as_frame=True)
    frame = bunch.frame.sample(40, random_state=6).reset_index(drop=True)
    frame["target"] = bunch.target_names[frame["target"]]
    return frame, "target"


def wide(rows: int = 300, columns: int = 100) -> Messy:
    """A hundred columns, ten of which determine the target."""
    draw = np.random.default_rng(7)
    x = draw.normal(size=(rows, columns))
    frame = pd.DataFrame(x, columns=[f"gene {i}" for i in range(columns)])
    frame["ill"] = x[:, :10].sum(axis=1) + draw.normal(size=rows) > 0.0
    return frame, "ill"


def rare(rows: int = 300) -> Messy:
    """Three common classes, and five of two rows each."""
    draw = np.random.default_rng(8)
    kind = np.r_[np.arange(rows) % 3, np.repeat(np.arange(3, 8), 2)]
    frame = pd.DataFrame(draw.normal(size=(len(kind), 4)) + kind[:, None], columns=list("abcd"))
    frame["kind"] = [f"kind {k}" for k in kind]
    return frame.sample(frac=1.0, random_state=8).reset_index(drop=True), "kind"


def strings_for_numbers() -> Messy:
    """Columns of numbers as strings, also the target, with strings for missing values."""
    bunch: Any = datasets.load_diabetes(as_frame=True, scaled=False)
    frame = bunch.frame.copy()
    draw = np.random.default_rng(9)
    for column in ("bmi", "bp", "s5"):
        text = frame[column].map(lambda value: f" {value:.2f}")
        frame[column] = text.where(draw.random(len(frame)) > 0.03, draw.choice(["?", "n/a", "-"]))
    frame["target"] = frame["target"].astype(int).astype(str)
    return frame, "target"


def name(draw: np.random.Generator) -> str:
    parts = ["an", "ber", "cor", "dal", "el", "fin", "gor", "hel", "ivo", "jon", "kar", "lis"]
    return "".join(draw.choice(parts, 2)).capitalize()


TABLES: dict[str, Callable[[], Messy]] = {
    "penguins": penguins,
    "passengers": passengers,
    "cars": cars,
    "rentals": rentals,
    "reviews": reviews,
    "wines": wines,
    "forty rows": forty,
    "100 columns": wide,
    "classes of two rows": rare,
    "strings for numbers": strings_for_numbers,
}
