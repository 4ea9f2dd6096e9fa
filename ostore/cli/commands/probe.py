"""`ostore probe`."""

from __future__ import annotations

from typing import Annotated

import typer

from ostore.cli.options import AsJson, Models, ProgressMode, Quiet, ShowProgress, examples, group

app = group()

Url = Annotated[
    str | None,
    typer.Argument(
        metavar="[URL]",
        show_default=False,
        help="HOST, HOST:PORT or a URL. Default: OLLAMA_HOST, else 127.0.0.1:11434.",
    ),
]
Names = Annotated[
    list[str] | None, typer.Option("--model", metavar="MODEL", help="Only this model or glob; repeatable.")
]
Generate = Annotated[bool, typer.Option("--generate", help="Let each model say a word, over both APIs.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        show_default=False,
        help="How long the server may be silent. Default: 30, and 600 while a model loads.",
    ),
]


@app.command(
    epilog=examples(
        "ostore probe",
        "ostore probe --generate --model llama3",
        "ostore probe gpu.lan:11434",
        "ostore import /media/usb/all.tar.zst && ostore probe --generate",
    )
)
def probe(
    url: Url = None,
    names: Names = None,
    generate: Generate = False,
    timeout: Timeout = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ShowProgress = ProgressMode.AUTO,
) -> None:
    """
    Ask a running Ollama whether it serves what the store holds, digest by digest.

    --quiet prints the names of the models that it does not serve as stored, or that do not answer.

    Exit codes: 0 all is served as stored, 3 the store has no models, 10 a model is missing there, incomplete or another
    one, 11 nothing answers, it is no Ollama, or a model cannot be opened or does not say a word.
    """
    from ostore.api.probe import probe as ask
    from ostore.cli.exit_codes import end_with
    from ostore.cli.progress import shown
    from ostore.cli.render import probe as render
    from ostore.cli.render.report import say_report

    with shown(progress.value, quiet=quiet, as_json=as_json) as told:
        report = ask(url, names=names or (), generate=generate, timeout=timeout, progress=told, models=models)
    say_report(
        "probe",
        report,
        lambda: render.text(report),
        as_json=as_json,
        quiet=quiet,
        lines=render.bad(report),
        warnings=render.warnings(report),
    )
    end_with({"served": "whole", "differs": "damaged", "silent": "remote"}[report.verdict])
