"""The output of `ostore serve`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ostore.cli.text import human_bytes, human_seconds, one_line, plural
from ostore.formats.name import ModelName

if TYPE_CHECKING:
    from ostore.api.serve import ServeReport, ServeStart

_MAX_SHOWN = 5


def begin(start: ServeStart) -> str:
    """What is served where, and what to type on the clients."""
    lines = [f"serving {plural(len(start.models), 'model')} of {one_line(start.place)} at {start.url}"]
    if start.models:
        name = ModelName.parse(start.models[0])
        lines += ["on the clients:", *_typed(start, f"{start.reached_at}/{name.namespace}/{name.model}:{name.tag}")]
    return "\n".join([*lines, "Ctrl-C ends it"])


def _typed(start: ServeStart, model: str) -> Iterator[str]:
    """What clients type to get a model. Ollama cannot send a token."""
    insecure, unverified, ostore = (
        ("", "", " --ca-file CA.pem") if start.has_tls else ("--insecure ", "--src-tls-verify=false ", " --plain-http")
    )
    if start.has_token:
        verify = "" if start.has_tls else "--tls-verify=false "
        yield f"  skopeo login {verify}-u any --password-stdin {start.reached_at} < TOKEN_FILE"
    else:
        yield f"  ollama pull {insecure}{model}"
    yield f"  ostore pull {model}{ostore}"
    yield f"  skopeo copy {unverified}docker://{model} dir:DIR"


def warnings(start: ServeStart) -> Iterator[str]:
    for model in start.left[:_MAX_SHOWN]:
        yield f"{model.name}: not served: {model.reason}"
    if more := start.left[_MAX_SHOWN:]:
        yield f"{plural(len(more), 'more model')} not served; `ostore verify` says why"
    if not start.models:
        yield "no models to serve yet"


def text(report: ServeReport) -> str:
    requests = plural(report.requests, "request")
    sent = human_bytes(report.sent_bytes)
    return f"answered {requests} in {human_seconds(report.seconds)}, sent {sent}"
