"""Whether nobody on the way reads or changes a copy: the agents' line, and memory between QEMUs.

The destination's URI decides, and both ends must be of one mind: with a name behind its `#` the
destination takes TLS only, and must prove that name, by its host's certificate, to the source's
agent and to its QEMU.
"""

from __future__ import annotations

import ssl
from asyncio import StreamWriter
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from common.certificates import BadCertificate, certified
from common.errors import Refusal
from common.model.caller import Role
from vserver.hypervisor.qemu.guests import refused
from vserver.hypervisor.qemu.monitor import Monitor
from vserver.hypervisor.qemu.wire import Address

_OBJECT = "vsignal-tls"


class Secrecy(Protocol):
    """`pki`: the folder of our certificate; None for none. `dial` and `accept`: for one connection
    of the line, None for none. Refusals: `dial` where the two ends are not of one mind, `sends` and
    `takes` in QEMU's words. `credentials`: what QEMU calls its certificate after these two, for
    disks; "" where they travel in clear."""

    credentials: str

    @property
    def pki(self) -> Path | None: ...

    def dial(self, address: Address) -> ssl.SSLContext | None: ...

    def accept(self) -> ssl.SSLContext | None: ...

    def hears(self, writer: StreamWriter) -> bool:
        """Whether an agent is at the other end."""
        ...

    async def sends(self, monitor: Monitor, address: Address) -> None:
        """Before QEMU's `migrate`."""
        ...

    async def takes(self, monitor: Monitor) -> None:
        """Before QEMU's `migrate-incoming`."""
        ...


class Clear:
    """Everything can be read, and anybody is heard: where that was asked for."""

    credentials = ""
    pki = None

    def dial(self, address: Address) -> None:
        if address.name:
            text = f"{address.host} takes encrypted migration only, and this host sends no such"
            raise refused(text)

    def accept(self) -> None:
        return

    def hears(self, writer: StreamWriter) -> bool:
        return True

    async def sends(self, monitor: Monitor, address: Address) -> None:
        await self.takes(monitor)

    async def takes(self, monitor: Monitor) -> None:
        await monitor.execute("migrate-set-parameters", tls_creds="")


class Encrypted:
    """With the certificate in the folder `pki`, as it is when a copy begins (`hypervisor.pki`)."""

    credentials = _OBJECT

    def __init__(self, pki: Path) -> None:
        self.pki = pki

    def dial(self, address: Address) -> ssl.SSLContext:
        if not address.name:
            text = f"{address.host} takes no encrypted migration, and this host sends no other"
            raise refused(text)
        return self._context(ssl.PROTOCOL_TLS_CLIENT, "client")

    def accept(self) -> ssl.SSLContext:
        context = self._context(ssl.PROTOCOL_TLS_SERVER, "server")
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def hears(self, writer: StreamWriter) -> bool:
        """Tenants and operators have certificates of the same CA."""
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        try:
            peer = certified(ssl.DER_cert_to_PEM_cert(shown).encode())
        except BadCertificate:
            return False
        return peer.caller.role is Role.VSERVER

    async def sends(self, monitor: Monitor, address: Address) -> None:
        await self._with_certificate(monitor, "client")
        await monitor.execute(
            "migrate-set-parameters", tls_creds=_OBJECT, tls_hostname=address.name
        )

    async def takes(self, monitor: Monitor) -> None:
        await self._with_certificate(monitor, "server")
        await monitor.execute("migrate-set-parameters", tls_creds=_OBJECT, tls_hostname="")

    async def _with_certificate(self, monitor: Monitor, endpoint: str) -> None:
        """QEMU reads the files now: it may have come here by a copy itself, days ago."""
        with suppress(Refusal):  # there is none yet
            await monitor.execute("object-del", id=_OBJECT)
        await monitor.execute(
            "object-add",
            qom_type="tls-creds-x509",
            id=_OBJECT,
            dir=str(self.pki),
            endpoint=endpoint,
            verify_peer=True,
        )

    def _context(self, protocol: int, end: str) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_cert_chain(self.pki / f"{end}-cert.pem", self.pki / f"{end}-key.pem")
            context.load_verify_locations(self.pki / "ca-cert.pem")
        except OSError as error:  # also ssl.SSLError
            raise refused(f"the certificate in {self.pki} cannot be used: {error}") from error
        return context
