"""The stage with real hosts: namespaces, a hypervisor each, real guests, real packets."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from common.tls import Bundle, vcenter_name
from deploy.demo.stage import Actor, Gap
from deploy.lab import Guest, GuestSpec, Host, Lab, Nic, Probe
from deploy.lab.daemons import Daemon, agent, domain, socket_of, vcenter, wait_socket
from deploy.lab.images import disk_path, make_image


class RealStage:
    """See `deploy.demo.stage.Stage`."""

    def __init__(self, run_id: str, hypervisor: str = "libvirt") -> None:
        self.hypervisor = hypervisor
        self._lab = Lab(run_id, hosts=3, hypervisor=hypervisor, gated=hypervisor == "libvirt")
        self._guests: dict[str, Guest] = {}
        self._probe: Probe | None = None
        self._daemons: list[Daemon] = []
        self.target = f"unix:{socket_of(self._lab)}"

    @property
    def operator(self) -> Bundle:
        return domain(self._lab).operator

    def up(self) -> None:
        self._lab.up()
        center = vcenter(self._lab)
        center.start()
        wait_socket(socket_of(self._lab))
        self._daemons = [center, *(agent(self._lab, host) for host in self._lab.hosts)]
        for daemon in self._daemons[1:]:
            daemon.start()

    def down(self) -> None:
        self._lab.down()

    def logs(self) -> str:
        """For a failure: the end of every daemon's log."""
        return "\n\n".join(f"{d.log}\n{d.tail()}" for d in self._daemons)

    def start_guest(self, actor: Actor) -> None:
        nic = Nic(actor.mac, actor.vni, f"{actor.ip}/24", actor.network)
        spec = GuestSpec(
            actor.name, (nic,), uuid=actor.vm_id, tenant=actor.tenant, group=actor.group
        )
        if actor.disk:
            spec = replace(spec, disk=disk_path(actor.name, self.hypervisor))
            make_image(self._lab.host(actor.host), spec, actor.disk)
        self._guests[actor.name] = self._lab.guest(spec, on=actor.host)

    def wait_guests(self) -> None:
        for guest in self._guests.values():
            guest.wait_ready()

    def _current(self, actor: Actor) -> Guest:
        """The guest where it runs now, by libvirt's word."""
        guest = self._guests[actor.name]
        here = next(h for h in self._lab.hosts if actor.name in h.guests())
        return guest.on(here)

    @property
    def hosts(self) -> list[Host]:
        return self._lab.hosts

    def guest(self, actor: Actor, host: int) -> Guest:
        """The guest, where the ledger has it."""
        return self._guests[actor.name].on(self._lab.host(host))

    def listens(self, actor: Actor, port: int) -> bool:
        answer = self._current(actor).console(f"nc -w 1 127.0.0.1 {port} </dev/null && echo yes")
        return "yes" in answer

    def probe(self, vni: int, address: str, host: int) -> Probe:
        """The host must have a VM of that network, or it has no bridge for it."""
        return self._lab.probe("eye", on=host, bridge=f"br-{vni}", address=address)

    def place_probe(self, vni: int, address: str, host: int) -> None:
        self._probe = self.probe(vni, address, host)

    @property
    def _eye(self) -> Probe:
        if self._probe is None:
            raise RuntimeError("the probe has not been placed")
        return self._probe

    def ping(self, ip: str) -> bool:
        return self._eye.ping(ip)

    def tcp(self, ip: str, port: int) -> bool:
        return self._eye.tcp_connects(ip, port, timeout=1.5)

    @contextmanager
    def pinging(self, ip: str, every_ms: float) -> Iterator[Gap]:
        gap = Gap()
        run = self._eye.ping_every(ip, every_ms)
        try:
            yield gap
        finally:
            seen = run.stop()
            gap.longest_ms, gap.sent, gap.lost = seen.longest_gap_ms, seen.sent, seen.lost

    def try_next(self, mover: Actor) -> list[str]:
        certified = domain(self._lab)
        vctl = f".venv/bin/vctl --config {certified.vctl}"
        folder = certified.vctl.parent
        identity = f"{folder}/identity.pem"
        grpcurl = (
            f"grpcurl -unix -cacert {folder}/ca.pem -cert {identity} -key {identity}"
            f" -authority {vcenter_name(certified.name)}"
        )
        key = f'{{"keys": [{{"ip": {{"vni": {mover.vni}, "ip": "{mover.ip}"}}}}]}}'
        socket = self.target.removeprefix("unix:")
        return [
            f"{vctl} vm list",
            f"{vctl} vm where {mover.vni}/{mover.ip}",
            f"{vctl} vm move {mover.vm_id} --to h3",
            f"{vctl} op list",
            f"{vctl} events --snapshot --timeout 1",
            f"{grpcurl} -d '{key}' {socket} vsignal.v1.Signaling/Lookup",
            f"{grpcurl} {socket} list",
            f"{self._lab.host(2).virsh_line} list",
            "./scripts/demo --down",
        ]
