"""
Read the words that a person types for models, and say what was probably meant by a word that means none.

A name that nobody can have is a UsageError here: only in a bundle or a store it is unsafe. `addresses` does the same
for words that stand for places.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from ostore.formats.digest import Digest
from ostore.formats.errors import InvalidNameError, NotFoundError, UsageError
from ostore.formats.name import DEFAULT_NAMESPACE, ModelName, is_glob, matches_listing
from ostore.formats.remedy import Remedy, command, ostore, person
from ostore.formats.shell import quoted_word
from ostore.operations.transfer import Source
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.manifest_tree import find_manifests

BUNDLE_SUFFIXES = (".tar.zst", ".tar")
# An OCI image layout, as skopeo and podman spell it: `oci:` and its folder.
OCI = "oci:"
# `ostore list` shows twelve digits of the digest of a manifest.
_ID = re.compile(r"(?:sha256:)?([0-9a-f]{12,64})", re.IGNORECASE)
# What may follow a name: the digest of a manifest.
_PIN = re.compile(r"@sha256:[^@/]*$", re.IGNORECASE)
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(:[0-9]+)?")
_PULL = ostore("pull", "--help", after="says how to take models from a registry")
_PUSH = ostore("push", "--help", after="says how to send models to a registry")
# One letter before the colon is a drive of Windows.
_ADDRESS = re.compile(r"(file|[a-z][a-z0-9+.-]+(?=://)):", re.IGNORECASE)


def words_of(words: Sequence[str | Path]) -> list[str]:
    """Return the words of a parameter that takes several. Raises TypeError for a text, whose letters are no words."""
    if isinstance(words, (str, bytes, Path)):
        raise TypeError(f"expected a list of words, got {words!r}; write [{words!r}]")
    return [str(word) for word in words]


def typed_name(word: str) -> ModelName:
    """Return the name that a person typed. Raises UsageError if it is none."""
    try:
        return ModelName.parse(word)
    except InvalidNameError as error:
        raise _no_name(word, error) from None


def typed_models(words: Sequence[str], store: LocalStore, *, may_be_elsewhere: bool = False) -> list[str]:
    """
    Return the words that mean models of a store, each a name or a glob. An ID of `ostore list` becomes a name.

    With `may_be_elsewhere`, a name that the store does not have may be right.

    Raises TypeError for a text instead of a list; UsageError for a word that cannot be a name, or an ID of several
    models; NotFoundError for the word of a file or folder that is no model.
    """
    checked = _checked(words)
    if not any(_ID.fullmatch(word) or is_place(word) for word in checked):
        return checked
    names = {entry.name.folded for entry in find_manifests(store.root).entries if entry.name}
    for word in checked:
        is_absent = not is_glob(word) and means_name(word) and typed_name(word).folded not in names
        if is_absent and is_place(word) and (not may_be_elsewhere or word.endswith(BUNDLE_SUFFIXES)):
            what = f"{word}: a folder, and no model" if _is_folder(word) else f"no model {word!r}"
            raise NotFoundError(f"{what} in {store.root}", hint=_place_instead(word))
    return _without_ids(checked, names, lambda: _identities(store))


def typed_models_of(words: Sequence[str], source: Source) -> list[str]:
    """Return the words that mean models of a source, as `typed_models` does for a store."""
    if isinstance(source, LocalStore):
        return typed_models(words, source)
    checked = _checked(words)
    if not any(_ID.fullmatch(word) for word in checked):
        return checked
    models = source.select(()).models
    return _without_ids(
        checked,
        {model.name.folded for model in models},
        lambda: ((model.name, model.manifest_digest) for model in models),
    )


def models_of_ids(words: Sequence[str], store: LocalStore) -> dict[str, frozenset[ModelName]]:
    """
    Return the models that the IDs among the patterns of a list stand for, also several, as `list` shows them.

    What begins the name of a model is no ID.
    """
    chosen = [found for word in words if (found := _ID.fullmatch(word))]
    names = [entry.name for entry in find_manifests(store.root).entries if entry.name] if chosen else []
    ids = [found for found in chosen if not any(matches_listing(found[0], name) for name in names)]
    known = list(_identities(store)) if ids else []
    return {
        found[0]: frozenset(name for name, digest in known if digest.hex.startswith(found[1].lower())) for found in ids
    }


def means_model(word: str, store: LocalStore) -> bool:
    """Whether a store has a model of this name."""
    if not means_name(word):
        return False
    folded = ModelName.parse(word).folded
    return any(entry.name and entry.name.folded == folded for entry in find_manifests(store.root).entries)


def refuse_folder(pattern: str) -> None:
    """Raises UsageError if a pattern that matches no model is the path of a folder."""
    if _is_folder(pattern):
        raise UsageError(f"{pattern}: a folder; expected the name of a model", hint=_place_instead(pattern))


def refuse_address(word: str, *, is_written: bool = False) -> None:
    """Raises UsageError for no word, and for `file:` and `http:`: a place is a path, to be read or to be written."""
    refuse_empty_word(word)
    found = _ADDRESS.match(word)
    if found is None or os.path.lexists(word):
        return
    scheme = found[1].lower()
    if scheme == "file":
        path = unquote(re.sub(r"^file:(//(localhost)?(?=/))?", "", word, flags=re.IGNORECASE))
        raise UsageError("file: an address; expected a path", hint=f"type the path: {quoted_word(path, sys.platform)}")
    # A password may stand in it, so only a plain address is repeated.
    is_plain = scheme in {"http", "https"} and "@" not in word and "?" not in word
    name = word.rpartition("/")[2]
    if is_written:
        what, hint = "a file or folder of this machine", _PUSH
    elif is_plain and name.endswith(BUNDLE_SUFFIXES):
        what, hint = "a file", command("curl", "-fLO", word, after=f"downloads it; then name the file {name}")
    else:
        fetch = person("download a file first, and name that")
        what, hint = "a file or folder of this machine", _PULL.otherwise(fetch)
    raise UsageError(f"{scheme}: an address; expected {what}", hint=hint)


def refuse_login(word: str) -> None:
    """Raises UsageError for a name with a user and a password before its host. They are not repeated."""
    name = _PIN.sub("", word)
    before, at, path = name.rpartition("@")
    host, slash, _ = path.partition("/")
    if at and slash and "://" not in before:
        place = host if _HOST.fullmatch(host) else "HOST"
        hint = command("docker", "login", place, after="keeps them; then type the name alone")
        raise UsageError("a name begins with its host, without a user and a password", hint=hint)


def refuse_short_address(word: str) -> None:
    """Raises UsageError for a host and a model. Of two parts, the first is a namespace, which has no port or dot."""
    host, _, model = word.partition("/")
    full = f"{host}/{DEFAULT_NAMESPACE}/{model}"
    is_host = ":" in host or "." in host or host.lower() == "localhost"
    if is_host and "/" not in model and means_name(full):
        raise UsageError(f"{word}: a registry and a model, without a namespace between", hint=f"type all, as in {full}")


def layout_path(word: object) -> Path | None:
    """Return the folder of the OCI image layout that a word means, or None. Raises UsageError for `oci:` alone."""
    text = str(word)
    if not text.startswith(OCI):
        return None
    refuse_empty_word(text.removeprefix(OCI), "a folder after oci:")
    return Path(text.removeprefix(OCI))


def refuse_empty_word(word: str, what: str = "a file or folder") -> None:
    """Raises UsageError for an empty word, as an unset variable of a shell leaves it."""
    if not word:
        raise UsageError(f"expected {what}, got an empty word")


def _checked(words: Sequence[str]) -> list[str]:
    checked = words_of(words)
    for word in checked:
        refuse_login(word)
        if not is_glob(word) and not _ID.fullmatch(word):
            typed_name(word)
    return checked


def _no_name(word: str, error: InvalidNameError) -> UsageError:
    if not word:
        return UsageError("name: expected the name of a model, got nothing")
    refuse_login(word)
    if "://" in word or "@" in word or word.lower().startswith("file:"):
        # The text is not repeated: it may hold a password.
        return UsageError(
            str(error), hint="a name is MODEL:TAG, or HOST/NAMESPACE/MODEL:TAG; no address goes before it"
        )
    if is_place(word):
        kind = "a folder" if _is_folder(word) else "a file"
        return UsageError(f"{word}: {kind}; expected the name of a model", hint=_place_instead(word))
    refuse_short_address(word)
    bare = word.rstrip("/")
    hint = (
        f"did you mean {bare}?"
        if bare != word and means_name(bare)
        else "a name is like llama3, llama3:8b or me/llama3:8b"
    )
    return UsageError(str(error), hint=hint)


def _place_instead(word: str) -> Remedy | str:
    quoted = quoted_word(word, sys.platform)
    if _is_folder(word):
        return f"did you mean models={quoted}?"
    if os.path.lexists(word) and not word.endswith(BUNDLE_SUFFIXES):
        return ostore("list", before="it is a file", after="shows the names of models")
    if not os.path.lexists(word):
        absent = "a bundle would have that name, but there is no such file"
        return ostore("list", before=absent, after="shows the names of models")
    return ostore("inspect", word, before="it is a bundle", after="shows the models in it")


def is_place(word: str) -> bool:
    """Whether a word looks like a file, or is the path of something."""
    # A NUL cannot be in a path.
    return word.endswith(BUNDLE_SUFFIXES) or ("\0" not in word and os.path.lexists(word))


def _is_folder(word: str) -> bool:
    return "\0" not in word and os.path.isdir(word)  # noqa: PTH112 - a word, too long for a path perhaps


def means_name(word: str) -> bool:
    """Whether a word can be the name of a model."""
    try:
        ModelName.parse(word)
    except InvalidNameError:
        return False
    return True


def _identities(store: LocalStore) -> Iterator[tuple[ModelName, Digest]]:
    return ((model.name, model.manifest.digest) for model in store.passing_scan().models)


def _without_ids(
    words: Iterable[str], names: set[str], identities: Callable[[], Iterable[tuple[ModelName, Digest]]]
) -> list[str]:
    """Return the words with each ID replaced by the name of its model. A name that looks like an ID is a name."""
    chosen = list(words)
    for number, word in enumerate(chosen):
        found = _ID.fullmatch(word)
        if found is None or (means_name(word) and ModelName.parse(word).folded in names):
            continue
        models = sorted(name.full for name, digest in identities() if digest.hex.startswith(found[1].lower()))
        if len(models) > 1:
            short = ", ".join(str(ModelName.parse(name)) for name in models)
            raise UsageError(f"{word}: the ID of {len(models)} models: {short}", hint="name one of them")
        if models:
            chosen[number] = models[0]
        elif not means_name(word):
            raise UsageError(f"{word}: no model has this ID", hint=ostore("list", after="shows the IDs"))
    return chosen
