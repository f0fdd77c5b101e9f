"""Profiles of VMs and groups: reading the file, getting and setting."""

from __future__ import annotations

from typing import TextIO

from common.pb.vsignal.v1 import inventory_pb2, types_pb2
from vcenter.ctl import profile_file
from vcenter.ctl.app import App
from vcenter.ctl.failure import Exit, Failure
from vcenter.ctl.profile_reader import ProfileError
from vcenter.ctl.profile_values import format_quantity
from vcenter.ctl.words import listed


def read_profile(file: TextIO) -> types_pb2.Profile:
    """The profile in a file; everything that is wrong with it, at once."""
    try:
        return profile_file.parse(file.read())
    except ProfileError as error:
        lines = [f"{path}: {text}" if path else text for path, text in error.errors]
        raise Failure(Exit.REFUSED, f"{file.name} is no profile", *lines) from None
    except UnicodeDecodeError:
        raise Failure(Exit.REFUSED, f"{file.name} is not UTF-8 text") from None


def get_group(app: App, tenant: str, name: str) -> types_pb2.Group:
    """The group as it is stored."""
    request = inventory_pb2.GetGroupRequest(tenant=tenant, name=name)
    return app.client.call(app.client.inventory.GetGroup, request)


def set_group_profile(app: App, tenant: str, name: str, profile: types_pb2.Profile | None) -> int:
    """Replaces the profile of a group that exists; the revision of the change."""
    get_group(app, tenant, name)  # setting the profile of a mistyped group declares none
    wanted = types_pb2.Group(tenant=tenant, name=name, profile=profile)
    request = inventory_pb2.PutGroupRequest(group=wanted)
    return app.client.call(app.client.inventory.PutGroup, request).revision


def set_vm_profile(app: App, vm_id: str, profile: types_pb2.Profile | None) -> int:
    """Replaces the VM's own profile; the revision of the change."""
    request = inventory_pb2.SetVmProfileRequest(vm_id=vm_id, profile=profile)
    return app.client.call(app.client.inventory.SetVmProfile, request).revision


def summary(profile: types_pb2.Profile) -> str:
    """On one line: what the profile speaks about."""
    parts = []
    if profile.HasField("acl"):
        parts.append(f"{len(profile.acl.rules)} rules")
    if profile.HasField("ingress_rate"):
        parts.append(f"in {format_quantity(profile.ingress_rate.bits_per_second)}")
    if profile.HasField("egress_rate"):
        parts.append(f"out {format_quantity(profile.egress_rate.bits_per_second)}")
    if profile.HasField("vlan"):
        parts.append(f"VLAN {profile.vlan}")
    if profile.HasField("priority"):
        parts.append(f"priority {profile.priority}")
    if profile.HasField("anti_spoofing"):
        parts.append(f"anti-spoofing {'on' if profile.anti_spoofing else 'off'}")
    if profile.router_advertisements:
        parts.append("router")
    if profile.dhcp_server:
        parts.append("DHCP server")
    return listed(parts)
