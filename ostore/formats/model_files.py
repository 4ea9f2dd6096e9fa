"""What a folder of GGUF files holds, told from their names: models, their parts and projectors, and a name for each."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from ostore.formats.gguf_split import SplitName, split_name

_GGUF = re.compile(r"\.gguf$", re.IGNORECASE)
_PROJECTOR = "mmproj"
# What a quantisation is called at the end of a name. It becomes the tag, as in the names of hf.co.
_QUANTISATION = re.compile(r"(.+?)[-_.]((?:UD-)?I?Q[0-9][0-9A-Z_]*|B?F(?:16|32)|MXFP4[A-Z_]*|TQ[0-9]_0)", re.IGNORECASE)
# types/model/name.go of ollama at fb30760.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")
_MAX_PART = 80


class FoundModel(NamedTuple):
    """The files of one model, the weights first, and a name that it could have in a store."""

    name: str
    files: tuple[str, ...]
    is_split: bool


def found_models(paths: Iterable[str], taken: Collection[str]) -> tuple[FoundModel, ...]:
    """
    Return the models among GGUF files (absolute paths), in the order of the paths. No name is `taken`, which are short
    names with a tag, in lower case.

    The parts of a split set are one model, and the only projector of a folder belongs to each model in it. A set of
    which a part is missing is no model.
    """
    projectors: dict[str, list[str]] = {}
    models: dict[tuple[str, str, int], dict[int, str]] = {}
    for path in paths:
        folder, stem = _split_path(path)
        if _PROJECTOR in stem.lower():
            projectors.setdefault(folder, []).append(path)
            continue
        part = split_name(f"{stem}.gguf") or SplitName(stem, 1, 1)
        models.setdefault((folder, part.prefix, part.parts), {})[part.number] = path
    found: list[FoundModel] = []
    known = set(taken)
    for (folder, stem, count), parts in models.items():
        if len(parts) != count:
            continue
        name = _free_name(stem, known)
        known.add(name)
        beside = projectors.get(folder, [])
        files = [path for _, path in sorted(parts.items())]
        found.append(
            FoundModel(name.removesuffix(":latest"), (*files, *(beside if len(beside) == 1 else ())), len(files) > 1)
        )
    return tuple(found)


def _split_path(path: str) -> tuple[str, str]:
    folder, _, name = path.replace("\\", "/").rpartition("/")
    return folder, _GGUF.sub("", name)


def _free_name(stem: str, known: Collection[str]) -> str:
    """Return `MODEL:TAG` in lower case, with a number if such a model exists."""
    quantised = _QUANTISATION.fullmatch(stem)
    model, tag = (quantised[1], quantised[2].lower()) if quantised else (stem, "latest")
    model = _NOT_IN_NAMES.sub("-", model.lower()).lstrip(".-")[: _MAX_PART - 4].rstrip(".-") or "model"
    names = (f"{model}{f'-{number}' if number > 1 else ''}:{tag}" for number in range(1, len(known) + 2))
    return next(name for name in names if name not in known)
