# SPDX-License-Identifier: GPL-3.0-or-later
"""Write (or with --check compare) the variable tables of roles/*/README.md and the table of rules in docs/plan.md."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from plugins.module_utils.plan.checks import RULES

ROLES = Path(__file__).resolve().parents[2] / "roles"
START, END = "<!-- variables -->", "<!-- /variables -->"
PLAN = ROLES.parent / "docs" / "plan.md"


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
    spec = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    return between(role / "README.md", START, END, table(spec))


def between(path: Path, start: str, end: str, content: str) -> str:
    """The text of a file with the section between two lines replaced; raises SystemExit when they are missing."""
    text = path.read_text(encoding="utf-8")
    if start not in text or end not in text:
        raise SystemExit(f"{path}: the lines {start} and {end} are missing")
    head, rest = text.split(start, 1)
    return f"{head}{start}\n\n{content}\n{end}{rest.split(end, 1)[1]}"


def rules() -> str:
    """The plan's cross-checks as a table."""
    lines = ["| | name | must hold | else |", "|---|---|---|---|"]
    lines += [f"| {rule.number} | `{rule.id}` | {rule.relation} | {rule.breaks} |" for rule in RULES]
    return "\n".join([*lines, ""])


def main() -> int:
    """Write or compare; 1 when a comparison fails."""
    stale = []
    roles = sorted(path.parents[1] for path in ROLES.glob("*/meta/argument_specs.yml"))
    texts = {role / "README.md": rewritten(role) for role in roles}
    texts[PLAN] = between(PLAN, "<!-- rules -->", "<!-- /rules -->", rules())
    for path, text in texts.items():
        if path.read_text(encoding="utf-8") != text:
            stale.append(str(path.relative_to(ROLES.parent)))
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"not as their sources say; run `make docs`: {', '.join(stale)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
