"""The program `ostore`: runs a command, and turns an error into one line and an exit code."""

from __future__ import annotations

import errno
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

# The base class of typer's errors about arguments; it has no public name.
_ArgumentError = typer.BadParameter.__mro__[2]


class TerminatedError(BaseException):
    """SIGTERM or SIGHUP arrived. The stack unwinds as for Ctrl-C."""


def main() -> NoReturn:
    """Run the command line and exit."""
    # Windows has neither, but Ctrl-Break. There, closing the window and ending the task are as a kill.
    for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _terminate)
    warnings.showwarning = _show_warning
    _occupy_standard_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. With OSTORE_DEBUG set, errors are raised instead."""
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
        # The reader of our output has left, as in `| head`, so no message can reach it. typer raises SystemExit then.
        return exit_codes.CODES["io"]
    except Exception as error:
        if os.environ.get("OSTORE_DEBUG"):
            raise
        return _failed(error, as_json="--json" in arguments)
    if code == exit_codes.INTERRUPTED:
        # typer turns Ctrl-C into this code.
        return _stopped("interrupted", exit_codes.INTERRUPTED)
    return code if isinstance(code, int) else 0


def _has_lost_its_reader(error: Exception) -> bool:
    """Whether Windows says that nobody reads our output any more: it has no error of its own for that."""
    return os.name == "nt" and isinstance(error, OSError) and (error.errno, error.filename) == (errno.EINVAL, None)


def _occupy_standard_streams() -> None:
    """Open closed standard streams, so that no file of a store or bundle gets their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Read-only, so that writing a bundle to it fails. The system gives the lowest free number, which is this.
            os.open(os.devnull, os.O_RDONLY)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends


def _failed(error: Exception, *, as_json: bool) -> int:
    name = "usage" if isinstance(error, _ArgumentError) else exit_codes.class_of(error)
    code = exit_codes.CODES[name]
    if _has_lost_its_reader(error):
        return code
    message = " ".join(_message(error).split("\n"))
    hint = _hint(error)
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


def _hint(error: Exception) -> str | None:
    if isinstance(error, OstoreError):
        return error.hint
    if isinstance(error, PermissionError):
        if os.name == "nt":
            return "the owner of the store or an administrator may do that"
        return "ostore where shows the owner of the store; sudo -u OWNER ostore ... runs a command as that user"
    if isinstance(error, _ArgumentError) and (context := getattr(error, "ctx", None)):
        return f"see {context.command_path} --help"
    return None


def _message(error: Exception) -> str:
    if isinstance(error, _ArgumentError):
        return str(getattr(error, "format_message", error.__str__)()).replace("\n\t", " ").rstrip(".")
    if isinstance(error, OSError):
        # Windows gets every path with a mark in front, so that it may be long.
        path = os.fsdecode(error.filename).removeprefix("\\\\?\\") if isinstance(error.filename, (str, bytes)) else ""
        where = f"{path}: " if path else ""
        return one_line(f"{where}{error.strerror or error}")
    if isinstance(error, OstoreError):
        return one_line(str(error))
    return f"{type(error).__name__}: {error} (a bug in ostore; OSTORE_DEBUG=1 shows the traceback)"


def _stopped(how: str, code: int) -> int:
    _tell(f"ostore: {how}; nothing is half done, run the same command again to continue")
    return code


def _tell(line: str) -> None:
    try:
        say(line, sys.stderr)
        sys.stderr.flush()
    except OSError:
        # Standard error is a full disk or a closed pipe. The exit code still tells.
        pass


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise TerminatedError


def _show_warning(message: Warning | str, *_args: object, **_options: object) -> None:
    _tell(f"ostore: warning: {one_line(str(message))}")
