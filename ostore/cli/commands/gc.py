"""`ostore gc`, also with --restore."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from ostore.cli.options import (
    AsJson,
    DryRun,
    Models,
    ProgressMode,
    Quiet,
    ShowProgress,
    Verbose,
    Yes,
    examples,
    group,
)
from ostore.cli.text import tell

if TYPE_CHECKING:
    from ostore.api.gc import GcReport

app = group()

Grace = Annotated[str, typer.Option("--grace", metavar="AGE", help="Keep blobs younger than this: 90s, 30m, 24h, 7d.")]
Partials = Annotated[
    bool, typer.Option("--partials", help="Also remove partial downloads that have rested for a week.")
]
PartialsGrace = Annotated[
    str | None,
    typer.Option("--partials-grace", metavar="AGE", help="--partials, but for those that have rested this long."),
]
Keep = Annotated[
    str | None, typer.Option("--keep", metavar="TIME", help="Keep removed blobs this long, for --restore.")
]
Restore = Annotated[bool, typer.Option("--restore", help="Bring back the blobs that --keep kept.")]
WithoutModels = Annotated[bool, typer.Option("--without-models", help="Go on even if the store has no models.")]

_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@app.command(
    epilog=examples(
        "ostore gc --dry-run --verbose",
        "ostore gc --keep 24h",
        "ostore gc --restore",
        "ostore gc --partials-grace 1h",
        "sudo ostore gc --partials --yes --models /usr/share/ollama/.ollama/models",
    )
)
def gc(
    grace: Grace = "24h",
    partials: Partials = False,
    partials_grace: PartialsGrace = None,
    keep: Keep = None,
    restore: Restore = False,
    without_models: WithoutModels = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    progress: ShowProgress = ProgressMode.AUTO,
) -> None:
    """
    Remove blobs that no model needs, and files that interrupted commands left.

    It shows the blobs and asks first. Partial downloads stay without --partials or --partials-grace, so that `ollama
    pull` can go on with them. While a manifest cannot be read, nothing is removed (exit code 10).
    """
    from ostore.api.gc import gc as collect
    from ostore.cli.asking import Asking
    from ostore.cli.render import gc as render
    from ostore.cli.stopping import GOES_ON, if_stopped
    from ostore.formats.errors import UsageError

    seconds, kept = _seconds("--grace", grace), None if keep is None else _seconds("--keep", keep)
    rested = _seconds("--partials-grace", "7d" if partials_grace is None else partials_grace)
    partials = partials or partials_grace is not None
    if restore:
        if partials or keep or without_models:
            raise UsageError("--restore cannot be combined with --partials, --keep or --without-models")
        _restore(dry_run, models, as_json, quiet, progress)
        return
    if not dry_run:
        if_stopped(GOES_ON)
    asking: Asking[GcReport] = Asking(lambda plan: render.text(plan, verbose=verbose), "Remove that?")
    run = partial(collect, grace=seconds, partials=partials, partials_grace=rested, keep=kept)
    report = run(
        without_models=without_models,
        every_blob=verbose,
        dry_run=dry_run,
        approve=None if yes else asking,
        models=models,
    )
    _end(report, asking.declined, as_json=as_json, quiet=quiet, verbose=verbose)


def _end(report: GcReport | None, declined: GcReport | None, *, as_json: bool, quiet: bool, verbose: bool) -> None:
    from ostore.cli.exit_codes import end_with
    from ostore.cli.render import gc as render
    from ostore.cli.render.report import in_use, say_report

    if report is None:
        tell("nothing was removed")
    shown = report or declined
    if shown and (report or as_json):
        say_report(
            "gc",
            shown,
            lambda: render.text(shown, verbose=verbose),
            as_json=as_json,
            quiet=quiet,
            warnings=(*shown.warnings, *in_use(shown.in_use)),
            done=None if shown.dry_run else lambda: render.summary(shown),
        )
        if shown.in_use:
            end_with("busy")


def _restore(dry_run: bool, models: Models, as_json: bool, quiet: bool, progress: ProgressMode) -> None:
    from ostore.api.gc import restore
    from ostore.cli.exit_codes import end_with
    from ostore.cli.progress import shown
    from ostore.cli.render import gc as render
    from ostore.cli.render.report import say_report
    from ostore.cli.stopping import GOES_ON, if_stopped

    if not dry_run:
        if_stopped(GOES_ON)
    with shown(progress.value, quiet=quiet, as_json=as_json) as told:
        report = restore(dry_run=dry_run, progress=told, models=models)
    say_report(
        "restore",
        report,
        lambda: render.restored_text(report),
        as_json=as_json,
        quiet=quiet,
        done=None if dry_run else lambda: render.restored_summary(report),
    )
    if any(blob.outcome == "damaged" for blob in report.blobs):
        end_with("integrity")


def _seconds(option: str, text: str) -> float:
    from ostore.formats.errors import UsageError

    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"{option}: expected a time like 90s, 30m, 24h or 7d, got {text!r:.90}")
    return float(int(match[1]) * _SECONDS[match[2]])
