"""The contract as lines of text, and what of it must never change.

`proto.txt` beside this file holds the lines of the contract that was published last:

    python -m tests.contract.proto_snapshot --write

takes additions into it. It refuses what would break a client, unless told `--write --break`,
which nobody should do after the first release.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    FileDescriptor,
    ServiceDescriptor,
)

from common.pb.vsignal.v1 import (
    directory_pb2,
    enrolment_pb2,
    inventory_pb2,
    operations_pb2,
    session_pb2,
    signaling_pb2,
    storage_pb2,
    types_pb2,
)

FILE = Path(__file__).with_name("proto.txt")
MODULES = (
    types_pb2,
    signaling_pb2,
    operations_pb2,
    session_pb2,
    directory_pb2,
    inventory_pb2,
    enrolment_pb2,
    storage_pb2,
)
TYPES = {
    getattr(FieldDescriptor, name): name.removeprefix("TYPE_").lower()
    for name in dir(FieldDescriptor)
    if name.startswith("TYPE_")
}


def current() -> dict[str, str]:
    """What each thing is called or numbered -> what it is."""
    return {key: value for module in MODULES for key, value in _file(module.DESCRIPTOR)}


def _file(file: FileDescriptor) -> Iterator[tuple[str, str]]:
    for message in file.message_types_by_name.values():
        yield from _message(message)
    for enum in file.enum_types_by_name.values():
        yield from _enum(enum)
    for service in file.services_by_name.values():
        yield from _service(service)


def _message(message: Descriptor) -> Iterator[tuple[str, str]]:
    for field in message.fields:
        yield f"{message.full_name} {field.number}", _field(field)
    for nested in message.nested_types:
        yield from _message(nested)
    for enum in message.enum_types:
        yield from _enum(enum)


def _field(field: FieldDescriptor) -> str:
    refers = field.message_type or field.enum_type
    words = [refers.full_name if refers else TYPES[field.type], field.name]
    if field.is_repeated:
        words.insert(0, "repeated")
    elif field.containing_oneof is not None:
        name = field.containing_oneof.name
        words.insert(0, "optional" if name == f"_{field.name}" else f"oneof {name}")
    return " ".join(words)


def _enum(enum: EnumDescriptor) -> Iterator[tuple[str, str]]:
    for value in enum.values:
        yield f"{enum.full_name} {value.number}", value.name


def _service(service: ServiceDescriptor) -> Iterator[tuple[str, str]]:
    for method in service.methods:
        asks = "stream " * method.client_streaming + method.input_type.full_name
        gives = "stream " * method.server_streaming + method.output_type.full_name
        yield f"{service.full_name}/{method.name}", f"({asks}) returns ({gives})"


def published() -> dict[str, str]:
    lines = FILE.read_text().splitlines()
    return dict(line.split(" = ", 1) for line in lines)  # type: ignore[misc]


def broken(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """What a client of the old contract would stumble over."""
    return [
        f"{key}: {value!r} became {new.get(key, 'nothing')!r}"
        for key, value in sorted(old.items())
        if new.get(key) != value
    ]


def main(arguments: list[str]) -> int:
    new = current()
    problems = broken(published(), new) if FILE.exists() else []
    if problems and "--break" not in arguments:
        print("\n".join(problems), file=sys.stderr)
        return 1
    if "--write" in arguments:
        FILE.write_text("".join(f"{key} = {value}\n" for key, value in sorted(new.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
