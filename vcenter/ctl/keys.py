"""How people name a VM: its UUID, `vni/mac`, `vni/ip`, or its name where that is unique."""

from __future__ import annotations

import re

import click

from common.model.identity import parse_ip, parse_mac, parse_name, parse_vm_id, parse_vni
from common.pb.vsignal.v1 import directory_pb2, inventory_pb2, signaling_pb2, types_pb2
from vcenter.ctl.client import Client
from vcenter.ctl.failure import Exit, Failure

_MAC = re.compile(r"([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}")
KEY_HELP = "KEY is a UUID, VNI/MAC, VNI/IP, or a VM's name where it is unique."


def parse_key(text: str) -> types_pb2.VmKey | None:
    """The key that the text is; None if it can only be a name. ValueError if it is neither."""
    vni_text, slash, address = text.partition("/")
    if slash:
        if not re.fullmatch(r"[0-9]+", vni_text):
            raise ValueError(f"write VNI/MAC or VNI/IP, not {text!r}")
        vni = parse_vni(int(vni_text))
        if _MAC.fullmatch(address):
            return types_pb2.VmKey(mac=types_pb2.VmKey.MacKey(vni=vni, mac=parse_mac(address)))
        return types_pb2.VmKey(ip=types_pb2.VmKey.IpKey(vni=vni, ip=parse_ip(address)))
    if _is_address(text):
        raise ValueError(f"an address means nothing without its VNI: write VNI/{text}")
    try:
        return types_pb2.VmKey(vm_id=parse_vm_id(text))
    except ValueError:
        if not text:
            raise ValueError("an empty key") from None
        return None


def _is_address(text: str) -> bool:
    if _MAC.fullmatch(text):
        return True
    try:
        return bool(parse_ip(text))
    except ValueError:
        return False


def find_key(client: Client, text: str) -> types_pb2.VmKey:
    """The key that a person means; a name is searched for in the whole list."""
    try:
        key = parse_key(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if key is not None:
        return key
    everything = directory_pb2.ListVmsRequest()
    ids = [r.vm.vm_id for r in client.vms(everything) if r.vm.name == text]
    if not ids:
        raise Failure(Exit.NOT_FOUND, f"no VM has the name {text!r}")
    if len(ids) > 1:
        raise Failure(Exit.REFUSED, f"{len(ids)} VMs have the name {text!r}; name one by id", *ids)
    return types_pb2.VmKey(vm_id=ids[0])


def find_vm_id(client: Client, text: str) -> str:
    """The UUID of the VM that a person means."""
    key = find_key(client, text)
    if key.WhichOneof("key") == "vm_id":
        return key.vm_id
    request = signaling_pb2.LookupRequest(keys=[key])
    found = client.call(client.directory.Lookup, request).results[0]
    if not found.found:
        raise Failure(Exit.NOT_FOUND, f"no VM holds {text}")
    return found.vm_id


def parse_attachment(text: str) -> inventory_pb2.AssignVmRequest.Attachment:
    """`MAC=NETWORK[:VNI][@IP,IP]`, or ValueError."""
    mac, equals, rest = text.partition("=")
    where, _, ips = rest.partition("@")
    network, colon, vni = where.partition(":")
    if not equals or (colon and not re.fullmatch(r"[0-9]+", vni)):
        raise ValueError(f"write MAC=NETWORK[:VNI][@IP,IP], not {text!r}")
    return inventory_pb2.AssignVmRequest.Attachment(
        mac=parse_mac(mac),
        network=parse_name(network),
        vni=parse_vni(int(vni)) if colon else 0,
        ips=[parse_ip(ip) for ip in ips.split(",")] if "@" in rest else [],
    )


def parse_group(text: str) -> tuple[str, str]:
    """`TENANT/NAME`, or ValueError."""
    tenant, slash, name = text.partition("/")
    if not slash:
        raise ValueError(f"write TENANT/NAME, not {text!r}")
    return parse_name(tenant), parse_name(name)


class GroupName(click.ParamType[tuple[str, str]]):
    """`TENANT/NAME` on the command line."""

    name = "TENANT/NAME"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        try:
            return parse_group(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class AttachmentText(click.ParamType[inventory_pb2.AssignVmRequest.Attachment]):
    """`MAC=NETWORK[:VNI][@IP,IP]` on the command line."""

    name = "MAC=NETWORK[:VNI][@IP,IP]"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> inventory_pb2.AssignVmRequest.Attachment:
        try:
            return parse_attachment(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
