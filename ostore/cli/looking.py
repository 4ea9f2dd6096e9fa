"""Commands that look at a store or a bundle and change nothing: each one is parse, one library call, render."""

from __future__ import annotations

from typing import Annotated

import typer

from ostore.cli.options import AsJson, Models, Quiet, examples, group
from ostore.cli.text import say

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
    """List the models of a store, as `ollama list` does, and how many bytes each alone needs."""
    from ostore.api import list_models as api
    from ostore.cli import render

    report = api.list_models(patterns or (), models=models)
    if as_json:
        say(render.document("list", report))
    elif quiet:
        for row in report.models:
            say(row.name)
    else:
        say(render.list_text(report))
        notes = [f"{row.name}: {row.note}" for row in report.models if row.note]
        render.say_warnings((*notes, *(f"{entry.path}: {entry.reason}" for entry in report.unreadable)))


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
    models: Models = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model is, from its manifest and its small blobs."""
    from ostore.api import show as api
    from ostore.cli import render
    from ostore.formats.errors import UsageError

    parts = {
        "modelfile": modelfile,
        "template": template,
        "system": system,
        "parameters": parameters,
        "license": license_,
        "manifest": manifest,
        "config": config,
    }
    chosen = [name for name, is_chosen in parts.items() if is_chosen]
    if len(chosen) > 1:
        raise UsageError(f"expected one part, got {' and '.join(f'--{name}' for name in chosen)}")
    if chosen == ["modelfile"]:
        if as_json:
            # The document has what a Modelfile is made of, but not the file itself.
            raise UsageError("--modelfile has no JSON form", hint="--json alone shows every part of the model")
        say(api.modelfile(model, models=models).rstrip("\n"))
        return
    shown = api.show(model, models=models)
    if as_json:
        say(render.document("show", shown))
    else:
        say(render.show_part(shown, chosen[0]).rstrip("\n") if chosen else render.show_text(shown))


@app.command(epilog=examples("ostore where", "sudo -u ollama ostore where --json"))
def where(models: Models = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Say which store is used and why, who owns it, how much room it has, and which others there are."""
    from ostore.api import where as api
    from ostore.cli import render

    report = api.where(models=models)
    say(render.document("where", report) if as_json else report.store if quiet else render.where_text(report))


@app.command(epilog=examples("ostore inspect bundle.tar.zst", "ostore inspect - < bundle.tar.zst"))
def inspect(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE")],
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what a bundle holds, from its index alone; `ostore verify` checks the rest."""
    from ostore.api import inspect_bundle as api
    from ostore.cli import render

    report = api.inspect(bundle)
    if as_json:
        say(render.document("inspect", report))
    elif quiet:
        for model in report.models:
            say(model.name)
    else:
        say(render.inspect_text(report))
        render.say_warnings(report.warnings)
