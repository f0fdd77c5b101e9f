"""The laptop lab: several hypervisor hosts on one machine, with real guests.

Each host is a network namespace with its own libvirtd; an underlay joins them.
The demo, the tests on real hosts and the benchmarks all use this one package,
so what a test shows is what a visitor sees.
"""

from deploy.lab.guest import Guest, GuestSpec, Nic
from deploy.lab.host import Host
from deploy.lab.lab import Lab
from deploy.lab.probe import Probe

__all__ = ["Guest", "GuestSpec", "Host", "Lab", "Nic", "Probe"]
