"""The program `ostore`: runs a command, and turns an error into one line and an exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import typer

from ostore.cli import error_document, exit_codes, remedies
from ostore.cli.colours import ERROR, WARNING, choose
from ostore.cli.program import app
from ostore.cli.stopping import remark_if_stopped
from ostore.cli.text import UnprintedError, abandon_output, flush, has_lost_its_reader, one_line, tell
from ostore.formats.errors import BasisMissingError, OstoreError, UsageError, class_of, is_lack_of_memory
from ostore.formats.remedy import Remedy

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
    code = run(sys.argv[1:])
    try:
        flush()
    except UnprintedError:
        abandon_output()
    # All is said. While Python itself ends, Ctrl-C would print a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Python looks for cycles once more when it ends, a sixth of a short command. It leaves frozen objects out.
    gc.freeze()
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. With OSTORE_DEBUG set, an error shows its traceback too."""
    choose(arguments)
    remedies.begin(arguments)
    error_document.begin()
    try:
        if list(arguments[:1]) == ["_complete"]:
            from ostore.cli.completion import answer

            answer(arguments[1:])
        code = typer.main.get_command(app).main(list(arguments), prog_name="ostore", standalone_mode=False)
        flush()
    except (KeyboardInterrupt, typer.Abort):
        return _stopped("interrupted", exit_codes.INTERRUPTED)
    except TerminatedError:
        return _stopped("terminated", exit_codes.TERMINATED)
    except (BrokenPipeError, SystemExit):
        # The reader of our output has left, as in `| head`, so no message can reach it. typer raises SystemExit then.
        return exit_codes.CODES["io"]
    except Exception as error:  # noqa: BLE001 - no error leaves this program but as one line
        is_of_help = _asks_for_help(arguments) and not has_lost_its_reader(error)
        if isinstance(error, OSError) and error.filename is None and is_of_help:
            # typer prints help by itself.
            error = UnprintedError(error)
        return tell_error(error, as_json="--json" in arguments)
    if code == exit_codes.INTERRUPTED:
        # typer turns Ctrl-C into this code.
        return _stopped("interrupted", exit_codes.INTERRUPTED)
    return code if isinstance(code, int) else 0


def _asks_for_help(arguments: Sequence[str]) -> bool:
    return "help" in arguments[:1] or not {"--help", "-h"}.isdisjoint(arguments)


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


def tell_error(error: Exception, *, as_json: bool) -> int:
    """Print the line, or the document, of an error, and return its exit code."""
    if os.environ.get("OSTORE_DEBUG"):
        import traceback

        tell("".join(traceback.format_exception(error)).rstrip("\n"))
    if isinstance(error, UnprintedError) and isinstance(error.cause, BrokenPipeError) and not error.done:
        # The reader of our output has left, as in `| head`: it has seen enough.
        return exit_codes.CODES["io"]
    error = _of_ollama(error) or error
    name = "usage" if isinstance(error, _ArgumentError) else _class_of(error)
    code = exit_codes.CODES[name]
    if has_lost_its_reader(error):
        return code
    message = " ".join(_message(error).split("\n"))
    if isinstance(error, PermissionError) and not isinstance(error, OstoreError):
        remedy: Remedy | None = _denied(error)
    else:
        remedy = remedies.hint_of(error)
    hint = one_line(remedies.line(remedy)) if remedy else None
    if as_json:
        import json

        document = {
            "schema": "ostore.error/1",
            "event": "error",
            "class": name,
            "exit": code,
            "message": message,
            "hint": hint,
            "remedy_arguments": remedies.arguments(remedy) if remedy else None,
            **error_document.added(),
        }
        if isinstance(error, BasisMissingError):
            document["digests"] = list(error.digests)
        tell(json.dumps(document, ensure_ascii=True))
    else:
        tell(f"ostore: error[{name}]: {message}" + (f" ({hint})" if hint else ""), marks=ERROR)
    return code


def _of_ollama(error: Exception) -> Exception | None:
    """Return what is to be said of an option that only Ollama has."""
    option, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if not option or not context:
        return None
    from ostore.cli.other_words import option_of_ollama

    return option_of_ollama(context.info_name, option)


def _class_of(error: Exception) -> str:
    return "io" if isinstance(error, UnprintedError) else class_of(error)


def _denied(error: PermissionError) -> Remedy:
    from ostore.cli.denial import way_out

    return way_out(error, remedies.typed())


def _message(error: Exception) -> str:
    if isinstance(error, _ArgumentError):
        return str(getattr(error, "format_message", error.__str__)()).replace("\n\t", " ").rstrip(".")
    if isinstance(error, OSError):
        # Windows gets every path with a mark in front, so that it may be long.
        path = os.fsdecode(error.filename).removeprefix("\\\\?\\") if isinstance(error.filename, (str, bytes)) else ""
        where = f"{path}: " if path else ""
        return one_line(f"{where}{error.strerror or error}")
    if isinstance(error, OstoreError):
        # An option is called like the parameter. An argument or a variable is in capitals.
        dashes = "--" if isinstance(error, UsageError) and not error.parameter.isupper() and error.parameter else ""
        return one_line(f"{dashes}{error}")
    if isinstance(error, UnprintedError):
        return f"{error}; this was done: {error.done}" if error.done else str(error)
    if is_lack_of_memory(error):
        return "the system gives this process no more memory or threads"
    return f"{type(error).__name__}: {error} (a bug in ostore; OSTORE_DEBUG=1 shows the traceback)"


def _stopped(how: str, code: int) -> int:
    tell(f"ostore: {how}; {remark_if_stopped()}")
    return code


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise TerminatedError


def _show_warning(message: Warning | str, *_args: object, **_options: object) -> None:
    tell(f"ostore: warning: {one_line(str(message))}", marks=WARNING)
