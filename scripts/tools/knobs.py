"""What the documentation says of each setting, made from the settings: ``python -m scripts.tools.knobs`` writes it.

Owns the tables of docs/configuration.md, docs/configuration.example.yaml down to its pools, and the committed schema.
"""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from extender.settings import configuration_schema

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "configuration.md"
EXAMPLE = DOCS / "configuration.example.yaml"
SCHEMA = DOCS / "configuration.schema.json"

EXAMPLE_HEAD = """\
# yaml-language-server: $schema=configuration.schema.json
# Every setting with its default, and one pool as an example. Keep what you change; delete the rest.
# Durations: 90s, 5m, 1h30m, 250ms.
"""
EXAMPLE_POOLS = "\npools:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """A key of the file: its path as the page writes it, its schema, and the keys below it."""

    path: str
    field: dict[str, Any]
    is_required: bool
    below: tuple[Knob, ...] = ()

    @property
    def is_section(self) -> bool:
        """Whether keys are below it."""
        return bool(self.below) or self.field.get("default") == {}

    def everything(self) -> Iterator[Knob]:
        """The key and all below it."""
        yield self
        for knob in self.below:
            yield from knob.everything()


def knobs(schema: dict[str, Any]) -> dict[str, tuple[Knob, ...]]:
    """Each part of the file with its keys."""
    definitions = schema["$defs"]

    def walk(section: dict[str, Any], prefix: str = "", besides: tuple[str, ...] = ()) -> tuple[Knob, ...]:
        found = []
        for key, field in section["properties"].items():
            if key in besides:
                continue
            reference = re.search(r"#/\$defs/(\w+)", json.dumps({**field, "default": None}))
            target = definitions[reference[1]] if reference else {}
            is_walked = "properties" in target and key not in ("poolDefaults", "pools", "sources")
            path = f"{prefix}{key}"
            below = walk(target, f"{path}{'' if '$ref' in field or 'anyOf' in field else '[]'}.") if is_walked else ()
            required = key in section.get("required", ())
            found.append(Knob(path=path, field={**target, **field}, is_required=required, below=below))
        return tuple(found)

    shared = definitions["PoolDefaults"]
    return {
        "file": walk(schema),
        "poolDefaults": walk(shared),
        "sources": walk(definitions["IdleSource"]),
        "pool": walk(definitions["PoolSettings"], besides=tuple(shared["properties"])),
    }


def table(part: tuple[Knob, ...]) -> str:
    """The table of one part: a row for each key that has a value of its own."""
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    rows += [
        f"| `{knob.path}` | {_default(knob)} | {knob.field['description']} |"
        for top in part
        for knob in top.everything()
        if knob.field.get("default") != {}
    ]
    return "\n".join(rows) + "\n"


def page(schema: dict[str, Any], text: str) -> str:
    """The page with its tables made anew: each stands below a comment that names its part of the file."""
    parts = knobs(schema)
    return re.sub(
        r"(<!-- settings: (\w+) -->\n)\n*(?:\|.*\n)*", lambda found: f"{found[1]}\n{table(parts[found[2]])}", text
    )


def example(schema: dict[str, Any], text: str) -> str:
    """The example with all but its pools made anew."""
    parts = knobs(schema)
    lines: list[str] = []

    def write(part: tuple[Knob, ...], indent: str) -> None:
        for knob in part:
            key = knob.path.rpartition(".")[2]
            if key == "pools":
                continue
            lines.extend(
                textwrap.wrap(
                    knob.field["description"],
                    width=110,
                    initial_indent=f"{indent}# ",
                    subsequent_indent=f"{indent}# ",
                    break_on_hyphens=False,
                )
            )
            if knob.field.get("default") == {}:
                lines.append(f"{indent}{key}:")
                write(parts["poolDefaults"] if key == "poolDefaults" else knob.below, f"{indent}  ")
            else:
                lines.append(f"{indent}{key}: {_written(knob.field.get('const', knob.field.get('default')))}")

    write(parts["file"], "")
    return EXAMPLE_HEAD + "\n".join(lines) + text[text.index(EXAMPLE_POOLS) :]


def _default(knob: Knob) -> str:
    if "const" in knob.field:
        return f"required: `{knob.field['const']}`"
    if knob.is_required:
        return "required"
    return f"`{_written(knob.field['default'])}`" if "default" in knob.field else "-"


def _written(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    made = configuration_schema()
    SCHEMA.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(page(made, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    EXAMPLE.write_text(example(made, EXAMPLE.read_text(encoding="utf-8")), encoding="utf-8")
