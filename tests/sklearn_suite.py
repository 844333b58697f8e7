"""A script for nox that runs scikit-learn's tests of its perceptrons on ours.

It replaces scikit-learn's two classes before it imports the tests. It leaves out the five tests of
private attributes.
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
    """Run the tests; pytest gets the arguments."""
    sklearn.neural_network.MLPClassifier = bx.MLPClassifier
    sklearn.neural_network.MLPRegressor = bx.MLPRegressor
    suite = Path(sklearn.neural_network.__file__).parent / "tests" / "test_mlp.py"
    root = Path(sklearn.__file__).parent
    left_out = [f"--deselect=neural_network/tests/test_mlp.py::{name}" for name in PRIVATE]
    options = [f"--rootdir={root}", "-c", "/dev/null", "-p", "no:cacheprovider", "-q"]
    return int(pytest.main([*options, *left_out, str(suite), *arguments]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
