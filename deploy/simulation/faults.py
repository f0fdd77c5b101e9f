"""What goes wrong, each for a while: processes, links, disks, hypervisors, clocks, power."""

from __future__ import annotations

import random
from collections.abc import Callable

from deploy.simulation.center import Center
from deploy.simulation.copies import Fate
from deploy.simulation.loop import Process
from deploy.simulation.world import Host, World

_STEPS = 250  # callbacks after which a fuse has burnt, at most


class Faults:
    """`strike` once; everything is undone by itself, or by `heal`."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self.count = 0
        self._over = False
        self._kinds: tuple[Callable[[Host], None], ...] = (
            self._kill_agent,
            self._kill_agent_soon,
            self._kill_agent_soon,
            self._kill_center,
            self._kill_center_soon,
            self._kill_center_soon,
            self._cut,
            self._block_one_way,
            self._block_one_way,
            self._block_both_ways,
            self._slow,
            self._lose_calls,
            self._double_calls,
            self._hang_libvirtd,
            self._hang_libvirtd,
            self._restart_libvirtd,
            self._lose_answers,
            self._next_copy,
            self._next_copy,
            self._next_copy,
            self._break_mirrors,
            self._kill_receivers,
            self._kill_guest,
            self._power_cut,
            self._stop_agent,
            self._stop_center,
            self._set_clock,
            self._fill_disk,
            self._slow_disk,
            self._break_network,
        )

    def _say(self, what: str) -> None:
        self._world.journal.say("fate", what)

    def strike(self) -> None:
        host = self._chance.choice(list(self._world.hosts.values()))
        self._chance.choice(self._kinds)(host)
        self.count += 1

    def heal(self) -> None:
        """Everything works from now on, and nobody is hurt any more."""
        self._over = True
        world = self._world
        world.journal.say("fate", "everything is healed")
        world.network.heal()
        for center in world.centers.values():
            center.disk.full, center.disk.slow = False, 1.0
        for process in world.processes:
            process.fuse = None
            if process.stopped:
                process.resume()
        for host in world.hosts.values():
            self._mend(host)

    def _mend(self, host: Host) -> None:
        machine = host.machine
        machine.recover()
        machine.next_fate = Fate.GOOD
        self._world.power_on(host)
        if not machine.answering:
            machine.reconnect()
        if host.hypervisor is not None and host.wires is not None:
            host.hypervisor.loses = host.wires.fails = 0.0
        self._world.boot_agent(host)

    def _later(self, at_most: float, undo: Callable[[], object]) -> None:
        self._world.kernel.after(self._chance.uniform(0.1, at_most), self._unless_over, undo)

    def _unless_over(self, undo: Callable[[], object]) -> None:
        if not self._over:
            undo()

    # ---- processes ----

    def _kill_agent(self, host: Host) -> None:
        if host.process is not None:
            host.process.kill()

    def _kill_agent_soon(self, host: Host) -> None:
        self._light(host.process)

    def _center_of(self, host: Host) -> Center:
        """The one that is struck."""
        return host.center

    def _kill_center(self, host: Host) -> None:
        process = self._center_of(host).process
        if process is not None:
            process.kill()

    def _kill_center_soon(self, host: Host) -> None:
        self._light(self._center_of(host).process)

    def _light(self, process: Process | None) -> None:
        if process is not None and process.alive:
            process.fuse = self._chance.randint(1, _STEPS)
            self._say(f"{process.name} has {process.fuse} steps to live")

    def _stop_agent(self, host: Host) -> None:
        self._pause(host.process)

    def _stop_center(self, host: Host) -> None:
        self._pause(self._center_of(host).process)

    def _pause(self, process: Process | None) -> None:
        if process is not None and process.alive and not process.stopped:
            self._say(f"{process.name} stands still")
            process.stop()
            self._later(14.0, lambda: self._go_on(process))

    def _go_on(self, process: Process) -> None:
        if process.stopped:
            self._say(f"{process.name} goes on")
            process.resume()

    # ---- the network ----

    def _cut(self, host: Host) -> None:
        self._world.network.cut(host.name, host.center.address)

    def _block_one_way(self, host: Host) -> None:
        ends = self._chance.choice(
            ((host.name, host.center.address), (host.center.address, host.name))
        )
        self._world.network.block(ends)
        self._later(25.0, lambda: self._world.network.unblock(ends))

    def _block_both_ways(self, host: Host) -> None:
        network = self._world.network
        for ends in ((host.name, host.center.address), (host.center.address, host.name)):
            network.block(ends)
        self._later(25.0, lambda: self._unblock(host))

    def _unblock(self, host: Host) -> None:
        for ends in ((host.name, host.center.address), (host.center.address, host.name)):
            self._world.network.unblock(ends)

    def _slow(self, host: Host) -> None:
        for ends in ((host.name, host.center.address), (host.center.address, host.name)):
            self._world.network.slow_down(ends, self._chance.choice((0.1, 0.5, 3.0)))

    def _lose_calls(self, host: Host) -> None:
        self._say("calls are lost")
        self._world.network.lossy = 0.3
        self._later(5.0, lambda: setattr(self._world.network, "lossy", 0.0))

    def _double_calls(self, host: Host) -> None:
        self._say("calls arrive twice")
        self._world.network.doubling = 0.5
        self._later(8.0, lambda: setattr(self._world.network, "doubling", 0.0))

    def _break_network(self, host: Host) -> None:
        if host.wires is not None:
            wires = host.wires
            self._say(f"{host.name}: its data plane refuses changes")
            wires.fails = 0.5
            self._later(5.0, lambda: setattr(wires, "fails", 0.0))

    # ---- hypervisors ----

    def _hang_libvirtd(self, host: Host) -> None:
        host.machine.hang()
        self._later(9.0, host.machine.recover)

    def _restart_libvirtd(self, host: Host) -> None:
        self._say(f"{host.name}: libvirtd stops")
        host.machine.disconnect()
        self._later(3.0, host.machine.reconnect)

    def _lose_answers(self, host: Host) -> None:
        if host.hypervisor is not None:
            way = host.hypervisor
            self._say(f"{host.name}: answers of libvirtd are lost")
            way.loses = 0.3
            self._later(4.0, lambda: setattr(way, "loses", 0.0))

    def _next_copy(self, host: Host) -> None:
        """Of all machines: which of them copies next is not known."""
        fate = self._chance.choice(list(Fate)[1:])
        self._say(f"the next copies: {fate.value}")
        for each in self._world.hosts.values():
            each.machine.next_fate = fate

    def _break_mirrors(self, host: Host) -> None:
        """The link between two hosts, as far as their guests' disks travel over it."""
        if host.machine.mirrors:
            self._say(f"{host.name}: its mirrors break off")
            for mirror in host.machine.mirrors.values():
                mirror.broken = True

    def _kill_receivers(self, host: Host) -> None:
        if host.machine.receiving or host.machine.taking:
            self._say(f"{host.name}: who takes the copies of disks dies")
            host.machine.taking.clear()
            for vm_id in list(host.machine.receiving):
                host.machine.stop_receiving(vm_id)

    def _kill_guest(self, host: Host) -> None:
        active = sorted(i for i, vm in host.machine.vms.items() if vm.active)
        if active:
            vm_id = self._chance.choice(active)
            self._say(f"{host.name}: QEMU of {vm_id[-2:]} dies")
            host.machine.stop(vm_id)

    def _power_cut(self, host: Host) -> None:
        if host.machine.powered:
            self._say(f"{host.name} loses power")
            self._world.power_cut(host)
            self._later(12.0, lambda: self._world.power_on(host))

    # ---- clocks and disks ----

    def _set_clock(self, host: Host) -> None:
        jump = self._chance.choice((-3600.0, -5.0, 5.0, 3600.0))
        self._say(f"wall clocks jump by {jump:.0f} s")
        self._world.set_clocks(jump)

    def _fill_disk(self, host: Host) -> None:
        self._say("the vCenter's disk is full")
        disk = self._center_of(host).disk
        disk.full = True
        self._later(4.0, lambda: setattr(disk, "full", False))

    def _slow_disk(self, host: Host) -> None:
        self._say("the vCenter's disk is slow")
        disk = self._center_of(host).disk
        disk.slow = 50.0
        self._later(5.0, lambda: setattr(disk, "slow", 1.0))
