"""The shipped units, started by systemd as they are: hardened daemons that do their work."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from deploy.lab import GuestSpec, Nic
from tests.support.booted import Machine, Unbootable
from tests.support.nouns import mac
from vserver.privileges import KILL, NET_ADMIN, NET_RAW, READ

T = TypeVar("T")
WITHIN_S = 60.0
VCTL = ("/opt/vsignal/bin/vctl", "--config", "/run/operator/vctl.toml")
AGENT = """
server_id = "host-1"
management_address = "127.0.0.1"
vtep_address = "127.0.0.1"
vcenter = ["127.0.0.1:7400"]
state_dir = "/var/lib/vsignal-agent"
[tls]
identity = "/var/lib/vsignal-agent/identity.pem"
ca = "/var/lib/vsignal-agent/ca.pem"
[log]
format = "json"
"""
# What a machine without devices of its own cannot give to libvirt's guests is left out.
LIBVIRTD = "[Service]\nType=notify\nExecStart=/usr/sbin/libvirtd\nKillMode=process\n"
LIBVIRTD_CONF = 'auth_unix_rw = "none"\nunix_sock_rw_perms = "0700"\n'
QEMU_CONF = """
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
dynamic_ownership = 0
stdio_handler = "file"
"""
ACCOUNTS = """
echo 'libvirt-qemu:x:64055:64055::/:/bin/false' >> /etc/passwd
echo 'libvirt-qemu:x:64055:' >> /etc/group
echo 'kvm:x:64056:' >> /etc/group
mkdir -p /run/libvirt/con
install -d -m 2750 -g libvirt-qemu /etc/pki/qemu
"""
MEMBER = """
ETCD_NAME=m1
ETCD_DATA_DIR=/var/lib/vsignal-etcd-1
ETCD_LISTEN_CLIENT_URLS=http://127.0.0.1:7411
ETCD_ADVERTISE_CLIENT_URLS=http://127.0.0.1:7411
ETCD_LISTEN_PEER_URLS=http://127.0.0.1:7421
ETCD_INITIAL_ADVERTISE_PEER_URLS=http://127.0.0.1:7421
ETCD_INITIAL_CLUSTER=m1=http://127.0.0.1:7421
"""
REPLICA = """
domain = "fra1"
listen = ["127.0.0.1:7500"]
store = "etcd://127.0.0.1:7411"
[tls]
identity = "/var/lib/vsignal-vcenter-1/identity.pem"
ca = "/var/lib/vsignal-vcenter-1/ca.pem"
"""
COPY_IDENTITY = """
mkdir -m 700 /var/lib/vsignal-vcenter-1
cp -p /var/lib/vsignal/identity.pem /var/lib/vsignal/ca.pem /var/lib/vsignal-vcenter-1
"""
NIC = Nic(mac(1), 100, "10.1.0.1/24", "blue-net")
GUEST = GuestSpec("g1", (NIC,), tenant="blue", boots_from_network=True)


@pytest.fixture(scope="module")
def machine(hosts_available: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("booted"))
    try:
        made.up()
    except Unbootable as why:
        made.down()
        if os.environ.get("CI"):
            pytest.fail(str(why))
        pytest.skip(str(why))
    try:
        make_domain(made)
        yield made
    finally:
        made.down()


def make_domain(machine: Machine) -> None:
    """As docs/trust.md has it: the operator's folder is moved away before the first start."""
    init = ("init", "/var/lib/vsignal", "--domain", "fra1", "--listen", "127.0.0.1:7400")
    machine.run("/opt/vsignal/bin/vcenter", *init)
    machine.run("mv", "/var/lib/vsignal/vctl", "/run/operator")
    machine.systemctl("start", "vcenter")
    machine.run(*VCTL, "tenant", "set", "blue")
    machine.run(*VCTL, "network", "set", "blue-net", "--tenant", "blue", "--vni", "100")


@pytest.fixture(scope="module")
def guest(machine: Machine) -> GuestSpec:
    """On a host that has joined: libvirt's, beside the agent."""
    said = machine.run(*VCTL, "server", "invite", "host-1").splitlines()
    (token,) = (line for line in said if line.startswith("vsj1."))
    machine.write("/etc/vsignal/vserver.toml", AGENT)
    machine.run("/opt/vsignal/bin/vserver", "join", stdin=token)
    machine.write("/etc/libvirt/libvirtd.conf", LIBVIRTD_CONF)
    machine.write("/etc/libvirt/qemu.conf", QEMU_CONF)
    machine.write("/etc/systemd/system/libvirtd.service", LIBVIRTD)
    machine.run("sh", "-c", ACCOUNTS)
    machine.systemctl("daemon-reload")
    machine.systemctl("start", "libvirtd", "vserver")
    machine.write("/run/g1.xml", GUEST.xml())
    machine.run("virsh", "define", "/run/g1.xml")
    machine.run("virsh", "start", "g1")
    return GUEST


def until(machine: Machine, what: str, look: Callable[[], T]) -> T:
    deadline = time.monotonic() + WITHIN_S
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}\n{machine.log}"
        time.sleep(0.2)
    return found


def asked(machine: Machine, *words: str) -> Any:
    return json.loads(machine.run(*VCTL, *words, "-o", "json"))


def is_confined(status: dict[str, str], capabilities: int) -> bool:
    """No more than these capabilities, none to be had, and system calls filtered."""
    sets = {status[each] for each in ("CapPrm", "CapEff", "CapBnd")}
    return (
        {int(each, 16) for each in sets} == {capabilities}
        and status["NoNewPrivs"] == "1"
        and status["Seccomp"] == "2"
        and status["Umask"] == "0077"
    )


def leaves_no_core(machine: Machine, unit: str) -> bool:
    limits = machine.run("cat", f"/proc/{machine.main_process(unit)}/limits")
    (line,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
    return line.split()[-3:] == ["0", "0", "bytes"]


def test_the_vcenter_is_nobody_and_can_do_nothing_but_serve(machine: Machine) -> None:
    status = machine.status("vcenter")
    assert is_confined(status, 0) and "0" not in status["Uid"].split()
    assert leaves_no_core(machine, "vcenter")
    keys = machine.run("stat", "-L", "-c", "%a %u", "/var/lib/vsignal/ca.key").split()
    assert keys == ["600", status["Uid"].split()[0]]
    places = machine.run("cat", f"/proc/{machine.main_process('vcenter')}/mountinfo")
    root = next(line for line in places.splitlines() if line.split()[4] == "/")
    assert root.split()[5].startswith("ro")


def test_a_vcenter_that_crashes_is_started_again_with_its_ledger(machine: Machine) -> None:
    before = machine.main_process("vcenter")
    machine.systemctl("kill", "--kill-whom=main", "--signal=SEGV", "vcenter")

    def is_back() -> bool:
        """The process first: before systemd has noticed the crash, the unit is active still."""
        if machine.main_process("vcenter") in (before, "0"):
            return False
        return machine.systemctl("is-active", "vcenter", check=False).strip() == "active"

    until(machine, "the vCenter is back", is_back)
    assert [tenant["tenant_id"] for tenant in asked(machine, "tenant", "list")] == ["blue"]


def in_force(machine: Machine) -> bool:
    """Whether the guest's host has read the guest's policy back from its data plane."""
    known = {vm["vm"]["vm_id"] for vm in asked(machine, "vm", "list")}
    if GUEST.uuid not in known:
        return False
    vm = asked(machine, "vm", "show", GUEST.uuid)
    return bool(vm["status"].get("applied_hash")) and (
        vm["status"]["applied_hash"] == vm["record"]["profile_hash"]
    )


def test_the_agent_guards_a_libvirt_guest_with_four_capabilities(
    machine: Machine, guest: GuestSpec
) -> None:
    until(machine, "the guest's policy is in force", lambda: in_force(machine))
    four = sum(1 << each.bit for each in (NET_ADMIN, NET_RAW, KILL, READ))
    assert is_confined(machine.status("vserver"), four)
    assert leaves_no_core(machine, "vserver")
    key = machine.run("stat", "-c", "%a %G", "/etc/pki/qemu/server-key.pem").split()
    assert key == ["640", "libvirt-qemu"], "QEMU reads the certificate, and nobody else"


def test_stopping_the_agent_stops_no_guest_and_opens_no_port(
    machine: Machine, guest: GuestSpec
) -> None:
    until(machine, "the guest's policy is in force", lambda: in_force(machine))
    rules = machine.run("nft", "list", "table", "bridge", "vsignal")
    machine.systemctl("stop", "vserver")
    assert "running" in machine.run("virsh", "domstate", "g1")
    assert machine.run("nft", "list", "table", "bridge", "vsignal") == rules
    before = attachments(machine)
    machine.systemctl("start", "vserver")
    until(machine, "the agent is attached again", lambda: attachments(machine) > before)


def attachments(machine: Machine) -> int:
    """How often the agent has said that it is attached."""
    return machine.log.count('"attached"')


def test_a_vcenter_over_etcd(machine: Machine) -> None:
    """A replica and a member, by the units for machines that have several of each."""
    machine.write("/etc/vsignal/etcd-1.env", MEMBER)
    machine.write("/etc/vsignal/vcenter-1.toml", REPLICA)
    machine.run("sh", "-c", COPY_IDENTITY)
    machine.systemctl("start", "vsignal-etcd@1", "vsignal-vcenter@1")
    machine.run(*VCTL, "--server", "127.0.0.1:7500", "tenant", "set", "green")
    tenants = machine.run(*VCTL, "--server", "127.0.0.1:7500", "tenant", "list", "-o", "name")
    assert tenants.split() == ["green"]
    for unit in ("vsignal-etcd@1", "vsignal-vcenter@1"):
        status = machine.status(unit)
        assert is_confined(status, 0) and "0" not in status["Uid"].split()
        assert leaves_no_core(machine, unit)
