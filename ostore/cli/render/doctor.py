"""The output of `ostore doctor`: the most severe findings first, one paragraph per kind."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ostore.cli.remedies import line
from ostore.cli.text import clean, columns, human_bytes, one_line, plural
from ostore.formats.remedy import ostore

if TYPE_CHECKING:
    from ostore.api.doctor import DoctorReport
    from ostore.operations.doctor.finding import Finding
    from ostore.places.store.fixing import Fix

_SHOWN = 3
_WIDTH = 100
_INDENT = " " * 9
_DUE = {
    "set-aside": "set aside",
    "rename": "rename",
    "give": "owner and mode",
    "respell": "hash every blob, then write the digests as Ollama does (the ID changes)",
    "place": "move to its place",
}
_DONE = {
    "set-aside": "set aside",
    "rename": "renamed",
    "give": "owner and mode put right",
    "respell": "digests written as Ollama does; the ID has changed, and the old manifest is kept",
    "place": "moved to its place",
}


def text(report: DoctorReport, *, is_fix: bool) -> str:
    """The findings by kind, then the fixes, then the summary."""
    lines: list[str] = []
    for findings in _kinds(report.findings):
        lines += [*_paragraph(findings), ""]
    if is_fix:
        lines += [*_fixed(report.fixes), ""]
    elif report.fixes:
        after = f"fixes {len(report.fixes):,} of these; nothing is deleted"
        lines += [line(ostore("doctor", "--fix", after=after)), ""]
    return "\n".join([*lines, _summary(report)])


def quiet_lines(report: DoctorReport) -> Iterator[str]:
    """One line per problem or warning."""
    for finding in report.findings:
        if finding.severity != "note":
            yield one_line(f"{finding.severity}: {finding.code}: {finding.subject}")


def plan(report: DoctorReport) -> str:
    """What --fix would do."""
    return "\n".join(["this would be fixed; nothing is deleted:", *_fix_lines(report.fixes)])


def _kinds(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Findings grouped by severity and code, in order of first appearance."""
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.severity, finding.code), []).append(finding)
    return list(kinds.values())


def _paragraph(findings: list[Finding]) -> list[str]:
    first = findings[0]
    count = f" ({len(findings):,}{_together(findings)})" if len(findings) > 1 else ""
    lines = [f"{first.severity.upper():<9}{first.code}{count}"]
    lines += _wrapped(first.meaning)
    lines += [f"{_INDENT}  {one_line(_subject(finding))}" for finding in findings[:_SHOWN]]
    if len(findings) > _SHOWN:
        lines.append(f"{_INDENT}  and {len(findings) - _SHOWN:,} more (--json shows all)")
    # One remedy serves several findings only if it is the same for each of them.
    remedies = dict.fromkeys(finding.remedy for finding in findings[:_SHOWN] if finding.remedy)
    return [*lines, *(f"{_INDENT}-> {line(remedy)}" for remedy in remedies)]


def _together(findings: list[Finding]) -> str:
    size = sum(finding.size or 0 for finding in findings)
    return f", {human_bytes(size)} in total" if size else ""


def _subject(finding: Finding) -> str:
    size = "" if finding.size is None or finding.code == "low-space" else human_bytes(finding.size)
    facts = "; ".join(fact for fact in (finding.detail, size) if fact)
    used = [name for name in finding.models if name != finding.subject and name not in finding.detail]
    models = f"; used by {', '.join(used[:_SHOWN])}" if used and finding.code.startswith("blob-") else ""
    more = f" and {len(used) - _SHOWN:,} more" if models and len(used) > _SHOWN else ""
    return f"{finding.subject}{': ' if facts else ''}{facts}{models}{more}"


def _wrapped(text: str) -> list[str]:
    return [f"{_INDENT}{line}" for line in textwrap.wrap(clean(text), columns(_WIDTH) - len(_INDENT))]


def _fixed(fixes: Sequence[Fix]) -> list[str]:
    if not fixes:
        return ["--fix can fix nothing here"]
    title = "after --fix:" if any(step.outcome for step in fixes) else "--fix would fix; nothing is deleted:"
    return [title, *_fix_lines(fixes)]


def _fix_lines(fixes: Iterable[Fix]) -> Iterator[str]:
    kinds: dict[tuple[str, str], list[Fix]] = {}
    for step in fixes:
        kinds.setdefault((step.action, step.outcome), []).append(step)
    for (action, outcome), steps in kinds.items():
        what = _DUE[action] if not outcome else _DONE[action] if outcome == "fixed" else f"not fixed ({outcome})"
        for step in steps[:_SHOWN]:
            yield f"  {what}: {one_line(step.path)}{f' -> {one_line(step.target)}' if step.target else ''}"
        if len(steps) > _SHOWN:
            yield f"  {what}: and {len(steps) - _SHOWN:,} more"


def _summary(report: DoctorReport) -> str:
    counts = [
        plural(count, severity)
        for severity in ("problem", "warning", "note")
        if (count := sum(1 for finding in report.findings if finding.severity == severity))
    ]
    looked = f"{plural(report.models, 'model')}, {plural(report.blobs, 'blob')}, {human_bytes(report.size)}"
    told = f"looked at {looked}: {', '.join(counts) or 'nothing wrong'} ({report.store}); only sizes were checked; "
    return one_line(told) + line(ostore("verify", after="hashes everything"))
