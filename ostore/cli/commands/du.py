"""`ostore du`: as text, as JSON and as a page."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ostore.cli.options import AsJson, Models, Quiet, examples, group
from ostore.cli.text import say

if TYPE_CHECKING:
    from ostore.api.du import UsageReport

app = group()

Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Also write an HTML page with a chart.", readable=False)
]
ReplacePage = Annotated[bool, typer.Option("--replace", help="Let --html overwrite an existing FILE.")]


@app.command(
    epilog=examples("ostore du", "ostore du llama3 'gemma*'", "ostore du --html usage.html", "ostore du llama3 -q")
)
def du(
    names: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Names or quoted globs.")] = None,
    html: Html = None,
    replace: ReplacePage = False,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """
    Show what uses space in a store, and what removing models would free.

    It counts blocks on the disk, as `du -sB1 STORE` does: with manifests and folders, and a file with several names
    once. If `blobs` or `manifests` is a link, it is followed; a blob that is a link counts as a link. Other files in
    the same folder are named, not counted.

    SIZE is SHARED (other models need it too) plus UNIQUE (no other model does). FREES is what removing this model alone
    frees, without its manifest of a few KB. It is less than UNIQUE if a blob has another name (a hard link).
    RECLAIMABLE can be freed without removing a model. --quiet prints one number of bytes: the total, or what removing
    the MODELs frees.
    """
    from ostore.api.du import du as measure
    from ostore.cli.render import du as render
    from ostore.cli.render.report import say_report, saying_what_is_done

    _refuse_page(html, replace=replace)
    report = measure(names or (), models=models)
    if html:
        _write_page(html, report, replace=replace)
    with saying_what_is_done((lambda: f"wrote {html}") if html else None):
        say_report(
            "du",
            report,
            lambda: render.text(report, is_chosen=bool(names)),
            as_json=as_json,
            quiet=quiet,
            lines=[str((report.frees if names else report.total).allocated)],
            warnings=render.warnings(report),
        )
        if html and not as_json and not quiet:
            say(f"wrote {html}")


def _refuse_page(html: Path | None, *, replace: bool) -> None:
    """Raise UsageError if the page cannot be written. Measuring takes time, so this comes first."""
    from ostore.formats.errors import UsageError
    from ostore.page import writing

    if html:
        writing.require(html, replace=replace)
    elif replace:
        raise UsageError("--replace needs --html FILE")


def _write_page(html: Path, report: UsageReport, *, replace: bool) -> None:
    from ostore.page.usage_page import usage_page
    from ostore.page.writing import write_page

    write_page(html, usage_page(report, now=time.time()), replace=replace)
