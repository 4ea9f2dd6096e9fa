"""`ostore dedup`."""

from __future__ import annotations

from pathlib import Path
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
    Verbose,
    Yes,
    examples,
    group,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ostore.api.dedup import DedupReport
    from ostore.streams.progress import Progress

app = group()

Paths = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[PATH]...", show_default=False, readable=False, help="Search these folders instead of the usual ones."
    ),
]
Link = Annotated[bool, typer.Option("--link", help="Store the same bytes only once on the disk (btrfs, XFS).")]


@app.command(
    epilog=examples(
        "ostore dedup",
        "ostore dedup /srv/gguf ~/.cache/huggingface/hub",
        "ostore dedup --link --dry-run",
        "sudo ostore dedup --link --yes",
    )
)
def dedup(
    paths: Paths = None,
    link: Link = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    jobs: Jobs = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    progress: ShowProgress = ProgressMode.AUTO,
) -> None:
    """
    Find blobs that other programs keep too: other stores, the Hugging Face cache, LM Studio, llama.cpp.

    PATH is a store, a cache or a folder of GGUF files. With --link the disk stores those bytes only once: the kernel
    compares both files first, and neither changes. Nothing is deleted or hard-linked. With --link, exit code 4 means
    that a copy has other bytes than its name says.
    """
    from ostore.api.dedup import dedup as find
    from ostore.cli.asking import refuse_without_terminal
    from ostore.cli.progress import shown
    from ostore.cli.stopping import GOES_ON, if_stopped

    if link and not dry_run:
        if_stopped(GOES_ON)
        if not yes:
            refuse_without_terminal()
    with shown(progress.value, quiet=quiet, as_json=as_json) as told:
        agree = None if yes else _asking(told, verbose=verbose)
        report = find(paths or (), share=link, dry_run=dry_run, agree=agree, jobs=jobs, progress=told, models=models)
    _end(report, link=link, as_json=as_json, quiet=quiet, verbose=verbose)


def _asking(told: Progress, *, verbose: bool) -> Callable[[DedupReport], bool]:
    from ostore.cli.asking import agreed
    from ostore.cli.progress import paused
    from ostore.cli.render import dedup as render

    def ask(plan: DedupReport) -> bool:
        with paused(told):
            return agreed(render.plan(plan, verbose=verbose), "Go ahead?")

    return ask


def _end(report: DedupReport, *, link: bool, as_json: bool, quiet: bool, verbose: bool) -> None:
    from ostore.cli.exit_codes import end_with
    from ostore.cli.render import dedup as render
    from ostore.cli.render.report import say_report

    say_report(
        "dedup",
        report,
        lambda: render.text(report, verbose=verbose),
        as_json=as_json,
        quiet=quiet,
        lines=(copy.path for blob in report.duplicates for copy in blob.copies),
        warnings=(f"{entry.path}: {entry.reason}" for entry in report.unreadable),
        done=(lambda: render.summary(report)) if link and not report.dry_run else None,
    )
    if not report.dry_run:
        end_with(report.verdict)
