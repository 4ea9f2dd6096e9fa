"""`ostore inspect`."""

from __future__ import annotations

from typing import Annotated

import typer

from ostore.cli.options import AsJson, Quiet, examples, group

app = group()


@app.command(epilog=examples("ostore inspect bundle.tar.zst", "ostore inspect - < bundle.tar.zst"))
def inspect(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE")],
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show what a bundle holds, from its index alone. `ostore verify` checks the contents."""
    from ostore.api.inspect_bundle import inspect as read
    from ostore.cli.render import inspect as render
    from ostore.cli.render.report import say_report

    report = read(bundle)
    say_report(
        "inspect",
        report,
        lambda: render.text(report),
        as_json=as_json,
        quiet=quiet,
        lines=(model.name for model in report.models),
        warnings=report.warnings,
    )
