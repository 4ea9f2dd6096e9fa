"""Model names as Ollama reads, stores and shows them (types/model/name.go at fb30760)."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, NoReturn, Self

from ostore.formats.errors import InvalidNameError

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

# types/model/name.go at fb30760: first character, then at most 349 (host) or 79 (the others) more; ASCII only.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_TAG = _MODEL
_FULL = re.compile("/".join(part.pattern for part in (_HOST, _NAMESPACE, _MODEL, _TAG)))

# No part of a name may have these, so they mark a pattern.
_GLOB_CHARACTERS = frozenset("*?")

# Names that Windows gives to devices, whatever extension follows (Microsoft, "Naming Files, Paths, and Namespaces").
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
# No disk that we know holds longer components; a host may have 350 characters by Ollama's grammar.
_MAX_COMPONENT_BYTES = 255


class _Parts(NamedTuple):
    host: str
    namespace: str
    model: str
    tag: str


class ModelName(_Parts):
    """
    One name, all four parts present and valid, spelled as written.

    Ollama compares names without regard to case (`folded`) and stores them as given (`parts`). A tuple, because a
    store has many and they are looked up all the time. Making one raises InvalidNameError.
    """

    __slots__ = ()

    def __new__(cls, host: str, namespace: str, model: str, tag: str) -> Self:
        # All at once first: nearly every name is valid, and no part can hold the separator.
        if not _FULL.fullmatch(f"{host}/{namespace}/{model}/{tag}") or len(host) > _MAX_COMPONENT_BYTES:
            _refuse(host, namespace, model, tag)
        return super().__new__(cls, host, namespace, model, tag)

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """
        Read what a person types; absent parts get Ollama's defaults.

        Raises InvalidNameError for text outside the grammar, for a scheme or a password (neither is part of a stored
        name), and for an IPv6 host, which the grammar cannot express.
        """
        if "://" in text or "@" in text:
            # Not echoed: what stands before an '@' may be a password.
            raise InvalidNameError("name: a scheme, a user or a digest is not part of a model name")
        if text.startswith("["):
            raise InvalidNameError(f"name: Ollama's names cannot hold an IPv6 host, got {text!r:.90}")
        path, _, tag = text.rpartition(":") if text.rfind(":") > text.rfind("/") else (text, "", DEFAULT_TAG)
        path, slash, model = path.rpartition("/")
        if not slash:
            return cls(DEFAULT_HOST, DEFAULT_NAMESPACE, model, tag)
        host, slash, namespace = path.rpartition("/")
        return cls(host if slash else DEFAULT_HOST, namespace, model, tag)

    @classmethod
    def parse_full(cls, text: object) -> ModelName:
        """Read `host/namespace/model:tag` with every part spelled out, as a bundle's index holds it."""
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
        """`host/namespace/model:tag`, nothing left out."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def folded(self) -> str:
        """Equal for two names that Ollama takes for the same."""
        return self.full.lower()

    @property
    def is_selector(self) -> bool:
        """True if Ollama takes the tag for a source selector (internal/modelref at fb30760), not for a tag."""
        return self.tag.lower() in {"cloud", "local"} or self.tag.lower().endswith("-cloud")

    def windows_problem(self) -> str | None:
        """Why Windows, exFAT or FAT could not hold the name, or None."""
        for part in self.parts:
            if ":" in part:
                return f"{part!r} has a colon, which Windows, exFAT and FAT cannot hold"
            if part.endswith("."):
                return f"{part!r} ends with a dot, which Windows, exFAT and FAT drop"
            if _WINDOWS_DEVICE.fullmatch(part):
                return f"{part!r} is a device name on Windows"
        return None

    def __str__(self) -> str:
        """The short form of `ollama list`: default host and then default namespace left out, the tag always there."""
        if self.host.lower() != DEFAULT_HOST:
            return self.full
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"


def _refuse(*parts: str) -> NoReturn:
    """Say which part is not valid; one is, because all together are not."""
    roles = ("host", "namespace", "model", "tag")
    part, role = next(
        (part, role)
        for pattern, part, role in zip((_HOST, _NAMESPACE, _MODEL, _TAG), parts, roles, strict=True)
        if pattern.fullmatch(part) is None or len(part) > _MAX_COMPONENT_BYTES
    )
    raise InvalidNameError(f"name: invalid {role} {part!r:.90}")


def choose(names: Iterable[ModelName], patterns: Sequence[str]) -> tuple[list[ModelName], list[str]]:
    """
    The names that people's words stand for, in the order of `names`, and the words that stand for nothing.

    A word with `*` or `?` is a glob over the short and the full form; any other is a name. Case does not matter,
    as it does not to Ollama. Raises InvalidNameError.
    """
    matchers = [(pattern, _matcher(pattern)) for pattern in patterns]
    chosen, used = [], set()
    for name in names:
        hits = {pattern for pattern, matches in matchers if matches(name)}
        if hits:
            chosen.append(name)
            used |= hits
    return chosen, [pattern for pattern in patterns if pattern not in used]


def is_glob(pattern: str) -> bool:
    return not _GLOB_CHARACTERS.isdisjoint(pattern)


def matches_listing(pattern: str, name: ModelName) -> bool:
    """Whether `ollama list PATTERN` would show it: a prefix of the short form; or a glob, which Ollama has not."""
    if is_glob(pattern):
        return _matcher(pattern)(name)
    return str(name).lower().startswith(pattern.lower())


def _matcher(pattern: str) -> Callable[[ModelName], bool]:
    if is_glob(pattern):
        matches = re.compile(fnmatch.translate(pattern), re.IGNORECASE).match
        return lambda name: matches(str(name)) is not None or matches(name.full) is not None
    folded = ModelName.parse(pattern).folded
    return lambda name: name.folded == folded
