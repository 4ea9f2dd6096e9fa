"""`ostore lock`."""

from __future__ import annotations

from typing import Annotated

import typer

from ostore.cli.options import DryRun, Models, Quiet, examples, group
from ostore.cli.text import say, say_data

app = group()

Update = Annotated[
    str | None,
    typer.Option(
        "--update", metavar="FILE", show_default=False, help="Bring this lock file up to date, and show the change."
    ),
]


@app.command(
    epilog=examples(
        "ostore lock > models.lock",
        "ostore lock --update models.lock",
        "ostore lock llama3 --update models.lock",
        "ostore export --lock models.lock bundle.tar.zst",
    )
)
def lock(
    names: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Names or quoted globs.")] = None,
    update: Update = None,
    dry_run: DryRun = False,
    models: Models = None,
    quiet: Quiet = False,
) -> None:
    """
    Print or update a lock: names pinned to their manifests.

    It has one line for each model. The digest of a manifest fixes all bytes of the model. With --update, FILE gets
    exactly the models of the store; with MODEL as well, its other lines stay. Remarks in it stay too. `ostore export`,
    `ostore import` and `ostore verify` take a lock with --lock.
    """
    from ostore.api.lock import lock as pin
    from ostore.cli.render import lock as render
    from ostore.cli.render.report import say_warnings, saying_what_is_done
    from ostore.formats.errors import UsageError

    if dry_run and update is None:
        raise UsageError("--dry-run needs --update FILE: without it, nothing is changed anyway")
    report = pin(names or (), update=update, dry_run=dry_run, models=models)
    if update is None:
        say_data(report.document)
    elif not quiet:
        with saying_what_is_done(None if dry_run else lambda: render.summary(report)):
            say(render.text(report))
    say_warnings(report.warnings)
