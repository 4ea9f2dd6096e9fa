"""`ostore pull`."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from ostore.cli.options import (
    AsJson,
    CaFile,
    Connections,
    DryRun,
    LimitRate,
    LockOption,
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

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME...", show_default=False)]
To = Annotated[
    str | None,
    typer.Option("--to", metavar="DEST", help="FILE.tar.zst, FILE.tar, DIR/ or -, as for export. Default: the store."),
]


@app.command(
    epilog=examples(
        "ostore pull llama3",
        "ostore pull llama3 qwen3:8b --to /media/usb/models.tar.zst",
        "ostore pull hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M",
        "ostore pull registry.lan:5000/library/llama3 --ca-file lan.pem --limit-rate 10MB",
        "ostore pull 'mirror.lan:11435/library/*' --plain-http",
        "ostore pull --lock models.lock",
    )
)
def pull(
    names: Names = None,
    to: To = None,
    lock: LockOption = None,
    replace: Replace = False,
    dry_run: DryRun = False,
    jobs: Connections = None,
    limit_rate: LimitRate = None,
    ca_file: CaFile = None,
    plain_http: PlainHttp = False,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ShowProgress = ProgressMode.AUTO,
) -> None:
    """
    Fetch models from registries, and verify them. The host of a name is its registry, as for `ollama pull`.

    With --to, they go straight to a bundle or folder: this machine then needs neither Ollama nor a store. NAME may
    end in @sha256:DIGEST for exactly that manifest. The same command goes on with what has arrived.
    """
    from ostore.api.pull import pull as fetch
    from ostore.cli.progress import shown, summed_up
    from ostore.cli.render import pull as render
    from ostore.cli.render.report import say_left_out, say_report, say_warnings
    from ostore.cli.stopping import GOES_ON, if_stopped
    from ostore.settings import keep_freed_memory

    keep_freed_memory()
    if not dry_run:
        if_stopped(GOES_ON)
    started = time.monotonic()
    with shown(progress.value, quiet=quiet, as_json=as_json) as told:
        report = fetch(
            names or (),
            to=to,
            lock=lock,
            replace=replace,
            dry_run=dry_run,
            jobs=jobs,
            limit_rate=limit_rate,
            ca_file=ca_file,
            plain_http=plain_http,
            progress=told,
            before=summed_up(told, render.outlook),
            models=models,
        )
    seconds = time.monotonic() - started
    say_warnings(report.warnings)
    say_report(
        "pull",
        report,
        lambda: render.text(report, seconds),
        as_json=as_json,
        quiet=quiet,
        # Standard output may be the bundle itself.
        stream=sys.stderr if to == "-" else None,
        done=None if dry_run else lambda: render.summary(report, seconds),
    )
    say_left_out(report.left_out)
