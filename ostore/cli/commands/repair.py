"""`ostore repair`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ostore.cli.options import (
    AsJson,
    DryRun,
    Jobs,
    Models,
    ProgressMode,
    Quiet,
    ShowProgress,
    examples,
    group,
)

app = group()


@app.command(
    epilog=examples(
        "ostore repair --from bundle.tar.zst",
        "ostore repair llama3 --from /media/usb/models.tar.zst --from ~/.cache/huggingface/hub",
        "sudo ostore repair --from /mnt/backup/models --dry-run",
        "ssh other-host ostore export llama3 - | ostore repair llama3 --from -",
    )
)
def repair(
    names: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", show_default=False)] = None,
    sources: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="SOURCE", show_default=False, help="Where to find good copies; repeatable."),
    ] = None,
    dry_run: DryRun = False,
    jobs: Jobs = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ShowProgress = ProgressMode.AUTO,
) -> None:
    """
    Replace what is damaged or missing with good copies. It hashes the store, or the models named, first.

    SOURCE is a bundle, - (a bundle on standard input), a folder with a store, a Hugging Face cache, or a folder of GGUF
    files. Damaged files are kept in .ostore/quarantine. The exit code is that of an `ostore verify` afterwards.
    """
    from ostore.api.repair.repair import repair as fetch
    from ostore.cli.exit_codes import end_with
    from ostore.cli.progress import shown
    from ostore.cli.render import repair as render
    from ostore.cli.render.report import say_report, say_warnings
    from ostore.cli.stopping import GOES_ON, if_stopped
    from ostore.settings import keep_freed_memory

    if not dry_run:
        if_stopped(GOES_ON)
    keep_freed_memory()
    started = time.monotonic()
    with shown(progress.value, quiet=quiet, as_json=as_json) as told:
        report = fetch(names or (), sources=sources or (), dry_run=dry_run, jobs=jobs, progress=told, models=models)
    say_warnings((*report.notes, *report.warnings))
    seconds = time.monotonic() - started
    say_report(
        "repair",
        report,
        lambda: render.text(report, seconds),
        as_json=as_json,
        quiet=quiet,
        done=None if dry_run else lambda: render.summary(report, seconds),
    )
    end_with(report.verdict)
