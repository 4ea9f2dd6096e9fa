"""`ostore import`. `import` alone is a keyword of Python."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ostore.cli.options import (
    AsJson,
    DryRun,
    Jobs,
    LockOption,
    ModelsText,
    ProgressMode,
    Quiet,
    Replace,
    ShowProgress,
    Strict,
    examples,
    group,
)
from ostore.cli.text import flush, say

if TYPE_CHECKING:
    from ostore.api.import_bundle import ImportReport, Resend
    from ostore.api.planned_imports import PlannedImport

app = group()

Sources = Annotated[list[str], typer.Argument(metavar="SOURCE...", show_default=False)]
Names = Annotated[
    list[str] | None, typer.Option("--model", metavar="NAME", help="Import only this model or glob; repeatable.")
]
TrustExisting = Annotated[
    bool, typer.Option("--trust-existing", help="Do not hash blobs that are already in the store.")
]


@app.command(
    "import",
    epilog=examples(
        "ostore import bundle.tar.zst",
        "ostore import models.tar.zst --model llama3 --model 'gemma*'",
        "ostore import delta.tar.zst --lock models.lock",
        "ostore import /media/a/all.tar.zst.001 /media/b/ /media/c/",
        "sudo ostore import /media/usb/all.tar --models /usr/share/ollama/.ollama/models",
    ),
)
def import_(
    sources: Sources,
    names: Names = None,
    lock: LockOption = None,
    replace: Replace = False,
    trust_existing: TrustExisting = False,
    strict: Strict = False,
    dry_run: DryRun = False,
    jobs: Jobs = None,
    models: ModelsText = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ShowProgress = ProgressMode.AUTO,
) -> None:
    """
    Add the models of bundles to the store. Ollama sees a model only when all of it is verified and on the disk.

    SOURCE is a bundle file, a folder with a store, or - (standard input). Of a bundle in volumes, name one; other
    folders are where the others are looked for.
    """
    from ostore.api.import_bundle import import_bundle
    from ostore.api.planned_imports import planned_imports
    from ostore.cli.progress import shown, summed_up
    from ostore.cli.render import import_ as render
    from ostore.cli.render.report import say_document, say_left_out, say_warnings, saying_what_is_done
    from ostore.cli.stopping import GOES_ON, if_stopped
    from ostore.settings import keep_freed_memory

    if not dry_run:
        if_stopped(GOES_ON)
    keep_freed_memory()
    take = partial(
        import_bundle,
        replace=replace,
        trust_existing=trust_existing,
        strict=strict,
        dry_run=dry_run,
        jobs=jobs,
        resend=None if dry_run else partial(_tell_what_to_resend, as_json=as_json),
    )
    folder = Path(models) if models else None
    planned = planned_imports(sources, names or (), lock=lock, jobs=jobs, models=folder)
    _refuse_bare_word(models, lambda: _look(take, planned, folder))
    reports: list[ImportReport] = []
    summaries: list[str] = []
    # Each source is a transaction: if one fails, those before it are in the store and are reported.
    with saying_what_is_done(None if dry_run else lambda: "; ".join(summaries)):
        try:
            for source, wanted, held_against in planned:
                started = time.monotonic()
                with shown(progress.value, quiet=quiet, as_json=as_json) as told:
                    before = summed_up(told, render.outlook)
                    report = take(source, wanted, lock=held_against, progress=told, before=before, models=folder)
                reports.append(report)
                summaries.append(render.summary(report, time.monotonic() - started))
                say_warnings(report.warnings)
                if not quiet and not as_json:
                    say(render.text(report, time.monotonic() - started))
                    flush()
        finally:
            if as_json and reports:
                say_document("import", {"imports": reports})
    say_left_out(model for report in reports for model in report.left_out)


def _tell_what_to_resend(lacking: Resend, *, as_json: bool) -> None:
    from ostore.cli import error_document
    from ostore.cli.render import import_ as render

    if as_json:
        models = [{"name": model.name, "digest": model.digest} for model in lacking.models]
        error_document.add({"resend": models, "lacking": list(lacking.blobs)})
    else:
        say(render.to_resend(lacking))


def _look(take: Callable[..., ImportReport], planned: Sequence[PlannedImport], models: Path | None) -> None:
    from ostore.formats.errors import VolumesError

    for source, names, lock in planned:
        # The import itself may be able to repair volumes.
        with contextlib.suppress(VolumesError):
            if source != "-":
                take(source, names, lock=lock, dry_run=True, models=models)


def _refuse_bare_word(models: str | None, look: Callable[[], object]) -> None:
    """
    Only import makes a store that is not there, and `--models llama3` is easily typed for `--model llama3`.

    One letter is taken for a folder: nobody calls a model so. `look` looks at the sources: what is wrong with them
    matters more, so it is told first.
    """
    from ostore.formats.errors import UsageError
    from ostore.formats.shell import quoted_word

    if models and len(models) > 1 and not {"/", os.sep} & set(models) and not Path(models).exists():
        look()
        model, store = (quoted_word(word, sys.platform) for word in (models, f"./{models}"))
        raise UsageError(
            f"--models {models}: no such folder",
            hint=f"--model {model} is one model; --models {store} makes a new store",
        )
