"""What to type to restore a set of volumes, with its own names. The file lies beside the volumes, not in the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from ostore.formats.selection import Selection
from ostore.formats.shell import WINDOWS, quoted_word
from ostore.formats.volume_set import sums_name, volume_name


class _Kind(NamedTuple):
    """What a text says of one kind of bundle, as the text in the bundle does: what it requires, the way with tar."""

    requires: str
    tar: str
    end: str


_WHOLE = _Kind(
    "",
    """\
3. With tar{zstd}. Run the commands as the user that owns the store. They overwrite models of the same name. Only the
   last command checks the files.

    mkdir -p "$OLLAMA_MODELS"
    cat {every} | {unpack} | tar -xmof - -C "$OLLAMA_MODELS"
    (cd "$OLLAMA_MODELS" && sha256sum -c ostore/SHA256SUMS)""",
    """\
A running Ollama shows the models at once. If the last command fails, it names the damaged files. Remove every model
whose manifest or blobs are among them. A manifest contains the digests of its blobs.""",
)
_DELTA = _Kind(
    """
The bundle is a delta. It does not contain all blobs of its models: the model store must have the others, which an
earlier bundle has brought. Each way tells if the store lacks a blob.
""",
    """\
3. With tar{zstd}. Run the commands as the user that owns the store. tar shows Ollama no model that needs blobs from
   elsewhere. The last command does that, and only if every file is right. It overwrites models of the same name.

    cat {every} | {unpack} | tar -xmof - -C "$OLLAMA_MODELS"
    (cd "$OLLAMA_MODELS" && sha256sum -c ostore/SHA256SUMS && cp -R ostore/manifests . && rm -r ostore)""",
    """\
A running Ollama shows the models at once. If sha256sum fails, it names the files that are missing or damaged. No model
that needs them is there yet, unless it was there before or this bundle contains all of it.""",
)
_RECIPES = _Kind(
    """
The bundle does not contain all blobs of its models. Some are made of parts of others: of blobs in the bundle, or of
blobs that the model store has from an earlier bundle. Each way tells if the store lacks a blob.
""",
    """\
tar alone cannot make blobs of parts. If it unpacks this bundle into a store, Ollama lists no model that needs such a
blob.""",
    "A running Ollama shows the models at once.",
)


def instructions(name: str, count: int, selection: Selection, parity: Sequence[str]) -> bytes:
    """
    Return the text for a set of `count` volumes with these models. `parity` are the names of the first files of its
    parity. A line that begins with four spaces is a command for sh.
    """
    is_framed = name.endswith(".zst")

    def quoted(word: str) -> str:
        # A name that begins with a dash is an option to every program.
        return quoted_word(f"./{word}" if word.startswith("-") else word, "posix")

    data = resources.files("ostore.places.bundle")
    text, repair = (data.joinpath(f"RESTORE-{what}.txt").read_bytes().decode() for what in ("volumes", "parity"))
    repairing = "\n".join(
        f"    par2 repair {quoted(first)}        # only if a volume is missing or damaged" for first in parity
    )
    zstd, unpack = (" and zstd", "zstd -dc") if is_framed else ("", "cat")
    every = f"{quoted(f'{name}.')}[0-9][0-9][0-9]"
    kind = _RECIPES if selection.recipes else _DELTA if selection.requires else _WHOLE
    return text.format(
        requires=kind.requires,
        tar=kind.tar.format(zstd=zstd, every=every, unpack=unpack),
        end=kind.end,
        name=quoted(name),
        volumes="1 volume" if count == 1 else f"{count} volumes",
        first=quoted(volume_name(name, 1)),
        last=quoted(volume_name(name, count)),
        sums=quoted(sums_name(name)),
        repair=repair.format(commands=repairing) if parity else "",
        zstd=zstd,
        every=every,
        unpack=unpack,
        windows=quoted_word(volume_name(name, 1), WINDOWS),
        windows_name=quoted_word(name, WINDOWS),
    ).encode("utf-8", "surrogateescape")
