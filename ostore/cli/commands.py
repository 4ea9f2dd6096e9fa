"""The commands: each one is parse, one library call, render."""

from __future__ import annotations

import enum
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ostore.cli.text import say

app = typer.Typer(
    name="ostore",
    help="Carry Ollama models across an air gap, verified; keep a model store healthy. No server needs to run.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class ProgressMode(enum.StrEnum):
    """When and how progress is shown."""

    AUTO = "auto"
    PLAIN = "plain"
    NONE = "none"


class ColorMode(enum.StrEnum):
    """When colours are used."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


Models = Annotated[
    Path | None,
    typer.Option(
        "--models",
        metavar="DIR",
        # A folder that may not be read is no mistake in the arguments; `where` has something to say of it.
        readable=False,
        help="The store's folder; else OLLAMA_MODELS, else as `ostore where` says.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document (docs/json.md).")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result; for lists, one name a line.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Show what would be done, and do nothing.")]
Jobs = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, metavar="N", help="Threads; default: one a processor.")
]
ShowProgress = Annotated[ProgressMode, typer.Option("--progress", help="Progress on standard error.")]
Color = Annotated[ColorMode, typer.Option("--color", help="Colours; NO_COLOR and FORCE_COLOR count as well.")]
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite what is there and different.")]


def _examples(*lines: str) -> str:
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def _version(value: bool) -> None:
    if value:
        from ostore.formats.version import VERSION

        say(f"ostore {VERSION}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        say(context.get_help())


@app.command("list", epilog=_examples("ostore list", "ostore list llama", "ostore list 'hf.co/*' --json"))
def list_(
    patterns: Annotated[
        list[str] | None, typer.Argument(metavar="[PATTERN]...", help="Prefixes or quoted globs.")
    ] = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List the models of a store, as `ollama list` does, and how many bytes each alone needs."""
    from ostore.api import looking as api
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


app.command("ls", hidden=True)(list_)


@app.command(epilog=_examples("ostore show llama3", "ostore show llama3 --modelfile > Modelfile"))
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
    from ostore.api import looking as api
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
        say(api.modelfile(model, models=models).rstrip("\n"))
        return
    shown = api.show(model, models=models)
    if as_json:
        say(render.document("show", shown))
    else:
        say(render.show_part(shown, chosen[0]).rstrip("\n") if chosen else render.show_text(shown))


@app.command(epilog=_examples("ostore where", "sudo -u ollama ostore where --json"))
def where(models: Models = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Say which store is used and why, who owns it, how much room it has, and which others there are."""
    from ostore.api import looking as api
    from ostore.cli import render

    report = api.where(models=models)
    say(render.document("where", report) if as_json else report.store if quiet else render.where_text(report))


@app.command(
    epilog=_examples(
        "ostore export llama3 bundle.tar.zst",
        "ostore export 'gemma*' mistral:7b /media/usb/models.tar.zst --replace",
        "ostore export --all /media/usb/all.tar",
        "ostore export llama3 - | ssh offline-host ostore import -",
    )
)
def export(
    arguments: Annotated[list[str], typer.Argument(metavar="MODEL... DEST", show_default=False)],
    everything: Annotated[bool, typer.Option("--all", help="Every model of the store.")] = False,
    level: Annotated[
        str, typer.Option("--level", metavar="auto|1..19", help="zstd level; auto stores what does not shrink.")
    ] = "auto",
    replace: Replace = False,
    dry_run: DryRun = False,
    jobs: Jobs = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ShowProgress = ProgressMode.AUTO,
    color: Color = ColorMode.AUTO,
) -> None:
    """
    Write models to a bundle, every blob once and hashed on the way.

    DEST is FILE.tar.zst, FILE.tar (not compressed), DIR/ (a plain store) or - (standard output).
    """
    from ostore.api import carrying as api
    from ostore.cli import render
    from ostore.cli.progress import shown
    from ostore.formats.errors import UsageError
    from ostore.settings import keep_freed_memory

    keep_freed_memory()
    *names, destination = arguments
    if bool(names) == everything:
        raise UsageError("expected MODEL... DEST, or --all DEST", hint="ostore export llama3 bundle.tar.zst")
    started = time.monotonic()
    with shown(progress.value, quiet=quiet or as_json, color=color.value) as told:
        report = api.export(
            ["*"] if everything else names,
            destination,
            level=_level(level),
            replace=replace,
            dry_run=dry_run,
            jobs=jobs,
            progress=told,
            models=models,
        )
    render.say_warnings(report.warnings)
    if as_json or not quiet:
        # Standard output may be the bundle itself.
        stream = sys.stderr if destination == "-" else sys.stdout
        seconds = time.monotonic() - started
        say(render.document("export", report) if as_json else render.export_text(report, seconds), stream)


@app.command(
    "import",
    epilog=_examples(
        "ostore import bundle.tar.zst",
        "ostore import models.tar.zst --model llama3 --model 'gemma*'",
        "sudo ostore import /media/usb/all.tar --models /usr/share/ollama/.ollama/models",
    ),
)
def import_(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", show_default=False)],
    names: Annotated[
        list[str] | None, typer.Option("--model", metavar="NAME", help="Only this model or glob; may be repeated.")
    ] = None,
    replace: Replace = False,
    trust_existing: Annotated[
        bool, typer.Option("--trust-existing", help="Do not hash blobs that are in the store already.")
    ] = False,
    dry_run: DryRun = False,
    jobs: Jobs = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ShowProgress = ProgressMode.AUTO,
    color: Color = ColorMode.AUTO,
) -> None:
    """
    Put the models of bundles into the store; each is seen only once all of it is verified and on the disk.

    SOURCE is a bundle file, a folder that is a store, or - (standard input).
    """
    from ostore.api import carrying as api
    from ostore.cli import render
    from ostore.cli.progress import shown
    from ostore.settings import keep_freed_memory

    keep_freed_memory()
    reports = []
    try:
        for source in sources:
            started = time.monotonic()
            with shown(progress.value, quiet=quiet or as_json, color=color.value) as told:
                report = api.import_bundle(
                    source,
                    names or (),
                    replace=replace,
                    trust_existing=trust_existing,
                    dry_run=dry_run,
                    jobs=jobs,
                    progress=told,
                    models=models,
                )
            reports.append(report)
            render.say_warnings(report.warnings)
            if not quiet and not as_json:
                say(render.import_text(report, time.monotonic() - started))
    finally:
        # Each source is a transaction of its own: those before one that failed are done, and told.
        if as_json and reports:
            say(render.document("import", {"imports": reports}))


@app.command(epilog=_examples("ostore inspect bundle.tar.zst", "ostore inspect - < bundle.tar.zst"))
def inspect(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE")],
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what a bundle holds, from its index alone; `ostore verify` checks the rest."""
    from ostore.api import looking as api
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


@app.command(epilog=_examples("ostore verify", "ostore verify llama3", "ostore verify /media/usb/models.tar.zst"))
def verify(
    subjects: Annotated[list[str] | None, typer.Argument(metavar="[MODEL|BUNDLE]...", show_default=False)] = None,
    jobs: Jobs = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ShowProgress = ProgressMode.AUTO,
    color: Color = ColorMode.AUTO,
) -> None:
    """
    Hash everything: the whole store, some models, or bundles. Reports every problem, not the first.

    Ends with 0 if all is whole, 4 if a blob is missing or altered, 10 if only manifests, names or layout are wrong.
    """
    from ostore.api import carrying as api
    from ostore.cli import render
    from ostore.cli.exit_codes import CODES
    from ostore.cli.progress import shown
    from ostore.settings import keep_freed_memory

    keep_freed_memory()
    started = time.monotonic()
    with shown(progress.value, quiet=quiet or as_json, color=color.value) as told:
        reports = api.verify(subjects or (), jobs=jobs, progress=told, models=models)
    if as_json:
        say(render.document("verify", {"reports": reports}))
    elif not quiet:
        for report in reports:
            say(render.verify_text(report, time.monotonic() - started))
    codes = [CODES[report.verdict] for report in reports if report.verdict != "whole"]
    if codes:
        raise typer.Exit(min(codes))


def _level(text: str) -> int | None:
    from ostore.formats.errors import UsageError

    if text == "auto":
        return None
    if not text.isdecimal():
        raise UsageError(f"--level: expected auto or 1 to 19, got {text!r}")
    return int(text)
