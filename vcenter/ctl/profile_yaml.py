"""YAML for people who write policy: every scalar stays the text that was written.

So `52:54:00:12:34:56` is not a number in base 60, `no` is not false, and a rule may be named 007.
JSON is read by the same rules. A key that is there twice is refused. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

import yaml

Node = str | list["Node"] | dict[str, "Node"]


class _Loader(yaml.BaseLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a word", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Flow(dict[str, object]):
    """A mapping that is written on one line."""


class _Dumper(yaml.SafeDumper):
    pass


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Quoted with escapes where YAML would fold or drop something."""
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(
    _Flow,
    lambda dumper, value: dumper.represent_mapping(
        "tag:yaml.org,2002:map", value.items(), flow_style=True
    ),
)


def load(text: str) -> Node:
    """The document; ValueError, with line and column, if it is none."""
    try:
        return _load_json(text)
    except json.JSONDecodeError:  # then it is YAML, perhaps of the kind that looks like JSON
        pass
    except RecursionError:
        raise ValueError("nested too deeply") from None
    try:
        return yaml.load(text, _Loader)  # type: ignore[no-any-return]  # a BaseLoader: only text
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _load_json(text: str) -> Node:
    """YAML would read all of it but a pair of surrogate escapes."""

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Node]:
        members: dict[str, Node] = {}
        for key, value in pairs:
            if key in members:
                raise ValueError(f"{key!r} is there twice")
            members[key] = _textual(value)
        return members

    return _textual(json.loads(text, object_pairs_hook=mapping, parse_int=str, parse_float=str))


def _textual(value: Any) -> Node:
    if isinstance(value, list):
        return [_textual(item) for item in value]
    if isinstance(value, str | dict):
        return value
    return json.dumps(value)


def dump(data: dict[str, Any]) -> str:
    """Readable: a line for each rule and each rate."""
    laid_out = {key: _laid_out(value) for key, value in data.items()}
    return yaml.dump(laid_out, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**31)


def _laid_out(value: Any) -> Any:
    if not isinstance(value, dict) or "bits_per_second" in value:
        return _Flow(value) if isinstance(value, dict) else value
    return {k: [_Flow(r) for r in v] if isinstance(v, list) else v for k, v in value.items()}
