"""Policy by nftables, reach by bridge and VXLAN, on any Linux host."""

from vserver.network.linux.adaptor import LinuxNetwork

__all__ = ["LinuxNetwork"]
