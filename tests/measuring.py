"""
Measure coverage for `make test MEASURE=1`: a pytest plugin with two gates, which reports in pytest's summary.

The workers of pytest-xdist measure themselves, and so does every Python that a test starts, because an environment
variable tells them to (MEASURED in support.py). This process only adds up what they wrote.
"""

from __future__ import annotations

import fnmatch
import io
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ROOT / "pyproject.toml"
FOLDER = ROOT / ".coverage.d"


@dataclass(frozen=True)
class Gate:
    """So many percent of lines and branches; a `*` at either end of a pattern crosses folders."""

    what: str
    percent: int
    include: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()


GATES = (
    Gate("everything", 98),
    # What only looks around in a store, or on its host, need not be covered to the last branch. `discovery` has the
    # rules that choose the store.
    Gate(
        "what parses, publishes or deletes",
        100,
        ("ostore/formats/*", "ostore/host/discovery.py", "ostore/places/bundle/*", "ostore/places/store/*"),
        ("*/access.py", "*/examination.py"),
    ),
)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    if config.getoption("dist") == "no":
        raise pytest.UsageError("only workers measure themselves: leave -n 3 as it is")
    config.pluginmanager.register(Measuring(), "measuring")


class Measuring:
    """The part of the process that starts the workers and prints the summary."""

    def __init__(self) -> None:
        self.report: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir()
        # Tests drop privileges, and whoever they become writes what it covered.
        FOLDER.chmod(0o1777)
        # It sets the variable, and leaves it set.
        measuring = opened()
        measuring.start()
        measuring.stop()

    @pytest.hookimpl(trylast=True)  # the workers have ended by then
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.exitstatus not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
            return
        verdicts = [*self.verdicts(), *(f"MISSED: no file is {pattern}" for pattern in patterns_of_nothing())]
        self.report += verdicts
        if any(verdict.startswith("MISSED") for verdict in verdicts):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # the last but pytest's own line, where a long log is cut at its head
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
        yield
        if self.report:
            terminalreporter.section("coverage")
            terminalreporter.write_line("\n".join(self.report))

    def verdicts(self) -> Iterator[str]:
        """A line for each gate; the tables go into the report."""
        measured = opened()
        try:
            with warnings.catch_warnings():
                # A program that was killed while it wrote leaves what cannot be read.
                warnings.simplefilter("ignore", coverage.exceptions.CoverageWarning)
                measured.combine()
                measured.save()
            for gate in GATES:
                table = io.StringIO()
                reached = measured.report(file=table, include=[*gate.include], omit=[*gate.omit])
                self.report.append(f"{gate.what}:\n{table.getvalue()}")
                verdict = "reached" if reached >= gate.percent else "MISSED"
                yield f"{verdict}: {gate.percent} % of {gate.what}, with {reached:.2f} %"
        except coverage.CoverageException as error:
            yield f"MISSED: {error}"


def opened() -> coverage.Coverage:
    return coverage.Coverage(data_file=str(FOLDER / "data"), config_file=str(SETTINGS))


def patterns_of_nothing() -> Iterator[str]:
    """A pattern whose files have moved would hold nothing, and nobody would see it."""
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "ostore").rglob("*.py")]
    patterns = (pattern for gate in GATES for pattern in (*gate.include, *gate.omit))
    return (pattern for pattern in patterns if not fnmatch.filter(files, pattern))
