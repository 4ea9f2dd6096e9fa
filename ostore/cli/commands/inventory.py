"""`ostore inventory`."""

from __future__ import annotations

from typing import Annotated

import typer

from ostore.cli.options import Jobs, Models, ProgressMode, Quiet, ShowProgress, examples, group
from ostore.cli.text import say_data

app = group()

Tensors = Annotated[
    bool, typer.Option("--tensors", help="Also list the tensors inside weights with their digests. Reads all weights.")
]
Verify = Annotated[bool, typer.Option("--verify", help="Hash each blob, and leave out the damaged ones.")]


@app.command(
    epilog=examples(
        "ostore inventory > have.json",
        "ostore inventory --tensors | zstd > have.json.zst",
        "ostore export --all delta.tar.zst --have have.json",
    )
)
def inventory(
    names: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Names or quoted globs.")] = None,
    tensors: Tensors = False,
    verify: Verify = False,
    jobs: Jobs = None,
    models: Models = None,
    quiet: Quiet = False,
    progress: ShowProgress = ProgressMode.AUTO,
) -> None:
    """
    Print what a store holds, to be carried to the other side.

    It is one line of JSON (docs/delta.md) with all models, manifests and blobs, their digests and sizes. On the side
    that makes bundles, `ostore diff` shows what is missing here, and `ostore export --have` writes no more than that.
    """
    from ostore.api.inventory import inventory as take
    from ostore.cli.progress import shown
    from ostore.cli.render import inventory as render
    from ostore.cli.render.report import say_warnings
    from ostore.cli.text import tell

    with shown(progress.value, quiet=quiet, as_json=False) as told:
        report = take(names or (), tensors=tensors, verify=verify, jobs=jobs, progress=told, models=models)
    say_data(report.document)
    say_warnings(report.warnings)
    if not quiet:
        tell(render.text(report))
