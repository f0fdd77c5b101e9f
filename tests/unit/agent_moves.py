"""A move towards the bench's host, brought as far as a test wants it."""

from __future__ import annotations

from common.model.operation import MoveStep
from common.model.profile import Profile
from common.model.wanted import PortState, WantedVm
from tests.unit.agent_bench import BLUE, Bench
from tests.unit.agent_values import MAC, RATED, VM, wanted
from vserver.core.taps import incoming_device

COMING = incoming_device(MAC)


def at_destination(step: MoveStep, epoch: int = 1, profile: Profile = RATED) -> WantedVm:
    owned = step is MoveStep.START
    ports = PortState.OPEN if owned else PortState.CLOSED
    return wanted(owned=owned, ports=ports, step=step, epoch=epoch, profile=profile)


async def arrive(b: Bench) -> None:
    """The peer copies the VM here; it waits to be started."""
    b.create(here=False)
    await b.peer.migrate(VM, b.hypervisor.migration_uri, {MAC: COMING}, lambda _: None)


async def prepared(b: Bench) -> None:
    b.center.tell(BLUE, at_destination(MoveStep.PREPARE))
    b.center.synced()
    assert (await b.outcome(MoveStep.PREPARE)).ok
