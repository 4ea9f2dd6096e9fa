"""The users of this machine: who they are, where they are at home, and what they may do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RightsProblem = Literal["read", "write", "own", "everybody-writes", "privileged"]
# login.defs(5): where the numbers of people begin; those below are of services.
_FIRST_PERSON = 1000


@dataclass(frozen=True, slots=True)
class Account:
    """A user as the kernel sees one; `name` is for people."""

    uid: int
    groups: frozenset[int]
    name: str

    def may(self, uid: int, gid: int, mode: int, wanted: int) -> bool:
        """Whether the bits of an entry allow all that is wanted (read 4, write 2, enter 1)."""
        if self.uid == 0:
            return True
        shift = 6 if self.uid == uid else 3 if gid in self.groups else 0
        return (mode >> shift) & wanted == wanted


@dataclass(frozen=True, slots=True)
class Misfit:
    """
    Something in a store whose owner or mode is in the way. `path` is relative to the store, with '/'; '' is the store
    itself.

    `lack` is what the server's user cannot do with it, or what others could. `links` is how many names a file has.
    """

    path: str
    lack: RightsProblem
    is_folder: bool
    uid: int
    gid: int
    mode: int
    links: int


def owner_of(path: Path) -> str:
    """A user name, or the number of a user without one."""
    try:
        return path.owner()
    # The second is what Python says where files have no such owner, on Windows.
    except (KeyError, NotImplementedError):
        return str(path.stat().st_uid)


def account_of(user: str, groups: Sequence[str] = ()) -> Account | None:
    """A user by name or number, in the groups that it has and in further ones; None if there is no such user."""
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
    """The home folders of people, and of root: who starts `ollama serve` by hand has a store there."""
    try:
        import pwd
    except ImportError:
        return
    for entry in pwd.getpwall():
        if entry.pw_uid == 0 or entry.pw_uid >= _FIRST_PERSON:
            yield Path(entry.pw_dir), entry.pw_name


def home_of(user: str) -> Path | None:
    try:
        import pwd

        return Path(pwd.getpwnam(user).pw_dir)
    except (ImportError, KeyError):
        return None
