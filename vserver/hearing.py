"""What comes down the stream, taken in. A message that we cannot take changes nothing."""

from __future__ import annotations

from collections.abc import Callable

from common import log
from common.codec.checker import Checker
from common.codec.silence import from_listen
from common.codec.wanted import add_held, from_change, from_network, from_wanted_vm
from common.errors import Reason
from common.model.silence import Listen
from common.pb.vsignal.v1 import session_pb2 as pb
from vserver.core.epochs import Epochs
from vserver.core.wanted import Wanted

_log = log.get(__name__)


class Hearing:
    """`changed` is called after each message that changed what is wanted of one VM, of the
    networks (""), or of anything (None: a whole set is complete). `resync` asks for the whole of
    a network of which something was missed. `listen` is told of guests to listen to."""

    def __init__(
        self,
        wanted: Wanted,
        epochs: Epochs,
        changed: Callable[[str | None], None],
        resync: Callable[[int], None],
        listen: Callable[[Listen], None],
    ) -> None:
        self._wanted = wanted
        self._epochs = epochs
        self._changed = changed
        self._resync = resync
        self._listen = listen

    def greet(self, hello: pb.Hello) -> pb.Hello:
        """The hello with what is held."""
        greeting = pb.Hello()
        greeting.CopyFrom(hello)
        add_held(greeting, self._wanted.held())
        return greeting

    def attach(self, welcome: pb.Welcome) -> None:
        self._wanted.attach(welcome.resumes)

    def detach(self) -> None:
        self._wanted.detach()

    def hear(self, message: pb.CenterMessage) -> None:
        match message.WhichOneof("message"):
            case "vm":
                self._vm(message.vm)
            case "vm_gone":
                self._wanted.drop_vm(message.vm_gone)
                self._changed(message.vm_gone)
            case "network":
                fits = self._wanted.put_network(from_network(message.network))
                self._network(message.network.vni, fits)
            case "network_change":
                fits = self._wanted.change_network(from_change(message.network_change))
                self._network(message.network_change.vni, fits)
            case "network_gone":
                self._wanted.drop_network(message.network_gone)
                self._changed("")
            case "listen":
                self._listening(message.listen)
            case "synced":
                self._synced(message.synced.revision)
            case kind:  # a newer vCenter may say more than we understand
                _log.warning("not understood", message=kind)

    def _network(self, vni: int, fits: bool) -> None:
        if fits:
            self._changed("")
        else:
            _log.warning("something of a network was missed", vni=vni)
            self._resync(vni)

    def _vm(self, wire: pb.WantedVm) -> None:
        check = Checker()
        vm = from_wanted_vm(check, wire)
        vm_id = wire.vm.vm_id
        if check.violations:
            self._wanted.named(vm_id)
            problems = [f"{v.field}: {v.description}" for v in check.violations]
            _log.error("a malformed order is ignored", vm_id=vm_id, problems=problems)
        elif not self._wanted.put_vm(vm):
            _log.error(
                "an order of an older epoch is ignored",
                reason=Reason.STALE_EPOCH.name,
                vm_id=vm_id,
                epoch=vm.epoch,
                seen=self._epochs.seen(vm_id),
            )
        else:
            self._changed(vm_id)

    def _listening(self, wire: pb.Listen) -> None:
        check = Checker()
        order = from_listen(check, wire)
        if check.violations:
            _log.error("a malformed order to listen is ignored", operation_id=wire.operation_id)
        else:
            self._listen(order)

    def _synced(self, revision: int) -> None:
        was_in_step = self._wanted.in_step
        forgotten = self._wanted.synced(revision)
        if forgotten:
            _log.info("no longer wanted here", vms=len(forgotten))
        if not was_in_step:
            self._changed(None)
