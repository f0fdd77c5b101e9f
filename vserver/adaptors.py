"""The one place where configuration becomes adaptors. What is not chosen is not even imported."""

from __future__ import annotations

import asyncio
import random
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import grpc

from common import log, rpc
from common.clock import Clock
from common.errors import Reason, Refusal
from common.model.caller import Caller, Role, dns_name
from common.renewal import Renewal
from common.tls import Bundle, Keeper, TlsError
from vserver.app import Parts
from vserver.config import AgentConfig, HypervisorKind, NetworkKind
from vserver.hypervisor.metadata import Attachment, AttachmentRules
from vserver.hypervisor.pki import publish
from vserver.hypervisor.port import Hypervisor
from vserver.hypervisor.receiver import available
from vserver.link import GrpcLink
from vserver.network.port import Network
from vserver.privileges import may_write_anything
from vserver.state import FileState

if TYPE_CHECKING:
    from vserver.hypervisor.libvirt.gate.keeper import Keeper as GateKeeper
    from vserver.hypervisor.libvirt.standby import Reception

_log = log.get(__name__)


def _version() -> str:
    try:
        return version("vsignal")
    except PackageNotFoundError:  # run from a source tree
        return "0"


VERSION = _version()


def parts(config: AgentConfig, clock: Clock) -> Parts:
    """Everything that a real agent is handed. Nothing is opened yet. Raises `TlsError`."""
    keeper = Keeper(config.tls) if config.tls else None
    links = _links(config, keeper)

    encrypting = keeper if config.encrypts else None

    async def reconnect() -> None:
        if encrypting is not None:
            await asyncio.to_thread(publish, encrypting.current, config.pki)
        for link in links:
            await link.reconnect()

    if encrypting is not None:
        publish(encrypting.current, config.pki)
    elif keeper is not None and config.hypervisor is not HypervisorKind.MEMORY:
        _log.warning("MEMORY TRAVELS IN CLEAR when VMs move", why="encrypt_migration = false")

    chance = random.Random()
    renewal = Renewal(keeper, config.vcenter, reconnect, clock, chance) if keeper else None
    return Parts(
        clock=clock,
        links=links,
        hypervisor=hypervisor(config, clock),
        network=network(config, clock),
        state=FileState(config.state_dir),
        version=VERSION,
        chance=chance,
        renewal=renewal,
        migration_name=_name(encrypting.current) if encrypting is not None else "",
    )


def _name(bundle: Bundle) -> str:
    """What the other end of an encrypted copy demands to find in the certificate."""
    return dns_name(bundle.certified.domain, bundle.certified.caller)


def _links(config: AgentConfig, keeper: Keeper | None) -> list[GrpcLink]:
    def channel(address: str) -> grpc.aio.Channel:
        return rpc.channel(address, keeper.current if keeper else None)

    if keeper is None:
        _log.warning("PLAIN TEXT to the vCenter; nothing proves who it is", vcenter=config.vcenter)
    elif keeper.current.certified.caller != Caller(Role.VSERVER, config.server_id):
        holder = keeper.current.certified.caller
        raise TlsError(
            f"{config.tls and config.tls.identity} is {holder}'s, not {config.server_id}'s"
        )
    return [GrpcLink(address, config.server_id, channel) for address in config.vcenter]


def hypervisor(config: AgentConfig, clock: Clock) -> Hypervisor:
    if config.hypervisor is HypervisorKind.MEMORY:
        from vserver.hypervisor.memory import MemoryFleet

        return MemoryFleet(clock).host(config.server_id, rules=_rules(config))
    if config.hypervisor is HypervisorKind.QEMU:
        from vserver.hypervisor.qemu.adaptor import QemuHypervisor
        from vserver.hypervisor.qemu.secrecy import Clear, Encrypted

        secrecy = Encrypted(config.pki) if config.encrypts else Clear()
        uri = config.migration_uri
        return QemuHypervisor(config.guests_dir, clock, _rules(config), uri, secrecy)
    from vserver.hypervisor.libvirt.adaptor import LibvirtHypervisor
    from vserver.hypervisor.libvirt.volumes import Storage

    return LibvirtHypervisor(
        config.libvirt.uri,
        clock,
        config.state_dir / "copies",
        _rules(config),
        encrypt=config.encrypts,
        keeper=_gate_keeper(config, clock),
        storage=Storage(config.libvirt.disks, config.state_dir / "made-disks"),
        reception=_reception(config),
    )


def _reception(config: AgentConfig) -> Reception | None:
    """None where no standby can be kept: no address, no receiver, no right to write its files."""
    from vserver.hypervisor.libvirt.standby import Reception

    host = urlsplit(config.migration_uri).hostname
    if not (host and available() and may_write_anything()):
        return None
    pki = config.pki if config.encrypts else None
    return Reception(config.state_dir / "standbys", host, pki)


def _gate_keeper(config: AgentConfig, clock: Clock) -> GateKeeper | None:
    """Raises `Refusal` where libvirtd is not on this host."""
    if not config.libvirt.gate:
        return None
    from vserver.hypervisor.libvirt.gate.keeper import Keeper as GateKeeper
    from vserver.hypervisor.libvirt.source_process import run_directory

    run = run_directory(config.libvirt.uri)
    if run is None:
        text = f"libvirt.gate: {config.libvirt.uri} is not this host's system libvirtd"
        raise Refusal(Reason.HYPERVISOR_FAILED, text)
    return GateKeeper(run / "virtlockd-sock", config.state_dir / "gate", clock)


def network(config: AgentConfig, clock: Clock) -> Network:
    if config.network is NetworkKind.MEMORY:
        from vserver.network.fabric import Fabric
        from vserver.network.memory import MemoryNetwork

        return MemoryNetwork(Fabric(clock).host(config.vtep_address))
    from vserver.network.linux import LinuxNetwork

    return LinuxNetwork(config.vtep_address)


def _rules(config: AgentConfig) -> AttachmentRules:
    bridges, networks = {}, {}
    for entry in config.attachment:
        attachment = Attachment(entry.tenant, entry.network or "", entry.vni)
        if entry.bridge:
            bridges[entry.bridge] = attachment
        else:
            networks[entry.libvirt_network] = attachment
    return AttachmentRules(bridges, networks)
