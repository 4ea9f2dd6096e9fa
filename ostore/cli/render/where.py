"""The output of `ostore where`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostore.cli.text import human_bytes

if TYPE_CHECKING:
    from ostore.api.where import WhereReport

_REASONS = {
    "flag": "named by --models",
    "environment": "named by the environment",
    "service": "used by the Ollama service",
    "desktop-app": "set in the Ollama app",
    "default": "the default place",
}


def text(report: WhereReport) -> str:
    facts = [("store", report.store), ("because", f"{_REASONS[report.reason]} ({report.detail})")]
    if report.exists:
        facts += [("owner", report.owner)] if report.owner else []
        facts.append(("free", human_bytes(report.free or 0)))
    else:
        facts.append(("", "not there yet; the first import creates it"))
    facts += [("also found", f"{store.path} ({store.why})") for store in report.others]
    return "\n".join(f"{key:<12}{value}" for key, value in facts)
