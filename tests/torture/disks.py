"""A disk whose power can be cut: a file system in a file that stops on request and forgets what it has not written."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# linux/fs/xfs/libxfs/xfs_fs.h, and fs/ext4/ext4.h the same: _IOR('X', 125, __u32); 2 leaves the journal in memory too.
_GOING_DOWN, _NO_LOG_FLUSH = 0x8004587D, 2
# mke2fs and mkfs.xfs want at least so much; nearly all of it is a hole.
_SIZES = {"ext4": 32 * 1024 * 1024, "xfs": 320 * 1024 * 1024}
# ext4 as weak as it can be asked to be: nothing is written because some seconds went by or because a file was renamed.
# XFS mounts no second disk of the same identity, which a copy is while somebody's mount namespace holds the first.
_OPTIONS = {"ext4": "loop,commit=3000,noauto_da_alloc,data=writeback", "xfs": "loop,nouuid"}
KINDS = tuple(_SIZES)


@dataclass
class Disk:
    """A mounted file system; `folder` is empty to begin with."""

    kind: str
    image: Path
    mounted: Path

    @property
    def folder(self) -> Path:
        return self.mounted / "work"

    def mount(self) -> None:
        command = ["mount", "-t", self.kind, "-o", _OPTIONS[self.kind], str(self.image), str(self.mounted)]
        subprocess.run(command, check=True, capture_output=True)

    def fill(self, origin: Path) -> None:
        """Put a copy of a folder there, on the disk."""
        shutil.rmtree(self.folder, ignore_errors=True)
        # With times and hard links: what is there and why is no affair of this disk.
        subprocess.run(["cp", "-a", origin, self.folder], check=True)
        subprocess.run(["sync", "-f", self.mounted], check=True)

    def stop(self) -> None:
        """From now on it answers nothing but that it has failed."""
        import fcntl

        fd = os.open(self.mounted, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _GOING_DOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def cut(self) -> None:
        """
        Let the power fail, and come back: the journal is replayed.

        That is done on a copy of what is on the disk by then. Where somebody's mount namespace still holds the first
        mount, another of the same file would not be a new one.
        """
        self.stop()
        subprocess.run(["umount", self.mounted], check=True)
        copy = self.image.with_name("copy" if self.image.name == "image" else "image")
        subprocess.run(["cp", "--sparse=always", self.image, copy], check=True)
        self.image.unlink()
        self.image = copy
        self.mount()


@contextlib.contextmanager
def mounted_disk(kind: str, place: Path) -> Iterator[Disk]:
    """A new one, or a reason to skip."""
    if os.geteuid() != 0 or not (maker := shutil.which(f"mkfs.{kind}", path=f"{os.environ['PATH']}:/sbin:/usr/sbin")):
        pytest.skip(f"needs root and mkfs.{kind}")
    disk = Disk(kind, place / "image", place / "mounted")
    disk.mounted.mkdir()
    with disk.image.open("wb") as file:
        file.truncate(_SIZES[kind])
    subprocess.run([maker, "-q", disk.image], check=True)
    try:
        disk.mount()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no {kind} on a loop device: {error.stderr}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk.mounted], check=True)
        disk.image.unlink()
