"""`ostore show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from ostore.cli.options import AsJson, Models, examples, group
from ostore.cli.text import say_data

if TYPE_CHECKING:
    from ostore.operations.show import Part

app = group()


@app.command(epilog=examples("ostore show llama3", "ostore show llama3 --modelfile > Modelfile"))
def show(
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    modelfile: Annotated[bool, typer.Option("--modelfile", help="Print the Modelfile.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Print the template.")] = False,
    system: Annotated[bool, typer.Option("--system", help="Print the system message.")] = False,
    parameters: Annotated[bool, typer.Option("--parameters", help="Print the parameters.")] = False,
    license_: Annotated[bool, typer.Option("--license", help="Print the licences.")] = False,
    manifest: Annotated[bool, typer.Option("--manifest", help="Print the manifest.")] = False,
    config: Annotated[bool, typer.Option("--config", help="Print the config blob.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Add metadata and tensors of the weights.")] = False,
    models: Models = None,
    as_json: AsJson = False,
) -> None:
    """Show a model's details, from its manifest, its small blobs and the headers of its weights."""
    from ostore.api import show as api
    from ostore.cli.render import show as render
    from ostore.cli.render.report import say_report

    part = _one_of(
        modelfile=modelfile,
        template=template,
        system=system,
        parameters=parameters,
        license=license_,
        manifest=manifest,
        config=config,
    )
    if part == "modelfile":
        _refuse_json(as_json=as_json)
        from ostore.api.modelfile import modelfile as as_modelfile

        # The path of the store may have bytes that are not UTF-8.
        say_data(as_modelfile(model, models=models).encode("utf-8", "surrogateescape"))
    elif part is None or as_json:
        shown = api.show(model, models=models)
        say_report("show", shown, lambda: render.text(shown, verbose=verbose), as_json=as_json)
    elif part == "parameters":
        say_data(render.parameters(api.show(model, models=models)).encode())
    else:
        say_data(api.show_part(model, cast("Part", part), models=models))


def _one_of(**parts: bool) -> str | None:
    """The part that was asked for, or None. Raises UsageError for more than one."""
    from ostore.formats.errors import UsageError

    chosen = [name for name, is_chosen in parts.items() if is_chosen]
    if len(chosen) > 1:
        raise UsageError(f"choose only one of {' and '.join(f'--{name}' for name in chosen)}")
    return chosen[0] if chosen else None


def _refuse_json(*, as_json: bool) -> None:
    from ostore.formats.errors import UsageError

    if as_json:
        # The JSON document holds the parts of a Modelfile, but not the file.
        raise UsageError("--modelfile has no JSON form", hint="--json alone shows every part of the model")
