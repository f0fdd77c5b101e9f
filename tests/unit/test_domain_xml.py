"""A domain's XML: what is read from it, and what a copy's destination is given."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from common.model.vm import Interface
from vserver.hypervisor.libvirt.marker import destination_xml, is_marked, mark_of
from vserver.hypervisor.libvirt.source_process import record_directory
from vserver.hypervisor.metadata import Attachment, AttachmentRules, Description, read_domain
from vserver.hypervisor.port import Tap

VM_ID = "2c3e5a0e-7f55-4a3b-9c6f-0d1e2f3a4b5c"
MAC1, MAC2 = "52:54:00:00:00:01", "52:54:00:00:00:02"
NONE = AttachmentRules()
BLUE = Attachment("acme", "blue", 1001)
RED = Attachment("globex", "red", 2001)


def domain(metadata: str = "", memory: str = '<memory unit="KiB">131072</memory>') -> str:
    return f"""<domain type="qemu" id="1"><name>web-1</name><uuid>{VM_ID.upper()}</uuid>
      <metadata>{metadata}</metadata>{memory}<vcpu current="2">4</vcpu><devices>
      <interface type="bridge"><mac address="{MAC1.upper()}"/><source bridge="br-1"/>
        <target dev="vnet0"/></interface>
      <interface type="network"><mac address="{MAC2}"/><source network="lan" bridge="virbr1"/>
      </interface></devices></domain>"""


def ours(inner: str, attributes: str = 'tenant="acme"') -> str:
    return f'<v:vm xmlns:v="urn:vsignal:vm:1" {attributes}>{inner}</v:vm>'


def read(metadata: str = "", rules: AttachmentRules = NONE) -> Description:
    return read_domain(domain(metadata), rules, active=True)


def test_libvirts_own_elements_are_read_without_any_metadata() -> None:
    found = read()
    assert (found.vm.vm_id, found.vm.name, found.vm.tenant) == (VM_ID, "web-1", "")
    assert found.vm.interfaces == (Interface(MAC1), Interface(MAC2))
    assert (found.vm.resources.vcpus, found.vm.resources.memory_mib) == (2, 128)
    assert found.taps == (Tap(MAC1, "br-1", "vnet0"), Tap(MAC2, "virbr1"))
    assert found.problem == ""


@pytest.mark.parametrize(
    ("memory", "mib"),
    [
        ("<memory>2048</memory>", 2),
        ('<memory unit="MiB">7</memory>', 7),
        ('<memory unit="G">1</memory>', 1024),
        ('<memory unit="bytes">1048576</memory>', 1),
        ('<memory unit="MB">1000</memory>', 953),
        ("", 0),
    ],
)
def test_memory_comes_in_libvirts_units(memory: str, mib: int) -> None:
    assert read_domain(domain(memory=memory), NONE, active=True).vm.resources.memory_mib == mib


def test_a_vm_that_is_off_has_no_tap_names() -> None:
    taps = read_domain(domain(), NONE, active=False).taps
    assert [tap.device for tap in taps] == ["", ""]


def test_an_interface_without_a_bridge_keeps_its_tap() -> None:
    xml = domain().replace('type="bridge"', 'type="direct"').replace('bridge="br-1"', 'dev="eth0"')
    assert read_domain(xml, NONE, active=True).taps[0] == Tap(MAC1, "", "vnet0")


def test_our_element_assigns_tenant_group_networks_and_addresses() -> None:
    inner = f"""<v:interface mac="{MAC2.upper()}" network="blue" vni="1001">
      <v:ip address="10.1.0.5"/><v:ip address="2001:DB8::0:1"/></v:interface>"""
    vm = read(ours(inner, 'tenant="acme" group="web"')).vm
    assert (vm.tenant, vm.group) == ("acme", "web")
    assert vm.interfaces == (
        Interface(MAC1),
        Interface(MAC2, ("10.1.0.5", "2001:db8::1"), "blue", 1001),
    )


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (ours("", ""), ["<vm>", "tenant"]),
        (ours("", 'tenant="Acme!"'), ["<vm>", "tenant"]),
        (ours("", 'tenant="acme" group=""'), ["<vm>", "group"]),
        (ours("", 'tenant="acme" colour="red"'), ["<vm>", "colour", "unknown"]),
        (ours("<v:nic/>"), ["<nic>", "unknown"]),
        (ours("<interface/>"), ["<interface>", "unknown"]),
        (ours("<v:interface/>"), ["<interface>", "mac"]),
        (ours('<v:interface mac="52:54:00:00:00:77"/>'), ["<interface>", "mac", "no interface"]),
        (ours(f'<v:interface mac="{MAC1}" vlan="5"/>'), ["<interface>", "vlan", "unknown"]),
        (ours(f'<v:interface mac="{MAC1}"/>' * 2), ["<interface>", MAC1, "twice"]),
        (ours(f'<v:interface mac="{MAC1}" vni="0"/>'), [MAC1, "vni"]),
        (ours(f'<v:interface mac="{MAC1}" vni="16777216"/>'), [MAC1, "vni"]),
        (ours(f'<v:interface mac="{MAC1}" vni="1e3"/>'), [MAC1, "vni"]),
        (ours(f'<v:interface mac="{MAC1}" network="Blue"/>'), [MAC1, "network"]),
        (ours(f'<v:interface mac="{MAC1}"><v:ip/></v:interface>'), [MAC1, "address"]),
        (ours(f'<v:interface mac="{MAC1}"><v:ip address="10.1"/></v:interface>'), ["address"]),
    ],
)
def test_broken_metadata_names_its_place_and_leaves_the_vm_unassigned(
    metadata: str, words: list[str]
) -> None:
    rules = AttachmentRules(bridges={"br-1": BLUE})
    found = read(metadata, rules)
    assert not found.vm.tenant
    assert found.vm.interfaces == (Interface(MAC1), Interface(MAC2))
    assert [word for word in words if word not in found.problem] == []


def test_a_mac_that_two_interfaces_have_identifies_neither() -> None:
    xml = domain(ours(f'<v:interface mac="{MAC1}"/>')).replace(MAC2, MAC1)
    found = read_domain(xml, NONE, active=True)
    assert not found.vm.tenant
    assert "several" in found.problem


def test_without_metadata_the_configuration_assigns_by_bridge_or_network() -> None:
    rules = AttachmentRules(bridges={"br-1": BLUE}, networks={"lan": Attachment("acme", "lan", 7)})
    vm = read(rules=rules).vm
    assert vm.tenant == "acme"
    assert vm.interfaces == (
        Interface(MAC1, network="blue", vni=1001),
        Interface(MAC2, network="lan", vni=7),
    )


def test_a_libvirt_network_is_more_specific_than_its_bridge() -> None:
    rules = AttachmentRules(bridges={"virbr1": RED}, networks={"lan": BLUE})
    assert read(rules=rules).vm.tenant == "acme"


def test_a_vm_between_two_tenants_is_nobodys() -> None:
    found = read(rules=AttachmentRules(bridges={"br-1": BLUE}, networks={"lan": RED}))
    assert not found.vm.tenant
    assert "acme, globex" in found.problem


def test_the_configuration_completes_what_the_metadata_leaves_open() -> None:
    rules = AttachmentRules(bridges={"br-1": BLUE}, networks={"lan": RED})
    inner = f'<v:interface mac="{MAC1}"><v:ip address="10.1.0.5"/></v:interface>'
    vm = read(ours(inner), rules).vm
    assert vm.interfaces == (
        Interface(MAC1, ("10.1.0.5",), "blue", 1001),
        Interface(MAC2),  # the rule speaks of another tenant
    )


def test_what_is_no_domain_is_refused() -> None:
    with pytest.raises(ValueError, match="characters"):
        read_domain("<domain>" + " " * (5 << 20) + "</domain>", NONE, active=True)


def test_the_destination_gets_taps_by_name_and_a_mark() -> None:
    mark = mark_of(autostart=True, gated=False)
    xml = destination_xml(domain(ours("")), {MAC1: "vsp01", MAC2: "vsp02"}, mark)
    devices = [target.get("dev") for target in ET.fromstring(xml).iterfind(".//target")]
    assert devices == ["vsp01", "vsp02"]
    assert is_marked(xml)
    assert read_domain(xml, NONE, active=True).vm.tenant == "acme"
    again = destination_xml(xml, {}, mark_of(autostart=False, gated=False))
    assert again.count("incoming") == 1


def test_what_comes_through_the_gate_is_marked_only_to_remember_autostart() -> None:
    marked = destination_xml(domain(), {}, mark_of(autostart=True, gated=True))
    assert not is_marked(marked), "it may have run: it is not ours to discard"
    assert 'autostart="yes"' in marked
    assert "incoming" not in destination_xml(marked, {}, mark_of(autostart=False, gated=True))


def test_a_mark_is_an_element_and_no_mere_mention() -> None:
    assert not is_marked(domain())
    assert not is_marked(domain("<note>urn:vsignal:move:1</note>"))


@pytest.mark.parametrize(
    ("uri", "directory"),
    [
        ("qemu:///system", "/run/libvirt/qemu"),
        ("qemu+unix:///system?socket=/srv/h1/libvirt-sock", "/srv/h1/qemu"),
        ("qemu:///session", None),
        ("qemu+ssh://elsewhere/system", None),
        ("test:///default", None),
    ],
)
def test_libvirts_records_are_read_only_where_they_are(uri: str, directory: str | None) -> None:
    assert record_directory(uri) == (Path(directory) if directory else None)
