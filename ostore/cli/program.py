"""The program for typer: every command by name, each made only when needed.

Making a command takes a millisecond, and `ostore --version` or a completion should not wait for all of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from keyword import iskeyword
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ostore.cli.options import ColorMode
from ostore.cli.text import say

# The name, which is also that of a module in commands/, and its line in `ostore --help`.
COMMANDS = {
    "list": "List the models of a store, as `ollama list` does.",
    "show": "Show a model's details.",
    "where": "Show which store is used, and why.",
    "create": "Make a model of a Modelfile, of GGUF files or of a folder of them.",
    "path": "Print the path of a model's weights.",
    "link": "Give other programs readable names for weights.",
    "inventory": "Print what a store holds, to be carried to the other side.",
    "diff": "Show what B lacks of A, and what differs.",
    "outdated": "Show which models of the store are another version elsewhere.",
    "lock": "Print or update a lock: names pinned to their manifests.",
    "inspect": "Show what a bundle holds, from its index alone.",
    "export": "Write models to a bundle, every blob once.",
    "import": "Add the models of bundles to the store.",
    "pull": "Fetch models from registries, and verify them.",
    "push": "Send models to registries, only what is missing.",
    "sync": "Copy the models that DST lacks, verified.",
    "verify": "Hash the whole store, some models, or bundles.",
    "probe": "Ask a running Ollama whether it serves what the store holds.",
    "du": "Show what uses space in a store.",
    "doctor": "Find problems in and around a store, and fix the safe ones.",
    "repair": "Replace what is damaged or missing with good copies.",
    "dedup": "Find blobs that other programs keep too.",
    "gc": "Remove blobs that no model needs.",
    "rm": "Remove models, and the blobs that only they need.",
    "cp": "Give a model a second name.",
    "move": "Move the whole store to another folder or disk.",
    "serve": "Serve models to others, as a read-only registry.",
    "completion": "Print the shell script that completes commands.",
    "help": "Print the help of a command.",
    "version": "Print the version.",
}
ALIASES = {"ls": "list", "prune": "gc"}


class _Commands(MutableMapping[str, Any]):
    """Commands by name, each made on first use."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - typer has no public name for a command
        name = ALIASES.get(name, name)
        if name not in COMMANDS:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = _made(name)
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:  # noqa: ANN401
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


def _made(name: str) -> Any:  # noqa: ANN401
    """A command, made as typer's get_group makes it."""
    module = importlib.import_module(f"ostore.cli.commands.{name}{'_' if iskeyword(name) else ''}")
    (command,), (everywhere,) = module.app.registered_commands, _shared.registered_commands
    made, shared = (
        typer.main.get_command_from_info(info, pretty_exceptions_short=False, rich_markup_mode=None)
        for info in (command, everywhere)
    )
    made.params += shared.params
    return made


_shared = typer.Typer()


@_shared.command()
def _everywhere(
    color: Annotated[
        ColorMode,
        typer.Option(
            "--color",
            expose_value=False,
            help="Colours on a terminal; NO_COLOR and FORCE_COLOR work too.",
        ),
    ] = ColorMode.AUTO,
) -> None:
    """Has the option that every command gets; `colours.choose` follows it."""


class _Program(TyperGroup):
    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - whatever typer passes
        super().__init__(**options)
        self.commands = _Commands()

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - typer's private context
        return list(COMMANDS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401
        word = args[0]
        if word not in self.commands:
            from ostore.cli.other_words import remedy_for
            from ostore.formats.errors import UsageError

            raise UsageError(f"no command {word!r:.90}", hint=remedy_for(word, args[1:], (*COMMANDS, *ALIASES)))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    name="ostore",
    cls=_Program,
    help="Carry Ollama models to machines without a network, verified. Check, clean up and repair a model store.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        from ostore.formats.version import VERSION

        say(f"ostore {VERSION}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        say(context.get_help())
