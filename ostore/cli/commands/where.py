"""`ostore where`."""

from __future__ import annotations

from ostore.cli.options import AsJson, Models, Quiet, examples, group

app = group()


@app.command(epilog=examples("ostore where", "sudo -u ollama ostore where --json"))
def where(models: Models = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Show which store is used, and why, with its owner, its free space and the other stores found."""
    from ostore.api.where import where as find
    from ostore.cli.render import where as render
    from ostore.cli.render.report import say_report

    report = find(models=models)
    say_report(
        "where",
        report,
        lambda: render.text(report),
        as_json=as_json,
        quiet=quiet,
        lines=[report.store],
        warnings=report.warnings,
    )
