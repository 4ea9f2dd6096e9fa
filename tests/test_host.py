"""Facts about the Ollama of a machine. A machine here is a folder with the files of a real one."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from ostore.host.accounts import Account, account_of
from ostore.host.machine import Host, is_offline, read_host
from ostore.host.servers import ollama_processes, sees_ollama
from ostore.host.surroundings import StoreChoice, Surroundings

IPV4_HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
LAN = "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"
WAY_OUT = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0"
BLOCKED = "*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0"
HALF = "tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0"
ZERO = "0" * 32
IPV6_OUT = f"{ZERO} 00 {ZERO} 00 fd{'0' * 29}1 00000400 00000002 00000000 00000003     eth0"
IPV6_NONE = f"{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200       lo"
IPV6_LAN = f"fd{'0' * 30} 40 {ZERO} 00 {ZERO} 00000100 00000001 00000000 00000001     eth0"


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "offline"),
    [
        ([LAN], [IPV6_NONE, IPV6_LAN], True),
        ([], [], True),
        ([LAN, WAY_OUT], [IPV6_NONE], False),
        ([LAN], [IPV6_NONE, IPV6_OUT], False),
        ([LAN, BLOCKED], [IPV6_NONE], True),
        ([HALF], [], True),
        (["garbage", "", WAY_OUT], ["garbage"], False),
    ],
)
def test_a_machine_without_a_way_out_is_offline(
    tmp_path: Path, ipv4: list[str], ipv6: list[str], offline: bool
) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/route").write_text("\n".join([IPV4_HEAD, *ipv4, ""]))
    (tmp_path / "net/ipv6_route").write_text("\n".join([*ipv6, ""]))
    assert is_offline(tmp_path) is offline


def test_without_tables_of_routes_nothing_is_said(tmp_path: Path) -> None:
    assert not is_offline(tmp_path)
    (tmp_path / "net").mkdir()
    (tmp_path / "net/route").write_text(f"{IPV4_HEAD}\n{LAN}\n")
    assert is_offline(tmp_path)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with Ollama as a service, as install.sh sets it up, and the store of that service."""
    unit = tmp_path / "etc/systemd/system/ollama.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(
        '[Service]\nExecStart=/usr/local/bin/ollama serve\nUser=daemon\nGroup=daemon\nEnvironment="PATH=/bin"\n'
    )
    (tmp_path / "service/.ollama/models/blobs").mkdir(parents=True)
    return tmp_path


def drop_in(machine: Path, setting: str) -> None:
    folder = machine / "etc/systemd/system/ollama.service.d"
    folder.mkdir(exist_ok=True)
    (folder / "override.conf").write_text(f"[Service]\n{setting}\n")


def asked(machine: Path, store: Path, **environ: str) -> tuple[Host, Account]:
    known = Surroundings(
        environ, "linux", machine / "home", machine, root=machine, home_of=lambda _user: machine / "service"
    )
    host, account = read_host(known, StoreChoice(store, "service", "unit"), lambda _root: 0)
    assert account is not None
    return host, account


def process(machine: Path, pid: int, *words: str, root: str = "/", **environ: str) -> None:
    folder = machine / f"proc/{pid}"
    folder.mkdir(parents=True)
    (folder / "comm").write_text("ollama\n")
    (folder / "cmdline").write_bytes("\0".join(("ollama", *words, "")).encode())
    (folder / "environ").write_bytes("".join(f"{name}={value}\0" for name, value in environ.items()).encode())
    (folder / "root").symlink_to(root)
    (folder / "cwd").symlink_to("/")


@pytest.mark.skipif(account_of("daemon") is None, reason="needs a user called daemon")
def test_the_user_of_the_service_is_that_of_its_own_store_only(machine: Path) -> None:
    daemon = account_of("daemon")
    host, account = asked(machine, machine / "service/.ollama/models")
    assert (account, host.is_server_known, host.has_service, host.has_ollama) == (daemon, True, True, True)
    (machine / "another/blobs").mkdir(parents=True)
    host, account = asked(machine, machine / "another")
    assert (account.uid, host.is_server_known) == (os.geteuid(), False)


@pytest.mark.skipif(account_of("daemon") is None, reason="needs a user called daemon")
def test_groups_that_a_unit_adds_count(machine: Path) -> None:
    drop_in(machine, "SupplementaryGroups=12321 no-such-group")
    _, account = asked(machine, machine / "service/.ollama/models")
    assert 12321 in account.groups


@pytest.mark.parametrize(
    ("setting", "is_off"),
    [
        ("", False),
        ('Environment="OLLAMA_NO_CLOUD=1"', True),
        ('Environment="OLLAMA_NO_CLOUD=false"', False),
        ('Environment="OLLAMA_NO_CLOUD=yes"', True),
    ],
)
def test_a_service_that_is_told_to_stay_at_home_says_so(machine: Path, setting: str, is_off: bool) -> None:
    drop_in(machine, setting)
    assert asked(machine, machine / "service/.ollama/models")[0].is_cloud_off is is_off
    # What our own environment says is nothing to a service.
    assert asked(machine, machine / "service/.ollama/models", OLLAMA_NO_CLOUD="1")[0].is_cloud_off is is_off


@pytest.mark.parametrize(
    ("text", "is_off"), [('{"disable_ollama_cloud": true}', True), ("{}", False), ("[", False), ("[1]", False)]
)
def test_the_settings_file_of_the_service_counts_as_well(machine: Path, text: str, is_off: bool) -> None:
    (machine / "service/.ollama/server.json").write_text(text)
    assert asked(machine, machine / "service/.ollama/models")[0].is_cloud_off is is_off


def test_a_server_that_runs_says_more_than_the_unit(machine: Path) -> None:
    store = machine / "moved"
    (store / "blobs").mkdir(parents=True)
    process(machine, 7, "runner", "--model", "x", OLLAMA_MODELS="/nowhere")
    process(machine, 8, "serve", OLLAMA_MODELS=str(store), OLLAMA_NO_CLOUD="1")
    host, account = asked(machine, store)
    assert (account.uid, host.is_server_known, host.is_cloud_off, host.servers) == (os.geteuid(), True, True, ())
    host, _ = asked(machine, machine / "service/.ollama/models")
    assert [(server.pid, server.store) for server in host.servers] == [(8, store)]


def test_a_server_in_a_container_is_known_by_its_volume_and_else_is_not_ours(machine: Path) -> None:
    store = machine / "volume/models"
    (store / "blobs").mkdir(parents=True)
    inside = machine / "container"
    (inside / "root/.ollama").mkdir(parents=True)
    (inside / "root/.ollama/models").symlink_to(store)
    process(machine, 9, "serve", root=str(inside), HOME="/root", OLLAMA_NO_CLOUD="1")
    host, _ = asked(machine, store)
    assert host.is_server_known
    host, _ = asked(machine, machine / "service/.ollama/models")
    assert (host.servers, host.is_cloud_off) == ((), False)


def test_a_server_whose_environment_is_not_ours_to_see_stays_unknown(machine: Path) -> None:
    process(machine, 9, "serve", OLLAMA_MODELS="/elsewhere")
    (machine / "proc/9/environ").unlink()
    host, _ = asked(machine, machine / "service/.ollama/models")
    assert [server.store for server in host.servers] == [None]
    assert host.is_cloud_off is None


def test_an_account_may_do_what_the_bits_say() -> None:
    account = Account(5, frozenset({6}), "five")
    assert account.may(5, 0, 0o700, 7)
    assert not account.may(5, 6, 0o077, 1)
    assert account.may(0, 6, 0o040, 4)
    assert not account.may(0, 6, 0o040, 6)
    assert account.may(0, 0, 0o007, 7)
    assert not account.may(0, 0, 0o770, 1)
    assert dataclasses.replace(account, uid=0).may(5, 5, 0, 7)


def test_a_process_that_calls_itself_otherwise_is_known_by_its_program(tmp_path: Path) -> None:
    process(tmp_path, 5, "serve", OLLAMA_MODELS="/data/m")
    process(tmp_path, 6, "serve")
    process(tmp_path, 7, "serve")
    (tmp_path / "proc/5/comm").write_text("ollama-main\n")
    (tmp_path / "proc/6/comm").write_text("sleep\n")
    (tmp_path / "proc/5/exe").symlink_to("/usr/local/bin/ollama (deleted)")
    (tmp_path / "proc/6/exe").symlink_to("/usr/bin/sleep")
    found = [(known.pid, known.store) for known in ollama_processes(tmp_path / "proc")]
    assert found == [(5, Path("/data/m")), (7, None)]
    assert sees_ollama(tmp_path / "proc")
    assert not sees_ollama(tmp_path / "absent")
