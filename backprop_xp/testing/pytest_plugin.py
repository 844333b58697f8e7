"""The pytest plugin: the fixture ``check_gradient``, ``--gradient-seed`` and ``--gradient-html``.

Installation registers it; ``pytest -p no:backprop_xp`` disables it.
"""

from collections.abc import Generator
from functools import partial
from html import escape
from typing import Any

import pytest

# The checks since the last report: (name of the check, verdict, whether it passed, HTML).
_CHECKS = pytest.StashKey[list[tuple[str, str, bool, str]]]()

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Gradient checks</title>
<style>:root {{color-scheme: light dark}} body {{font-family: sans-serif; margin: 2em}}</style>
</head><body>
<h1>Gradient checks</h1>
<p>{count} checks, {wrong} not passed</p>
{sections}
</body></html>
"""


class GradientChecks:
    """``bx.check_gradient``, which returns the report, and fails the test with it as the message.

    The attributes are the other checks: ``check_gradient.jacobian`` is ``bx.check_jacobian``.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Run ``bx.check_gradient``."""
        __tracebackhide__ = True
        return self._check("gradient", *arguments, **options)

    def __getattr__(self, name: str) -> Any:
        if name not in self.__dir__():
            raise AttributeError(f"there is no bx.check_{name}", name=name, obj=self)
        return partial(self._check, name)

    def __dir__(self) -> list[str]:
        from backprop_xp import gradient_check  # every run of pytest imports this module

        names = gradient_check.__all__
        return [name.removeprefix("check_") for name in names if name.startswith("check_")]

    def _check(self, name: str, *arguments: Any, **options: Any) -> Any:
        from backprop_xp import gradient_check

        __tracebackhide__ = True
        if (seed := self._config.option.gradient_seed) is not None:
            options.setdefault("seed", seed)
        report = getattr(gradient_check, f"check_{name}")(*arguments, **options)
        if self._config.option.gradient_html:
            row = (f"check_{name}", report.verdict, bool(report.passed), report._repr_html_())
            self._config.stash[_CHECKS].append(row)
        try:
            report.raise_if_failed()
        except gradient_check.GradientCheckError as error:
            raise error.with_traceback(None) from None  # pytest then shows the line of the test
        return report


@pytest.fixture(scope="session")
def check_gradient(request: pytest.FixtureRequest) -> GradientChecks:
    """``bx.check_gradient`` as an assertion; ``.jacobian``, ``.network`` are the other checks."""
    return GradientChecks(request.config)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("gradient checks")
    seed, page = "The seed of check_gradient, by default 0.", "Write all of its reports to a page."
    group.addoption("--gradient-seed", type=int, metavar="N", help=seed)
    group.addoption("--gradient-html", metavar="FILE", help=page)


def pytest_configure(config: pytest.Config) -> None:
    """Begin the page; the controller of pytest-xdist writes it for its workers."""
    config.stash[_CHECKS] = []
    path = config.option.gradient_html
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Page(path))


def pytest_report_header(config: pytest.Config) -> str | None:
    """Return the line of the seed, if one was given."""
    seed = config.option.gradient_seed
    return None if seed is None else f"gradient seed: {seed}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Add the checks to the report of the test: pytest-xdist hands it to the controller."""
    report = yield
    report.gradient_checks, item.config.stash[_CHECKS] = item.config.stash[_CHECKS], []
    return report


class _Page:
    """The page of ``--gradient-html``, which is written at the end of the run."""

    def __init__(self, path: str) -> None:
        from backprop_xp.atomic_files import replacing, write

        self.path, self.write, self.checks = path, write, list[tuple[bool, str, str]]()
        try:
            with replacing(path, is_trial=True):
                pass
        except OSError as error:
            raise pytest.UsageError(f"--gradient-html: {error}") from None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, verdict, passed, html in getattr(report, "gradient_checks", ()):
            title = escape(f"{verdict}: {report.nodeid}, {name}")
            self.checks.append((passed, report.nodeid, f"<h2>{title}</h2>\n{html}"))

    def pytest_sessionfinish(self) -> None:
        self.checks.sort(key=lambda check: check[:2])  # workers end in any order
        wrong = sum(not passed for passed, *_ in self.checks)
        sections = "\n".join(section for *_, section in self.checks)
        page = _PAGE.format(count=len(self.checks), wrong=wrong, sections=sections)
        self.write(self.path, page.encode())

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.write_sep("-", f"gradient checks: {self.path}")
