import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True
nox.options.sessions = [
    "lint",
    "typecheck",
    "tests(numpy)",
    "tests(array-api-strict)",
    "tests(jax)",
    "tests(cupy)",
    "docs",
    "build",
]

PYPROJECT = nox.project.load_toml("pyproject.toml")
PREPARED: set[Path] = set()  # shared environments, once this run has installed into them
PYTHONS = ["3.11", "3.12", "3.13"]
BACKENDS = [  # backend, its devices (empty: its first)
    nox.param("numpy", ["cpu"], id="numpy"),
    nox.param("array-api-strict", ["CPU_DEVICE", "device1", "no_float64"], id="array-api-strict"),
    nox.param("jax", [""], id="jax"),
    nox.param("torch", [""], id="torch"),
    nox.param("cupy", [""], id="cupy"),
    nox.param("cupy", ["emulated"], id="cupy-emulated"),
    nox.param("lookalike", [""], id="plug-in"),
]


@nox.session(tags=["full"])
def lint(session: nox.Session) -> None:
    """Check style and formatting by ruff; it changes nothing."""
    session.install(*group("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check", *session.posargs)


@nox.session(tags=["full"])
def typecheck(session: nox.Session) -> None:
    """Check the types of the library by mypy, strictly."""
    session.install(*group("typecheck"), "-e", ".[cli]")
    session.run("mypy", *session.posargs)


@nox.session(tags=["full"])
@nox.parametrize("backend, devices", BACKENDS)
def tests(session: nox.Session, backend: str, devices: list[str]) -> None:
    """Run the tests on one backend, with the Python that runs nox."""
    if devices == ["emulated"]:
        run_emulated(session, backend)
    else:
        run_tests(session, backend, devices)


@nox.session(tags=["full"])
@nox.parametrize("backend", [nox.param(b, id=b) for b in ("numpy", "jax")])
def thorough(session: nox.Session, backend: str) -> None:
    """Run the wide sweeps, and on JAX what compiles for long: the other sessions leave both out."""
    wide = {"numpy": "thorough", "jax": "(thorough or compiled) and not once"}
    run_tests(session, backend, [""], wide[backend])


@nox.session(python=PYTHONS, tags=["full"])
@nox.parametrize("backend, devices", BACKENDS[:2])
def pythons(session: nox.Session, backend: str, devices: list[str]) -> None:
    """Run the tests with each supported Python, on the backends that are quick to install."""
    run_tests(session, backend, devices)


@nox.session(tags=["full"])
def docs(session: nox.Session) -> None:
    """Run the examples in docstrings, README and docs/, and build the pages into site/html."""
    python = python_with(session, ["."])
    session.run(python, "-m", "pip", "install", "-q", *group("docs"), external=True)
    env = {"BACKPROP_XP_BACKEND": "", "BACKPROP_XP_DEVICE": "", "BACKPROP_XP_DTYPE": ""}
    env |= {"PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"}  # of its commands
    # Blocks and commands of docs/ are run as the pages are built, but for what measures times.
    others = ["tests/test_docs.py", "-k", "README or bench or not (code_blocks or commands_of)"]
    for what in (["--doctest-modules", "backprop_xp"], others):
        session.run(python, "-m", "pytest", *what, *session.posargs, env=env, external=True)
    # Everything anew, every reference resolved; a warning is an error, once all are shown. One page
    # at a time: of kernels that start side by side, two may be given the same port.
    strict = ["--fresh-env", "--nitpicky", "--fail-on-warning", "--keep-going"]
    trees = str(Path(session.create_tmp()) / "doctrees")
    words = ["--quiet", *strict, "--doctree-dir", trees, "docs", "site/html"]
    session.run(python, "-m", "sphinx", *words, env=env, external=True)


@nox.session(tags=["full"])
def build(session: nox.Session) -> None:
    """Build the sdist and the wheel, check them, install the wheel and use it."""
    session.install("build", "twine")
    built = Path(session.create_tmp()) / "dist"
    shutil.rmtree(built, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(built))
    session.run("twine", "check", "--strict", *map(str, built.iterdir()))
    (wheel,) = built.glob("*.whl")
    session.install("--force-reinstall", "--no-deps", str(wheel))
    session.install(f"{wheel}[cli]")
    with session.chdir(built):  # away from the checkout, which Python would import instead
        session.run("python", "-c", "import backprop_xp; print(backprop_xp.__file__)")
        session.run("python", "-m", "backprop_xp", "info")


@nox.session(tags=["full"])
def sklearn_suite(session: nox.Session) -> None:
    """Run scikit-learn's own tests of its perceptrons against ours, from the installed wheel."""
    session.install("build", *group("test"))
    built = Path(session.create_tmp()) / "dist"
    shutil.rmtree(built, ignore_errors=True)
    session.run("python", "-m", "build", "--wheel", "--outdir", str(built))
    (wheel,) = built.glob("*.whl")
    session.install("--force-reinstall", "--no-deps", str(wheel))
    env = {"BACKPROP_XP_BACKEND": "numpy", "BACKPROP_XP_DEVICE": "cpu", "BACKPROP_XP_DTYPE": ""}
    suite = Path("tests/sklearn_suite.py").resolve()
    with session.chdir(built):  # away from the checkout, which Python would import instead
        session.run("python", str(suite), *session.posargs, env=env)


@nox.session(tags=["full"])
def dispatch(session: nox.Session) -> None:
    """Run the estimators' tests where PyTorch is installed: scikit-learn checks dispatch on it."""
    session.install(*group("test"), "-e", ".[torch]")
    env = {"BACKPROP_XP_BACKEND": "numpy", "BACKPROP_XP_DEVICE": "cpu", "BACKPROP_XP_DTYPE": ""}
    words = ["tests/estimators/test_perceptrons.py", "-p", "no:benchmark", *session.posargs]
    session.run("pytest", *words, env=env)


@nox.session(tags=["full"])
def wild(session: nox.Session) -> None:
    """Check the hand-written gradients of released libraries; docs/ has a table of them."""
    session.install(*group("test"), *group("wild"), "-e", ".")
    env = {"BACKPROP_XP_BACKEND": "numpy", "BACKPROP_XP_DEVICE": "cpu", "BACKPROP_XP_DTYPE": ""}
    session.run("pytest", "tests/wild", "-p", "no:benchmark", *session.posargs, env=env)


@nox.session
@nox.parametrize("backend", [nox.param(b, id=b) for b in ("numpy", "jax", "torch", "cupy")])
def bench(session: nox.Session, backend: str) -> None:
    """Time the library: on NumPy beside its peers, elsewhere beside itself on NumPy."""
    if backend == "cupy" and not has_gpu():
        session.skip("no NVIDIA GPU here")
    ours = [".[jax,torch]"] if backend == "numpy" else packages(backend)
    session.install(*group("test"), "-e", *ours)
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


def group(name: str) -> tuple[str, ...]:
    """Return the requirements of a dependency group; ``pip install --group`` needs pip 25.1."""
    return nox.project.dependency_groups(PYPROJECT, name)


def packages(backend: str) -> list[str]:
    """Return what pip installs: this checkout with the extra that the backend needs."""
    if backend == "cupy" and has_gpu():
        return [f".[{cuda()}]"]
    if backend == "lookalike":
        return [".", "./tests/plugin"]
    return [f".[{backend}]"] if backend in ("jax", "torch") else ["."]


def cuda() -> str:
    """Return the extra for the CUDA that is wanted."""
    return os.environ.get("BACKPROP_XP_CUDA") or "cuda13"


def has_gpu() -> bool:
    """Say whether an NVIDIA GPU seems to be here: without one, CUDA's 1.3 GB stay away."""
    return shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists()


def python_with(session: nox.Session, ours: list[str]) -> str:
    """Return a Python with what the tests need and with ours.

    The sessions of one Python that need this checkout without an extra share an environment.
    """
    # Most of what comes with them is never imported: to compile it took longer than to copy it.
    wanted = ["--no-compile", *group("test"), "-e", *ours]
    if ours != ["."]:
        session.install(*wanted)
        return "python"
    own, location = Path(session.bin), Path(session.virtualenv.location)
    shared = location.with_name(f"shared-{session.python or 'tests'}")
    python = str(shared / own.name / "python")
    if shared not in PREPARED:
        words = ["virtualenv", "-q", "-p", str(own / "python"), str(shared)]
        session.run(sys.executable, "-m", *words, external=True)
        session.run(python, "-m", "pip", "install", "-q", *wanted, external=True)
        PREPARED.add(shared)
    return python


def run_tests(session: nox.Session, backend: str, devices: list[str], chosen: str = "") -> None:
    """Install, and run pytest on each device where the environment chooses the backend."""
    has_no_gpu = backend == "cupy" and not has_gpu()  # then all is skipped, with the reason
    # Where the environment is that of NumPy's session, the libraries are, too.
    left_out = {"numpy": [], "array-api-strict": ["once", "installed"], "jax": ["once", "compiled"]}
    left_out["cupy"] = ["once", "installed"] if has_no_gpu else ["once"]
    chosen = chosen or " and not ".join(["not thorough", *left_out.get(backend, ["once"])])
    python = python_with(session, packages(backend))
    options = ["-m", "pytest", "-p", "no:benchmark", "-m", chosen, *how_to_run(session, backend)]
    env = {"BACKPROP_XP_BACKEND": backend, "BACKPROP_XP_DTYPE": ""}
    if backend == "jax":
        # Most of the time is XLA's, and a quarter of it is saved where it optimises little. The
        # suite passes with all of its optimisations too. What one process compiled serves all.
        env |= {"JAX_ENABLE_X64": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        env |= {"JAX_COMPILATION_CACHE_DIR": str(Path(session.create_tmp(), "compiled").resolve())}
        env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    for device in devices:
        on = {**env, "BACKPROP_XP_DEVICE": device}
        session.run(python, *options, *session.posargs, env=on, external=True)
    if has_no_gpu:
        reason = "no NVIDIA GPU here: the tests that need one were skipped"
        if os.environ.get("BACKPROP_XP_REQUIRE_GPU") == "1":
            session.error(f"{reason}, but BACKPROP_XP_REQUIRE_GPU=1")
        session.skip(reason)


def how_to_run(session: nox.Session, backend: str) -> list[str]:
    """Return pytest's options for one process or for several."""
    if session.posargs:  # somebody may want to look into one process
        return []
    pages = ["--ignore=tests/test_docs.py"]  # the session docs' own
    if backend == "cupy" and has_gpu():  # a GPU is not shared
        return pages
    # Each begins with a run of files of its own, so that few of them compile the same for JAX.
    return [*pages, "-n", "auto", "--maxprocesses", "4", "--dist", "worksteal"]


def run_emulated(session: nox.Session, backend: str) -> None:
    """Run pytest by a Python whose CuPy is on an emulated CUDA device: nothing is installed."""
    python = os.environ.get("BACKPROP_XP_EMULATED_CUDA")
    if not python:
        session.skip("BACKPROP_XP_EMULATED_CUDA names no Python with an emulated CUDA device")
    env = {"BACKPROP_XP_BACKEND": backend, "BACKPROP_XP_DEVICE": "", "BACKPROP_XP_DTYPE": ""}
    env |= {"BACKPROP_XP_REQUIRE_GPU": "1", "PYTHONPATH": str(Path.cwd())}
    options = ["-p", "cuda_emulator_pytest", "-p", "no:benchmark"]
    options += ["-m", "not thorough and not once"]
    session.run(python, "-m", "pytest", *options, *session.posargs, env=env, external=True)
