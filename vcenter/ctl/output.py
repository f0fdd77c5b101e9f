"""The formats of data on stdout: table, wide, json, yaml, name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import click
import yaml
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.table import Table
from rich.text import Text

from vcenter.ctl.app import App
from vcenter.ctl.words import clean

M = TypeVar("M", bound=Message)
Pairs = Iterable[tuple[str, str]]
_STYLES = {
    "running": "green", "attached": "green", "succeeded": "green", "authoritative": "green",
    "paused": "yellow", "shut-off": "yellow", "warning": "yellow", "stale": "yellow",
    "silent": "red", "overloaded": "red", "failed": "red", "critical": "red",
    "lost-needs-fence": "bold red",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column(Generic[M]):
    """One column of a list; `wide` ones are shown with -o wide only."""

    title: str
    value: Callable[[M], str]
    wide: bool = False


def plain(message: Message) -> dict[str, Any]:
    """Protobuf's JSON mapping, with the names of the contract."""
    return MessageToDict(message, preserving_proto_field_name=True)


def as_json(data: object) -> str:
    """For programs that read one document."""
    return json.dumps(data, indent=2, ensure_ascii=False)


def as_yaml(data: object) -> str:
    """Without a newline at the end."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=1000).rstrip("\n")


def cell(text: str) -> Text:
    """Text as it is: nothing in it is markup, and nothing in it drives the terminal."""
    return Text(clean(text), style=_STYLES.get(text, ""))


def raw(text: str) -> None:
    """Prints exactly this, and at once: somebody may be reading a pipe."""
    click.echo(text)


def show(app: App, table: Table) -> None:
    """Prints a table; for a program, without blanks at the ends of lines."""
    if app.out.is_terminal:
        app.out.print(table)
        return
    with app.out.capture() as captured:
        app.out.print(table)
    raw("\n".join(line.rstrip() for line in captured.get().splitlines()))


def data(app: App, value: object) -> bool:
    """Prints plain data where the format is for programs; says whether it did."""
    if app.output not in ("json", "yaml"):
        return False
    raw(as_json(value) if app.output == "json" else as_yaml(value))
    return True


def many(
    app: App,
    items: Iterable[M],
    columns: Sequence[Column[M]],
    name: Callable[[M], str],
    nothing: str,
) -> None:
    """A list. `nothing` is said where a table would be empty."""
    if app.output == "name":
        for item in items:
            raw(clean(name(item)))
        return
    rows = list(items)
    if data_of(app, rows):
        return
    if not rows:
        app.say(nothing)
        return
    shown = [c for c in columns if app.output == "wide" or not c.wide]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in shown:
        table.add_column(column.title, overflow="fold")
    for row in rows:
        table.add_row(*(cell(column.value(row)) for column in shown))
    show(app, table)


def data_of(app: App, items: Iterable[Message]) -> bool:
    """A list as an array of protobuf JSON, where the format is for programs."""
    return app.output in ("json", "yaml") and data(app, [plain(item) for item in items])


def one(app: App, item: Message, pairs: Pairs, name: str) -> None:
    """One thing: a line for each of its properties."""
    if app.output == "name":
        raw(clean(name))
    elif not data(app, plain(item)):
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for title, text in pairs:
            table.add_row(title, cell(text))
        show(app, table)


def streamed(app: App, item: Message, line: str, name: str) -> None:
    """One of many that come in time: a line of text, a line of JSON, or a YAML document."""
    match app.output:
        case "json":
            raw(json.dumps(plain(item), ensure_ascii=False))
        case "yaml":
            raw("---\n" + as_yaml(plain(item)))
        case "name":
            raw(clean(name))
        case _:
            raw(clean(line))
