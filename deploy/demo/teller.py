"""Says what happens, and keeps score: the demo is right only if every check was seen true."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.padding import Padding
from rich.table import Table


class Teller:
    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.failures: list[str] = []
        self._step = 0

    def say(self, text: str) -> None:
        self.console.print(f"   {text}")

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        self._step += 1
        self.console.print(f"\n[bold]{self._step}. {title}[/bold]")
        yield

    def check(self, what: str, ok: bool, detail: str = "") -> bool:
        """One thing that must be true."""
        mark = "[green]✓[/green]" if ok else "[red]✗[/red]"
        self.console.print(f"   {mark} {what}{f'  [dim]{detail}[/dim]' if detail else ''}")
        if not ok:
            self.failures.append(what)
        return ok

    def table(self, columns: list[str], rows: list[list[str]]) -> None:
        table = Table(*columns, box=None, pad_edge=False, header_style="bold dim")
        for row in rows:
            table.add_row(*row)
        self.console.print(Padding(table, (0, 3)))
