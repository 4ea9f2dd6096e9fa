"""Commands that remove, and the one that gives a model a second name: each one is parse, one library call, render."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from ostore.cli.options import (
    AsJson,
    Color,
    ColorMode,
    DryRun,
    Models,
    ProgressMode,
    Quiet,
    Replace,
    ShowProgress,
    Verbose,
    Yes,
    examples,
    group,
)
from ostore.cli.text import say

app = group()

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
    grace: Annotated[
        str, typer.Option("--grace", metavar="AGE", help="How old a blob must be: 90s, 30m, 24h, 7d.")
    ] = "24h",
    partials: Annotated[
        bool, typer.Option("--partials", help="Also downloads that nobody went on with for a week.")
    ] = False,
    keep: Annotated[
        str | None, typer.Option("--keep", metavar="TIME", help="Keep what goes for so long, for --restore.")
    ] = None,
    restore: Annotated[bool, typer.Option("--restore", help="Bring back what --keep has kept.")] = False,
    without_models: Annotated[
        bool, typer.Option("--without-models", help="Go on although the store has no model at all.")
    ] = False,
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
    Remove the blobs that no model needs, and what interrupted commands left.

    Refuses (10) while a manifest cannot be read. Partial downloads stay, unless --partials.
    """
    from ostore.api import gc as api
    from ostore.api.gc import GcReport
    from ostore.cli import render, render_removal
    from ostore.cli.asking import agreed

    seconds, kept = _seconds("--grace", grace), None if keep is None else _seconds("--keep", keep)
    if restore:
        if partials or keep or without_models:
            raise typer.BadParameter("--restore brings back, and takes no option for removing")
        _restore(dry_run, models, as_json, quiet, progress, color)
        return

    def approve(plan: GcReport) -> bool:
        return agreed(render_removal.gc_text(plan, verbose=verbose), "Remove that?")

    report = api.gc(
        grace=seconds,
        partials=partials,
        keep=kept,
        without_models=without_models,
        every_blob=verbose,
        dry_run=dry_run,
        approve=None if yes else approve,
        models=models,
    )
    if report is None:
        say("nothing was removed", sys.stderr)
    elif as_json:
        say(render.document("gc", report))
    elif not quiet:
        say(render_removal.gc_text(report, verbose=verbose))


@app.command(epilog=examples("ostore rm llama3", "ostore rm mistral:7b 'gemma3*' --yes", "ostore rm llama3 --dry-run"))
def rm(
    names: Annotated[list[str], typer.Argument(metavar="MODEL...", show_default=False)],
    yes: Yes = False,
    dry_run: DryRun = False,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """
    Remove models, and the blobs that only they need.

    MODEL is a name or a quoted glob. Says first what is freed, and what stays because other models share it.
    """
    from ostore.api import rm as api
    from ostore.api.rm import RmReport
    from ostore.cli import render, render_removal
    from ostore.cli.asking import agreed

    def approve(plan: RmReport) -> bool:
        return agreed(render_removal.rm_text(plan, verbose=verbose), "Remove that?")

    report = api.rm(names, dry_run=dry_run, approve=None if yes else approve, models=models)
    if report is None:
        say("nothing was removed", sys.stderr)
    elif as_json:
        say(render.document("rm", report))
    elif not quiet:
        say(render_removal.rm_text(report, verbose=verbose))


@app.command(epilog=examples("ostore cp llama3 my-llama", "ostore cp llama3:8b llama3:latest --replace"))
def cp(
    source: Annotated[str, typer.Argument(metavar="SRC", show_default=False)],
    destination: Annotated[str, typer.Argument(metavar="DST", show_default=False)],
    replace: Replace = False,
    dry_run: DryRun = False,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Give a model a second name. Its manifest is copied, byte for byte; the blobs are shared."""
    from ostore.api import cp as api
    from ostore.cli import render, render_removal

    report = api.cp(source, destination, replace=replace, dry_run=dry_run, models=models)
    if as_json:
        say(render.document("cp", report))
    elif not quiet:
        render.say_warnings(report.warnings)
        say(render_removal.cp_text(report))


def _restore(
    dry_run: bool, models: Models, as_json: bool, quiet: bool, progress: ProgressMode, color: ColorMode
) -> None:
    from ostore.api import gc as api
    from ostore.cli import render, render_removal
    from ostore.cli.exit_codes import CODES
    from ostore.cli.progress import shown

    with shown(progress.value, quiet=quiet or as_json, color=color.value) as told:
        report = api.restore(dry_run=dry_run, progress=told, models=models)
    if as_json:
        say(render.document("restore", report))
    elif not quiet:
        say(render_removal.restore_text(report))
    if any(blob.outcome == "damaged" for blob in report.blobs):
        raise typer.Exit(CODES["integrity"])


def _seconds(option: str, text: str) -> float:
    from ostore.formats.errors import UsageError

    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"{option}: expected a time like 90s, 30m, 24h or 7d, got {text!r:.90}")
    return float(int(match[1]) * _SECONDS[match[2]])
