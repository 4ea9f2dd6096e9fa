"""`ostore completion`: the script of a shell. What the script asks back is in ostore.cli.completion."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from ostore.cli.options import examples, group
from ostore.cli.text import say


class Shell(enum.StrEnum):
    """The shells there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


app = group()


@app.command(
    epilog=examples(
        "source <(ostore completion bash)              # in ~/.bashrc",
        "source <(ostore completion zsh)               # in ~/.zshrc, after compinit",
        "ostore completion fish | source               # in ~/.config/fish/config.fish",
        "ostore completion powershell | Out-String | Invoke-Expression   # in $PROFILE",
    )
)
def completion(shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh, fish or powershell.")]) -> None:
    """Print the script that lets a shell complete commands, options and models."""
    from importlib import resources

    script = resources.files("ostore.cli").joinpath("shells", f"ostore.{shell.value}")
    say(script.read_text("utf-8").rstrip("\n"))
