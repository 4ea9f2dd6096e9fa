"""The processes of this machine, as Windows lists them (Toolhelp), through ctypes because Python has no such list."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from ctypes import wintypes
from typing import NamedTuple

assert sys.platform == "win32"  # noqa: S101 - tells type checkers to skip the rest elsewhere

# tlhelp32.h
_SNAPSHOT_OF_PROCESSES = 0x2
_INVALID_HANDLE = ctypes.c_void_p(-1).value


class _Process(ctypes.Structure):
    _fields_ = (
        ("size", wintypes.DWORD),
        ("usage", wintypes.DWORD),
        ("pid", wintypes.DWORD),
        ("heap", ctypes.c_void_p),
        ("module", wintypes.DWORD),
        ("threads", wintypes.DWORD),
        ("parent", wintypes.DWORD),
        ("priority", wintypes.LONG),
        ("flags", wintypes.DWORD),
        ("program", wintypes.WCHAR * 260),
    )


_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.CreateToolhelp32Snapshot.restype = wintypes.HANDLE
_kernel32.CreateToolhelp32Snapshot.argtypes = (wintypes.DWORD, wintypes.DWORD)
_kernel32.Process32FirstW.argtypes = (wintypes.HANDLE, ctypes.POINTER(_Process))
_kernel32.Process32NextW.argtypes = (wintypes.HANDLE, ctypes.POINTER(_Process))
_kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)


class ListedProcess(NamedTuple):
    """A process: its number, its parent's, and the file name of its program."""

    pid: int
    parent: int
    program: str


def running() -> Iterator[ListedProcess]:
    """Yield every process, or nothing if Windows does not tell."""
    snapshot = _kernel32.CreateToolhelp32Snapshot(_SNAPSHOT_OF_PROCESSES, 0)
    if snapshot == _INVALID_HANDLE:
        return
    try:
        process = _Process(size=ctypes.sizeof(_Process))
        is_there = _kernel32.Process32FirstW(snapshot, ctypes.byref(process))
        while is_there:
            yield ListedProcess(process.pid, process.parent, process.program)
            is_there = _kernel32.Process32NextW(snapshot, ctypes.byref(process))
    finally:
        _kernel32.CloseHandle(snapshot)
