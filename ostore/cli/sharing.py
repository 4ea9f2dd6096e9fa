"""The command that lets the disk keep once what several programs keep: parse, one library call, render."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    ShowProgress,
    Verbose,
    Yes,
    examples,
    group,
)
from ostore.cli.text import say

if TYPE_CHECKING:
    from ostore.api.dedup import DedupReport

app = group()


@app.command(
    epilog=examples(
        "ostore dedup",
        "ostore dedup /srv/gguf ~/.cache/huggingface/hub",
        "ostore dedup --link --dry-run",
        "sudo ostore dedup --link --yes",
    )
)
def dedup(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", show_default=False, readable=False, help="Folders to look in instead."),
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Let the disk keep the same bytes once (btrfs, XFS).")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    jobs: Jobs = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    progress: ShowProgress = ProgressMode.AUTO,
    color: Color = ColorMode.AUTO,
) -> None:
    """
    Show which blobs other programs keep as well: other stores, the Hugging Face cache, LM Studio, llama.cpp.

    PATH is a store, a cache or a folder of GGUF files. With --link the disk keeps those bytes once: the kernel compares
    them, and both files stay what they are. Nothing is deleted or hard-linked. Ends with 4 if a copy has other bytes
    than its name says.
    """
    from ostore.api import dedup as api
    from ostore.cli import render, render_sharing
    from ostore.cli.asking import agreed, refuse_without_terminal
    from ostore.cli.exit_codes import CODES
    from ostore.cli.progress import paused, shown

    if link and not yes and not dry_run:
        refuse_without_terminal()
    with shown(progress.value, quiet=quiet or as_json, color=color.value) as told:

        def agree(plan: DedupReport) -> bool:
            if yes:
                return True
            with paused(told):
                return agreed(render_sharing.plan_text(plan, verbose=verbose), "Go ahead?")

        report = api.dedup(
            paths or (), share=link, dry_run=dry_run, agree=agree, jobs=jobs, progress=told, models=models
        )
    if as_json:
        say(render.document("dedup", report))
    elif quiet:
        for blob in report.duplicates:
            for copy in blob.copies:
                say(copy.path)
    else:
        say(render_sharing.dedup_text(report, verbose=verbose))
        render.say_warnings(tuple(f"{entry.path}: {entry.reason}" for entry in report.unreadable))
    if report.verdict != "whole" and not report.dry_run:
        raise typer.Exit(CODES[report.verdict])
