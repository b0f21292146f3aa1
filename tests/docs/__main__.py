# SPDX-License-Identifier: GPL-3.0-or-later
"""Write (or with --check compare) the variable tables of roles/*/README.md from meta/argument_specs.yml."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"
START, END = "<!-- variables -->", "<!-- /variables -->"


def default_of(option: dict[str, Any]) -> str:
    """The default as a reader would write it in an inventory; empty when there is none."""
    if option.get("required"):
        return "(required)"
    if "default" not in option:
        return ""
    return f"`{json.dumps(option['default'])}`"


def type_of(option: dict[str, Any]) -> str:
    """The type, with the elements of a list and the choices."""
    kind = str(option.get("type", "str"))
    if kind == "list" and "elements" in option:
        kind = f"list of {option['elements']}"
    if "choices" in option:
        kind += ": " + ", ".join(str(choice) for choice in option["choices"])
    return kind


def text_of(option: dict[str, Any]) -> str:
    """The description in one line."""
    description = option.get("description", "")
    lines = description if isinstance(description, list) else [description]
    return " ".join(" ".join(str(line).split()) for line in lines).replace("|", "\\|")


def rows(options: dict[str, Any], prefix: str = "") -> list[str]:
    """Table rows of `options` and of the options inside them."""
    found = []
    for name, option in sorted(options.items()):
        found.append(f"| `{prefix}{name}` | {type_of(option)} | {default_of(option)} | {text_of(option)} |")
        suffix = "[]." if option.get("type") == "list" else "."
        found += rows(option.get("options") or {}, f"{prefix}{name}{suffix}")
    return found


def table(spec: dict[str, Any]) -> str:
    """The whole section for all entry points of a role."""
    parts = []
    for entry, content in spec["argument_specs"].items():
        lines = [f"### Entry point `{entry}`", "", text_of({"description": content.get("short_description", "")}), ""]
        body = rows(content.get("options") or {})
        if body:
            lines += ["| variable | type | default | meaning |", "|---|---|---|---|", *body, ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def rewritten(role: Path) -> str:
    """README of `role` with the section between the markers replaced; raises SystemExit when they are missing."""
    text = (role / "README.md").read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise SystemExit(f"{role / 'README.md'}: the lines {START} and {END} are missing")
    spec = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    head, rest = text.split(START, 1)
    return f"{head}{START}\n\n{table(spec)}\n{END}{rest.split(END, 1)[1]}"


def main() -> int:
    """Write or compare; 1 when a comparison fails."""
    stale = []
    for role in sorted(path.parents[1] for path in ROLES.glob("*/meta/argument_specs.yml")):
        readme = role / "README.md"
        text = rewritten(role)
        if readme.read_text(encoding="utf-8") != text:
            stale.append(str(readme.relative_to(ROLES.parent)))
            if "--check" not in sys.argv:
                readme.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"not as the argument specifications say; run `make docs`: {', '.join(stale)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
