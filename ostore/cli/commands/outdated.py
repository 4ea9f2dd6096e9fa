"""`ostore outdated`."""

from __future__ import annotations

from typing import Annotated

import typer

from ostore.cli.options import AsJson, CaFile, Jobs, Models, PlainHttp, Quiet, examples, group

app = group()

Against = Annotated[
    str | None,
    typer.Option(
        "--against", metavar="FILE|DIR", show_default=False, help="An inventory, bundle, lock or store to compare with."
    ),
]


@app.command(
    epilog=examples(
        "ostore outdated",
        "ostore outdated --against /media/usb/models.tar.zst",
        "ostore outdated 'llama*' --against models.lock",
    )
)
def outdated(
    names: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Names or quoted globs.")] = None,
    against: Against = None,
    ca_file: CaFile = None,
    plain_http: PlainHttp = False,
    jobs: Jobs = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """
    Show which models of the store are another version elsewhere. Only manifests are compared.

    Without --against, the registry of each model is asked: one request each. What a registry that fails has is unknown,
    and the command then ends with 11. --quiet prints the names of the models that are another version.
    """
    from ostore.api.outdated import outdated as compare
    from ostore.cli.exit_codes import end_with
    from ostore.cli.render import outdated as render
    from ostore.cli.render.report import say_report

    report = compare(names or (), against=against, ca_file=ca_file, plain_http=plain_http, jobs=jobs, models=models)
    say_report(
        "outdated",
        report,
        lambda: render.text(report),
        as_json=as_json,
        quiet=quiet,
        lines=(model.name for model in report.models),
        warnings=report.warnings,
    )
    if report.unanswered:
        end_with("remote")
