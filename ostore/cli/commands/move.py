"""`ostore move`, also with --offload and --check."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from ostore.cli.options import (
    AsJson,
    DryRun,
    Jobs,
    Models,
    ProgressMode,
    Quiet,
    ShowProgress,
    Yes,
    examples,
    group,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ostore.api.move.report import MoveReport


app = group()

Words = Annotated[list[str], typer.Argument(metavar="[MODEL...] DEST", show_default=False)]
Offload = Annotated[bool, typer.Option("--offload", help="Move only these models: --offload MODEL... DEST.")]
Check = Annotated[bool, typer.Option("--check", help="Move nothing; say whether Ollama uses the store at DEST.")]
TrustExisting = Annotated[
    bool, typer.Option("--trust-existing", help="Do not hash blobs that are linked or already at DEST.")
]


@app.command(
    epilog=examples(
        "ostore move /data/models",
        "sudo ostore move /data/models --yes",
        "ostore move --offload 'llama3*' mistral:7b /media/usb/models",
        "ostore move --models /media/usb/models --offload mistral:7b ~/.ollama/models",
        "ostore move --check /data/models",
    )
)
def move(
    words: Words,
    offload: Offload = False,
    check: Check = False,
    trust_existing: TrustExisting = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    jobs: Jobs = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ShowProgress = ProgressMode.AUTO,
) -> None:
    """
    Move the whole store to another folder or disk. With --offload, move only the models named.

    First everything is copied to DEST (linked if it is the same disk), verified and synced. Then ostore asks, and only
    then removes it from the old store. After an interruption, run the same command again.
    """
    from ostore.api.move.move import move as move_models
    from ostore.cli.progress import shown
    from ostore.cli.stopping import GOES_ON, if_stopped
    from ostore.settings import keep_freed_memory

    names, destination = _names_and_destination(words, offload=offload)
    if check:
        _check(destination, as_json=as_json, quiet=quiet)
        return
    if not dry_run:
        if_stopped(GOES_ON)
    keep_freed_memory()
    started = time.monotonic()
    run = partial(move_models, destination, names, trust_existing=trust_existing, dry_run=dry_run, jobs=jobs)
    with contextlib.ExitStack() as showing:
        told = showing.enter_context(shown(progress.value, quiet=quiet, as_json=as_json))
        approve = _asking(showing, yes=yes, as_json=as_json)
        report = run(ready=None if yes else _can_ask, approve=approve, progress=told, models=models)
    _end(report, time.monotonic() - started, as_json=as_json, quiet=quiet)


def _end(report: MoveReport, seconds: float, *, as_json: bool, quiet: bool) -> None:
    from ostore.cli.exit_codes import end_with
    from ostore.cli.render import move as render
    from ostore.cli.render.report import in_use, say_report, say_warnings

    if (report.dry_run or render.is_nothing(report)) and not as_json:
        say_warnings(report.warnings)
    say_report(
        "move",
        report,
        lambda: render.text(report, seconds),
        as_json=as_json,
        quiet=quiet,
        done=None if report.dry_run else lambda: render.summary(report, seconds),
    )
    if not as_json:
        say_warnings(in_use(report.in_use))
    if report.in_use or (report.removed and not all(model.removed for model in report.models)):
        end_with("busy")


def _can_ask() -> None:
    from ostore.cli.asking import refuse_without_terminal
    from ostore.formats.remedy import ostore

    refuse_without_terminal(hint=ostore("export", "--all", "DIR/", after="copies a store and removes nothing"))


def _names_and_destination(words: list[str], *, offload: bool) -> tuple[list[str], str]:
    from ostore.formats.errors import UsageError
    from ostore.formats.remedy import ostore

    *names, destination = words
    if offload and not names:
        raise UsageError(
            "expected --offload MODEL... DEST, got one word",
            hint=ostore("move", "--offload", "llama3", "DIR", before="for example"),
        )
    if names and not offload:
        raise UsageError(
            f"expected one DEST, got {len(words)} words",
            hint=ostore("move", "--offload", *words, after="moves only some models"),
        )
    return names, destination


def _check(destination: str, *, as_json: bool, quiet: bool) -> None:
    from ostore.api.move.check import check_move
    from ostore.cli.exit_codes import end_with
    from ostore.cli.render import move as render
    from ostore.cli.render.report import say_report

    report = check_move(destination)
    say_report("move-check", report, lambda: render.check_text(report), as_json=as_json, quiet=quiet)
    if not report.agrees:
        end_with("not-found")


def _asking(showing: contextlib.ExitStack, *, yes: bool, as_json: bool) -> Callable[[MoveReport], bool]:
    """Warn and ask when everything is at DEST. The progress bars leave the terminal before the question."""
    from ostore.cli.asking import agreed
    from ostore.cli.render import move as render
    from ostore.cli.render.report import say_warnings
    from ostore.cli.stopping import GOES_ON

    def ask(report: MoveReport) -> bool:
        if not yes:
            showing.close()
        if not as_json:
            say_warnings(report.warnings)
        stays = f"nothing was removed; {GOES_ON}"
        return yes or agreed(render.question(report), "Remove them from the old store?", if_stopped=stays)

    return ask
