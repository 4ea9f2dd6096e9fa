"""The output of `ostore probe`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ostore.cli import remedies
from ostore.cli.text import one_line, plural, table

if TYPE_CHECKING:
    from ostore.api.probe import ProbedModel, ProbeReport
    from ostore.api.probe_answers import SpokenWord

_SHOWN_DIGITS = 12
_SHOWN_CHARACTERS = 24
_GOOD = frozenset({"same", "rewritten"})
_PLACES = {
    True: "the server uses it too",
    None: "which one the server uses cannot be told from here",
}


def bad(report: ProbeReport) -> Iterator[str]:
    """The names of the models that are not served as stored, or do not answer."""
    return (model.name for model in report.models if _is_bad(model))


def warnings(report: ProbeReport) -> Iterator[str]:
    """The warnings. The remedy is that of the first."""
    for number, warning in enumerate(report.warnings):
        yield f"{warning}: {remedies.line(report.remedy)}" if report.remedy and number == 0 else warning


def text(report: ProbeReport) -> str:
    facts = [("server", f"{report.url}  (Ollama {report.version})"), ("store", f"{report.store}  ({_place(report)})")]
    lines = [one_line(f"{key:<12}{value}") for key, value in facts]
    has_words = any(model.words for model in report.models)
    header = ("NAME", "ID", "SERVED", *(("OLLAMA", "OPENAI", "TOKENS/S", "SAID") if has_words else ()))
    rows = [
        (model.name, _id(model.digest), model.served, *(_words(model) if has_words else ())) for model in report.models
    ]
    lines += [table(header, rows)] if rows else []
    lines += [one_line(f"{model.name}: {line}") for model in report.models for line in _problems(model)]
    if report.extra:
        lines.append(one_line(f"only the server has {plural(len(report.extra), 'model')}: {_listed(report.extra)}"))
    return "\n".join([*lines, one_line(_verdict(report))])


def _place(report: ProbeReport) -> str:
    if report.is_same_store is False:
        return f"the server uses {report.server_store}"
    return _PLACES[report.is_same_store]


def _id(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_SHOWN_DIGITS]


def _is_bad(model: ProbedModel) -> bool:
    return model.served not in _GOOD or bool(model.problem) or any(word.problem for word in model.words)


def _problems(model: ProbedModel) -> Iterator[str]:
    if model.because:
        yield f"{model.served}: {model.because}"
    if model.problem:
        yield model.problem
    yield from dict.fromkeys(word.problem for word in model.words if word.problem)


def _words(model: ProbedModel) -> tuple[str, str, str, str]:
    said = next((word for word in model.words if not word.problem), None)
    times = {word.api: _time(word) for word in model.words}
    rate = said.tokens_per_second if said else None
    return (
        times.get("ollama", "-"),
        times.get("openai", "-"),
        "-" if rate is None else f"{rate:.1f}",
        "-" if said is None else _said(said),
    )


def _time(word: SpokenWord) -> str:
    return "failed" if word.problem or word.seconds is None else f"{word.seconds:.2f} s"


def _said(word: SpokenWord) -> str:
    if word.dimensions is not None:
        return f"{word.dimensions} dimensions"
    text = " ".join(word.text.split())
    return repr(text[:_SHOWN_CHARACTERS]) if text else "nothing"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")  # noqa: PLR2004 - enough to know which they are


def _verdict(report: ProbeReport) -> str:
    total = len(report.models)
    good = sum(model.served in _GOOD for model in report.models)
    verdict = f"{good} of {plural(total, 'model')} served as stored"
    asked = [model for model in report.models if model.words]
    if asked:
        verdict += f", {sum(not any(word.problem for word in model.words) for model in asked)} of {len(asked)} answered"
    return verdict
