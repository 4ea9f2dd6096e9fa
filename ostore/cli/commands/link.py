"""`ostore link`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ostore.cli.options import AsJson, Models, Quiet, examples, group
from ostore.formats.link_layout import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ostore.api.link import LinkReport

app = group()

Words = Annotated[list[str], typer.Argument(metavar="MODEL... DIR", show_default=False)]


LayoutOption = Annotated[
    Layout | None,
    typer.Option(
        "--layout",
        show_default=False,
        help="For which program files lie in DIR. Default: as they lie there already, or files.",
    ),
]
Refresh = Annotated[
    bool, typer.Option("--refresh", help="Link anew what has changed, and remove links of gone models.")
]
Remove = Annotated[bool, typer.Option("--remove", help="Remove all that ostore has made in DIR. Blobs stay.")]


@app.command(
    epilog=examples(
        "ostore link llama3 gguf",
        "ostore link 'gemma*' ~/.lmstudio/models --layout lmstudio",
        "ostore link llava ~/models --layout llama.cpp",
        "ostore link --refresh gguf",
        "ostore link --remove gguf",
    )
)
def link(
    words: Words,
    layout: LayoutOption = None,
    refresh: Refresh = False,
    remove: Remove = False,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """
    Give other programs readable names for weights of models, without a copy.

    MODEL is a name or a quoted glob. DIR gets files whose bytes the disk shares with the store (btrfs, XFS), else
    symbolic links, on Windows hard links. A file in DIR that ostore has not made is never replaced or removed. What a
    file of weights cannot hold (template, system message, parameters) is written beside it as a Modelfile.
    """
    from ostore.cli.exit_codes import end_with
    from ostore.cli.render import link as render
    from ostore.cli.render.report import say_left_out, say_report
    from ostore.cli.stopping import GOES_ON, if_stopped

    names, folder = _names_and_folder(words, is_alone=refresh or remove)
    _refuse_both(layout, refresh=refresh, remove=remove)
    if_stopped(GOES_ON)
    report = _report(names, folder, layout, models, refresh=refresh, remove=remove)
    say_report(
        "link",
        report,
        lambda: render.text(report),
        as_json=as_json,
        quiet=quiet,
        lines=(linked.path for linked in report.linked),
        warnings=render.warnings(report),
        done=lambda: render.summary(report),
    )
    if not as_json:
        say_left_out(report.left_out)
    end_with(
        *(model.error_class for model in report.left_out), *(["usage"] if report.left_alone and not remove else [])
    )


def _report(
    names: Sequence[str], folder: Path, layout: Layout | None, models: Path | None, *, refresh: bool, remove: bool
) -> LinkReport:
    from ostore.api import link as api

    if remove:
        return api.remove_links(folder)
    if refresh:
        return api.refresh_links(folder, models=models)
    return api.link(names, folder, layout=layout, models=models)


def _names_and_folder(words: list[str], *, is_alone: bool) -> tuple[list[str], Path]:
    from ostore.formats.errors import UsageError
    from ostore.formats.remedy import ostore

    *names, folder = words
    if bool(names) == is_alone:
        expected = "DIR alone" if is_alone else "MODEL... DIR"
        example = ("--refresh", "DIR") if is_alone else ("llama3", "DIR")
        raise UsageError(f"expected {expected}", hint=ostore("link", *example, before="for example"))
    return names, Path(folder)


def _refuse_both(layout: Layout | None, *, refresh: bool, remove: bool) -> None:
    from ostore.formats.errors import UsageError

    if refresh and remove:
        raise UsageError("choose only one of --refresh and --remove")
    if layout and (refresh or remove):
        raise UsageError("--layout is that of a folder from its first link on")
