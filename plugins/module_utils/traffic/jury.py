# SPDX-License-Identifier: GPL-3.0-or-later
"""The jury of a cutover: hears what clients got from both slots, and rules step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Ruling:
    """What the jury says: `trouble` takes traffic back, `done` ends the step, `news` is worth a line."""

    text: str = ""
    news: bool = False
    done: bool = False
    trouble: bool = False
    guilty: bool = False
    figures: dict[str, object] = field(default_factory=dict)


@dataclass
class Silent:
    """Rules nothing: the step ends when it may."""

    verdicts: list[dict[str, object]] = field(default_factory=list)

    def open(self, share: int) -> None:
        """Nothing to do."""

    def hear(self, due: bool, last: bool) -> Ruling:
        """Done when due."""
        return Ruling(done=due)


class Jury(Protocol):
    """Hears and rules."""

    verdicts: list[dict[str, object]]

    def open(self, share: int) -> None:
        """A step begins in which the candidate gets `share` percent."""
        ...

    def hear(self, due: bool, last: bool) -> Ruling:
        """The ruling now; `due` when the step may end, `last` when it must."""
        ...
