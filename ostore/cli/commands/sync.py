"""`ostore sync`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from ostore.cli.options import (
    AsJson,
    CaFile,
    DryRun,
    LimitRate,
    ProgressMode,
    Quiet,
    Replace,
    ShowProgress,
    Yes,
    examples,
    group,
)
from ostore.cli.text import tell

if TYPE_CHECKING:
    from ostore.api.sync.sync import SyncReport

app = group()


@app.command(
    epilog=examples(
        "ostore sync /srv/models /media/usb/models/",
        "ostore sync http://mirror.lan:11435 /srv/models",
        "ostore sync /srv/models https://harbor.lan/models --ca-file lan.pem",
        "ostore sync /srv/models /mnt/copy --delete --dry-run",
    )
)
def sync(
    source: Annotated[str, typer.Argument(metavar="SRC", show_default=False)],
    destination: Annotated[str, typer.Argument(metavar="DST", show_default=False)],
    replace: Replace = False,
    delete: Annotated[bool, typer.Option("--delete", help="Remove models of the store DST that SRC lacks.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    limit_rate: LimitRate = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ShowProgress = ProgressMode.AUTO,
) -> None:
    """
    Copy the models that DST lacks, verified. Each is the folder of a store, oci:DIR, or the address of a registry.

    SRC may be a bundle too. http:// is for a registry without TLS. With --delete, it shows what would be removed, as
    rm does, and asks.
    """
    from ostore.api.sync.sync import sync as bring
    from ostore.cli.asking import Asking
    from ostore.cli.exit_codes import end_with
    from ostore.cli.progress import paused, shown, summed_up
    from ostore.cli.render import sync as render
    from ostore.cli.render.report import in_use, say_left_out, say_report
    from ostore.cli.stopping import GOES_ON, if_stopped
    from ostore.settings import keep_freed_memory

    keep_freed_memory()
    if not dry_run:
        if_stopped(GOES_ON)
    asking: Asking[SyncReport] = Asking(render.plan, "Copy and remove that?")

    def approve(plan: SyncReport) -> bool:
        with paused(told):
            return asking(plan)

    started = time.monotonic()
    with shown(progress.value, quiet=quiet, as_json=as_json) as told:
        report = bring(
            source,
            destination,
            replace=replace,
            delete=delete,
            dry_run=dry_run,
            limit_rate=limit_rate,
            ca_file=ca_file,
            progress=told,
            approve=None if yes else approve,
            before=summed_up(told, render.outlook),
        )
    seconds = time.monotonic() - started
    if report is None:
        tell("nothing was copied or removed")
    said = report or asking.declined
    if said and (report or as_json):
        stays = said.removed.in_use if said.removed else ()
        say_report(
            "sync",
            said,
            lambda: render.text(said, seconds),
            as_json=as_json,
            quiet=quiet,
            warnings=(*said.warnings, *render.warnings(said), *in_use(stays)),
            done=None if said.dry_run else lambda: render.summary(said, seconds),
        )
        say_left_out(said.left_out)
        if stays:
            end_with("busy")
