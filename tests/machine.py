"""
A machine of its own for a page that is about a whole machine: its users, sudo, a service, disks.

The real one stays as it is: all this is mounted where only the commands of the page see it. The commands run as the
user `alice`, who may use sudo and is in the group of the service.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.documents import ROOT, Step, type_all

# Processes of its own: those that are left end with the last command, and a server of the real machine is not seen.
APART = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]
HOME = "/usr/share/alice"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
# Other users may not enter the folders where the interpreter, its packages and the tests lie. $1 to $4 name them.
_MADE = f"""
set -e
empty() {{ mount -t tmpfs -o mode=755 none $1; }}
empty /usr/share && cd /usr/share
mkdir -p bin python packages source given ollama alice/.ollama bob
mount --bind "$1" python && mount --bind "$2" packages && mount --bind "$4" given
# A copy, because a checkout may be closed to others as a whole.
cp -a "$3" source/ostore && chmod -R a+rX source
for place in python packages given; do mount -o remount,bind,ro $place; done
for place in /etc/systemd/system /etc/sudoers.d /media /mnt /srv; do empty $place; done
mkdir /media/usb /mnt/disk
cat >bin/ostore <<'END'
#!/bin/sh
# A library of the interpreter that lies where only root may look would be that of the system instead.
export LD_LIBRARY_PATH=/usr/share/python/lib PYTHONPATH=/usr/share/source:/usr/share/packages
exec $AT_ANOTHER_TIME /usr/share/python/bin/{PYTHON} -u -m ostore "$@"
END
# There is no systemd in a test. What it would do is not what pages are about.
echo '#!/bin/sh' >bin/systemctl
chmod 755 bin/*
for user in ollama:7001 alice:7002 bob:7003; do
    name=${{user%:*}} id=${{user#*:}}
    echo "$name:x:$id:$id::/usr/share/$name:/bin/bash" >>passwd
    echo "$name:x:$id:$([ $name = bob ] || echo alice)" >>group
    echo "$name:!:19000::::::" >>shadow
done
# Of two entries with one name the first counts.
for file in passwd group shadow; do cat /etc/$file >>$file; done
cat >sudoers <<'END'
Defaults secure_path="/usr/share/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root ALL=(ALL) ALL
alice ALL=(ALL:ALL) NOPASSWD: ALL
END
chmod 440 sudoers
for file in passwd group shadow sudoers; do mount --bind $file /etc/$file; done
service() {{
    store_of ollama models
    chown -R ollama: ollama && chmod 750 ollama
    printf '[Service]\\nExecStart=/usr/bin/ollama serve\\nUser=ollama\\nGroup=ollama\\n' >unit
    mv unit /etc/systemd/system/ollama.service
}}
store_of() {{
    mkdir -p $1/.ollama && cp -r given/$2 $1/.ollama/models
}}
"""
_ENTERED = f"""
chown -R alice: {HOME} && chown -R bob: bob && chmod 700 alice bob
cd {HOME}
shift 4
exec setpriv --reuid=alice --regid=alice --init-groups "$@"
"""


def type_there(steps: list[Step], *, given: Path, situation: str) -> None:
    """Type commands there. `situation` is what to do before, in shell; `given` is a folder that it may take from."""
    programs = ["unshare", "setpriv", "sudo"]
    typed = " ".join([situation, *(step.line for step in steps)])
    programs += [name for name in ("faketime", "fusefat", "mkfs.vfat", "skopeo", "umoci") if name in typed]
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if not Path("/etc/systemd/system").is_dir():
        pytest.skip("needs /etc/systemd/system")
    if subprocess.run([*APART, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs root, to mount disks and be other users")
    places: list[str | Path] = [sys.base_prefix, sysconfig.get_path("purelib"), ROOT / "ostore", given]
    type_all(
        steps,
        folder=given,
        environment={"HOME": HOME, "PATH": "/usr/share/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        inside=[*APART, "bash", "-c", _MADE + situation + _ENTERED, "bash", *places],
    )
