"""`ostore completion` prints a shell's script. ostore.cli.completion answers what the script asks."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from ostore.cli.options import examples, group
from ostore.cli.text import say


class Shell(enum.StrEnum):
    """The shells that have a script."""

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
    """Print the shell script that completes commands, options and model names."""
    from importlib import resources

    script = resources.files("ostore.cli").joinpath("shells", f"ostore.{shell.value}")
    say(script.read_text("utf-8").rstrip("\n"))
