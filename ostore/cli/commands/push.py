"""`ostore push`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ostore.cli.options import (
    AsJson,
    CaFile,
    DryRun,
    LimitRate,
    Models,
    PlainHttp,
    ProgressMode,
    Quiet,
    Replace,
    ShowProgress,
    examples,
    group,
)

app = group()

To = Annotated[
    str | None,
    typer.Option("--to", metavar="REGISTRY/NAMESPACE", help="Where all models go. Default: where their own names say."),
]


@app.command(
    epilog=examples(
        "ostore push llama3 --to harbor.lan/models",
        "ostore push 'llama3*' qwen3:8b --to registry.lan:5000/library --ca-file lan.pem",
        "ostore push me/mine:latest --limit-rate 10MB",
    )
)
def push(
    names: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Names or quoted globs.")],
    to: To = None,
    modelpack: Annotated[
        bool, typer.Option("--modelpack", help="Put a ModelPack manifest beside each, as TAG-modelpack.")
    ] = False,
    replace: Replace = False,
    dry_run: DryRun = False,
    limit_rate: LimitRate = None,
    ca_file: CaFile = None,
    plain_http: PlainHttp = False,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ShowProgress = ProgressMode.AUTO,
) -> None:
    """
    Send models to registries, only what is missing. All is sent as it is, and the manifest last.

    The host of a name is its registry, as for `ollama push`. Logins are those of `docker login`. The same command goes
    on where an interrupted one has stopped.
    """
    from ostore.api.push import push as send
    from ostore.cli.progress import shown, summed_up
    from ostore.cli.render import push as render
    from ostore.cli.render.report import say_report
    from ostore.cli.stopping import GOES_ON, if_stopped
    from ostore.settings import keep_freed_memory

    keep_freed_memory()
    if not dry_run:
        if_stopped(GOES_ON)
    started = time.monotonic()
    with shown(progress.value, quiet=quiet, as_json=as_json) as told:
        report = send(
            names,
            to=to,
            modelpack=modelpack,
            replace=replace,
            dry_run=dry_run,
            limit_rate=limit_rate,
            ca_file=ca_file,
            plain_http=plain_http,
            progress=told,
            before=summed_up(told, render.outlook),
            models=models,
        )
    seconds = time.monotonic() - started
    say_report(
        "push",
        report,
        lambda: render.text(report, seconds),
        as_json=as_json,
        quiet=quiet,
        warnings=report.warnings,
        done=None if dry_run else lambda: render.summary(report, seconds),
    )
