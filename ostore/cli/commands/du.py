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


@app.command(
    epilog=examples("ostore du", "ostore du llama3 'gemma*'", "ostore du --html usage.html", "ostore du llama3 -q")
)
def du(
    names: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Names or quoted globs.")] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with a picture, too.", readable=False)
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Let --html overwrite a FILE that is there.")] = False,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """
    Say what takes up room in a store, and what removing would give back.

    Counts as `du -sB1 STORE` does: blocks on the disk, manifests and folders included, a file with several names once;
    sparse files take up less than they have. `blobs` and `manifests` are followed if they are links, a blob that is a
    link counts as that. What else lies in the same folder is named, not counted.

    SIZE is SHARED (other models need it too) and UNIQUE (none does). FREES is what removing that model alone gives
    back, its manifest of a few KB not counted: less than UNIQUE if a blob has another name, by a hard link.
    RECLAIMABLE needs no model to go. --quiet prints one number of bytes: the total, or what removing the MODELs frees.
    """
    from ostore.api.du import du as measure
    from ostore.cli.render import du as render
    from ostore.cli.render.report import say_report

    _refuse_page(html, replace=replace)
    report = measure(names or (), models=models)
    if html:
        _write_page(html, report, replace=replace)
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
    """Raises UsageError, before anything is measured, for a page that cannot be made or put there."""
    from ostore.formats.errors import UsageError
    from ostore.page import writing

    if html:
        writing.require(html, replace=replace)
    elif replace:
        raise UsageError("--replace is about the file that --html writes; there is none")


def _write_page(html: Path, report: UsageReport, *, replace: bool) -> None:
    from ostore.page.usage_page import usage_page
    from ostore.page.writing import write_page

    write_page(html, usage_page(report, now=time.time()), replace=replace)
