"""scikit-learn's own tests of its perceptrons, run against ours: a script, for nox.

They are read where scikit-learn is installed, with its two classes replaced before they are
imported. Left out are the five that look at private attributes of scikit-learn's.
"""

import sys
from pathlib import Path

import pytest
import sklearn.neural_network

import backprop_xp as bx

PRIVATE = (
    "test_gradient",
    "test_learning_rate_warmstart",
    "test_adaptive_learning_rate",
    "test_n_iter_no_change",
    "test_n_iter_no_change_inf",
)


def main(arguments: list[str]) -> int:
    """Run the tests; the arguments go to pytest."""
    sklearn.neural_network.MLPClassifier = bx.MLPClassifier
    sklearn.neural_network.MLPRegressor = bx.MLPRegressor
    suite = Path(sklearn.neural_network.__file__).parent / "tests" / "test_mlp.py"
    root = Path(sklearn.__file__).parent
    left_out = [f"--deselect=neural_network/tests/test_mlp.py::{name}" for name in PRIVATE]
    options = [f"--rootdir={root}", "-c", "/dev/null", "-p", "no:cacheprovider", "-q"]
    return int(pytest.main([*options, *left_out, str(suite), *arguments]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
