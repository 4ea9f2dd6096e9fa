"""`ostore list`."""

from __future__ import annotations

from typing import Annotated

import typer

from ostore.cli.options import AsJson, Models, Quiet, examples, group

app = group()


@app.command("list", epilog=examples("ostore list", "ostore list llama", "ostore list 'hf.co/*' --json"))
def list_(
    patterns: Annotated[
        list[str] | None, typer.Argument(metavar="[PATTERN]...", help="Prefixes or quoted globs.")
    ] = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List the models of a store, as `ollama list` does. UNIQUE is the bytes that no other model needs."""
    from ostore.api.list_models import list_models
    from ostore.cli.render import list as render
    from ostore.cli.render.report import say_report

    report = list_models(patterns or (), models=models)
    say_report(
        "list",
        report,
        lambda: render.text(report),
        as_json=as_json,
        quiet=quiet,
        lines=(row.name for row in report.models),
        warnings=render.warnings(report),
    )
