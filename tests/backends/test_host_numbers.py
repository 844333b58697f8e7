"""Values other than plain arrays of numbers are converted or an error.

The tests run the line that an error suggests; no further error may follow.
"""

import importlib
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests.helpers import run_suggestion

pytestmark = pytest.mark.core

SGD = bx.SGD(0.1)
ROWS = np.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
COLUMN = np.asarray([[1.0], [0.0], [1.0]])


def regression(xp: Any) -> tuple[bx.Network, Any]:
    network = bx.mlp([2, 1])
    return network, xp.initialize(network)


def classification(xp: Any) -> tuple[bx.Network, Any]:
    network = bx.mlp([2, 3], loss="categorical_cross_entropy")
    return network, xp.initialize(network)


def on_numpy() -> tuple[bx.Network, Any]:
    network = bx.mlp([2, 1])
    return network, network.initialize(backend="numpy", dtype="float64")


def fit(network: bx.Network, theta: Any, x: Any, y: Any, **options: Any) -> Any:
    return bx.fit(network, theta, x, y, optimizer=SGD, epochs=1, **options).theta


def complaint(kind: type[Exception], function: Any, *values: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        function(*values, **options)
    return str(caught.value)


# Strings and objects


@pytest.mark.parametrize(
    "text",
    [["a", "b", "a"], np.array(["a", "b", "a"]), np.array(["a", "b", "a"], dtype=object)],
    ids=["list", "text", "objects"],
)
def test_strings_are_an_error_with_a_line_that_numbers_the_classes(xp: Any, text: Any) -> None:
    network, theta = classification(xp)
    message = complaint(TypeError, fit, network, theta, ROWS.tolist(), text)
    assert message.startswith("y has dtype ")
    numbered = run_suggestion(message, "y", text).tolist()
    assert numbered == [0, 1, 0]
    fit(network, theta, ROWS.tolist(), numbered)
    assert run_suggestion(complaint(TypeError, bx.asarray, text), "x", text).tolist() == numbered
    message = complaint(TypeError, bx.data.one_hot, text)
    assert bx.data.one_hot(run_suggestion(message, "labels", text)).shape == (3, 2)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array(["1.5", "2"]), [1.5, 2.0]),
        (np.array(["1.5", "2"], dtype=object), [1.5, 2.0]),
        (np.array(["2020-01-03", "2020-01-01"], dtype="datetime64[D]"), [2.0, 0.0]),
        (np.array([36, 24], dtype="timedelta64[h]"), [1.5, 1.0]),
        (np.array([(1, 2.5)], dtype=[("a", int), ("b", float)]), [[1.0, 2.5]]),
    ],
    ids=["text", "objects", "dates", "times", "a record"],
)
@pytest.mark.usefixtures("nothing_chosen")
def test_numbers_in_other_types_are_an_error_with_a_line_that_reads_them(
    value: Any, expected: list[Any]
) -> None:
    importlib.import_module("numpy.lib.recfunctions")  # the line for a record needs it
    message = complaint(TypeError, bx.asarray, value)
    assert run_suggestion(message, "x", value).tolist() == expected


def test_an_object_array_of_numbers_is_accepted(xp: Any) -> None:
    network, theta = regression(xp)
    boxed = ROWS.astype(object)
    expected = xp.host(network.forward(theta, ROWS.tolist()))
    if xp.name == "numpy":
        assert (network.forward(theta, boxed) == expected).all()
        assert bx.asarray(boxed).dtype == np.float64
        assert bx.data.standardize(boxed).x.dtype == np.float64
        labels = np.array([0, 2, 1], dtype=object)
        fit(*classification(xp), ROWS, labels)
    assert (xp.host(xp.asarray(boxed)) == ROWS).all()


class NAType:  # pandas' name of its missing value
    def __repr__(self) -> str:
        return "<NA>"

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


def table(entry: Any, other: Any = 3.0) -> np.ndarray:
    return np.array([[1.0, 2.0], [entry, other]], dtype=object)


WAYS_OUT = [
    (table(NAType()), r"missing values \(1 of 4\), the first <NA> at x\[1, 0\]\. Drop such rows"),
    (table(3.0, None), r"missing values \(1 of 4\), the first None at x\[1, 1\]\. Drop such rows"),
    (table(None, None), r"missing values \(2 of 4\), the first None at x\[1, 0\]\. Drop such rows"),
    (
        table(3.0, "red"),
        r"'red' at x\[1, 1\] is of str\. Encode the categories of each such column",
    ),
    ([{}], r"x has dtype object, but numbers are expected: {} at x\[0\] is of dict.*or drop it"),
]


@pytest.mark.parametrize(("value", "message"), WAYS_OUT)
@pytest.mark.usefixtures("nothing_chosen")
def test_values_that_are_no_numbers_are_counted_and_the_first_is_named(
    value: Any, message: str
) -> None:
    for take in (bx.asarray, bx.data.standardize):
        with pytest.raises(TypeError, match=message):
            take(value)


def test_nullable_pandas_columns_are_numbers_or_an_error_that_names_missing_values(xp: Any) -> None:
    pandas = pytest.importorskip("pandas")
    full = pandas.DataFrame({"a": [1.0, 2.0], "b": [3, 4]}).astype({"a": "Float64", "b": "Int64"})
    assert xp.host(xp.asarray(full)).tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert bx.data.one_hot(full["b"]).shape == (2, 5)
    gaps = pandas.DataFrame({"a": pandas.array([1.0, None], "Float64"), "b": full["b"]})
    assert "(1 of 4), the first <NA> at x[1, 0]" in complaint(TypeError, xp.asarray, gaps)


# Byte order


def test_the_other_byte_order_is_converted(xp: Any) -> None:
    other = ROWS.astype(ROWS.dtype.newbyteorder())
    assert not other.dtype.isnative
    assert (xp.host(xp.asarray(other)) == ROWS).all()
    whole = np.arange(3, dtype=np.dtype(np.int32).newbyteorder())
    assert bx.asarray(whole, backend="numpy").dtype.isnative
    assert bx.data.one_hot(whole).dtype.isnative
    if xp.name == "numpy":
        network, theta = regression(xp)
        assert (network.forward(theta, other) == network.forward(theta, ROWS)).all()
        fit(network, theta, other, COLUMN.astype(other.dtype))
        fit(*classification(xp), ROWS, whole)


@pytest.mark.usefixtures("nothing_chosen")
def test_a_theta_in_the_other_byte_order_is_an_error_with_the_line_that_converts_it() -> None:
    network, theta = on_numpy()
    other = theta.astype(theta.dtype.newbyteorder())
    message = complaint(TypeError, network.forward, other, ROWS)
    assert message.startswith(f"theta is float64 in the other byte order ({other.dtype.str})")
    assert message.endswith(": theta.astype('float64').")
    assert (network.forward(other.astype("float64"), ROWS) == network.forward(theta, ROWS)).all()


# Matrices and masks


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.usefixtures("nothing_chosen")
def test_a_matrix_is_converted_to_an_array() -> None:
    network, theta = on_numpy()
    matrix = np.asmatrix(ROWS)
    assert type(network.forward(theta, matrix)) is np.ndarray
    assert (
        fit(network, theta, matrix, np.asmatrix(COLUMN)) == fit(network, theta, ROWS, COLUMN)
    ).all()
    assert type(bx.data.split(matrix)[0]) is np.ndarray
    assert type(bx.data.standardize(matrix).x) is np.ndarray
    message = complaint(TypeError, network.forward, np.asmatrix(theta), ROWS)
    assert message.endswith("numpy.asarray(theta).")


@pytest.mark.usefixtures("nothing_chosen")
def test_masked_values_are_an_error_with_their_number_and_the_call_that_fills_them() -> None:
    network, theta = on_numpy()
    mask = np.asarray([[True, False], [False, False], [False, False]])
    x, y = np.ma.masked_array(ROWS, mask), np.ma.masked_array(COLUMN, mask[:, :1])
    calls: list[tuple[str, Any]] = [
        ("x", lambda: bx.asarray(x)),
        ("x", lambda: bx.asarray([x[0], x[1]])),
        ("x", lambda: network.loss(theta, x, COLUMN)),
        ("x", lambda: fit(network, theta, x, COLUMN)),
        ("x", lambda: bx.data.standardize(x)),
        ("y", lambda: network.loss(theta, ROWS, y)),
        ("y", lambda: fit(network, theta, ROWS, y)),
        ("sample_weight", lambda: fit(network, theta, ROWS, COLUMN, sample_weight=y[:, 0])),
        ("theta", lambda: network.loss(np.ma.masked_array(theta, [1, 0, 0]), ROWS, COLUMN)),
        ("labels", lambda: bx.data.one_hot(y.astype(int))),
        ("arrays[1]", lambda: bx.data.split(ROWS, y)),
        ("arrays[0]", lambda: next(bx.data.minibatches(x, batch_size=2))),
        ("mean", lambda: bx.Standardize(x[0], 1.0)),
        ("scale", lambda: bx.Standardize(0.0, x[0])),
        ("test", lambda: bx.export_c("network.c", network, theta, test=x)),
    ]
    for name, call in calls:
        message = complaint(ValueError, call)
        assert message.startswith(f"{name} has masked values (1 of "), message
        assert f"{name}.filled(0.0)" in message
    fit(network, theta, x.filled(0.0), y.filled(0.0))


@pytest.mark.usefixtures("nothing_chosen")
def test_a_masked_array_without_masked_values_is_an_array() -> None:
    network, theta = on_numpy()
    unmasked = np.ma.masked_array(ROWS)
    assert type(bx.asarray(unmasked, backend="numpy")) is np.ndarray
    assert (network.forward(theta, unmasked) == network.forward(theta, ROWS)).all()
    assert type(bx.data.split(unmasked)[0]) is np.ndarray


@pytest.mark.usefixtures("nothing_chosen")
def test_a_theta_that_is_a_masked_array_is_an_error_with_the_line_that_converts_it() -> None:
    """Theta is used as it is, and an index of a masked array has other axes."""
    network, theta = on_numpy()
    for call in (network.predict, network.forward):
        message = complaint(TypeError, call, np.ma.masked_array(theta), ROWS)
        assert message.startswith("theta is a masked array without a mask.")
        assert message.endswith("theta = numpy.asarray(theta).")


# Collections of Dask and Ray


class Lazy:
    """A table as Dask has them; without a graph it is one in memory, as xarray has them."""

    def __init__(self, graph: dict[str, Any] | None) -> None:
        self.graph, self.shape, self.ndim = graph, ROWS.shape, ROWS.ndim

    def __dask_graph__(self) -> dict[str, Any] | None:
        return self.graph

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        assert self.graph is None, "gathered"
        return ROWS

    def to_pandas(self) -> Any:
        raise AssertionError("gathered")

    __iter__ = to_pandas


class Dataset(Lazy):
    __module__ = "ray.data.dataset"


@pytest.mark.parametrize("lazy", [Lazy({}), Dataset(None)], ids=["dask", "ray"])
@pytest.mark.usefixtures("nothing_chosen")
def test_a_distributed_collection_is_an_error_that_names_the_page(lazy: Any) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("pyarrow")
    network, theta = on_numpy()
    classes = COLUMN[:, 0]
    model = bx.MLPClassifier((2,), solver="lbfgs", random_state=0).fit(ROWS, classes)
    batchwise, table = bx.MLPClassifier((2,)), bx.TabularRegressor()
    calls: list[tuple[str, Any]] = [
        ("x", lambda: bx.asarray(lazy)),
        ("x", lambda: fit(network, theta, lazy, COLUMN)),
        ("x", lambda: bx.fit(network, theta, lazy, optimizer=SGD, epochs=1)),
        ("In batch 0 of epoch 0: x", lambda: fit(network, theta, [(lazy, COLUMN)], None)),
        ("y", lambda: fit(network, theta, ROWS, lazy)),
        ("sample_weight", lambda: fit(network, theta, ROWS, COLUMN, sample_weight=lazy)),
        ("In validation: x", lambda: fit(network, theta, ROWS, COLUMN, validation=(lazy, COLUMN))),
        ("x", lambda: network.predict(theta, lazy)),
        ("X", lambda: model.fit(lazy, classes)),
        ("y", lambda: model.fit(ROWS, lazy)),
        ("sample_weight", lambda: model.fit(ROWS, classes, sample_weight=lazy)),
        ("X_val", lambda: model.fit(ROWS, classes, X_val=lazy, y_val=classes)),
        ("y", lambda: batchwise.partial_fit(ROWS, lazy, classes=[0, 1])),
        ("X", lambda: model.predict(lazy)),
        ("X", lambda: model.score(lazy, classes)),
        ("X", lambda: table.fit(lazy, classes)),
        ("y", lambda: table.fit(ROWS, lazy)),
        ("X", lambda: bx.tables.Preparation().fit(lazy)),
    ]
    for name, call in calls:
        message = complaint(TypeError, call)
        assert message.startswith(f"{name} is distributed ({type(lazy).__module__}."), message
        assert "docs/dask_and_ray.md" in message


@pytest.mark.usefixtures("nothing_chosen")
def test_a_lazy_frame_of_polars_is_an_error_that_names_collect() -> None:
    polars = pytest.importorskip("polars")
    pytest.importorskip("sklearn")
    pytest.importorskip("pyarrow")
    eager = polars.DataFrame({"a": ROWS[:, 0], "b": COLUMN[:, 0]})
    model = bx.TabularRegressor(hidden_layer_sizes=(2,), max_iter=1)
    lazy, fitted = eager.lazy(), bx.MLPClassifier((2,), solver="lbfgs").fit(eager, COLUMN[:, 0])
    calls: list[tuple[str, Any]] = [
        ("x", lambda: bx.asarray(lazy)),
        ("X", lambda: model.fit(lazy, COLUMN[:, 0])),
        ("y", lambda: model.fit(eager, lazy)),
        ("X", lambda: bx.MLPRegressor().fit(lazy, COLUMN[:, 0])),
        ("X", lambda: fitted.predict(lazy)),
        ("X", lambda: bx.tables.Preparation().fit(lazy)),
    ]
    for name, call in calls:
        assert complaint(TypeError, call).startswith(f"{name} is a LazyFrame of polars")


@pytest.mark.usefixtures("nothing_chosen")
def test_a_collection_without_a_graph_is_an_array_in_memory() -> None:
    assert (bx.asarray(Lazy(None)) == ROWS).all()


# Theta, vjp and rng


@pytest.mark.usefixtures("nothing_chosen")
def test_a_theta_that_is_a_list_is_an_error_with_the_line_that_converts_it() -> None:
    network = bx.mlp([1, 1])
    message = "theta must be an array, not list. Make it one: theta = bx.asarray(theta)."
    theta, x = [0.0, 0.0], [[1.0]]
    state = SGD.initialize(bx.asarray(theta, backend="numpy"))
    assert complaint(TypeError, fit, network, theta, x, x) == message
    assert complaint(TypeError, network.forward, theta, x) == message
    assert complaint(TypeError, SGD.initialize, theta) == message
    assert complaint(TypeError, SGD.update, theta, theta, state) == message
    fit(network, run_suggestion(message, "theta", theta), bx.asarray(x), bx.asarray(x))
    assert complaint(TypeError, network.forward, None, x) == "theta must be an array, not NoneType."


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_vjp_does_not_read_its_g_as_class_labels(xp: Any, shape: tuple[int, ...]) -> None:
    network, theta = classification(xp)
    x, g = xp.asarray(ROWS), xp.asarray(np.ones(shape))
    message = complaint(ValueError, network.vjp, theta, x, g)
    assert message.startswith(f"g has shape {shape}, but the outputs are (..., 3, 3)")


@pytest.mark.usefixtures("nothing_chosen")
def test_a_typed_jax_key_is_an_error_with_a_line_that_draws_an_integer(jax: Any) -> None:
    network = bx.Network([bx.Dropout(0.5), bx.Dense(2, 1)], "mean_squared_error")
    theta = network.initialize(backend="jax", dtype="float32")
    x = jax.numpy.ones((3, 2), dtype="float32")
    key = jax.random.key(0)
    message = complaint(TypeError, network.forward, theta, x, rng=key)
    assert message.startswith("rng is a random key of JAX (key<fry>), but integers are expected.")
    assert "rng = jax.random.bits(rng)" in message
    assert network.forward(theta, x, rng=jax.random.bits(key)).shape == (3, 1)
    assert "random key of JAX" in complaint(TypeError, bx.asarray, key)
    # The error is the same beside NumPy's arrays, although the key's device is wrong too.
    host = network.initialize(backend="numpy", dtype="float32")
    message = complaint(TypeError, network.forward, host, np.ones((3, 2), "float32"), rng=key)
    assert message.startswith("rng is a random key of JAX")


@pytest.mark.usefixtures("nothing_chosen")
@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta state")
@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
def test_a_sparse_tensor_is_an_error_with_the_line_that_makes_it_dense(
    layout: str, torch: Any
) -> None:
    network = bx.mlp([2, 1])
    theta = network.initialize(backend="torch", dtype="float64")
    x, y = torch.ones((3, 2), dtype=torch.float64), torch.ones((3, 1), dtype=torch.float64)
    sparse = getattr(x, layout)()
    calls: list[tuple[str, Any]] = [
        ("x", lambda: bx.asarray(sparse)),
        ("x", lambda: bx.asarray(sparse, backend="numpy")),
        ("x", lambda: network.predict(theta, sparse)),
        ("x", lambda: network.loss(theta, sparse, y)),
        ("x", lambda: fit(network, theta, sparse, y)),
        ("x", lambda: bx.data.standardize(sparse)),
        ("y", lambda: network.loss(theta, x, getattr(y, layout)())),
        ("theta", lambda: network.predict(getattr(theta[None, :], layout)(), x)),
        ("point", lambda: bx.numeric_gradient(torch.sum, sparse)),
    ]
    for name, call in calls:
        message = complaint(TypeError, call)
        assert message.startswith(f"{name} has the layout torch.sparse_")
        assert message.endswith(f"{name} = {name}.to_dense().")
    options: dict[str, Any] = {"optimizer": SGD, "epochs": 1}
    message = complaint(TypeError, bx.fit, network, theta, lambda _: [(sparse, y)], **options)
    assert message.startswith("In batch 0 of epoch 0: x has the layout torch.sparse_")
