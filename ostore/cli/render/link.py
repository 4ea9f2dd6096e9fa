"""The output of `ostore link`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ostore.cli.text import one_line, plural

if TYPE_CHECKING:
    from ostore.api.link import LinkReport

_KINDS = {
    "reflink": "the disk shares the bytes",
    "symlink": "symbolic link",
    "hardlink": "hard link",
    "text": "Modelfile",
}


def text(report: LinkReport) -> str:
    lines = [f"  {linked.path} ({_KINDS[linked.kind]})" for linked in report.linked]
    lines += [f"  removed {path}" for path in report.removed]
    return "\n".join([*map(one_line, lines), one_line(summary(report))])


def summary(report: LinkReport) -> str:
    """One line: how many models have new files there, and how many files are gone or as they were."""
    new = [linked for linked in report.linked if linked.is_new]
    models = {linked.model for linked in new}
    done = [f"linked {plural(len(models), 'model')}, {plural(len(new), 'file')}"] if new else []
    done += [f"removed {plural(len(report.removed), 'file')}"] if report.removed else []
    if same := len(report.linked) - len(new):
        done.append(f"{plural(same, 'file')} as before" if done else f"nothing has changed: {plural(same, 'file')}")
    return f"{', '.join(done) or 'nothing to do'} -> {report.folder} ({report.layout})"


def warnings(report: LinkReport) -> Iterator[str]:
    """What was left alone, what is lost, and the rest."""
    for foreign in report.left_alone:
        yield f"{foreign.path}: left alone: {foreign.reason}"
    if report.lost:
        yield f"other programs do not read {', '.join(report.lost)} of a model; the Modelfile beside it has them"
    yield from report.warnings
