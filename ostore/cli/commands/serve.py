"""`ostore serve`."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ostore.cli.options import AsJson, Models, Quiet, examples, group
from ostore.cli.text import own_stderr, say, tell

if TYPE_CHECKING:
    from ostore.api.serve import ServeStart

app = group()

Listen = Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen. Port 0 is a free one.")]
Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="NAME", help="A name under which clients may ask. Can be repeated."),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="PATTERN", help="Serve only these names or quoted globs. Can be repeated."),
]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", metavar="FILE", help="Send models only to clients that have this token.")
]
Certificate = Annotated[
    Path | None, typer.Option("--tls-cert", metavar="FILE", help="Serve https with this certificate (PEM).")
]
Key = Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key, if that is another file.")]


@app.command(
    epilog=examples(
        "ostore serve",
        "ostore serve bundle.tar.zst --listen 192.168.1.5:8080",
        "ostore serve --only 'llama3*' --only gemma3",
        "sudo ostore serve --listen :80 --host registry.ollama.ai",
    )
)
def serve(
    place: Annotated[str | None, typer.Argument(metavar="[STORE|BUNDLE|oci:DIR]", show_default=False)] = None,
    listen: Listen = "0.0.0.0:11435",
    host: Hosts = None,
    only: Only = None,
    token_file: TokenFile = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """
    Serve models to others, as a read-only registry.

    `ollama pull --insecure HOST:PORT/library/NAME` gets the models of a store, a bundle or an OCI image layout from
    there, and so do `ostore pull`, skopeo and oras. Nothing is unpacked. A blob is hashed before it is served, and one
    that is damaged is not served. Models that come later are served too. Ctrl-C or SIGTERM ends it.

    Without --host, clients may ask under any name; if only this machine can connect, under its own. Standard error has
    a line for each request. GET /healthz says how far the hashing is, and GET /metrics has figures for Prometheus.
    """
    from ostore.api.serve import serve as run
    from ostore.cli.render import serve as render
    from ostore.cli.render.report import say_report, say_warnings
    from ostore.cli.text import flush

    # The program switches it off, because other commands end soon.
    gc.enable()

    def started(start: ServeStart) -> None:
        say_warnings(render.warnings(start))
        if not as_json:
            say(start.url if quiet else render.begin(start))
            flush()

    report = run(
        place,
        listen=listen,
        hosts=host or (),
        only=only or (),
        token_file=token_file,
        tls_cert=tls_cert,
        tls_key=tls_key,
        models=models,
        started=started,
        log=partial(tell, stream=own_stderr()),
    )
    say_report("serve", report, lambda: render.text(report), as_json=as_json, quiet=quiet)
