"""One row through exported networks: C, NumPy, ONNX Runtime, PyTorch, other writers of C; bytes.

``python benchmarks/deploy.py`` prints the table of docs/deploy.md. It needs a C compiler; peers
that are not installed are left out. Each figure is the least CPU time of several blocks of calls,
which another process disturbs least. With the package ziglang the bytes are those of 32-bit ARM.
"""

import contextlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import backprop_xp as bx

NETWORKS = {
    "XOR 2-2-1": ([2, 2, 1], "tanh", "binary_cross_entropy"),
    "8-20-20-1": ([8, 20, 20, 1], "tanh", "mean_squared_error"),
    "64-100-10": ([64, 100, 10], "relu", "categorical_cross_entropy"),
    "784-512-512-10": ([784, 512, 512, 10], "relu", "categorical_cross_entropy"),
}
BLOCKS = 9
# A block of calls takes at least as long.
SECONDS = 0.02
MAIN = """#include <stdio.h>
#include <time.h>
#include "{file}"
int main(void)
{{
    static float x[{n_in}], y[{n_out}];
    double best = 1e30;
    long calls = 16;
    for (int i = 0; i < {n_in}; ++i) x[i] = (float)(i % 7) / 7.0f;
    for (int block = 0; block < {blocks};) {{
        const clock_t start = clock();
        for (long i = 0; i < calls; ++i) {{ x[0] = (float)i * 1e-6f; {call}; }}
        const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        if (seconds < {seconds}) {{ calls *= 2; continue; }}
        if (seconds / (double)calls < best) best = seconds / (double)calls;
        ++block;
    }}
    printf("%.9g %g\\n", best * 1e6, (double)y[0]);
    return 0;
}}
"""


def microseconds_in_c(folder: Path, file: str, call: str, sizes: list[int], *options: str) -> float:
    """Return the time of a call in C, compiled with these options."""
    text = MAIN.format(
        file=file, call=call, n_in=sizes[0], n_out=sizes[-1], blocks=BLOCKS, seconds=SECONDS
    )
    (folder / "main.c").write_text(text)
    compiler = shutil.which("cc") or "gcc"
    command = [compiler, "-std=c99", *options, "main.c", "-o", "main", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    done = subprocess.run([folder / "main"], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[0])


def microseconds(function: Callable[[], object]) -> float:
    """Return the time of a call in Python."""
    calls, times = 1, list[float]()
    while len(times) < BLOCKS:
        start = time.process_time()
        for _ in range(calls):
            function()
        seconds = time.process_time() - start
        if seconds < SECONDS:
            calls *= 2
        else:
            times.append(seconds / calls * 1e6)
    return min(times)


def peers(
    network: bx.Network, theta: np.ndarray, x: np.ndarray, folder: Path
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the prediction of one row by each installed library."""
    yield "NumPy", lambda: network.predict(theta, x)
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("ndonnx"):
        import onnxruntime

        bx.export_onnx(folder / "model.onnx", network, theta)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(folder / "model.onnx", options)
        yield "ONNX Runtime", lambda: session.run(None, {"x": x})
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        weights, row = bx.asarray(theta, backend="torch"), torch.asarray(x)
        layers = network.unpack(weights)
        hidden = torch.tanh if network.layers[0].activation is bx.activations.tanh else torch.relu

        def predict() -> object:
            with torch.inference_mode():
                a = row
                for w, b in layers[:-1]:
                    a = hidden(torch.addmm(b, a, w))
                return torch.addmm(layers[-1][1], a, layers[-1][0])

        yield "PyTorch", predict


def microseconds_of_emlearn(folder: Path, sizes: list[int], hidden: str) -> float:
    """Return the time of emlearn's C for a network of the same sizes; NaN where it cannot."""
    if not importlib.util.find_spec("emlearn"):
        return float("nan")
    import emlearn
    from sklearn.neural_network import MLPClassifier

    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(60, sizes[0])), np.arange(60) % max(2, sizes[-1])
    model = MLPClassifier(sizes[1:-1], activation=hidden, max_iter=1).fit(x, y)
    with contextlib.chdir(folder):  # where it leaves files of its own
        converted = emlearn.convert(model, method="inline", dtype="float")
    converted.save(file=str(folder / "peer.h"), name="peer")
    include = f"-I{emlearn.includedir}"
    call = f"y[0] = (float)peer_predict(x, {sizes[0]})"
    return microseconds_in_c(folder, "peer.h", call, sizes, "-O3", include)


def microseconds_of_emx(folder: Path, network: bx.Network, theta: np.ndarray) -> float:
    """Return the time of emx-onnx-cgen's C for the plain ONNX graph of a network; NaN without."""
    if not (importlib.util.find_spec("emx_onnx_cgen") and importlib.util.find_spec("onnx")):
        return float("nan")
    import onnx

    onnx.save(plain_graph(network, theta), folder / "peer.onnx")
    # Everything in one file without allocation, as ours.
    options = ["--large-weight-threshold", "0", "--large-temp-threshold", "0"]
    command = [sys.executable, "-m", "emx_onnx_cgen", "compile", "--model-name", "peer", *options]
    files = ["peer.onnx", "peer.c"]
    subprocess.run([*command, *files], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    n_in, n_out = network.layers[0].n_in, network.layers[-1].n_out
    call = f"peer((const float (*)[{n_in}])x, (float (*)[{n_out}])y)"
    return microseconds_in_c(folder, "peer.c", call, [n_in, n_out], "-O3")


def plain_graph(network: bx.Network, theta: np.ndarray) -> Any:
    """Return an ONNX model of one row: Gemm, activation and link, as other programs write it."""
    from onnx import TensorProto, helper, numpy_helper

    layers, nodes, arrays, name = network.unpack(theta), [], [], "x"
    hidden = "Tanh" if network.layers[0].activation is bx.activations.tanh else "Relu"
    link = {bx.losses.binary_cross_entropy: "Sigmoid", bx.losses.mean_squared_error: "Identity"}
    ends = [*[hidden] * (len(layers) - 1), link.get(network.loss_function, "Softmax")]
    for i, ((weights, bias), end) in enumerate(zip(layers, ends, strict=True)):
        arrays += [numpy_helper.from_array(weights, f"w{i}")]
        arrays += [numpy_helper.from_array(bias[0, :], f"b{i}")]
        nodes += [helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], [f"z{i}"])]
        nodes += [helper.make_node(end, [f"z{i}"], [name := f"a{i}"])]
    n_in, n_out = network.layers[0].n_in, network.layers[-1].n_out
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, n_in])
    y = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n_out])
    opset = helper.make_opsetid("", 17)
    return helper.make_model(
        helper.make_graph(nodes, "network", [x], [y], arrays), opset_imports=[opset], ir_version=9
    )


def bytes_of(folder: Path) -> str:
    """Return the bytes of code and of constants, optimized for size; of ARM where it can."""
    arm = importlib.util.find_spec("ziglang") is not None
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "arm-linux-musleabihf"]
    command = compiler if arm else [shutil.which("cc") or "gcc"]
    options = ["-Os", "-std=c99", "-ffunction-sections", "-c", "model.c", "-o", "model.o"]
    subprocess.run([*command, *options], cwd=folder, check=True)
    sizes = [shutil.which("size") or "size", "-A", "model.o"]
    done = subprocess.run(sizes, cwd=folder, capture_output=True, text=True, check=True)
    sections = [line.split() for line in done.stdout.splitlines() if line.startswith(".")]
    code = sum(int(size) for name, size, _ in sections if name.startswith(".text"))
    data = sum(int(size) for name, size, _ in sections if name.startswith(".rodata"))
    return f"{code:,} + {data:,}"


def two_digits(value: float) -> str:
    """Return a number to two digits, without an exponent."""
    digits = np.format_float_positional(value, 2, fractional=False, trim="-")
    return f"{int(digits):,}" if digits.isdigit() else digits


def main() -> None:
    """Print the table."""
    lines = []
    for title, (sizes, hidden, loss) in NETWORKS.items():
        network = bx.mlp(sizes, hidden=hidden, loss=loss)
        theta = network.initialize(backend="numpy", dtype="float32")
        x = np.arange(sizes[0], dtype="float32")[None, :] % 7 / 7
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            bx.export_c(folder / "model.c", network, theta, name="model")
            cells = {
                mark: microseconds_in_c(folder, "model.c", "model_predict(x, y)", sizes, *options)
                for mark, options in (("C", ["-O3"]), ("native", ["-O3", "-march=native"]))
            }
            cells |= {peer: microseconds(call) for peer, call in peers(network, theta, x, folder)}
            cells["emlearn"] = microseconds_of_emlearn(folder, sizes, hidden)
            cells["emx-onnx-cgen"] = microseconds_of_emx(folder, network, theta)
            size = bytes_of(folder)
        figures = " | ".join(two_digits(cell) for cell in cells.values())
        lines.append(f"| {title} | {figures} | {size} |")
    head = f"| us for one row | {' | '.join(cells)} | code + data bytes |"
    sys.stdout.write("\n".join([head, "|---" * (len(cells) + 2) + "|", *lines]) + "\n")


if __name__ == "__main__":
    main()
