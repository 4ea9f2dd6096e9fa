"""
A stick that says it is larger than it is: what is written beyond its true size goes to its start again.

A file system of its own, because no loop device does this: it talks to /dev/fuse as linux/fuse.h (7.31) has it. Names
and sizes are kept apart, as such sticks keep theirs at the start, and the kernel may keep its cache of a file that is
opened again, as it does for a disk. Run it as `fake_stick.py MOUNTPOINT TRUE_BYTES`; it ends when it is unmounted.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = 64 * 1024
_CLAIMED = 1024 * 1024 * 1024
_MAX_WRITE = 128 * 1024
_KEEP_CACHE = 2
_SIZE = 8
_NO_REPLY = frozenset({2, 36, 42})


@dataclass
class Node:
    """A file or folder. `blocks` maps the blocks of a file to those of the stick."""

    is_folder: bool
    size: int = 0
    blocks: dict[int, int] = field(default_factory=dict)
    entries: dict[bytes, int] = field(default_factory=dict)


class Stick:
    """The state, and a method for each request that is answered."""

    def __init__(self, true_size: int) -> None:
        self.memory = bytearray(true_size)
        self.nodes = {1: Node(is_folder=True)}
        self.taken = 0
        self.answers: dict[int, Callable[[int, bytes], bytes]] = {
            1: self.lookup,
            3: lambda node, _: struct.pack("<Q2I", 0, 0, 0) + self.attributes(node),
            4: self.set_attributes,
            9: lambda node, data: self.entry(self.made(node, data[8:], is_folder=True)),
            10: self.remove,
            11: self.remove,
            12: lambda node, data: self.rename(node, data, 8),
            14: lambda _node, _data: struct.pack("<Q2I", 0, _KEEP_CACHE, 0),
            15: self.read,
            16: self.write,
            17: lambda _node, _data: struct.pack(
                "<5Q10I", *[_CLAIMED // _BLOCK] * 3, 99, 99, _BLOCK, 255, _BLOCK, *[0] * 7
            ),
            26: self.begin,
            27: lambda _node, _data: struct.pack("<Q2I", 0, 0, 0),
            28: self.names,
            35: self.create,
            45: lambda node, data: self.rename(node, data, 16),
            **dict.fromkeys((18, 20, 25, 29, 30, 38), lambda _node, _data: b""),
        }

    def begin(self, _node: int, data: bytes) -> bytes:
        _, _, readahead, _ = struct.unpack_from("<4I", data)
        return struct.pack("<4I2H2I2H8I", 7, 31, readahead, 0, 12, 9, _MAX_WRITE, 1, 0, 0, *[0] * 8)

    def lookup(self, node: int, data: bytes) -> bytes:
        return self.entry(self.nodes[node].entries[data.rstrip(b"\0")])

    def made(self, node: int, name: bytes, *, is_folder: bool) -> int:
        number = max(self.nodes) + 1
        self.nodes[number] = Node(is_folder)
        self.nodes[node].entries[name.rstrip(b"\0")] = number
        return number

    def create(self, node: int, data: bytes) -> bytes:
        return self.entry(self.made(node, data[16:], is_folder=False)) + struct.pack("<Q2I", 0, _KEEP_CACHE, 0)

    def remove(self, node: int, data: bytes) -> bytes:
        del self.nodes[node].entries[data.rstrip(b"\0")]
        return b""

    def rename(self, node: int, data: bytes, names_at: int) -> bytes:
        old, new = data[names_at:].split(b"\0")[:2]
        (target,) = struct.unpack_from("<Q", data)
        self.nodes[target].entries[new] = self.nodes[node].entries.pop(old)
        return b""

    def set_attributes(self, node: int, data: bytes) -> bytes:
        valid, _, _, size = struct.unpack_from("<2I2Q", data)
        if valid & _SIZE:
            self.nodes[node].size = size
        return self.answers[3](node, b"")

    def read(self, node: int, data: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<2QI", data)
        end = min(offset + size, self.nodes[node].size)
        return b"".join(bytes(self.memory[at : at + length]) for at, length in self.places(node, offset, end))

    def write(self, node: int, data: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<2QI", data)
        content = memoryview(data)[40 : 40 + size]
        for at, length in self.places(node, offset, offset + size):
            self.memory[at : at + length] = content[:length]
            content = content[length:]
        self.nodes[node].size = max(self.nodes[node].size, offset + size)
        return struct.pack("<2I", size, 0)

    def places(self, node: int, offset: int, end: int) -> Iterator[tuple[int, int]]:
        """Where bytes of a file are. A block gets the next place of the stick when it is first asked for."""
        blocks = self.nodes[node].blocks
        while offset < end:
            number, within = divmod(offset, _BLOCK)
            if number not in blocks:
                blocks[number], self.taken = self.taken, self.taken + 1
            length = min(_BLOCK - within, end - offset)
            # This is the lie.
            yield blocks[number] * _BLOCK % len(self.memory) + within, length
            offset += length

    def names(self, node: int, data: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<2QI", data)
        reply = b""
        for number, (name, child) in enumerate(list(self.nodes[node].entries.items())[offset:], offset + 1):
            kind = stat.S_IFDIR if self.nodes[child].is_folder else stat.S_IFREG
            entry = struct.pack("<2Q2I", child, number, len(name), kind >> 12) + name
            entry += bytes(-len(entry) % 8)
            if len(reply) + len(entry) > size:
                break
            reply += entry
        return reply

    def entry(self, node: int) -> bytes:
        return struct.pack("<4Q2I", node, 0, 0, 0, 0, 0) + self.attributes(node)

    def attributes(self, node: int) -> bytes:
        found = self.nodes[node]
        mode = stat.S_IFDIR | 0o700 if found.is_folder else stat.S_IFREG | 0o600
        return struct.pack(
            "<6Q10I", node, found.size, 0, 0, 0, 0, 0, 0, 0, mode, 1, os.getuid(), os.getgid(), 0, _BLOCK, 0
        )

    def serve(self, device: int) -> None:
        with contextlib.suppress(OSError):
            while request := os.read(device, _MAX_WRITE + 8192):
                _, opcode, unique, node = struct.unpack_from("<2I2Q", request)
                if opcode in _NO_REPLY:
                    continue
                error, reply = 0, b""
                try:
                    reply = self.answers[opcode](node, request[40:]) if opcode in self.answers else b""
                    error = 0 if opcode in self.answers else -errno.ENOSYS
                except KeyError:
                    error = -errno.ENOENT
                os.write(device, struct.pack("<IiQ", 16 + len(reply), error, unique) + reply)


@contextlib.contextmanager
def plugged_in(folder: Path, true_size: int) -> Iterator[None]:
    """Such a stick at a folder. Raises OSError if this machine mounts none."""
    process = subprocess.Popen([sys.executable, __file__, folder, str(true_size)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        if process.stdout.readline() != "mounted\n":
            raise OSError(errno.ENOSYS, "no FUSE here")
        try:
            yield
        finally:
            subprocess.run(["umount", folder], check=True)
    finally:
        process.wait(30)
        process.stdout.close()


def main() -> None:
    folder, true_size = sys.argv[1:]
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}".encode()
    if libc.mount(b"stick", os.fsencode(folder), b"fuse", ctypes.c_ulong(0), options):
        sys.exit(os.strerror(ctypes.get_errno()))
    sys.stdout.write("mounted\n")
    sys.stdout.flush()
    Stick(int(true_size)).serve(device)


if __name__ == "__main__":
    main()
