"""What to type to restore a set of volumes, with its own names. The file lies beside the volumes, not in the bundle."""

from __future__ import annotations

from ostore.formats.shell import WINDOWS, quoted_word
from ostore.formats.volume_set import parity_name, sums_name, volume_name

_PARITY = """
If a volume is missing or damaged, ostore repairs it by itself. So does par2, as long as the damage is not too large:

    par2 repair {parity}        # only if a volume is missing or damaged
"""
_TEXT = """\
This is {name}, a bundle of models for Ollama, in {volumes}: {first} to {last}.

Copy all volumes into one folder, with the files beside them, and go there. Set a shell variable: OLLAMA_MODELS is the
path of the model store that the Ollama server uses; by default, this is .ollama/models in the home folder of the
server's user. This shows which volumes are damaged:

    sha256sum -c {sums}
{repair}
Then choose one way.

1. With ostore. It checks everything before Ollama can see a model. The volumes may also stay where they are: name one,
   and then the other folders.

    ostore import {first} --models "$OLLAMA_MODELS"

2. With Python 3.9 or newer{zstd}. The script checks everything before Ollama can see a model.

    cat {every} > {name}
    {unpack} {name} | tar -xOf - ostore/restore.py > restore.py
    python3 restore.py {name} --models "$OLLAMA_MODELS"

3. With tar{zstd}. Run the commands as the user that owns the store. They overwrite models of the same name. Only the
   last command checks the files.

    mkdir -p "$OLLAMA_MODELS"
    cat {every} | {unpack} | tar -xmof - -C "$OLLAMA_MODELS"
    (cd "$OLLAMA_MODELS" && sha256sum -c ostore/SHA256SUMS)

On Windows, this joins the volumes:

        copy /b {windows}+… {windows_name}

A running Ollama shows the models at once. If the last command fails, it names the damaged files. Remove every model
whose manifest or blobs are among them. A manifest contains the digests of its blobs.
"""


def instructions(name: str, count: int, *, has_parity: bool) -> bytes:
    """Return the text for a set of `count` volumes. A line that begins with four spaces is a command for sh."""
    is_framed = name.endswith(".zst")

    def quoted(word: str) -> str:
        # A name that begins with a dash is an option to every program.
        return quoted_word(f"./{word}" if word.startswith("-") else word, "posix")

    stem = quoted(f"{name}.")
    return _TEXT.format(
        name=quoted(name),
        volumes="1 volume" if count == 1 else f"{count} volumes",
        first=quoted(volume_name(name, 1)),
        last=quoted(volume_name(name, count)),
        sums=quoted(sums_name(name)),
        repair=_PARITY.format(parity=quoted(parity_name(name))) if has_parity else "",
        zstd=" and zstd" if is_framed else "",
        every=f"{stem}[0-9][0-9][0-9]",
        unpack="zstd -dc" if is_framed else "cat",
        windows=quoted_word(volume_name(name, 1), WINDOWS),
        windows_name=quoted_word(name, WINDOWS),
    ).encode("utf-8", "surrogateescape")
