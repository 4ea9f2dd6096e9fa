"""`ostore gc`, also with --restore."""

from __future__ import annotations

import re
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from ostore.cli.options import (
    AsJson,
    Color,
    ColorMode,
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
from ostore.cli.text import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from ostore.api.gc import GcReport

app = group()

Grace = Annotated[str, typer.Option("--grace", metavar="AGE", help="Keep blobs younger than this: 90s, 30m, 24h, 7d.")]
Partials = Annotated[bool, typer.Option("--partials", help="Also remove partial downloads untouched for a week.")]
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
        "sudo ostore gc --partials --yes --models /usr/share/ollama/.ollama/models",
    )
)
def gc(
    grace: Grace = "24h",
    partials: Partials = False,
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
    color: Color = ColorMode.AUTO,
) -> None:
    """
    Remove blobs that no model needs, and files that interrupted commands left.

    It shows the blobs and asks first. Partial downloads stay without --partials. While a manifest cannot be read,
    nothing is removed (exit code 10).
    """
    from ostore.api.gc import gc as collect
    from ostore.formats.errors import UsageError

    seconds, kept = _seconds("--grace", grace), None if keep is None else _seconds("--keep", keep)
    if restore:
        if partials or keep or without_models:
            raise UsageError("--restore cannot be combined with --partials, --keep or --without-models")
        _restore(dry_run, models, as_json, quiet, progress, color)
        return
    approve = None if yes else _asking(verbose=verbose)
    run = partial(collect, grace=seconds, partials=partials, keep=kept, without_models=without_models)
    report = run(every_blob=verbose, dry_run=dry_run, approve=approve, models=models)
    _end(report, as_json=as_json, quiet=quiet, verbose=verbose)


def _asking(*, verbose: bool) -> Callable[[GcReport], bool]:
    from ostore.cli.asking import agreed
    from ostore.cli.render import gc as render

    return lambda plan: agreed(render.text(plan, verbose=verbose), "Remove that?")


def _end(report: GcReport | None, *, as_json: bool, quiet: bool, verbose: bool) -> None:
    from ostore.cli.render import gc as render
    from ostore.cli.render.report import say_report

    if report is None:
        say("nothing was removed", sys.stderr)
    else:
        say_report(
            "gc",
            report,
            lambda: render.text(report, verbose=verbose),
            as_json=as_json,
            quiet=quiet,
            warnings=report.warnings,
        )


def _restore(
    dry_run: bool, models: Models, as_json: bool, quiet: bool, progress: ProgressMode, color: ColorMode
) -> None:
    from ostore.api.gc import restore
    from ostore.cli.exit_codes import end_with
    from ostore.cli.progress import shown
    from ostore.cli.render import gc as render
    from ostore.cli.render.report import say_report

    with shown(progress.value, quiet=quiet or as_json, color=color.value) as told:
        report = restore(dry_run=dry_run, progress=told, models=models)
    say_report("restore", report, lambda: render.restored_text(report), as_json=as_json, quiet=quiet)
    if any(blob.outcome == "damaged" for blob in report.blobs):
        end_with("integrity")


def _seconds(option: str, text: str) -> float:
    from ostore.formats.errors import UsageError

    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"{option}: expected a time like 90s, 30m, 24h or 7d, got {text!r:.90}")
    return float(int(match[1]) * _SECONDS[match[2]])
