"""What is wanted of a host, and who may say so (I3)."""

from __future__ import annotations

from common.model.wanted import WantedNetwork
from tests.unit.agent_center import whole
from tests.unit.agent_values import OTHER, VM, wanted
from vserver.core.epochs import Epochs, KnownEpochs
from vserver.core.wanted import Wanted

BLUE, RED = WantedNetwork(1001, "blue", (), ()), WantedNetwork(1002, "red", (), ())


def fresh() -> tuple[Wanted, Epochs]:
    epochs = Epochs()
    return Wanted(epochs), epochs


def test_nothing_is_complete_before_the_first_synced() -> None:
    w, _ = fresh()
    w.attach(resumes=False)
    w.put_vm(wanted())
    assert not w.complete
    assert w.synced(7) == frozenset()
    assert w.complete and w.in_step and w.revision == 7


def test_what_a_new_stream_does_not_name_is_dropped_at_its_synced_and_not_before() -> None:
    w, _ = fresh()
    w.attach(resumes=False)
    for vm_id in (VM, OTHER):
        w.put_vm(wanted(vm_id))
    for network in (BLUE, RED):
        w.put_network(whole(network))
    w.synced(1)
    w.detach()
    assert w.complete and not w.in_step and set(w.vms) == {VM, OTHER}
    w.attach(resumes=False)
    w.put_vm(wanted(OTHER))
    w.put_network(whole(RED))
    assert set(w.vms) == {VM, OTHER} and set(w.networks) == {1001, 1002}
    assert w.synced(2) == {VM}
    assert set(w.vms) == {OTHER} and set(w.networks) == {1002}


def test_a_stream_that_goes_on_from_what_is_held_drops_what_it_says_is_gone() -> None:
    w, _ = fresh()
    w.attach(resumes=False)
    for vm_id in (VM, OTHER):
        w.put_vm(wanted(vm_id))
    for network in (BLUE, RED):
        w.put_network(whole(network))
    w.synced(1)
    assert {vm_id for vm_id, _ in w.held().vms} == {VM, OTHER}
    assert {vni for vni, _ in w.held().networks} == {1001, 1002}
    w.attach(resumes=True)
    w.drop_vm(OTHER)
    w.drop_network(1002)
    assert w.synced(2) == frozenset() and w.in_step
    assert set(w.vms) == {VM} and set(w.networks) == {1001}


def test_a_later_synced_drops_nothing() -> None:
    w, _ = fresh()
    w.attach(resumes=False)
    w.put_vm(wanted())
    w.synced(1)
    w.put_vm(wanted(OTHER))
    assert w.synced(2) == frozenset() and set(w.vms) == {VM, OTHER}
    w.drop_vm(VM)
    w.put_network(whole(BLUE))
    w.drop_network(1001)
    assert w.synced(3) == frozenset() and set(w.vms) == {OTHER} and not w.networks


def test_a_vm_that_was_named_in_words_we_cannot_take_stays_as_it_was() -> None:
    w, _ = fresh()
    w.attach(resumes=False)
    w.put_vm(wanted())
    w.synced(1)
    w.attach(resumes=False)
    w.named(VM)
    assert w.synced(2) == frozenset() and set(w.vms) == {VM}


def test_an_older_epoch_is_not_heard() -> None:
    w, epochs = fresh()
    w.attach(resumes=False)
    assert w.put_vm(wanted(epoch=3))
    assert not w.put_vm(wanted(epoch=2))
    assert w.vms[VM].epoch == 3
    assert w.put_vm(wanted(epoch=3, owned=False))
    assert epochs.seen(VM) == 3


def test_an_epoch_from_before_a_restart_counts() -> None:
    w, epochs = fresh()
    epochs.restore(KnownEpochs({VM: 5}, {}))
    w.attach(resumes=False)
    assert not w.put_vm(wanted(epoch=4)) and not w.vms
    assert w.put_vm(wanted(epoch=5))


def test_missing_networks_are_those_of_the_vm() -> None:
    w, _ = fresh()
    assert w.missing_networks(wanted()) == {1001}
    w.put_network(whole(BLUE))
    assert w.missing_networks(wanted()) == frozenset()


def test_epochs_never_go_back_and_changes_are_counted() -> None:
    epochs = Epochs()
    epochs.note(VM, 4)
    epochs.note(VM, 3)
    assert epochs.seen(VM) == 4 and epochs.changes == 1
    epochs.hold(VM, 4)
    epochs.hold(VM, 4)
    assert epochs.held(VM) == 4 and epochs.changes == 2
    epochs.release([VM, OTHER])
    assert epochs.held(VM) == 0 and epochs.seen(VM) == 4 and epochs.changes == 3
    again = Epochs()
    again.restore(epochs.known())
    assert again.seen(VM) == 4 and not again.admits(VM, 3) and again.admits(VM, 4)
