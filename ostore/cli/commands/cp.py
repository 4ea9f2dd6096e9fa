"""`ostore cp`."""

from __future__ import annotations

from typing import Annotated

import typer

from ostore.cli.options import (
    AsJson,
    DryRun,
    Models,
    Quiet,
    Replace,
    examples,
    group,
)

app = group()


@app.command(epilog=examples("ostore cp llama3 my-llama", "ostore cp llama3:8b llama3:latest --replace"))
def cp(
    source: Annotated[str, typer.Argument(metavar="MODEL", show_default=False)],
    destination: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    replace: Replace = False,
    dry_run: DryRun = False,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Give a model a second name. The manifest is copied byte for byte; both models share the blobs."""
    from ostore.api.cp import cp as copy
    from ostore.cli.render import cp as render
    from ostore.cli.render.report import say_report
    from ostore.cli.stopping import GOES_ON, if_stopped

    if not dry_run:
        if_stopped(GOES_ON)
    report = copy(source, destination, replace=replace, dry_run=dry_run, models=models)
    say_report(
        "cp",
        report,
        lambda: render.text(report),
        as_json=as_json,
        quiet=quiet,
        warnings=report.warnings,
        done=None if dry_run else lambda: render.text(report),
    )
