"""`ostore inspect`."""

from __future__ import annotations

from typing import Annotated

import typer

from ostore.cli.options import AsJson, Quiet, examples, group

app = group()


@app.command(
    epilog=examples(
        "ostore inspect bundle.tar.zst",
        "ostore inspect - < bundle.tar.zst",
        "ostore inspect /media/a/all.tar.zst.001 /media/b/ /media/c/",
    )
)
def inspect(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE")],
    folders: Annotated[list[str] | None, typer.Argument(metavar="[DIR]...", show_default=False)] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """
    Show what a bundle holds, from its index alone. `ostore verify` checks the contents.

    DIR is a folder with more volumes of the bundle.
    """
    from ostore.api.inspect_bundle import inspect as read
    from ostore.api.volumes import spread_over
    from ostore.cli.render import inspect as render
    from ostore.cli.render.report import say_report

    report = read(spread_over(bundle, folders or ()))
    say_report(
        "inspect",
        report,
        lambda: render.text(report),
        as_json=as_json,
        quiet=quiet,
        lines=(model.name for model in report.models),
        warnings=report.warnings,
    )
