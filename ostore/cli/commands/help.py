"""`ostore help`, also as a page of the manual."""

from __future__ import annotations

from typing import Annotated

import typer

from ostore.cli.options import examples, group

app = group()

Man = Annotated[bool, typer.Option("--man", help="Print the page of the manual, for `man`.")]


@app.command(
    epilog=examples(
        "ostore help export",
        "ostore help --man | man -l -",
        "ostore help --man > ~/.local/share/man/man1/ostore.1",
    )
)
def help_(
    command: Annotated[str | None, typer.Argument(metavar="[COMMAND]", show_default=False)] = None,
    man: Man = False,
) -> None:
    """Print the help of a command, as `ostore COMMAND --help` does."""
    from ostore.cli.program import app as program
    from ostore.cli.text import say
    from ostore.formats.errors import UsageError
    from ostore.formats.remedy import ostore

    if man:
        from ostore.cli.manual import page

        if command:
            raise UsageError("--man prints one page with every command", hint=ostore("help", "--man"))
        say(page())
        return
    words = [command, "--help"] if command else ["--help"]
    typer.main.get_command(program).main(words, prog_name="ostore", standalone_mode=False)
