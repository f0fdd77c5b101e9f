"""VMs made by anyone with virsh become known, with what their metadata says, and nothing opens
that nobody has assigned."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from deploy.lab import Guest, GuestSpec, Lab, Nic, Probe
from tests.hosts.product import (
    NETWORK,
    PAUSED,
    RIVAL,
    RIVAL_NETWORK,
    RIVAL_VNI,
    RUNNING,
    SHUT_OFF,
    TENANT,
    VNI,
    Product,
    address,
    spec,
)
from tests.hosts.profiles import closed, ip_of, web, web_holds

OFFICE = "office"  # the operator's own bridge, from before there was an agent


@dataclass(frozen=True)
class Misspelt(GuestSpec):
    """Its metadata names a tenant that cannot be one: nobody may guess what was meant."""

    def xml(self) -> str:
        return super().xml().replace(f'tenant="{TENANT}"', 'tenant="Not A Tenant"')


def on_office(made: GuestSpec) -> GuestSpec:
    return replace(made, nics=tuple(replace(nic, bridge=OFFICE) for nic in made.nics))


EARLY = on_office(spec("early", 11))
LATE = spec("late", 12, group="web")
NOBODYS = spec("nobodys", 13, tenant="")
ATTACHED = GuestSpec("attached", (Nic("52:54:00:20:00:01", 0, "10.1.0.11/24", bridge=OFFICE),))
BROKEN = Misspelt("broken", spec("broken", 14).nics, tenant=TENANT)


@pytest.fixture(scope="module")
def hosts() -> int:
    return 1


@pytest.fixture(scope="module")
def settings() -> dict[int, str]:
    place = f'bridge = "{OFFICE}", tenant = "{RIVAL}", network = "{RIVAL_NETWORK}"'
    return {1: f"attachment = [{{{place}}}]"}


@pytest.fixture(scope="module")
def product(lab: Lab, settings: dict[int, str]) -> Iterator[Product]:
    """At first the vCenter alone: the agent is started when a VM is there already."""
    running = Product(lab, settings)
    running.up(agents=[])
    yield running
    running.down()


@pytest.fixture(scope="module")
def guests(product: Product) -> dict[str, Guest]:
    """One from before the agent's start, the others from after it."""
    product.put_group("web", web())
    product.lab.host(1).run(["ip", "link", "add", OFFICE, "up", "type", "bridge"])
    early = product.lab.guest(EARLY, on=1)
    product.agents[1].start()
    product.wait_attached()
    late = [product.lab.guest(each, on=1) for each in (LATE, NOBODYS, ATTACHED, BROKEN)]
    return {guest.name: guest.wait_ready() for guest in (early, *late)}


@pytest.fixture(scope="module")
def probe(product: Product, guests: dict[str, Guest]) -> Probe:
    return product.probe(9, on=1)


def test_a_vm_from_before_the_agent_is_registered(
    product: Product, guests: dict[str, Guest], probe: Probe
) -> None:
    vm = product.wait_registered(guests["early"], on=1).record.vm
    assert (vm.name, vm.tenant, vm.group) == ("early", TENANT, "")
    nic = vm.interfaces[0]
    assert (nic.network, nic.vni, list(nic.ips)) == (NETWORK, VNI, [address(11)])
    probe.wait_ping(address(11))


def test_a_vm_made_while_the_agent_runs_is_registered(
    product: Product, guests: dict[str, Guest], probe: Probe
) -> None:
    record = product.wait_registered(guests["late"], on=1).record
    assert (record.vm.tenant, record.vm.group) == (TENANT, "web")
    assert (record.vm.resources.vcpus, record.vm.resources.memory_mib) == (1, 128)
    assert record.location.epoch == 1
    web_holds(probe, guests["late"])


def test_the_configuration_says_whose_a_vm_without_metadata_is(
    product: Product, guests: dict[str, Guest]
) -> None:
    vm = product.wait_registered(guests["attached"], on=1).record.vm
    nic = vm.interfaces[0]
    assert (vm.tenant, nic.network, nic.vni) == (RIVAL, RIVAL_NETWORK, RIVAL_VNI)
    endpoint = product.lab.probe("rival", 1, f"br-{RIVAL_VNI}", "10.1.0.9/24")
    endpoint.wait_ping("10.1.0.11")


def test_broken_metadata_opens_nothing_and_is_shown(
    product: Product, guests: dict[str, Guest], probe: Probe
) -> None:
    vm = product.wait_registered(guests["broken"], on=1)
    assert vm.record.vm.tenant == ""
    assert "tenant" in vm.status.port_problem
    assert "Not A Tenant" in vm.status.port_problem
    closed(probe, guests["broken"])


def test_a_vm_that_nobody_assigned_is_shown_and_closed_until_the_operator_assigns_it(
    product: Product, guests: dict[str, Guest], probe: Probe
) -> None:
    nobodys = guests["nobodys"]
    product.wait_registered(nobodys, on=1)
    unassigned = product.records(unassigned_only=True)
    assert {r.vm.name for r in unassigned.values()} == {"nobodys", "broken"}
    closed(probe, nobodys)
    product.assign(nobodys, group="web")
    vm = product.wait_registered(nobodys, on=1).record.vm
    assert (vm.tenant, vm.group) == (TENANT, "web")
    web_holds(probe, nobodys)
    assert nobodys.spec.uuid not in product.records(unassigned_only=True)


def test_what_virsh_does_to_a_vm_is_followed(
    product: Product, guests: dict[str, Guest], probe: Probe
) -> None:
    late = guests["late"]
    for word, state in (("suspend", PAUSED), ("resume", RUNNING), ("destroy", SHUT_OFF)):
        late.host.virsh(word, late.name)
        product.wait_registered(late, on=1, state=state)
    late.host.virsh("start", late.name)
    product.wait_registered(late, on=1)
    web_holds(probe, late.wait_ready())


def test_a_vm_that_is_undefined_is_deregistered(
    product: Product, guests: dict[str, Guest], probe: Probe
) -> None:
    early = guests["early"]
    early.host.virsh("undefine", early.name)  # it runs on: libvirt calls it transient
    product.wait_registered(early, on=1)
    probe.wait_ping(ip_of(early))
    early.destroy()
    product.until("it is deregistered", lambda: product.control.vm(early.spec.uuid) is None)
    product.wait_agreement()
