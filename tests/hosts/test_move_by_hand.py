"""`virsh migrate` behind our back: the ledger follows, and policy and forwarding with it."""

import pytest

from deploy.lab import Guest, Probe
from tests.hosts.product import Product, forwarding, spec
from tests.hosts.profiles import ip_of, web, web_holds
from tests.hosts.watch import Knocker

ROAMER = spec("roamer", 11, group="web")
AWAY = ("--persistent", "--undefinesource")
COPIED = ("--persistent",)  # the source keeps a definition that does not run


@pytest.fixture(scope="module")
def hosts() -> int:
    return 3


@pytest.fixture(scope="module")
def roamer(product: Product) -> Guest:
    product.put_group("web", web())
    (guest,) = product.start((ROAMER, 1))
    return guest


@pytest.fixture(scope="module")
def probe(product: Product, roamer: Guest) -> Probe:
    return product.probe(9, on=3)


@pytest.mark.parametrize(
    ("to", "options"),
    [(2, AWAY), (1, AWAY), (2, COPIED), (1, COPIED)],
    ids=["there", "back", "there-keeping-the-definition", "back-onto-the-kept-definition"],
)
def test_the_ledger_follows(
    product: Product, roamer: Guest, probe: Probe, to: int, options: tuple[str, ...]
) -> None:
    source, destination = product.lab.host(3 - to), product.lab.host(to)
    before = product.wait_registered(roamer, on=source.number).record
    web_holds(probe, roamer.on(source))
    run = probe.ping_every(ip_of(roamer))
    with Knocker(probe, ip_of(roamer), 22) as denied:
        moved = roamer.on(source).migrate(destination, *options)
        after = product.wait_registered(moved, on=to).record
        web_holds(probe, moved)
    print(f"blackout {run.stop().longest_gap_ms:.0f} ms")
    assert after.location.epoch == before.location.epoch + 1
    assert after.profile_hash == before.profile_hash
    assert f'"came_from": "h{source.number}"' in product.agents[to].log.read_text()
    assert forwarding(product.lab.host(3))[ROAMER.nics[0].mac] == destination.address
    assert not denied.answers
    product.wait_agreement()
    assert not product.alerts(roamer)
