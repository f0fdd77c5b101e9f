"""What DESIGN says of the code's shape, checked by reading the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_LINES = 400
IMPURE = {"asyncio", "grpc", "os", "time", "random", "socket", "threading", "subprocess"}
TIME_AND_SLEEP = {
    ("time", "time"),
    ("time", "time_ns"),
    ("time", "monotonic"),
    ("time", "monotonic_ns"),
    ("time", "perf_counter"),
    ("time", "sleep"),
    ("asyncio", "sleep"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
}
# A person's command, not a part of the system that is to run under simulation.
PERSONS_COMMAND = "vcenter/ctl/"
# These give way to others once, for no time at all.
GIVES_WAY = {("vcenter/store/memory.py", 0), ("vcenter/ledger/writer.py", 0)}


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "pb" not in path.relative_to(ROOT).parts:
                yield path


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


PRODUCT = list(sources("common", "vcenter", "vserver"))
CORE = [p for p in PRODUCT if "core" in p.parts or "model" in p.parts]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[str]:
    """Modules by full name; `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", CORE, ids=name)
def test_the_core_and_the_model_do_no_io(path: Path) -> None:
    used = set(imports(path))
    assert not IMPURE & {module.partition(".")[0] for module in used}
    assert "uuid.uuid4" not in used and "common.clock" not in used
    calls = {n.attr for n in ast.walk(tree(path)) if isinstance(n, ast.Attribute)}
    assert not {"uuid1", "uuid4"} & calls
    assert not any(isinstance(n, ast.AsyncFunctionDef | ast.Await) for n in ast.walk(tree(path)))


def test_the_core_is_where_we_think() -> None:
    assert {p.parts[len(ROOT.parts)] for p in CORE} == {"common", "vcenter", "vserver"}


@pytest.mark.parametrize("path", [p for p in PRODUCT if "vcenter/core" in name(p)], ids=name)
def test_the_core_knows_nothing_of_what_is_around_it(path: Path) -> None:
    allowed = ("common.model", "common.errors", "vcenter.core")
    ours = [m for m in imports(path) if m.split(".")[0] in ("common", "vcenter", "vserver")]
    assert [m for m in ours if m not in ("common", "vcenter") and not m.startswith(allowed)] == []


@pytest.mark.parametrize("path", PRODUCT, ids=name)
def test_only_the_clock_reads_the_time_or_sleeps(path: Path) -> None:
    if name(path) == "common/clock.py" or name(path).startswith(PERSONS_COMMAND):
        return
    found = [
        (name(path), node.lineno)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and (node.func.value.id, node.func.attr) in TIME_AND_SLEEP
        and not _gives_way(path, node)
    ]
    assert found == []


def _gives_way(path: Path, call: ast.Call) -> bool:
    value = getattr(call.args[0], "value", None) if call.args else None
    return (name(path), value) in GIVES_WAY


@pytest.mark.parametrize(("folder", "stranger"), [("vcenter", "vserver"), ("vserver", "vcenter")])
def test_the_daemons_do_not_know_each_other(folder: str, stranger: str) -> None:
    for path in sources(folder):
        assert not [m for m in imports(path) if m.split(".")[0] == stranger], name(path)
    for path in sources("common"):
        assert not [m for m in imports(path) if m.split(".")[0] == folder], name(path)


@pytest.mark.parametrize("path", list(sources("common", "vcenter", "vserver", "deploy")), ids=name)
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_no_import_goes_round_in_a_circle() -> None:
    modules = {_module(path): path for path in PRODUCT}
    graph = {
        module: {m for m in _at_import(path, set(modules)) if m in modules and m != module}
        for module, path in modules.items()
    }
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in done:
            for imported in sorted(graph[module]):
                visit(imported, [*way, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _at_import(path: Path, modules: set[str]) -> Iterator[str]:
    """What importing the module imports; what only a type checker reads does not count. A module
    that is named as part of its package is meant itself, not the package."""
    for node in tree(path).body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import):
                yield from (alias.name for alias in inner.names)
            elif isinstance(inner, ast.ImportFrom):
                named = [f"{inner.module}.{alias.name}" for alias in inner.names]
                yield from named
                if not modules.issuperset(named):
                    yield inner.module or ""
