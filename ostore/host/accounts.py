"""The users of this machine: their groups, their home folders and their rights."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RightsProblem = Literal["read", "write", "own", "everybody-writes", "privileged"]
# login.defs(5): people have user numbers from here on, services have lower ones.
_FIRST_PERSON = 1000


@dataclass(frozen=True, slots=True)
class Account:
    """A user as the kernel sees it. `name` is for messages."""

    uid: int
    groups: frozenset[int]
    name: str

    def may(self, uid: int, gid: int, mode: int, wanted: int) -> bool:
        """Whether the owner, group and mode of an entry grant all `wanted` rights (read 4, write 2, enter 1)."""
        if self.uid == 0:
            return True
        shift = 6 if self.uid == uid else 3 if gid in self.groups else 0
        return (mode >> shift) & wanted == wanted


@dataclass(frozen=True, slots=True)
class Misfit:
    """
    An entry of a store that has a wrong owner or mode. `path` is relative to the store, with '/'; '' is the store.

    `lack` says what the server's user cannot do with it, or what others can do. `links` is the number of its names.
    """

    path: str
    lack: RightsProblem
    is_folder: bool
    uid: int
    gid: int
    mode: int
    links: int


def owner_of(path: Path) -> str | None:
    """Return the name of the owner, the number of one without a name, or None on Windows. Raises OSError."""
    try:
        return path.owner()
    except KeyError:
        return str(path.stat().st_uid)
    # Python raises this on Windows, where files have no such owner.
    except NotImplementedError:
        return None


def account_of(user: str, groups: Sequence[str] = ()) -> Account | None:
    """Return a user by name or number, with its groups and these further ones, or None if it does not exist."""
    try:
        import grp
        import pwd

        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (ImportError, KeyError):
        return None
    further = []
    for group in groups:
        with contextlib.suppress(KeyError):
            further.append(int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid)
    return Account(entry.pw_uid, frozenset((*os.getgrouplist(entry.pw_name, entry.pw_gid), *further)), entry.pw_name)


def login_homes() -> Iterator[tuple[Path, str]]:
    """Yield the home folder and name of root and of every person. `ollama serve` by hand keeps a store there."""
    try:
        import pwd
    except ImportError:
        return
    for entry in pwd.getpwall():
        if entry.pw_uid == 0 or entry.pw_uid >= _FIRST_PERSON:
            yield Path(entry.pw_dir), entry.pw_name


def home_of(user: str) -> Path | None:
    """Return the home folder of a user by name, or None."""
    try:
        import pwd

        return Path(pwd.getpwnam(user).pw_dir)
    except (ImportError, KeyError):
        return None
