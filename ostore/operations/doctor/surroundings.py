"""Check the path and disk of a store, the machine, and the Ollama that is to use the store."""

from __future__ import annotations

from collections.abc import Iterator

from ostore.formats.store_layout import PATH_GLOBS
from ostore.host.machine import Host
from ostore.operations.doctor.finding import Facts, Finding, Severity, command, finding
from ostore.streams.disk import DiskState

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
        yield finding("path-has-glob", "problem", root, remedy="rename the folder, and set OLLAMA_MODELS to match")
    if facts.disk.is_read_only:
        yield finding("read-only", "note", root)
        for folder in facts.store.empty_folders:
            remedy = "remove it on a host that may write, or set OLLAMA_NOPRUNE=1 for the server"
            yield finding("folder-empty", "warning", folder, remedy=remedy)
    else:
        yield from _lack_of_room(facts.disk, root)
    yield from _kind_of_disk(facts)


def _lack_of_room(disk: DiskState, store: str) -> Iterator[Finding]:
    if disk.size and disk.free < min(disk.size // 20, _ENOUGH_BYTES):
        detail = f"{disk.free:,} of {disk.size:,} bytes are free"
        yield finding(
            "low-space", "warning", store, detail=detail, remedy="ostore gc, ostore du, ostore move", size=disk.free
        )
    if disk.inodes and disk.inodes_free < min(disk.inodes // 20, _ENOUGH_INODES):
        detail = f"{disk.inodes_free:,} of {disk.inodes:,} inodes are free"
        yield finding("low-inodes", "warning", store, detail=detail, remedy="remove other files, or ostore move")


def check_host(facts: Facts) -> Iterator[Finding]:
    """Report servers and models outside this store, and an offline Ollama that still tries to reach its cloud."""
    for doubt in facts.host.setting_doubts:
        yield finding("setting-doubtful", "warning", "OLLAMA_MODELS", detail=doubt, remedy="set it to a whole path")
    yield from _elsewhere(facts.host)
    yield from _cloud(facts.host)


def _elsewhere(host: Host) -> Iterator[Finding]:
    for server in host.servers:
        if server.store is not None and not host.is_named_by_flag:
            detail = f"uses {server.store}"
            remedy = f"{command('ostore', 'doctor', '--models', server.store)}, or set OLLAMA_MODELS for the server"
            yield finding("server-elsewhere", "warning", f"process {server.pid}", detail=detail, remedy=remedy)
    severity: Severity = "note" if host.is_named_by_flag else "warning"
    for other in host.others:
        detail = f"{other.models:,} model{'s' if other.models > 1 else ''}; {other.why}"
        remedy = f"{command('ostore', 'import', other.path)} copies them here, --models {command(other.path)} uses them"
        yield finding("other-store", severity, str(other.path), detail=detail, remedy=remedy)


def _cloud(host: Host) -> Iterator[Finding]:
    if host.is_offline and host.has_ollama and host.is_cloud_off is False:
        setting = 'sudo systemctl edit ollama, and add [Service] Environment="OLLAMA_NO_CLOUD=1"'
        remedy = setting if host.has_service else "set OLLAMA_NO_CLOUD=1 for the server"
        yield finding("cloud-not-disabled", "warning", "OLLAMA_NO_CLOUD", remedy=remedy)


def check_times(facts: Facts) -> Iterator[Finding]:
    """Report blobs and manifests whose mtime is more than a day in the future."""
    census = facts.store.census
    latest = facts.now + _DAY_SECONDS
    found = sorted(f"blobs/{blob.filename}" for blob in (census.blobs if census else ()) if blob.facts.mtime > latest)
    found += [str(model.name) for model in facts.store.scan.models if model.modified > latest]
    remedy = "compare `date` with a clock you trust; then touch them"
    for subject in found:
        yield finding("times-ahead", "warning", subject, remedy=remedy)


def _kind_of_disk(facts: Facts) -> Iterator[Finding]:
    kind, root = facts.disk.filesystem, str(facts.root)
    if kind in _VOLATILE:
        remedy = "ostore move to a disk that stays, or mount a volume there"
        yield finding("disk-volatile", "warning", root, detail=f"{kind}: {_VOLATILE[kind]}", remedy=remedy)
    elif kind in _LIMITED:
        yield finding("disk-limited", "note", root, detail=_LIMITED[kind])
    elif kind in _NETWORK:
        yield finding("disk-network", "note", root, detail=kind)
