"""
Names for the files of models, as other programs expect them.

    files       NAME.gguf, mmproj-NAME.gguf, adapter-NAME.gguf, NAME.Modelfile
    lmstudio    NAMESPACE/NAME/NAME.gguf, with the projector and the Modelfile beside it
    llama.cpp   NAME.gguf, or the folder NAME with both files if there is a projector

NAME is the model, with namespace and tag where they are not the usual ones. If two models would get one name, the later
one gets a longer name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ostore.formats.link_layout import Layout
from ostore.formats.manifest import Descriptor
from ostore.formats.name import DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, ModelName, windows_problem
from ostore.formats.parts import Parts

GGUF = ".gguf"
MODELFILE = "Modelfile"
# llama.cpp (tools/server/server-models.cpp of 2026) takes a file for the projector if these letters are in its name,
# and LM Studio if its name begins with them.
_PROJECTOR = "mmproj"
# Longer names do not fit into a component with the longest suffix. Hosts have up to 255 characters.
_MAX_CHARACTERS = 200
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class PlainNames:
    """
    The paths of one model's files, relative to their folder, with '/'.

    A kind that the layout has no place for is empty.
    """

    weights: str
    projectors: tuple[str, ...]
    adapters: tuple[str, ...]
    drafts: tuple[str, ...]
    modelfile: str

    @property
    def claims(self) -> frozenset[str]:
        """What no other model may claim. Case does not matter, because some disks ignore it."""
        paths = (self.weights, *self.projectors, *self.adapters, *self.drafts, self.modelfile)
        return frozenset(claim for path in paths for claim in claims_of(path))

    def paths_of(self, parts: Parts) -> dict[Descriptor, str]:
        """Return the path of each part that the layout has a place for."""
        pairs = [(parts.weights, self.weights)]
        for found, paths in (
            (parts.projectors, self.projectors),
            (parts.adapters, self.adapters),
            (parts.drafts, self.drafts),
        ):
            pairs += zip(found, paths, strict=False)
        return dict(pairs)

    def without_place(self, parts: Parts) -> tuple[str, ...]:
        """Return the kinds of parts that the layout has no place for, as words for people."""
        kinds = {"adapter": (parts.adapters, self.adapters), "draft model": (parts.drafts, self.drafts)}
        return tuple(kind for kind, (found, paths) in kinds.items() if found and not paths)


def claims_of(path: str) -> tuple[str, ...]:
    """
    Return what a file claims: its path, its path without the ending, and its folder.

    A program shows a model under the last two, so no other model may have them.
    """
    folded = path.lower()
    return tuple(filter(None, (folded, folded.removesuffix(GGUF), folded.rpartition("/")[0])))


def plain_names(
    name: ModelName,
    layout: Layout,
    counts: tuple[int, int, int],
    taken: Collection[str],
    *,
    salt: str = "",
    present: Collection[str] = (),
) -> PlainNames:
    """
    Return the names of a model's files that claim nothing that is `taken`.

    `counts` are its numbers of projectors, adapters and drafts. `salt` tells two models of one name apart. `present`
    are the paths that its files have now: a name that others may use already is kept.
    """
    stems = {path.rpartition("/")[2].removesuffix(GGUF) for path in present}
    choices = sorted(_stems(name, layout, salt), key=lambda choice: choice[1] not in stems)
    names = (_names(folder, stem, layout, counts) for folder, stem in choices)
    # The last has a digest in it.
    return next(found for found in names if found.claims.isdisjoint(taken))


def _stems(name: ModelName, layout: Layout, salt: str) -> Iterator[tuple[str, str]]:
    """Yield publisher and name, the shortest first."""
    is_usual_host = name.host.lower() == DEFAULT_HOST
    is_usual = is_usual_host and name.namespace.lower() == DEFAULT_NAMESPACE
    host = name.host.replace(":", "-")
    tag = () if name.tag.lower() == DEFAULT_TAG else (name.tag,)
    above = () if is_usual else (name.namespace,) if is_usual_host else (host, name.namespace)
    if layout is Layout.LM_STUDIO:
        publisher = name.namespace if is_usual_host else f"{host}-{name.namespace}"
        choices = [
            (publisher, (name.model, *tag)),
            (publisher, (name.model, name.tag)),
            (f"{host}-{name.namespace}", (name.model, name.tag)),
        ]
    else:
        publisher = ""
        choices = [
            ("", (*above, name.model, *tag)),
            ("", (name.namespace, name.model, name.tag)),
            ("", (host, name.namespace, name.model, name.tag)),
        ]
    for folder, parts in choices:
        stem = "-".join(parts)
        if all(map(_is_fit, (folder, stem))):
            yield folder, stem
    digits = hashlib.sha256(f"{salt}\n{name.full}".encode()).hexdigest()[:_DIGITS]
    yield publisher if _is_fit(publisher) else DEFAULT_NAMESPACE, f"model-{digits}"


def _is_fit(stem: str) -> bool:
    is_of_any_disk = windows_problem(f"{stem}{GGUF}") is None and windows_problem(stem) is None
    return len(stem) <= _MAX_CHARACTERS and is_of_any_disk and _PROJECTOR not in stem.lower()


def _names(folder: str, stem: str, layout: Layout, counts: tuple[int, int, int]) -> PlainNames:
    projectors, adapters, drafts = counts
    if layout is Layout.LM_STUDIO:
        within = f"{folder}/{stem}/"
    else:
        within = f"{stem}/" if layout is Layout.LLAMA_CPP and projectors else ""
    is_plain = layout is Layout.FILES
    return PlainNames(
        weights=f"{within}{stem}{GGUF}",
        projectors=_numbered(f"{within}{_PROJECTOR}", stem, projectors),
        # The other two would take them for models.
        adapters=_numbered("adapter", stem, adapters if is_plain else 0),
        drafts=_numbered("draft", stem, drafts if is_plain else 0),
        modelfile=f"{within}{MODELFILE}" if within else f"{stem}.{MODELFILE}",
    )


def _numbered(kind: str, stem: str, count: int) -> tuple[str, ...]:
    return tuple(f"{kind}{number if number > 1 else ''}-{stem}{GGUF}" for number in range(1, count + 1))
