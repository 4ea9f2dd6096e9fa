"""Model names, as Ollama reads, stores and shows them (types/model/name.go at fb30760)."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, NoReturn, Self

from ostore.formats.errors import InvalidNameError, UsageError

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

# types/model/name.go at fb30760: one character, then at most 349 more (host) or 79 more (other parts), all ASCII.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_TAG = _MODEL
_FULL = re.compile("/".join(part.pattern for part in (_HOST, _NAMESPACE, _MODEL, _TAG)))

# No part of a name can contain these, so they mark a pattern.
_GLOB_CHARACTERS = frozenset("*?")

# Device names on Windows, with any extension (Microsoft, "Naming Files, Paths, and Namespaces").
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_NOT_IN_WINDOWS = frozenset('<>"/\\|?*')
# No known file system holds longer components, but Ollama's grammar allows a host of 350 characters.
_MAX_COMPONENT_BYTES = 255


class _Parts(NamedTuple):
    host: str
    namespace: str
    model: str
    tag: str


class ModelName(_Parts):
    """
    A model name with all four parts, spelled as written. Raises InvalidNameError unless every part is valid.

    Ollama ignores case when it compares names (`folded`) and stores them as given (`parts`). It is a tuple because a
    store has many names and commands look them up often.
    """

    __slots__ = ()

    def __new__(cls, host: str, namespace: str, model: str, tag: str) -> Self:
        # Check all parts at once first: nearly every name is valid, and no part can contain the separator.
        if not _FULL.fullmatch(f"{host}/{namespace}/{model}/{tag}") or len(host) > _MAX_COMPONENT_BYTES:
            _refuse(host, namespace, model, tag)
        return super().__new__(cls, host, namespace, model, tag)

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """
        Read a name as a person types it. Absent parts get Ollama's defaults.

        Raises InvalidNameError for text outside the grammar. This includes a scheme and a password, which are not part
        of a stored name, and an IPv6 host, which the grammar cannot express.
        """
        _refuse_address(text)
        path, _, tag = text.rpartition(":") if text.rfind(":") > text.rfind("/") else (text, "", DEFAULT_TAG)
        path, slash, model = path.rpartition("/")
        if not slash:
            return cls(DEFAULT_HOST, DEFAULT_NAMESPACE, model, tag)
        host, slash, namespace = path.rpartition("/")
        return cls(host if slash else DEFAULT_HOST, namespace, model, tag)

    @classmethod
    def parse_full(cls, text: object) -> ModelName:
        """Read `host/namespace/model:tag` with all four parts, as in a bundle's index. Raises InvalidNameError."""
        if not isinstance(text, str):
            raise InvalidNameError(f"name: expected text, got {text!r:.90}")
        name = cls.parse(text)
        if name.full != text:
            raise InvalidNameError(f"name: expected host/namespace/model:tag in full, got {text!r:.90}")
        return name

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """The four path components below `manifests/`."""
        return (self.host, self.namespace, self.model, self.tag)

    @property
    def full(self) -> str:
        """`host/namespace/model:tag`, with all four parts."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def folded(self) -> str:
        """The full name in lower case. Ollama treats two names as the same if these are equal."""
        return self.full.lower()

    @property
    def is_selector(self) -> bool:
        """True if Ollama reads the tag as a source selector (internal/modelref at fb30760)."""
        return self.tag.lower() in {"cloud", "local"} or self.tag.lower().endswith("-cloud")

    def windows_problem(self) -> str | None:
        """Return why Windows, exFAT or FAT cannot hold the name, or None."""
        return next(filter(None, map(windows_problem, self.parts)), None)

    def __str__(self) -> str:
        """Return the short form of `ollama list`: without a default host and namespace, always with the tag."""
        if self.host.lower() != DEFAULT_HOST:
            return self.full
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"


def windows_problem(component: str) -> str | None:
    """Return why Windows, exFAT or FAT cannot hold a file or folder of this name, or None."""
    if ":" in component:
        return f"{component!r} has a colon, which Windows, exFAT and FAT cannot hold"
    if component.endswith((".", " ")):
        return f"{component!r} ends with a dot or a blank, which Windows, exFAT and FAT drop"
    if _WINDOWS_DEVICE.fullmatch(component):
        return f"{component!r} is a device name on Windows"
    if not _NOT_IN_WINDOWS.isdisjoint(component):
        return f"{component!r} has a character that Windows, exFAT and FAT cannot hold"
    return None


def _refuse_address(text: str) -> None:
    if "://" in text or "@" in text:
        # The message does not repeat the text: a password may stand before the '@'.
        raise InvalidNameError("name: a scheme, a user or a digest is not part of a model name")
    if text.startswith("["):
        raise InvalidNameError(f"name: Ollama's names cannot hold an IPv6 host, got {text!r:.90}")


def _refuse(*parts: str) -> NoReturn:
    """Raises InvalidNameError for the first invalid part. One is invalid, because all together did not match."""
    roles = ("host", "namespace", "model", "tag")
    part, role = next(
        (part, role)
        for pattern, part, role in zip((_HOST, _NAMESPACE, _MODEL, _TAG), parts, roles, strict=True)
        if pattern.fullmatch(part) is None or len(part) > _MAX_COMPONENT_BYTES
    )
    raise InvalidNameError(f"name: invalid {role} {part!r:.90}")


def choose(names: Iterable[ModelName], patterns: Sequence[str]) -> tuple[list[ModelName], list[str]]:
    """
    Return the names that match a pattern, in the order of `names`, and the patterns that match no name.

    A pattern with `*` or `?` is a glob over the short and the full form. Any other pattern is a name. Case does not
    matter, as in Ollama, but of names that differ only by case the name with the same spelling is meant. Raises
    UsageError if no name has it, because Ollama would choose at random, and InvalidNameError for a pattern that is
    neither glob nor name.
    """
    known = list(names)
    # A lock may name thousands of models.
    spellings: dict[str, set[ModelName]] = {}
    for name in known:
        spellings.setdefault(name.folded, set()).add(name)
    hits: set[ModelName] = set()
    unmatched = []
    for pattern in patterns:
        if is_glob(pattern):
            found = set(filter(_glob_matcher(pattern), known))
        else:
            found = spellings.get(ModelName.parse(pattern).folded, set())
        hits |= found if is_glob(pattern) or len(found) <= 1 else _same_spelling(pattern, found)
        unmatched += [] if found else [pattern]
    return [name for name in known if name in hits], unmatched


def _same_spelling(pattern: str, names: set[ModelName]) -> set[ModelName]:
    name = ModelName.parse(pattern)
    if name not in names:
        told = ", ".join(sorted(str(name) for name in names))
        raise UsageError(f"{pattern!r}: {told} differ only by case; spell it as list does")
    return {name}


def meant_by(parts: Sequence[str]) -> ModelName | None:
    """
    Return the name that the path of a misplaced manifest spells, below `manifests/`, or None.

    What may be missing is what names leave out: the host, or host and namespace, or only the namespace.
    """
    if len(parts) == len((DEFAULT_HOST, DEFAULT_NAMESPACE)):
        whole = (DEFAULT_HOST, DEFAULT_NAMESPACE, *parts)
    elif len(parts) == len(_Parts._fields) - 1:
        # A namespace has no dots.
        missing = "." in parts[0]
        whole = (parts[0], DEFAULT_NAMESPACE, *parts[1:]) if missing else (DEFAULT_HOST, *parts)
    else:
        return None
    try:
        return ModelName(*whole)
    except InvalidNameError:
        return None


def is_all(patterns: Sequence[str]) -> bool:
    """Return whether these patterns mean every model: there are none, or one is `*`."""
    return not patterns or "*" in patterns


def alike(word: str, names: Iterable[ModelName]) -> list[str]:
    """Return up to three names that a word may have meant, short, the most likely first."""
    known = {str(name): name for name in names}
    path, _, _ = word.lower().partition(":")
    same = sorted(short for short, name in known.items() if name.model.lower() == path.rpartition("/")[2])
    spellings = {name.model.lower(): short for short, name in sorted(known.items(), reverse=True)}
    spellings |= {short.lower().removesuffix(f":{DEFAULT_TAG}"): short for short in sorted(known)}
    close = alike_words(word.lower(), spellings) or alike_words(path, spellings)
    return list(dict.fromkeys([*same, *(spellings[one] for one in close)]))[:3]


def alike_words(word: str, words: Iterable[str]) -> list[str]:
    """Return up to three words that are spelled almost like one, the most likely first."""
    import difflib  # noqa: PLC0415 - only a mistake needs it

    # Nothing so long is a slip of the keyboard, and comparing takes a time that grows with the square.
    return difflib.get_close_matches(word, list(words), n=3) if len(word) < _MAX_COMPONENT_BYTES else []


def is_glob(pattern: str) -> bool:
    return not _GLOB_CHARACTERS.isdisjoint(pattern)


def matches_listing(pattern: str, name: ModelName) -> bool:
    """Whether a name starts with a pattern, as in `ollama list PATTERN`, or a glob (not in Ollama) matches."""
    if is_glob(pattern):
        return _glob_matcher(pattern)(name)
    return str(name).lower().startswith(pattern.lower())


def _glob_matcher(pattern: str) -> Callable[[ModelName], bool]:
    matches = re.compile(fnmatch.translate(pattern), re.IGNORECASE).match
    return lambda name: matches(str(name)) is not None or matches(name.full) is not None
