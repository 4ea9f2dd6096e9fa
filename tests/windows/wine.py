"""Python for Windows, under Wine: `python -m tests.windows.wine -m ostore list` runs it with the arguments.

The first call makes all of it in .windows/: a Wine of its own, CPython, and the packages of requirements/dev.txt. Where
one of them cannot be had, it says so in one line and ends with 3.
"""

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from tests.windows.session import Session

ROOT = Path(__file__).parents[2]
WINDOWS = ROOT / ".windows"
PYTHON = WINDOWS / "python" / "python.exe"
PACKAGES = PYTHON.parent / "Lib" / "site-packages"
MADE = WINDOWS / ".dev"
LOCKED = ROOT / "requirements" / "dev.txt"

# A whole CPython in one archive: the installer that python.org has does not run under Wine.
ARTIFACT = "org.bytedeco:cpython:3.12.1-1.5.10:jar:windows-x86_64"
SHA256 = "e69bc4491c311e19ea7169bafc5efbbe03b980d69c6962b049daf1fcb4913391"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy"
INSIDE = "org/bytedeco/cpython/windows-x86_64/"
# Wine has half of WMI, and a program that asks it dies; the tests of Python take long to unpack.
LEFT_OUT = ("lib/_wmi.pyd", "lib/test/")


class UnavailableError(Exception):
    """Something that Windows needs cannot be had here."""


def windows_path(path: Path) -> str:
    """How Wine calls a file of this system."""
    return "Z:" + str(path.absolute()).replace("/", "\\")


def environment() -> Mapping[str, str]:
    """The environment of each program under Wine, and of none outside."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return inherited | {
        "WINEPREFIX": str(WINDOWS / "prefix"),
        "WINEARCH": "win64",
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "winemenubuilder.exe,mscoree,mshtml=",  # no offer to install what no test needs
        "PYTHONPYCACHEPREFIX": windows_path(WINDOWS / "bytecode"),  # the one in the checkout is of another system
    }


def is_made() -> bool:
    """Whether a call can run at once: all of it is there, and made from what is asked for now."""
    return MADE.exists() and MADE.read_text() == made_from()


def made_from() -> str:
    return "\n".join((SHA256, windows_path(ROOT), LOCKED.read_text()))


def make() -> None:
    """Make .windows/ from nothing. Raises UnavailableError."""
    shutil.rmtree(WINDOWS, ignore_errors=True)
    WINDOWS.mkdir()
    _ask("Wine", "wine", "wineboot", "--init")
    _ask("Wine", "winecfg", "-v", "win10")
    _ask("CPython", "mvn", "--batch-mode", "--quiet", COPY, f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={WINDOWS}")
    (archive,) = WINDOWS.glob("*.jar")
    _unpack(archive)
    _install_packages()
    for metadata in Path(sysconfig.get_path("purelib")).glob("ostore-*.dist-info"):
        shutil.copytree(metadata, PACKAGES / metadata.name)
    (PACKAGES / "ostore.pth").write_text(windows_path(ROOT) + "\n")
    MADE.write_text(made_from())


def _ask(what: str, *command: str) -> None:
    own = environment() if command[0].startswith("wine") else None
    try:
        done = subprocess.run(command, env=own, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise UnavailableError(f"{what} cannot be had: {command[0]} is not on PATH") from error
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace").split("\n")
        raise UnavailableError(f"{what} cannot be had: {next((line for line in said if line), command[0])}")


def _unpack(archive: Path) -> None:
    found = sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"{archive.name}: expected SHA-256 {SHA256}, got {found}")
    with zipfile.ZipFile(archive) as jar:
        wanted = [name for name in jar.namelist() if name.startswith(INSIDE)]
        jar.extractall(WINDOWS, [name for name in wanted if not name.removeprefix(INSIDE).startswith(LEFT_OUT)])
    (WINDOWS / INSIDE).rename(PYTHON.parent)
    # Python asks for Lib; under a name in other letters, Wine lists the folder each time.
    (PYTHON.parent / "lib").rename(PACKAGES.parent)
    shutil.rmtree(WINDOWS / "org")
    archive.unlink()


def _install_packages() -> None:
    # pip compares the conditions with this system, so what is for Windows only must lose its own.
    locked = WINDOWS / "requirements.txt"
    locked.write_text(LOCKED.read_text().replace(" ; sys_platform == 'win32'", ""))
    target = (
        "--target",
        str(PACKAGES),
        "--platform",
        "win_amd64",
        "--implementation",
        "cp",
        "--python-version",
        "3.12",
    )
    how = ("--quiet", "--no-compile", "--only-binary", ":all:", "--require-hashes", "--requirement", str(locked))
    _ask("a package", sys.executable, "-m", "pip", "install", *target, *how)


def python(*arguments: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python for Windows in a folder, with `more` in its environment. Line ends become those of this system."""
    command = ("wine", str(PYTHON), *arguments)
    done = subprocess.run(
        command,
        cwd=folder,
        env={**environment(), **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=300,
    )
    out, err = (told.decode().replace("\r\n", "\n") for told in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(command, done.returncode, out, err)


def session(**more: str) -> Session:
    """An ostore for Windows that runs one command after the other, with `more` in its environment. Use it in `with`."""
    return Session(["wine", str(PYTHON)], {**environment(), **more})


def run(arguments: Sequence[str]) -> int:
    """Run Python for Windows, and print at once what it prints. Returns its exit code."""
    # It takes no file as standard input, output or error: pipes do.
    stdin = None if stat.S_ISFIFO(os.fstat(0).st_mode) else subprocess.DEVNULL
    command = ("wine", str(PYTHON), *arguments)
    with subprocess.Popen(
        command, env=environment(), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as running:
        assert running.stdout
        while told := os.read(running.stdout.fileno(), 65536):
            sys.stdout.buffer.write(told)
            sys.stdout.buffer.flush()
    return running.returncode


if __name__ == "__main__":
    try:
        if not is_made():
            make()
    except UnavailableError as unavailable:
        sys.stdout.write(f"Windows: {unavailable}\n")
        sys.exit(3)
    sys.exit(run(sys.argv[1:]))
