"""`ostore verify`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ostore.cli.options import (
    AsJson,
    Jobs,
    LockOption,
    Models,
    ProgressMode,
    Quiet,
    ShowProgress,
    examples,
    group,
)

app = group()


@app.command(
    epilog=examples(
        "ostore verify",
        "ostore verify llama3",
        "ostore verify /media/usb/models.tar.zst",
        "ostore verify /media/a/all.tar.zst.001 /media/b/ /media/c/",
        "ostore verify --lock models.lock",
    )
)
def verify(
    subjects: Annotated[list[str] | None, typer.Argument(metavar="[MODEL|BUNDLE|DIR]...", show_default=False)] = None,
    lock: LockOption = None,
    jobs: Jobs = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ShowProgress = ProgressMode.AUTO,
) -> None:
    """
    Hash the whole store, some models, or bundles, and report every problem.

    DIR is a folder with a store, as `ostore export MODEL DIR/` makes it. Of a bundle in volumes, a volume alone is
    hashed alone; with folders that are no stores, where the others are looked for, all are. If one of several bundles
    cannot be read, the others are verified first.

    With --lock and no MODEL, the models are those of the lock.

    Exit codes: 0 all is whole, 3 a model of the lock is missing, or no list says what a volume alone should be, 4 a
    blob is missing or altered, or a manifest is not that of the lock, 9 a blob cannot be read, 10 only manifests, names
    or the layout are wrong.
    """
    from ostore.api.verify import verify_each
    from ostore.cli.colours import VERDICT
    from ostore.cli.exit_codes import end_with
    from ostore.cli.main import tell_error
    from ostore.cli.progress import shown
    from ostore.cli.render import verify as render
    from ostore.cli.render.report import say_report
    from ostore.formats.errors import class_of
    from ostore.settings import keep_freed_memory

    if subjects:
        keep_freed_memory()
    started = time.monotonic()
    with shown(progress.value, quiet=quiet, as_json=as_json) as told:
        verified = list(verify_each(subjects or (), lock=lock, jobs=jobs, progress=told, models=models))
    errors = [one for one in verified if isinstance(one, Exception)]
    if len(verified) == len(errors) == 1:
        raise errors[0]
    reports = [one for one in verified if not isinstance(one, Exception)]
    for error in errors:
        tell_error(error, as_json=as_json)
    say_report(
        "verify",
        {"reports": reports},
        lambda: "\n".join(render.text(report, time.monotonic() - started) for report in reports),
        as_json=as_json,
        quiet=quiet,
        warnings=(warning for report in reports for warning in report.warnings),
        marks=VERDICT,
    )
    end_with(*(report.verdict for report in reports), *map(class_of, errors))
