"""The program `ostore`: runs a command and turns whatever comes out into one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import typer

from ostore.cli import exit_codes
from ostore.cli.program import app
from ostore.cli.text import close_quietly, one_line, say
from ostore.formats.errors import OstoreError

# typer's own base of every mistake in the arguments; it has no public name.
_ArgumentError = typer.BadParameter.__mro__[2]


class TerminatedError(BaseException):
    """SIGTERM or SIGHUP arrived: unwind as for Ctrl-C."""


def main() -> NoReturn:
    """Entry point of the script; never returns."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _terminate)
    warnings.showwarning = _show_warning
    _occupy_standard_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command. Every outcome but a bug ends in an exit code; so does a bug, unless OSTORE_DEBUG is set."""
    try:
        if list(arguments[:1]) == ["_complete"]:
            from ostore.cli.completion import answer

            answer(arguments[1:])
        code = typer.main.get_command(app).main(list(arguments), prog_name="ostore", standalone_mode=False)
        close_quietly()
    except (KeyboardInterrupt, typer.Abort):
        return _stopped("interrupted", exit_codes.INTERRUPTED)
    except TerminatedError:
        return _stopped("terminated", exit_codes.TERMINATED)
    except (BrokenPipeError, SystemExit):
        # Whoever read our output has left, `| head` for example; there is nobody to tell. typer exits by itself then.
        return exit_codes.CODES["io"]
    except Exception as error:
        if os.environ.get("OSTORE_DEBUG"):
            raise
        return _failed(error, as_json="--json" in arguments)
    if code == exit_codes.INTERRUPTED:
        # typer turns Ctrl-C into this code before we see it.
        return _stopped("interrupted", exit_codes.INTERRUPTED)
    return code if isinstance(code, int) else 0


def _occupy_standard_streams() -> None:
    """Let no file of a store or a bundle get the number of a standard stream that was closed before we began."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Open for reading, so that writing a bundle there fails. The lowest free number is this one.
            os.open(os.devnull, os.O_RDONLY)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends


def _failed(error: Exception, *, as_json: bool) -> int:
    name = "usage" if isinstance(error, _ArgumentError) else exit_codes.class_of(error)
    code = exit_codes.CODES[name]
    message = " ".join(_message(error).split("\n"))
    hint = error.hint if isinstance(error, OstoreError) else None
    if isinstance(error, PermissionError):
        hint = "ostore where shows whose store it is; sudo -u OWNER runs a command as its owner"
    if as_json:
        import json

        document = {
            "schema": "ostore.error/1",
            "event": "error",
            "class": name,
            "exit": code,
            "message": message,
            "hint": hint,
        }
        _tell(json.dumps(document, ensure_ascii=True))
    else:
        _tell(f"ostore: error[{name}]: {message}" + (f" ({hint})" if hint else ""))
    return code


def _message(error: Exception) -> str:
    if isinstance(error, _ArgumentError):
        return str(getattr(error, "format_message", error.__str__)()).replace("\n\t", " ").rstrip(".")
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        return one_line(f"{where}{error.strerror or error}")
    if isinstance(error, OstoreError):
        return one_line(str(error))
    return f"{type(error).__name__}: {error} (a bug; OSTORE_DEBUG=1 shows where)"


def _stopped(how: str, code: int) -> int:
    _tell(f"ostore: {how}; nothing is half done, and the same command goes on from here")
    return code


def _tell(line: str) -> None:
    try:
        say(line, sys.stderr)
        sys.stderr.flush()
    except OSError:
        # A full disk or a closed pipe behind standard error: the exit code has to say it alone.
        pass


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise TerminatedError


def _show_warning(message: Warning | str, *_args: object, **_options: object) -> None:
    _tell(f"ostore: warning: {message}")
