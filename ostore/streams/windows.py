"""
What ostore asks of Windows itself, through ctypes, because Python has no way to say it:

* open a file so that Ollama may rename and delete it meanwhile (CreateFileW with all sharing; the C library leaves
  deleting out), and open a link itself instead of what it leads to
* lock bytes that no file has, so that a lock keeps nobody from reading (LockFileEx)
* rename so that the new name is on the disk at the end (MoveFileExW with MOVEFILE_WRITE_THROUGH), and flush a folder
* give a file a size without writing zeros, and a time through its own handle

Import it only where `sys.platform == "win32"`. Errors are OSErrors with the path and the `winerror`.
"""

from __future__ import annotations

import ctypes
import errno
import msvcrt
import os
import stat
import sys
import time
from collections.abc import Callable
from ctypes import wintypes
from pathlib import WindowsPath
from typing import Self, TypeVar

from ostore.formats.errors import InUseError

assert sys.platform == "win32"  # noqa: S101 - tells type checkers to skip the rest elsewhere

_T = TypeVar("_T")

# winnt.h, fileapi.h, winbase.h, minwinbase.h
_GENERIC_READ, _GENERIC_WRITE, _DELETE, _FILE_READ_ATTRIBUTES = 0x8000_0000, 0x4000_0000, 0x0001_0000, 0x80
_SHARE_ALL = 0x1 | 0x2 | 0x4
_CREATE_NEW, _OPEN_EXISTING = 1, 3
_BACKUP_SEMANTICS, _OPEN_REPARSE_POINT = 0x0200_0000, 0x0020_0000
_REPLACE_EXISTING, _WRITE_THROUGH = 0x1, 0x8
_FAIL_IMMEDIATELY, _EXCLUSIVE = 0x1, 0x2
_END_OF_FILE_INFO, _ATTRIBUTE_TAG_INFO = 6, 9
_READ_ONLY = 0x1
_READ_ONLY_VOLUME = 0x0008_0000
_INVALID_HANDLE = ctypes.c_void_p(-1).value
_NO_ATTRIBUTES = 0xFFFF_FFFF
# A reparse point with this bit names another entry: symbolic links and junctions, but no file of OneDrive (ntifs.h).
_NAME_SURROGATE = 0x2000_0000

# winerror.h
_ACCESS_DENIED, _SHARING_VIOLATION, _LOCK_VIOLATION, _USER_MAPPED_FILE = 5, 32, 33, 1224
_HELD = frozenset({_SHARING_VIOLATION, _LOCK_VIOLATION, _USER_MAPPED_FILE})
# The answers of a file system whose folders cannot be flushed, or not by us.
_CANNOT_FLUSH = frozenset({1, _ACCESS_DENIED, 6, 50, 87})
_TRIES = 5
# Far behind the end of any file: Windows keeps others from reading bytes that are locked.
_LOCKED_BYTE = 2**62
# 100 ns between 1601 and 1970.
_EPOCH = 116_444_736_000_000_000


class _Overlapped(ctypes.Structure):
    _fields_ = (
        ("internal", ctypes.c_void_p),
        ("internal_high", ctypes.c_void_p),
        ("offset", wintypes.DWORD),
        ("offset_high", wintypes.DWORD),
        ("event", wintypes.HANDLE),
    )


_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.CreateFileW.restype = wintypes.HANDLE
_kernel32.CreateFileW.argtypes = (
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.LPVOID,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.HANDLE,
)
_kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)
_kernel32.FlushFileBuffers.argtypes = (wintypes.HANDLE,)
_kernel32.GetConsoleMode.argtypes = (wintypes.HANDLE, wintypes.LPDWORD)
_kernel32.GetFileAttributesW.restype = wintypes.DWORD
_kernel32.GetFileAttributesW.argtypes = (wintypes.LPCWSTR,)
_kernel32.GetFileInformationByHandleEx.argtypes = (wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD)
_kernel32.GetVolumePathNameW.argtypes = (wintypes.LPCWSTR, wintypes.LPWSTR, wintypes.DWORD)
_kernel32.GetVolumeInformationW.argtypes = (
    wintypes.LPCWSTR,
    wintypes.LPWSTR,
    wintypes.DWORD,
    wintypes.LPDWORD,
    wintypes.LPDWORD,
    wintypes.LPDWORD,
    wintypes.LPWSTR,
    wintypes.DWORD,
)
_kernel32.LockFileEx.argtypes = (
    wintypes.HANDLE,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.POINTER(_Overlapped),
)
_kernel32.MoveFileExW.argtypes = (wintypes.LPCWSTR, wintypes.LPCWSTR, wintypes.DWORD)
_kernel32.SetFileInformationByHandle.argtypes = (wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD)
_kernel32.SetFileTime.argtypes = (
    wintypes.HANDLE,
    wintypes.LPVOID,
    wintypes.LPVOID,
    ctypes.POINTER(wintypes.FILETIME),
)


class LongPath(WindowsPath):
    r"""
    An absolute path that reads like any other, and that Windows gets with `\\?\` in front.

    With that, a path may have more than 260 characters, and Windows takes a name as it is written.
    """

    def __fspath__(self) -> str:
        text = str(self)
        if text.startswith(("\\\\?\\", "\\\\.\\")):
            return text
        return f"\\\\?\\UNC\\{text[2:]}" if text.startswith("\\\\") else f"\\\\?\\{text}"

    def resolve(self, strict: bool = False) -> Self:  # noqa: FBT001, FBT002 - as the base class has it
        """Return the path with links followed, without the mark that `__fspath__` adds."""
        try:
            text = os.path.realpath(self, strict=strict)
        except OSError:
            # Wine cannot tell where a path of more than 260 characters ends. Without a link on it, it ends here.
            if any(_is_reparse_point(path) for path in (self, *self.parents) if os.path.lexists(path)):
                raise
            text = os.path.abspath(self)  # noqa: PTH100 - as text
        return type(self)(plain(text))


def plain(path: str) -> str:
    """Return a path without the mark that `LongPath` adds, as a person writes it."""
    if path.startswith("\\\\?\\UNC\\"):
        return f"\\\\{path[8:]}"
    return path.removeprefix("\\\\?\\")


def sharing(act: Callable[[], _T], path: str, *, victim: str | None = None) -> _T:
    """
    Do something that fails while another program has a file open. This usually passes soon, so it is tried five times.

    `victim` is a file that it would remove or replace. Raises InUseError, and OSError for what does not pass.
    """
    for attempt in range(_TRIES):
        try:
            return act()
        except OSError as error:
            if error.winerror not in _HELD and not (error.winerror == _ACCESS_DENIED and _is_held(victim)):
                raise
        if attempt < _TRIES - 1:
            time.sleep(0.05 * 2**attempt)
    raise InUseError(plain(path))


def open_file(path: str, flags: int, *, follow: bool = False) -> int:
    """
    Open a file, as `os.open` with these flags (of access, O_CREAT and O_EXCL), so that others may use and remove it.

    Raises OSError, with ELOOP for a link unless `follow` is set, and InUseError.
    """
    access = {os.O_RDONLY: _GENERIC_READ, os.O_WRONLY: _GENERIC_WRITE | _FILE_READ_ATTRIBUTES}.get(
        flags & (os.O_WRONLY | os.O_RDWR), _GENERIC_READ | _GENERIC_WRITE
    )
    disposition = _CREATE_NEW if flags & os.O_CREAT else _OPEN_EXISTING
    fd = _opened(path, access, disposition, flags, 0 if follow else _OPEN_REPARSE_POINT)
    status = os.fstat(fd)
    if follow or not status.st_file_attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT:
        return fd
    tag = _reparse_tag(fd)
    os.close(fd)
    if tag & _NAME_SURROGATE:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    # The bytes are elsewhere, in a cloud or a compressed store, and are still those of this very file.
    fd = _opened(path, access, _OPEN_EXISTING, flags, 0)
    if not os.path.samestat(os.fstat(fd), status):
        os.close(fd)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return fd


def lock(fd: int) -> bool:
    """Lock an open file until it is closed. Returns False if the lock is taken. Raises OSError."""
    place = _Overlapped(offset=_LOCKED_BYTE & 0xFFFF_FFFF, offset_high=_LOCKED_BYTE >> 32)
    handle = msvcrt.get_osfhandle(fd)
    if _kernel32.LockFileEx(handle, _EXCLUSIVE | _FAIL_IMMEDIATELY, 0, 1, 0, ctypes.byref(place)):
        return True
    error = _last_error("lock")
    if error.winerror != _LOCK_VIOLATION:
        raise error
    return False


def rename(path: str, target: str) -> None:
    """Rename a file, over another one if there is one. The new name is on the disk then. Raises OSError."""
    if not _kernel32.MoveFileExW(path, target, _REPLACE_EXISTING | _WRITE_THROUGH):
        raise _last_error(path)


def may_rename(path: str) -> bool:
    """Return whether no program keeps others from renaming a file, after the usual tries. Raises OSError."""
    try:
        handle = sharing(lambda: _handle(path, _DELETE, _OPEN_EXISTING, _BACKUP_SEMANTICS | _OPEN_REPARSE_POINT), path)
    except InUseError:
        return False
    _kernel32.CloseHandle(handle)
    return True


def remove_folder(path: str) -> None:
    """Remove an empty folder, and never a junction. Raises NotADirectoryError for one, InUseError, OSError."""
    if _is_reparse_point(path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    sharing(lambda: os.rmdir(path), path)  # noqa: PTH106 - as text


def flush_folder(path: str) -> None:
    """Ask for the entries of a folder to be put on the disk. Not every file system does this. Raises OSError."""
    handle = _kernel32.CreateFileW(path, _GENERIC_WRITE, _SHARE_ALL, None, _OPEN_EXISTING, _BACKUP_SEMANTICS, None)
    error = _last_error(path)
    if handle != _INVALID_HANDLE:
        is_flushed = _kernel32.FlushFileBuffers(handle)
        error = _last_error(path)
        _kernel32.CloseHandle(handle)
        if is_flushed:
            return
    if error.winerror not in _CANNOT_FLUSH:
        raise error


def set_size(fd: int, size: int) -> None:
    """Cut or extend an open file to `size` bytes. The C library would write all the zeros. Raises OSError."""
    end = ctypes.c_longlong(size)
    handle = msvcrt.get_osfhandle(fd)
    if not _kernel32.SetFileInformationByHandle(handle, _END_OF_FILE_INFO, ctypes.byref(end), ctypes.sizeof(end)):
        raise _last_error("set the size")


def set_modified(fd: int, modified_ns: int) -> None:
    """Set the mtime of an open file, nanoseconds since 1970. Closing it leaves that time alone. Raises OSError."""
    ticks = modified_ns // 100 + _EPOCH
    modified = wintypes.FILETIME(ticks & 0xFFFF_FFFF, ticks >> 32)
    if not _kernel32.SetFileTime(msvcrt.get_osfhandle(fd), None, None, ctypes.byref(modified)):
        raise _last_error("set the time")


def is_console(fd: int) -> bool:
    """Whether a descriptor is a console. Only a console has a mode."""
    return bool(_kernel32.GetConsoleMode(msvcrt.get_osfhandle(fd), ctypes.byref(wintypes.DWORD())))


def volume_of(folder: str) -> tuple[str, bool]:
    """
    Return the name of a folder's file system (`NTFS`, `FAT32`), and whether it is read-only.

    The name is empty if Windows does not tell. Raises OSError.
    """
    place, name = ctypes.create_unicode_buffer(1024), ctypes.create_unicode_buffer(64)
    flags = wintypes.DWORD()
    if not _kernel32.GetVolumePathNameW(folder, place, len(place)):
        raise _last_error(folder)
    # It fails for some disks that are folders of another one; then all else of the disk can still be said.
    _kernel32.GetVolumeInformationW(place, None, 0, None, None, ctypes.byref(flags), name, len(name))
    return name.value, bool(flags.value & _READ_ONLY_VOLUME)


def _opened(path: str, access: int, disposition: int, flags: int, further: int) -> int:
    """Return the descriptor of a file, or of a folder, which the caller tells apart by its status."""
    handle = sharing(lambda: _handle(path, access, disposition, _BACKUP_SEMANTICS | further), path)
    try:
        return msvcrt.open_osfhandle(handle, flags & (os.O_WRONLY | os.O_RDWR) | os.O_BINARY | os.O_NOINHERIT)
    except BaseException:
        _kernel32.CloseHandle(handle)
        raise


def _handle(path: str, access: int, disposition: int, how: int) -> int:
    handle: int = _kernel32.CreateFileW(path, access, _SHARE_ALL, None, disposition, how, None)
    if handle == _INVALID_HANDLE:
        raise _last_error(path)
    return handle


def _is_reparse_point(path: str | LongPath) -> bool:
    return bool(os.lstat(path).st_file_attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT)


def _reparse_tag(fd: int) -> int:
    """Return what kind of reparse point is open. What cannot tell counts as a link."""
    found = (wintypes.DWORD * 2)()
    handle = msvcrt.get_osfhandle(fd)
    if not _kernel32.GetFileInformationByHandleEx(handle, _ATTRIBUTE_TAG_INFO, found, ctypes.sizeof(found)):
        return _NAME_SURROGATE
    return int(found[1])


def _is_held(victim: str | None) -> bool:
    """
    Return whether "access is denied" means that somebody uses this file: it is mapped, or it cannot be replaced now.

    It does if we may delete the file. Otherwise we lack the right to, or the file is read-only.
    """
    if victim is None:
        return False
    attributes = _kernel32.GetFileAttributesW(victim)
    if attributes == _NO_ATTRIBUTES or attributes & (_READ_ONLY | stat.FILE_ATTRIBUTE_DIRECTORY):
        return False
    try:
        handle = _handle(victim, _DELETE, _OPEN_EXISTING, _BACKUP_SEMANTICS | _OPEN_REPARSE_POINT)
    except OSError as error:
        return error.winerror in _HELD
    _kernel32.CloseHandle(handle)
    return True


def _last_error(path: str) -> OSError:
    code = ctypes.get_last_error()
    return OSError(0, ctypes.FormatError(code).strip(), path, code)
