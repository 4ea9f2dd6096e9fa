"""The address of a registry as people type it where a place is meant, not a model: `https://HOST[:PORT][/NAMESPACE]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ostore.formats.errors import InvalidNameError, UsageError
from ostore.formats.name import DEFAULT_NAMESPACE, ModelName

# With what people mistype: what follows may be a password, so it must not be taken for a path.
_BEGIN = re.compile(r"\s*https?:", re.IGNORECASE)
_ADDRESS = re.compile(r"(https?)://([^/:]+(?::([0-9]{1,5}))?)/?([^/]*)/?", re.IGNORECASE)
_PORTS = range(1, 65536)


@dataclass(frozen=True, slots=True)
class RegistryAddress:
    """
    A registry, or one namespace of it if `namespace` is not None.

    `scheme` is http or https, `host` may end in a port.
    """

    scheme: str
    host: str
    namespace: str | None = None

    @classmethod
    def parse(cls, word: str) -> RegistryAddress | None:
        """Return the address that a word is, or None for another kind of word. Raises UsageError for a wrong one."""
        if not _BEGIN.match(word):
            return None
        # It is not repeated: there may be a password in an address.
        hint = "https://registry.lan:5000 or https://registry.lan:5000/models, without a login in it"
        refusal = UsageError("expected the address of a registry", hint=hint)
        found = _ADDRESS.fullmatch(word)
        if found is None or (found[3] and int(found[3]) not in _PORTS):
            raise refusal
        try:
            name = ModelName(found[2].lower(), found[4] or DEFAULT_NAMESPACE, "m", "t")
        except InvalidNameError:
            raise refusal from None
        return cls(found[1].lower(), name.host, name.namespace if found[4] else None)

    def has(self, name: ModelName) -> bool:
        """Whether a model of this name would be at this address."""
        return name.host.lower() == self.host.lower() and self.namespace in {None, name.namespace}

    def name_of(self, name: ModelName) -> ModelName:
        """Return the name that a model has at this address."""
        return ModelName(self.host, self.namespace or name.namespace, name.model, name.tag)
