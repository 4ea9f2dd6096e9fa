"""The output of `ostore verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostore.cli.remedies import line
from ostore.cli.text import human_bytes, human_seconds, one_line, plural

if TYPE_CHECKING:
    from ostore.operations.verify import Problem, VerifyReport


def text(report: VerifyReport, seconds: float) -> str:
    if not report.models + report.blobs + report.volumes + report.unchecked + len(report.problems):
        return f"nothing to verify: no models in {report.subject}"
    if report.volumes and not report.models + report.blobs:
        checked = f"{plural(report.volumes, 'volume')}, {human_bytes(report.size)}"
    else:
        checked = f"{plural(report.models, 'model')}, {plural(report.blobs, 'blob')}, {human_bytes(report.size)}"
    verdict = plural(len(report.problems), "problem") if report.problems else "whole"
    if report.unchecked:
        verdict += f", but {plural(report.unchecked, 'blob')} not checked"
    verified = f"verified {checked} in {human_seconds(seconds)}: {verdict} ({report.subject})"
    remedy = [f"  -> {line(report.remedy)}"] if report.remedy else []
    return "\n".join([*map(problem_line, report.problems), verified, *remedy])


def problem_line(problem: Problem, lead: str = "") -> str:
    users = f"; used by {', '.join(problem.models)}" if problem.models else ""
    detail = problem.detail if problem.subject in problem.detail else f"{problem.subject}: {problem.detail}"
    return one_line(f"  {lead}{problem.kind}: {detail}{users}")
