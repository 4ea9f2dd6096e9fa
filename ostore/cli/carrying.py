"""Commands that carry models and check what was carried: each one is parse, one library call, render."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from ostore.cli.options import (
    AsJson,
    Color,
    ColorMode,
    DryRun,
    Jobs,
    Models,
    ProgressMode,
    Quiet,
    Replace,
    ShowProgress,
    examples,
    group,
)
from ostore.cli.text import say

app = group()


@app.command(
    epilog=examples(
        "ostore export llama3 bundle.tar.zst",
        "ostore export 'gemma*' mistral:7b /media/usb/models.tar.zst --replace",
        "ostore export --all /media/usb/all.tar",
        "ostore export llama3 - | ssh offline-host ostore import -",
    )
)
def export(
    arguments: Annotated[list[str], typer.Argument(metavar="MODEL... DEST", show_default=False)],
    everything: Annotated[bool, typer.Option("--all", help="Every model of the store.")] = False,
    level: Annotated[
        str, typer.Option("--level", metavar="auto|1..19", help="zstd level; auto stores what does not shrink.")
    ] = "auto",
    replace: Replace = False,
    dry_run: DryRun = False,
    jobs: Jobs = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ShowProgress = ProgressMode.AUTO,
    color: Color = ColorMode.AUTO,
) -> None:
    """
    Write models to a bundle, every blob once and hashed on the way.

    DEST is FILE.tar.zst, FILE.tar (not compressed), DIR/ (a plain store) or - (standard output).
    """
    from ostore.api import export as api
    from ostore.cli import render
    from ostore.cli.progress import shown
    from ostore.formats.errors import UsageError
    from ostore.settings import keep_freed_memory

    keep_freed_memory()
    *names, destination = arguments
    if bool(names) == everything:
        raise UsageError("expected MODEL... DEST, or --all DEST", hint="ostore export llama3 bundle.tar.zst")
    started = time.monotonic()
    with shown(progress.value, quiet=quiet or as_json, color=color.value) as told:
        report = api.export(
            ["*"] if everything else names,
            destination,
            level=_level(level),
            replace=replace,
            dry_run=dry_run,
            jobs=jobs,
            progress=told,
            models=models,
        )
    render.say_warnings(report.warnings)
    if as_json or not quiet:
        # Standard output may be the bundle itself.
        stream = sys.stderr if destination == "-" else sys.stdout
        seconds = time.monotonic() - started
        say(render.document("export", report) if as_json else render.export_text(report, seconds), stream)


@app.command(
    "import",
    epilog=examples(
        "ostore import bundle.tar.zst",
        "ostore import models.tar.zst --model llama3 --model 'gemma*'",
        "sudo ostore import /media/usb/all.tar --models /usr/share/ollama/.ollama/models",
    ),
)
def import_(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", show_default=False)],
    names: Annotated[
        list[str] | None, typer.Option("--model", metavar="NAME", help="Only this model or glob; may be repeated.")
    ] = None,
    replace: Replace = False,
    trust_existing: Annotated[
        bool, typer.Option("--trust-existing", help="Do not hash blobs that are in the store already.")
    ] = False,
    dry_run: DryRun = False,
    jobs: Jobs = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ShowProgress = ProgressMode.AUTO,
    color: Color = ColorMode.AUTO,
) -> None:
    """
    Put the models of bundles into the store; each is seen only once all of it is verified and on the disk.

    SOURCE is a bundle file, a folder that is a store, or - (standard input).
    """
    from ostore.api import import_bundle as api
    from ostore.cli import render
    from ostore.cli.progress import shown
    from ostore.settings import keep_freed_memory

    keep_freed_memory()
    reports = []
    try:
        for source in sources:
            started = time.monotonic()
            with shown(progress.value, quiet=quiet or as_json, color=color.value) as told:
                report = api.import_bundle(
                    source,
                    names or (),
                    replace=replace,
                    trust_existing=trust_existing,
                    dry_run=dry_run,
                    jobs=jobs,
                    progress=told,
                    models=models,
                )
            reports.append(report)
            render.say_warnings(report.warnings)
            if not quiet and not as_json:
                say(render.import_text(report, time.monotonic() - started))
    finally:
        # Each source is a transaction of its own: those before one that failed are done, and told.
        if as_json and reports:
            say(render.document("import", {"imports": reports}))


@app.command(epilog=examples("ostore verify", "ostore verify llama3", "ostore verify /media/usb/models.tar.zst"))
def verify(
    subjects: Annotated[list[str] | None, typer.Argument(metavar="[MODEL|BUNDLE]...", show_default=False)] = None,
    jobs: Jobs = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ShowProgress = ProgressMode.AUTO,
    color: Color = ColorMode.AUTO,
) -> None:
    """
    Hash everything: the whole store, some models, or bundles. Reports every problem, not the first.

    Ends with 0 if all is whole, 4 if a blob is missing or altered, 10 if only manifests, names or layout are wrong.
    """
    from ostore.api import verify as api
    from ostore.cli import render
    from ostore.cli.exit_codes import CODES
    from ostore.cli.progress import shown
    from ostore.settings import keep_freed_memory

    if subjects:
        keep_freed_memory()
    started = time.monotonic()
    with shown(progress.value, quiet=quiet or as_json, color=color.value) as told:
        reports = api.verify(subjects or (), jobs=jobs, progress=told, models=models)
    if as_json:
        say(render.document("verify", {"reports": reports}))
    elif not quiet:
        for report in reports:
            say(render.verify_text(report, time.monotonic() - started))
    codes = [CODES[report.verdict] for report in reports if report.verdict != "whole"]
    if codes:
        raise typer.Exit(min(codes))


def _level(text: str) -> int | None:
    from ostore.formats.errors import UsageError

    if text == "auto":
        return None
    if not text.isdecimal():
        raise UsageError(f"--level: expected auto or 1 to 19, got {text!r}")
    return int(text)
