"""Check owners and modes. Ollama runs as a user of its own, and a copy made by root does not belong to that user."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from ostore.formats.store_layout import COMING_MANIFESTS, MANIFESTS, STAGED_MANIFESTS
from ostore.host.accounts import Account, Misfit
from ostore.operations.doctor.finding import Facts, Finding, Severity, command, finding
from ostore.places.store.survey.census import EntryKind

# On these file systems the mount decides owners and modes, so nobody can change them.
NO_OWNERS = frozenset({"exfat", "vfat", "msdos", "ntfs", "fuseblk"})
_MODELS = frozenset({"blobs", MANIFESTS, COMING_MANIFESTS})
_CODES = {
    "read": "server-cannot-read",
    "write": "server-cannot-write",
    "own": "blob-owner",
    "everybody-writes": "open-to-all",
    "privileged": "odd-mode",
}


def check_access(facts: Facts) -> Iterator[Finding]:
    """Report what keeps Ollama's user from using the store, what every user may write to, and odd modes."""
    account = facts.store.account
    if account is None:
        return
    for parent in facts.store.closed_parents:
        yield finding("parent-closed", "problem", str(parent), remedy=f"sudo {command('chmod', 'o+x', parent)}")
    for misfit in facts.store.misfits:
        # If the mount decides the modes, they do not show who else may write there.
        is_of_mount = facts.disk.filesystem in NO_OWNERS and misfit.lack in {"everybody-writes", "privileged"}
        if not is_of_mount and not _is_shared_on_purpose(misfit, facts):
            yield _of_misfit(misfit, facts, account)


def check_ours(facts: Facts) -> Iterator[Finding]:
    """Report what we may not look at ourselves, and whether our workspace is unsafe."""
    for closed in facts.store.closed:
        remedy = facts.privileged("doctor")
        # The workspace has no models. But doctor must not call models whole if it could not look at them.
        first, *below = closed.path.split("/")
        severity: Severity = "problem" if first in _MODELS and STAGED_MANIFESTS not in below else "warning"
        yield finding("not-checked", severity, closed.path, detail=closed.reason, remedy=remedy)
    blobs, census = facts.store.blobs_folder, facts.store.census
    workspace = census.workspace if census else None
    if workspace is None or workspace.facts is None or blobs is None:
        return
    path, found = command(workspace.path), workspace.facts
    if found.kind is not EntryKind.FOLDER:
        remedy = f"mv {path} /elsewhere"
        yield finding("workspace-unsafe", "warning", ".ostore", detail="not a folder", remedy=remedy)
    elif found.mode & stat.S_IWOTH and not blobs.st_mode & stat.S_IWOTH:
        remedy = f"sudo chmod o-w {path}"
        yield finding("workspace-unsafe", "warning", ".ostore", detail="everybody may write there", remedy=remedy)
    elif found.uid not in {0, blobs.st_uid} and found.gid != blobs.st_gid:
        detail = f"belongs to user {found.uid}"
        remedy = f"sudo chown -R {blobs.st_uid}:{blobs.st_gid} {path}"
        yield finding("workspace-unsafe", "warning", ".ostore", detail=detail, remedy=remedy)


def _of_misfit(misfit: Misfit, facts: Facts, account: Account) -> Finding:
    can_fix = is_fixable(misfit, facts, account)
    path = facts.root / misfit.path if misfit.path else facts.root
    owner = f"owner {misfit.uid}:{misfit.gid}, mode {stat.S_IMODE(misfit.mode):o}"
    detail = owner if misfit.lack in {"everybody-writes", "privileged"} else f"{owner}; Ollama runs as {account.name}"
    return finding(
        _CODES[misfit.lack],
        "problem" if misfit.lack == "read" else "warning",
        misfit.path or str(facts.root),
        detail=detail,
        remedy=facts.privileged("doctor", "--fix") if can_fix else _remedy(misfit, facts, account, command(path)),
        is_fixable=can_fix,
    )


def is_fixable(misfit: Misfit, facts: Facts, account: Account) -> bool:
    """
    Return whether it is enough to give the entry the owner and mode of the folder `blobs/`.

    This is not so for a file with a second name: a user may have linked it here to make root change its owner.
    """
    blobs = facts.store.blobs_folder
    if blobs is None or not misfit.path or facts.disk.filesystem in NO_OWNERS or facts.disk.is_read_only:
        return False
    if not misfit.is_folder and misfit.links > 1:
        return False
    if misfit.lack in {"everybody-writes", "privileged"}:
        return not misfit.is_folder
    is_top = misfit.path in {"blobs", "manifests"}
    # Otherwise `blobs/` itself has the wrong owner or mode.
    return not is_top and account.may(blobs.st_uid, blobs.st_gid, blobs.st_mode, 7) and account.uid == blobs.st_uid


def _remedy(misfit: Misfit, facts: Facts, account: Account, path: str) -> str:
    if facts.disk.filesystem in NO_OWNERS:
        return f"mount the disk with uid={account.uid}"
    if misfit.lack == "everybody-writes":
        return f"sudo chmod o-w {path}"
    if misfit.lack == "privileged":
        return f"sudo chmod 644 {path}"
    if not misfit.is_folder and misfit.links > 1:
        return f"look for its other name first, then sudo chown {account.uid} {path}"
    return f"sudo chown -R {account.uid} {command(facts.root)}"


def _is_shared_on_purpose(misfit: Misfit, facts: Facts) -> bool:
    """Return whether a group shares the store and no server is known. Then nothing says whose the files should be."""
    blobs = facts.store.blobs_folder
    is_shared = blobs is not None and bool(blobs.st_mode & stat.S_IWGRP)
    return is_shared and not facts.host.is_server_known and misfit.lack in {"own", "write"}
