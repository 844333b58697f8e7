"""Trainings on arrays that JAX divides over several devices."""

from pathlib import Path

import pytest

from tests.helpers import python

pytest.importorskip("jax", reason="JAX is not installed")
pytestmark = [pytest.mark.installed, pytest.mark.compiled]


def test_trainings_are_divided_over_four_devices(tmp_path: Path) -> None:
    """The number of JAX's devices on the CPU is fixed when its process starts."""
    file = str(Path(__file__).with_name("on_four_jax_devices.py"))
    options = ["-q", "-p", "no:benchmark", "-p", "no:cacheprovider"]
    flags = f"--xla_force_host_platform_device_count=4 --xla_dump_to={tmp_path} "
    flags += "--xla_dump_hlo_module_re=many|in_parts|traced|evaluate|matmul"
    environment = {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    program = f"import pytest; raise SystemExit(pytest.main([{file!r}, *{options}]))"
    done = python(program, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
