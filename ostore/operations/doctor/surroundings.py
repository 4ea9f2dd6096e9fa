"""Check the path and disk of a store, the machine, and the Ollama that is to use the store."""

from __future__ import annotations

from collections.abc import Iterator

from ostore.formats import remedy as ways
from ostore.formats.store_layout import PATH_GLOBS
from ostore.host.machine import Host
from ostore.operations.doctor.finding import Facts, Finding, Severity, finding

# Enough is a twentieth of a small disk; on a large disk it is what a large model needs.
_ENOUGH_BYTES = 20_000_000_000
_ENOUGH_INODES = 1_000
_VOLATILE = {"tmpfs": "in memory", "ramfs": "in memory", "overlay": "a container's own layer", "aufs": "in a container"}
_LIMITED = {
    "vfat": "FAT: no files of 4 GiB and more, no owners, no hard links",
    "msdos": "FAT: no files of 4 GiB and more, no owners, no hard links",
    "exfat": "exFAT: no owners, no hard links",
    "fuseblk": "NTFS or exFAT by FUSE: owners are those of the mount",
    "ntfs": "NTFS: owners are those of the mount",
}
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "fuse.rclone", "virtiofs"}
)
_DAY_SECONDS = 86_400.0


def check_disk(facts: Facts) -> Iterator[Finding]:
    """Report a bad path, a disk that is read-only or nearly full, and what its file system cannot do."""
    root = str(facts.root)
    if not PATH_GLOBS.isdisjoint(root):
        yield finding("path-has-glob", "problem", root, remedy=_renamed(facts))
    if facts.disk.is_read_only:
        yield finding("read-only", "note", root)
        for folder in facts.store.empty_folders:
            remedy = ways.person("remove it on a host that may write, or set OLLAMA_NOPRUNE=1 for the server")
            yield finding("folder-empty", "warning", folder, remedy=remedy)
    else:
        yield from _lack_of_room(facts, root)
    yield from _kind_of_disk(facts)


def _renamed(facts: Facts) -> ways.Remedy:
    """Return the way to rename the folders of the path that Ollama cannot use."""
    parts = facts.root.parts
    odd = next(number for number, part in enumerate(parts) if not PATH_GLOBS.isdisjoint(part))
    old = facts.root.parents[len(parts) - odd - 2] if odd < len(parts) - 1 else facts.root
    new = old.with_name("".join("-" if character in PATH_GLOBS else character for character in old.name))
    return ways.command("mv", "-n", old, new, before="stop Ollama", after="and set OLLAMA_MODELS to match")


def _lack_of_room(facts: Facts, store: str) -> Iterator[Finding]:
    disk, move = facts.disk, facts.ostore("move", "DEST")
    if disk.size and disk.free < min(disk.size // 20, _ENOUGH_BYTES):
        detail = f"{disk.free:,} of {disk.size:,} bytes are free"
        remedy = facts.ostore("gc").otherwise(move)
        yield finding("low-space", "warning", store, detail=detail, remedy=remedy, size=disk.free)
    if disk.inodes and disk.inodes_free < min(disk.inodes // 20, _ENOUGH_INODES):
        detail = f"{disk.inodes_free:,} of {disk.inodes:,} inodes are free"
        yield finding(
            "low-inodes", "warning", store, detail=detail, remedy=move.otherwise(ways.person("remove other files"))
        )


def check_host(facts: Facts) -> Iterator[Finding]:
    """Report servers and models outside this store, and an offline Ollama that still tries to reach its cloud."""
    for doubt in facts.host.setting_doubts:
        yield finding(
            "setting-doubtful", "warning", "OLLAMA_MODELS", detail=doubt, remedy=ways.person("set it to a whole path")
        )
    yield from _elsewhere(facts)
    yield from _cloud(facts.host)


def _elsewhere(facts: Facts) -> Iterator[Finding]:
    host = facts.host
    for server in host.servers:
        if server.store is not None and not host.is_named_by_flag:
            detail = f"uses {server.store}"
            doctor = ways.ostore("doctor", models=server.store)
            remedy = doctor.otherwise(ways.person("set OLLAMA_MODELS for the server"))
            yield finding("server-elsewhere", "warning", f"process {server.pid}", detail=detail, remedy=remedy)
    severity: Severity = "note" if host.is_named_by_flag else "warning"
    for other in host.others:
        detail = f"{other.models:,} model{'s' if other.models > 1 else ''}; {other.why}"
        remedy = facts.ostore("import", other.path, after="copies them here").otherwise(
            ways.ostore("list", models=other.path, after="shows them")
        )
        yield finding("other-store", severity, str(other.path), detail=detail, remedy=remedy)


def _cloud(host: Host) -> Iterator[Finding]:
    if host.is_offline and host.has_ollama and host.is_cloud_off is False:
        setting = 'sudo systemctl edit ollama, and add [Service] Environment="OLLAMA_NO_CLOUD=1"'
        remedy = ways.person(setting if host.has_service else "set OLLAMA_NO_CLOUD=1 for the server")
        yield finding("cloud-not-disabled", "warning", "OLLAMA_NO_CLOUD", remedy=remedy)


def check_times(facts: Facts) -> Iterator[Finding]:
    """Report blobs and manifests whose mtime is more than a day in the future."""
    census = facts.store.census
    latest = facts.now + _DAY_SECONDS
    blobs = sorted(f"blobs/{blob.filename}" for blob in (census.blobs if census else ()) if blob.facts.mtime > latest)
    found = [(path, path) for path in blobs]
    found += [(str(model.name), model.relative) for model in facts.store.scan.models if model.modified > latest]
    for subject, path in found:
        remedy = ways.command("touch", facts.root / path, before="compare `date` with a clock you trust; then")
        yield finding("times-ahead", "warning", subject, remedy=remedy)


def _kind_of_disk(facts: Facts) -> Iterator[Finding]:
    kind, root = facts.disk.filesystem, str(facts.root)
    if kind in _VOLATILE:
        remedy = facts.ostore("move", "DEST").otherwise(ways.person("mount a volume there"))
        yield finding("disk-volatile", "warning", root, detail=f"{kind}: {_VOLATILE[kind]}", remedy=remedy)
    elif kind in _LIMITED:
        yield finding("disk-limited", "note", root, detail=_LIMITED[kind])
    elif kind in _NETWORK:
        yield finding("disk-network", "note", root, detail=kind)
