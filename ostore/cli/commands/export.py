"""`ostore export`."""

from __future__ import annotations

import enum
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ostore.cli.options import (
    AsJson,
    DryRun,
    Jobs,
    LockOption,
    Models,
    ProgressMode,
    Quiet,
    Replace,
    ShowProgress,
    Strict,
    examples,
    group,
)
from ostore.cli.text import tell

if TYPE_CHECKING:
    from ostore.api.export import ExportReport
    from ostore.api.export_gguf import GgufExportReport
    from ostore.api.export_image import ImageExportReport
    from ostore.places.bundle.volume_export import NextMedium
    from ostore.streams.progress import Progress

app = group()

# Weights hardly shrink. From this level on, only time and memory grow.
_HIGH_LEVEL, _HIGHEST_LEVEL = 10, 19
# Gemma 3 270M Q4_K_M (253 MB) on two cores: 108 s, 251 MB and 236.6 MB; auto: 2.1 s, 84 MB and 239.3 MB.
_COST = "on real weights, 19 took 250 MB of memory and 50 times as long as auto, to save 1 %"
Words = Annotated[list[str], typer.Argument(metavar="MODEL... DEST", show_default=False)]
Everything = Annotated[bool, typer.Option("--all", help="Export every model of the store.")]


class Form(enum.StrEnum):
    """What models become."""

    GGUF = "gguf"
    IMAGE = "image"


FormOption = Annotated[
    Form | None,
    typer.Option("--as", show_default=False, help="Write plain files into DIR/, or a container image to FILE.tar."),
]
At = Annotated[
    str | None,
    typer.Option("--at", metavar="PATH", show_default=False, help="With --as image, the folder in it; else /models."),
]
Have = Annotated[
    list[str] | None,
    typer.Option(
        "--have",
        metavar="FILE|DIR",
        help="Leave out what the other side has, by an inventory, bundle, lock or store; repeatable.",
    ),
]
Level = Annotated[
    str,
    typer.Option(
        "--level",
        metavar="auto|1..19",
        help=f"zstd level; auto tries 1 and stores what does not shrink; {_COST}.",
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="SIZE|fat32|dvd|bd25",
        show_default=False,
        help="Cut the bundle into volumes of this size, FILE.tar.zst.001 and so on.",
    ),
]
To = Annotated[
    list[str] | None,
    typer.Option(
        "--to", metavar="DIR", help="With --split, put volumes there in turn; repeatable. DEST is a name then."
    ),
]
Parity = Annotated[
    str | None,
    typer.Option(
        "--parity",
        metavar="PCT|1volume|2volumes",
        show_default=False,
        help="With --split, add PAR2 files, which repair 5% of the blocks, or as many lost volumes.",
    ),
]
VerifyAfterWrite = Annotated[
    bool, typer.Option("--verify-after-write", help="Read the bundle back from its medium, not from memory.")
]


ShareTensors = Annotated[
    bool,
    typer.Option("--share-tensors", help="Store tensors that several models have once; tar alone cannot restore it."),
]


@app.command(
    epilog=examples(
        "ostore export llama3 bundle.tar.zst",
        "ostore export 'gemma*' mistral:7b /media/usb/models.tar.zst --replace",
        "ostore export --all /media/usb/all.tar",
        "ostore export --all /media/usb/all.tar.zst --split fat32 --parity 5%",
        "ostore export --all all.tar.zst --split 4GB --to /media/a --to /media/b --parity 1volume",
        "ostore export llama3 - | ssh offline-host ostore import -",
        "ostore export --all delta.tar.zst --have inventory.json",
        "ostore export llama3 /media/usb/llama3/ --as gguf",
        "ostore export llama3 llama3.tar --as image",
        "ostore export llama3 oci:layout",
    )
)
def export(
    words: Words,
    everything: Everything = False,
    form: FormOption = None,
    at: At = None,
    have: Have = None,
    lock: LockOption = None,
    level: Level = "auto",
    split: Split = None,
    to: To = None,
    parity: Parity = None,
    verify_after_write: VerifyAfterWrite = False,
    replace: Replace = False,
    strict: Strict = False,
    share_tensors: ShareTensors = False,
    dry_run: DryRun = False,
    jobs: Jobs = None,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ShowProgress = ProgressMode.AUTO,
) -> None:
    """
    Write models to a bundle, every blob once. Each blob is hashed on the way.

    MODEL is a name or a quoted glob. DEST is FILE.tar.zst, FILE.tar (not compressed), DIR/ (a plain store), oci:DIR (an
    OCI image layout, for skopeo) or - (standard output).

    With --as gguf, DIR/ gets the weights under a readable name, projector and adapter, a Modelfile, the licences and
    SHA256SUMS. With --as image, FILE.tar is a container image for docker load, with the models in /models.

    With --have, the bundle is a delta: it requires what the other side has (`ostore inventory`). With --lock and no
    MODEL, the models are those of the lock.
    """
    from ostore.api.export import export as write
    from ostore.cli.progress import shown, summed_up
    from ostore.cli.render import export as render
    from ostore.cli.render.report import say_left_out, say_report, say_warnings
    from ostore.cli.stopping import if_stopped
    from ostore.settings import keep_freed_memory

    keep_freed_memory()
    names, destination = _names_and_destination(words, everything=everything, is_locked=lock is not None)
    zstd, started = _level(level), time.monotonic()
    _refuse_for_form(
        form,
        ("--level", zstd),
        ("--have", have),
        ("--lock", lock),
        ("--share-tensors", share_tensors),
        ("--split", split),
        ("--to", to),
        ("--parity", parity),
        ("--verify-after-write", verify_after_write),
    )
    _refuse_place(form, destination, at)
    if zstd and _HIGH_LEVEL <= zstd <= _HIGHEST_LEVEL and not quiet and not as_json:
        tell(f"--level {zstd}: {_COST}")
    folders = to or [str(Path(destination).parent)] if split else ()
    if not dry_run:
        if_stopped(lambda: _remark_if_stopped(form, destination, folders))
    report: ExportReport | GgufExportReport | ImageExportReport
    with shown(progress.value, quiet=quiet, as_json=as_json) as told:
        if form is Form.IMAGE:
            from ostore.api.export_image import export_image
            from ostore.formats.oci_image import DEFAULT_AT

            report = export_image(
                names,
                destination,
                at=DEFAULT_AT if at is None else at,
                replace=replace,
                strict=strict,
                dry_run=dry_run,
                progress=told,
                before=summed_up(told, render.outlook),
                models=models,
            )
        elif form is Form.GGUF:
            from ostore.api.export_gguf import export_gguf as write_plain

            report = write_plain(
                names,
                destination,
                replace=replace,
                strict=strict,
                dry_run=dry_run,
                progress=told,
                before=summed_up(told, render.outlook),
                models=models,
            )
        else:
            report = write(
                names,
                destination,
                have=have or (),
                lock=lock,
                level=zstd,
                replace=replace,
                strict=strict,
                share_tensors=share_tensors,
                dry_run=dry_run,
                jobs=jobs,
                progress=told,
                before=summed_up(told, lambda planned: render.outlook(planned, folders)),
                models=models,
                split=split,
                to=to or (),
                parity=parity,
                verify_after_write=verify_after_write,
                next_medium=_asking_for_media(told, replace=replace) if split and not quiet and not as_json else None,
            )
    say_warnings(report.warnings)
    seconds = time.monotonic() - started
    # Standard output may be the bundle itself.
    stream = sys.stderr if destination == "-" else None
    say_report(
        f"export-{form.value}" if form else "export",
        report,
        lambda: render.text(report, seconds),
        as_json=as_json,
        quiet=quiet,
        stream=stream,
        done=None if dry_run else lambda: render.text(report, seconds),
    )
    say_left_out(report.left_out)


def _names_and_destination(words: list[str], *, everything: bool, is_locked: bool) -> tuple[list[str], str]:
    from ostore.formats.errors import UsageError
    from ostore.formats.remedy import ostore

    *names, destination = words
    if (names and everything) or not (names or everything or is_locked):
        raise UsageError(
            "expected MODEL... DEST, or --all DEST, or --lock FILE DEST",
            hint=ostore("export", "llama3", "bundle.tar.zst", before="for example"),
        )
    return ["*"] if everything else names, destination


def _refuse_for_form(form: Form | None, *given: tuple[str, object]) -> None:
    """Raises UsageError for an option that is about bundles."""
    from ostore.formats.errors import UsageError

    what = "an image" if form is Form.IMAGE else "plain files"
    for option, value in given:
        if form and value:
            raise UsageError(f"{option}: only a bundle can have it, not {what}")


def _refuse_place(form: Form | None, destination: str, at: str | None) -> None:
    from ostore.formats.errors import UsageError

    if form is Form.GGUF and not destination.endswith(("/", os.sep)):
        raise UsageError(f"{destination}: expected a folder for plain files", hint="end it with /")
    if at is not None and form is not Form.IMAGE:
        raise UsageError("--at: only an image can have it", hint="--as image makes one")


def _asking_for_media(progress: Progress, *, replace: bool) -> NextMedium | None:
    """Return what asks for the next medium, or None where there is no person to ask."""
    from ostore.cli.asking import next_medium
    from ostore.cli.progress import paused
    from ostore.cli.stopping import if_stopped
    from ostore.streams.terminal import is_terminal

    if sys.stdin is None or not is_terminal(0):
        return None

    def ask(number: int, needed: int, folders: Sequence[Path], problem: str) -> None:
        anew = "the same command starts from the beginning"
        if number == 1:
            if_stopped(f"there is no new bundle; {anew}")
        else:
            over = f"{anew} and replaces it" if replace else f"{anew}, and needs --replace for these media"
            if_stopped(f"what is on the media so far has its name, but the set is not whole; {over}")
        with paused(progress):
            next_medium(number, needed, folders, problem)

    return ask


def _remark_if_stopped(form: Form | None, destination: str, folders: Sequence[str]) -> str:
    from ostore.api.export import goes_on
    from ostore.cli.stopping import GOES_ON

    if form is Form.IMAGE:
        return "there is no new image; the same command starts anew"
    if destination.endswith(("/", os.sep)) or destination.startswith("oci:"):
        return GOES_ON
    if goes_on(destination, folders):
        return f"there is no new bundle yet; {GOES_ON}"
    what = "the bundle is cut off" if destination == "-" else "there is no new bundle"
    return f"{what}; the same command starts anew"


def _level(text: str) -> int | None:
    from ostore.formats.errors import UsageError

    if text == "auto":
        return None
    if not text.isdecimal():
        raise UsageError(f"--level: expected auto or 1 to 19, got {text!r}")
    return int(text)
