"""The output of `ostore move`: what was moved, what stays, and what to type so that Ollama uses the new store."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ostore.cli.text import human_bytes, human_seconds, one_line, plural
from ostore.formats.shell import WINDOWS, quoted, quoted_word
from ostore.host.service_unit import DROP_IN, environment_line
from ostore.host.surroundings import UNIT

if TYPE_CHECKING:
    from ostore.api.move.check import MoveCheckReport, StoreSetting
    from ostore.api.move.report import MoveReport
    from ostore.operations.move import LeftEntry

# Rows of a terminal; --json has all.
_MAX_LEFT = 12
_WHO = {
    "environment": "this environment",
    "service": "the service",
    "desktop-app": "the app",
    "default": "the default place",
    "process": "a running ollama",
}


def text(report: MoveReport, seconds: float) -> str:
    return "\n".join([*_model_lines(report), summary(report, seconds), *_left_lines(report), *_next_lines(report)])


def question(report: MoveReport) -> str:
    """The facts for the question."""
    names = [model.name for model in report.models]
    shown = ", ".join(names[:_MAX_LEFT]) + (f" and {len(names) - _MAX_LEFT} more" if len(names) > _MAX_LEFT else "")
    return one_line(
        f"{plural(len(names), 'model')} ({shown}), {_brought(report)}: verified and on the disk in "
        f"{report.destination}, and still in {report.source}"
    )


def check_text(report: MoveCheckReport) -> str:
    lines = [
        one_line(f"  {_WHO[entry.who]} ({entry.detail}): {entry.store}{'' if entry.agrees else ', another store'}")
        for entry in report.settings
    ]
    verdict = "is the store that Ollama uses" if report.agrees else "is not the store that Ollama uses"
    return "\n".join(
        [*lines, one_line(f"{report.destination} {verdict}"), *_instructions(report.destination, report.settings)]
    )


def _model_lines(report: MoveReport) -> Iterator[str]:
    for model in report.models:
        if report.dry_run:
            yield f"  {model.name}: {model.outcome}"
        elif report.removed and not model.removed:
            yield f"  {model.name}: still in the old store: it changed during the move; run the same command again"


def is_nothing(report: MoveReport) -> bool:
    """Whether there was nothing to move."""
    return not report.models and not report.blobs_removed and not report.blobs_present


def summary(report: MoveReport, seconds: float) -> str:
    if is_nothing(report):
        return one_line(f"nothing to move from {report.source}")
    what = f"{plural(len(report.models), 'model')}: {_brought(report)}"
    if report.dry_run:
        return one_line(f"would move {what} -> {report.destination}")
    if not report.removed:
        return one_line(f"copied {what} in {human_seconds(seconds)} -> {report.destination}")
    removed = (
        f"removed {plural(report.blobs_removed, 'blob')} ({human_bytes(report.size_removed)}) from {report.source}"
    )
    return one_line(f"moved {what} in {human_seconds(seconds)} -> {report.destination}; {removed}")


def _brought(report: MoveReport) -> str:
    counts = [f"{plural(report.blobs_written, 'blob')} written ({human_bytes(report.size_written)})"]
    if report.blobs_linked:
        counts = [f"{plural(report.blobs_linked, 'blob')} linked ({human_bytes(report.size_linked)})"]
        counts += [f"{plural(report.blobs_written, 'blob')} written"] if report.blobs_written else []
    counts += [f"{report.blobs_resumed:,} resumed"] if report.blobs_resumed else []
    counts += [f"{report.blobs_present:,} already there"] if report.blobs_present else []
    return ", ".join(counts)


def _left_lines(report: MoveReport) -> Iterator[str]:
    left: Sequence[LeftEntry] = report.left
    if not left:
        return
    verb = "stays" if report.removed else "would stay"
    yield one_line(f"{verb} in {report.source}: {plural(len(left), 'file')}, {human_bytes(sum(e.size for e in left))}")
    for entry in left[:_MAX_LEFT]:
        yield one_line(f"  {entry.path}: {human_bytes(entry.size)}, {entry.reason}")
    if len(left) > _MAX_LEFT:
        yield f"  and {len(left) - _MAX_LEFT:,} more (--json shows all)"


def _next_lines(report: MoveReport) -> Iterator[str]:
    if report.dry_run:
        return
    yield from _instructions(report.destination, report.settings)
    if not report.removed and not is_nothing(report):
        yield one_line(f"everything is still in {report.source} too; run the same command again to remove it there")


def _instructions(destination: str, settings: Sequence[StoreSetting]) -> Iterator[str]:
    """What to type for each setting that names another store."""
    others = [setting for setting in settings if not setting.agrees]
    if not others:
        return
    yield "to make Ollama use it:"
    for setting in others:
        yield from (f"  {one_line(line)}" for line in _steps(setting, destination))
    yield f"  {quoted(('ostore', 'move', '--check', destination), sys.platform)}"


def _steps(setting: StoreSetting, destination: str) -> Iterator[str]:
    assignment = _assignment(destination)
    if setting.who == "service":
        yield from _service_steps(setting, destination)
    elif setting.who == "environment":
        is_windows = sys.platform == WINDOWS
        told = f"$env:OLLAMA_MODELS = {quoted_word(destination, WINDOWS)}" if is_windows else f"export {assignment}"
        yield f"{told}   (here, and where your login sets it)"
    elif setting.who == "desktop-app":
        yield f"in the settings of the Ollama app, set the model location to {destination}"
    elif setting.who == "process":
        yield f"stop the running ollama (process {setting.detail}) and start it again"
    elif sys.platform == "darwin":
        told = quoted(("launchctl", "setenv", "OLLAMA_MODELS", destination), sys.platform)
        yield f"{told}   (then start the Ollama app again)"
    elif sys.platform == WINDOWS:
        told = quoted(("setx", "OLLAMA_MODELS", destination), sys.platform)
        yield f"{told}   (then start the Ollama app again)"
    else:
        yield f"{assignment} ollama serve   (or `export {assignment}` in ~/.profile)"


def _assignment(destination: str) -> str:
    return f"OLLAMA_MODELS={quoted_word(destination, 'posix')}"


def _service_steps(setting: StoreSetting, destination: str) -> Iterator[str]:
    line = environment_line("OLLAMA_MODELS", destination)
    if setting.detail.endswith(f"/{UNIT}"):
        yield f"write into {DROP_IN}:"
        yield "    [Service]"
        yield f"    {line}"
    elif setting.detail.endswith(".conf"):
        yield f"in {setting.detail}, below [Service]: {line}"
    else:
        yield f"in {setting.detail}: {_assignment(destination)}"
    yield f"sudo systemctl daemon-reload && sudo systemctl restart {UNIT}"
