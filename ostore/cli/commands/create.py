"""`ostore create`."""

from __future__ import annotations

from typing import Annotated

import typer

from ostore.cli.options import (
    AsJson,
    Models,
    ProgressMode,
    Quiet,
    Replace,
    ShowProgress,
    examples,
    group,
)

app = group()

Sources = Annotated[
    list[str] | None, typer.Argument(metavar="[FILE.gguf... | FOLDER]", show_default=False, help="Files of weights.")
]
FromModelfile = Annotated[
    str | None, typer.Option("--file", "-f", metavar="MODELFILE", help="The Modelfile; - is standard input.")
]
Link = Annotated[bool, typer.Option("--link", help="Give the files of weights a second name; nothing is copied.")]


@app.command(
    epilog=examples(
        "ostore create my-llama -f Modelfile",
        "ostore create gemma ./gemma-3-270m-Q4_K_M.gguf",
        "ostore create llava ./llava-folder --link",
        "ostore show llama3 --modelfile | ostore create my-llama -f -",
    )
)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    sources: Sources = None,
    modelfile: FromModelfile = None,
    link: Link = False,
    replace: Replace = False,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ShowProgress = ProgressMode.AUTO,
) -> None:
    """
    Make a model of a Modelfile, of GGUF files or of a folder of them. The weights keep their bytes.

    Without files and without -f, it is the file Modelfile in the present folder, or else the GGUF there. Of a template,
    only the ends of actions and blocks are checked: ostore does not know Go's functions.
    """
    from ostore.api.create import create as make
    from ostore.cli.other_words import refuse_quantizing
    from ostore.cli.progress import shown
    from ostore.cli.remedies import typed
    from ostore.cli.render import create as render
    from ostore.cli.render.report import say_report
    from ostore.cli.stopping import if_stopped

    refuse_quantizing(typed())
    if_stopped("no model was made; the same command begins anew")
    with shown(progress.value, quiet=quiet, as_json=as_json) as told:
        report = make(
            name, sources or (), modelfile=modelfile, link=link, replace=replace, progress=told, models=models
        )
    say_report(
        "create",
        report,
        lambda: render.text(report),
        as_json=as_json,
        quiet=quiet,
        warnings=report.warnings,
        done=lambda: render.text(report),
    )
