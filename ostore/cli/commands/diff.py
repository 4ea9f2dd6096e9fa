"""`ostore diff`."""

from __future__ import annotations

from typing import Annotated

import typer

from ostore.cli.exit_codes import CODES
from ostore.cli.options import AsJson, Jobs, Models, Quiet, examples, group

app = group()

ExitCode = Annotated[bool, typer.Option("--exit-code", help="Exit with 10 if they differ.")]


@app.command(
    epilog=examples(
        "ostore diff have.json",
        "ostore diff /media/usb/models.tar.zst have.json",
        "ostore diff models.lock have.json --exit-code",
    )
)
def diff(
    places: Annotated[list[str], typer.Argument(metavar="[A] B", show_default=False)],
    exit_code: ExitCode = False,
    jobs: Jobs = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """
    Show what B lacks of A, and what differs.

    It tells models by name and the bytes to carry; nothing is hashed. A and B are folders with a store, bundles,
    inventories or locks. Without A, it is the store. --quiet prints the names of the models that B lacks or has
    otherwise.
    """
    from ostore.api.diff import diff as compare
    from ostore.cli.render import diff as render
    from ostore.cli.render.report import say_report
    from ostore.formats.errors import UsageError

    if len(places) > 2:  # noqa: PLR2004
        raise UsageError(f"expected A and B, got {len(places)} words")
    a, b = (None, *places)[-2:]
    report = compare(a, str(b), jobs=jobs, models=models)
    say_report(
        "diff",
        report,
        lambda: render.text(report),
        as_json=as_json,
        quiet=quiet,
        lines=render.names(report),
        warnings=report.warnings,
    )
    if exit_code and report.models:
        raise typer.Exit(CODES["damaged"])
