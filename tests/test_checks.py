"""Checks name the argument, what was expected, what came, and the way out."""

import copy
import math
import pickle
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.checks import choose, integer, nearest, plain, real, reals, sequence, unravel

TABLE = {"relu": 1, "sigmoid": 2, "softmax": 3}
FUNCTIONS = {"square": lambda x: x * x}


def test_a_name_becomes_its_entry_and_an_object_passes_through() -> None:
    assert choose(TABLE, "sigmoid", "activation") == 2
    assert choose(TABLE, 7, "activation") == 7
    assert choose(FUNCTIONS, math.sqrt, "initializer") is math.sqrt


def test_an_error_suggests_no_name_for_a_dissimilar_one() -> None:
    assert nearest("xyz", TABLE) == "Known: relu, sigmoid, softmax."
    assert nearest("reluu", ["relu"]) == "Did you mean 'relu'? Known: relu."


def test_an_error_suggests_the_name_that_three_letters_are_a_part_of() -> None:
    assert nearest("sig", TABLE).startswith("Did you mean 'sigmoid'?")
    assert nearest("si", TABLE) == nearest("xyz", TABLE)


def test_an_error_suggests_a_name_in_other_letters_or_with_a_part_left_out() -> None:
    names = ["auto", "array-api-strict", "torch"]
    for word, name in {"STRICT": "array-api-strict", "PYTORCH": "torch", "Auto": "auto"}.items():
        assert nearest(word, names).startswith(f"Did you mean {name!r}?")


@pytest.mark.parametrize("word", ["cuda", "CUDA", "gpu"])
def test_the_backend_cuda_is_an_error_that_suggests_cupy(word: str) -> None:
    with pytest.raises(ValueError, match=f"backend '{word}', .* Did you mean 'cupy'"):
        bx.get_backend(word)


def test_a_function_as_a_loss_or_an_activation_is_an_error_that_shows_where_its_rule_goes() -> None:
    def squared(outputs: Any, targets: Any = 0.0) -> Any:
        return (outputs - targets) ** 2

    with pytest.raises(
        TypeError, match=r"pass its derivative, bx\.Loss\(value=\.+, gradient=\.+\)\.$"
    ):
        bx.mlp([2, 1], loss=squared)
    with pytest.raises(TypeError, match=r"bx\.Activation\(value=\.\.\., vjp=\.\.\.\)\.$"):
        bx.mlp([2, 3, 1], hidden=squared)
    with pytest.raises(TypeError, match=r"must be a name or a bx\.Loss, not 3\.$"):
        bx.mlp([2, 1], loss=3)


# Words of other libraries, and the names that docs/moving_over.md translates them to.
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: bx.mlp([2, 1], loss="bce"), "binary_cross_entropy"),
        (lambda: bx.mlp([2, 1], loss="BCEWithLogitsLoss"), "binary_cross_entropy"),
        (lambda: bx.mlp([2, 1], loss="mse"), "mean_squared_error"),
        (lambda: bx.mlp([2, 1], loss="L1Loss"), "mean_absolute_error"),
        (lambda: bx.mlp([2, 1], loss="cross_entropy"), "categorical_cross_entropy"),
        (lambda: bx.mlp([2, 3, 1], hidden="swish"), "silu"),
        (lambda: bx.Dense(2, 3, "logistic"), "sigmoid"),
        (lambda: bx.mlp([2, 3, 1], activation="tanh"), "hidden"),
        (lambda: bx.Adam(lr=0.1), "learning_rate"),
        (lambda: bx.RMSProp(0.1, eps=1e-7), "epsilon"),
        (lambda: bx.fit(None, None, None, optimizer="adam", epochs=1, verbose=1), "progress"),
        (
            lambda: bx.fit(None, None, None, optimizer="adam", epochs=1, validation_split=0.1),
            "validation",
        ),
    ],
)
def test_a_word_of_another_library_is_an_error_with_the_name_here(call: Any, name: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"Did you mean '{name}'"):
        call()


def test_a_word_that_is_like_no_name_has_no_suggestion() -> None:
    with pytest.raises(ValueError, match=r"loss 'kl_div' is unknown\. Known: "):
        bx.mlp([2, 1], loss="kl_div")


def test_an_optimizer_of_ones_own_has_its_own_arguments() -> None:
    class Halved(bx.SGD):
        def __init__(self, rate: float, *, half: bool = True) -> None:
            super().__init__(rate / 2 if half else rate)

    assert Halved(0.2, half=True).learning_rate == 0.1
    with pytest.raises(TypeError, match="Halved has no argument 'momentum'"):
        Halved(0.2, momentum=0.9)
    assert pickle.loads(pickle.dumps(bx.Adam(0.1))) == bx.Adam(0.1)  # noqa: S301
    assert copy.copy(bx.Adam(0.1)) == bx.Adam(0.1)


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3)])
def test_an_integer_of_any_type_becomes_a_python_int(value: Any) -> None:
    assert (integer(value, "n"), type(integer(value, "n"))) == (3, int)
    assert integer(1, "n") == 1
    assert integer(0, "seed", at_least=0) == 0


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_a_number_of_any_type_becomes_a_python_float(value: Any) -> None:
    assert (real(value, "rate"), type(real(value, "rate"))) == (0.5, float)


# Integers that no float holds; Python writes no more than 4300 digits.
@pytest.mark.parametrize("huge", [10**400, 10**5000, Fraction(10**400)], ids="abc")
def test_numbers_beyond_float64_are_an_error_with_the_arguments_name(huge: Any) -> None:
    with pytest.raises(ValueError, match=r"^rate must be finite and >= 0, not inf\.$"):
        real(huge, "rate", low=0.0)
    with pytest.raises(ValueError, match=r"^rate must be finite and >= 0, not -inf\.$"):
        real(-huge, "rate", low=0.0)
    for call in (
        lambda: bx.LBFGS(tolerance=huge),
        lambda: bx.Standardize([huge], 1.0),
        lambda: bx.Standardize(1.0, [1.0, huge]),
    ):
        with pytest.raises((ValueError, TypeError), match=r"^(tolerance|mean|scale)"):
            call()


@pytest.mark.parametrize("bits", [63, 1400, 20_000])
def test_counts_have_at_most_63_bits_and_seeds_any_number(bits: int) -> None:
    assert integer(2**bits, "seed", at_least=0) == 2**bits
    assert integer(2**63 - 1, "memory") == 2**63 - 1
    with pytest.raises(ValueError, match=rf"^memory must be .* 63 bits, not of {bits + 1} bits"):
        integer(2**bits, "memory")
    with pytest.raises(ValueError, match=r"^seed must be an integer of at least 0, not "):
        integer(-(2**bits), "seed", at_least=0)


def test_items_of_a_sequence_become_a_list() -> None:
    for value in ([1, 2], (1, 2), iter([1, 2]), np.array([1, 2])):
        assert sequence(value, "sizes", "[2, 8, 1]") == [1, 2]


# A check of one argument, invalid values, the type of error, and its message.
REFUSED: list[tuple[Callable[[Any], Any], list[Any], type[Exception], str]] = [
    (
        lambda value: choose(TABLE, value, "activation"),
        [None, 3.5, str, int, ["relu"]],
        TypeError,
        "activation must be a name or a bx.int, not {!r}",
    ),
    (
        lambda value: choose(FUNCTIONS, value, "initializer"),
        [None, 3, float],
        TypeError,
        "initializer must be a name or a function, not {!r}",
    ),
    (
        lambda value: choose(TABLE, value, "activation"),
        ["sigmod"],
        ValueError,
        "activation {!r} is unknown. Did you mean 'sigmoid'? Known: relu, sigmoid, softmax.",
    ),
    (
        lambda value: integer(value, "n_in"),
        [3.0, True, "3", None, [3], np.float64(3), np.array([3, 3])],
        TypeError,
        "n_in must be an integer of at least 1, not {!r} ({.__name__})",
    ),
    (
        lambda value: integer(value, "n"),
        [0],
        ValueError,
        "n must be an integer of at least 1, not {}",
    ),
    (
        lambda value: integer(value, "seed", at_least=0),
        [-1],
        ValueError,
        "seed must be an integer of at least 0, not {}",
    ),
    (
        lambda value: real(value, "rate"),
        ["0.5", None, True, 1j, [0.5], np.array([0.5])],
        TypeError,
        "rate must be a number, not {!r} ({.__name__})",
    ),
    (
        lambda value: sequence(value, "sizes", "[2, 8, 1]"),
        ["12", 3, None],
        TypeError,
        "sizes must be a sequence such as [2, 8, 1], not {!r}",
    ),
]


@pytest.mark.parametrize(("check", "values", "error", "message"), REFUSED)
def test_an_error_shows_the_invalid_value(
    check: Callable[[Any], Any], values: list[Any], error: type[Exception], message: str
) -> None:
    for value in values:
        with pytest.raises(error, match=re.escape(message.format(plain(value), type(value)))):
            check(value)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "message"),
    [
        ({"low": 0.0}, [0, 1e308], [-1e-9], "must be >= 0, not"),
        ({"high": 1.0}, [1, -1e308], [1.001], "must be <= 1, not 1.001"),
        ({"above": 0.0}, [1e-300], [0, -1], "must be > 0, not"),
        ({"below": 1.0}, [0.999], [1, 2], "must be < 1, not"),
        ({"low": 0.0, "below": 1.0}, [0, 0.5], [1, -1], "must be >= 0 and < 1, not"),
        ({"above": 0.0, "high": 2.0}, [1, 2], [0, 2.1], "must be <= 2 and > 0, not"),
    ],
)
def test_a_number_outside_its_bounds_is_an_error(
    bounds: dict[str, float], inside: list[float], outside: list[float], message: str
) -> None:
    for value in inside:
        assert real(value, "rate", **bounds) == value
    for value in outside:
        with pytest.raises(ValueError, match=f"rate {message}"):
            real(value, "rate", **bounds)


@pytest.mark.parametrize("bounds", [{}, {"low": 0.0}, {"above": 0.0, "below": 1.0}])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_number_that_is_not_finite_is_an_error(bounds: dict[str, float], value: float) -> None:
    with pytest.raises(ValueError, match=f"rate must be .*finite.*, not {value:g}"):
        real(value, "rate", **bounds)


@pytest.mark.parametrize("shape", [(4,), (2, 1, 2)])
def test_an_array_with_a_number_outside_the_bounds_is_an_error(shape: tuple[int, ...]) -> None:
    values = np.zeros(shape, np.int8 if shape == (4,) else np.float32)
    reals(values, "decay", low=0.0, below=1.0)
    values.reshape(-1)[-1] = 1
    last = ", ".join(str(n - 1) for n in shape)
    with pytest.raises(ValueError, match=rf"^decay\[{last}\] must be >= 0 and < 1, not 1\.$"):
        reals(values, "decay", low=0.0, below=1.0)
    reals(values, "decay", low=0.0)
    reals(np.zeros((0, 1)), "decay", low=0.0)
    with pytest.raises(ValueError, match=r"^rate must be >= 0, not -1\.$"):
        reals(np.array(-1.0), "rate", low=0.0)


@pytest.mark.parametrize("value", [[0.5, True], [0.5, 1j], [0.5, None], ["0.5", "1"]])
def test_an_array_of_other_values_is_a_type_error_that_names_the_entry(value: list[Any]) -> None:
    values = np.array(value, dtype=object)
    with pytest.raises(TypeError, match=r"^decay\[\d\] must be a number, not "):
        reals(values, "decay", low=0.0)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (3, 1, 4)])
def test_unravel_equals_numpys_unravel_index(shape: tuple[int, ...]) -> None:
    for index in range(math.prod(shape)):
        assert unravel(index, shape) == tuple(map(int, np.unravel_index(index, shape)))
