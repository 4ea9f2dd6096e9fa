"""The output of `ostore link`."""

from __future__ import annotations

from collections import Counter
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
    """One line: how many models have files there now, and of which kind."""
    kinds = Counter(linked.kind for linked in report.linked if linked.kind != "text")
    models = {linked.model for linked in report.linked}
    done = [f"linked {plural(len(models), 'model')}, {plural(kinds.total(), 'file')}"] if models else []
    done += [f"removed {plural(len(report.removed), 'file')}"] if report.removed else []
    return f"{', '.join(done) or 'nothing to do'} -> {report.folder} ({report.layout})"


def warnings(report: LinkReport) -> Iterator[str]:
    """What was left alone, what is lost, and the rest."""
    for foreign in report.left_alone:
        yield f"{foreign.path}: left alone: {foreign.reason}"
    if report.lost:
        yield f"other programs do not read {', '.join(report.lost)} of a model; the Modelfile beside it has them"
    yield from report.warnings
