# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running PostgreSQL server says of its role, and how far a standby is behind."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Optional

from .postgresql_source import Source

OBSERVE = """
SELECT jsonb_build_object(
  'standby', pg_is_in_recovery(),
  'databases', (SELECT jsonb_agg(datname ORDER BY datname) FROM pg_database
    WHERE datname NOT IN ('postgres', 'template0', 'template1')),
  'tables', (SELECT count(*) FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p', 'm')),
  'status', (SELECT status FROM pg_stat_wal_receiver),
  'host', (SELECT sender_host FROM pg_stat_wal_receiver),
  'port', (SELECT sender_port FROM pg_stat_wal_receiver),
  'slot', (SELECT slot_name FROM pg_stat_wal_receiver),
  'lag_bytes', CASE WHEN pg_is_in_recovery() THEN (SELECT GREATEST(0, pg_wal_lsn_diff(GREATEST(latest_end_lsn,
    pg_last_wal_receive_lsn()), pg_last_wal_replay_lsn())) FROM pg_stat_wal_receiver) END,
  'held_back', pg_is_in_recovery() AND pg_last_wal_receive_lsn() IS NULL AND current_setting('recovery_min_apply_delay') <> '0',
  'position', pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END,
    '0/0'),
  'replayed', extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()));
"""


@dataclass(frozen=True)
class State:
    """What a running server says of itself.

    `lag_seconds`: since the last replayed change, 0 when nothing is behind. `position`: where its log ends, in bytes; on a
    standby as far as it is replayed. `held_back`: it has log of its own that it may not replay yet (`recovery_min_apply_delay`),
    and asks its primary for more after that.
    """

    standby: bool
    databases: tuple[str, ...] = ()
    tables: int = 0
    streaming: bool = False
    host: str = ""
    port: int = 0
    slot: str = ""
    lag_bytes: Optional[int] = None
    lag_seconds: Optional[float] = None
    position: int = 0
    held_back: bool = False

    @property
    def holds_data(self) -> bool:
        """Whether there is more than a package makes."""
        return bool(self.databases or self.tables)

    def follows(self, source: Source) -> bool:
        """Whether it streams from `source` through its slot."""
        return self.standby and self.streaming and (self.host, self.port, self.slot) == (source.host, source.port, source.slot)


@dataclass(frozen=True)
class Limits:
    """How far a standby may be behind, in bytes and seconds; what is negative is not judged.

    `reached`: where the primary's log ended. A standby that cannot be reached by its primary does not know what it lacks.
    """

    bytes: int = -1
    seconds: float = -1
    reached: int = 0

    @property
    def judges(self) -> bool:
        """Whether there is any limit."""
        return self.bytes >= 0 or self.seconds >= 0 or self.reached > 0

    def verdict(self, state: Optional[State]) -> str:
        """Why `state` is not within the limits; empty when it is."""
        if state is None:
            return "the server does not answer"
        if not state.standby:
            return "the server is no standby"
        if self.reached - max(0, self.bytes) > state.position:
            return f"the standby has not replayed {self.reached - state.position} bytes that the primary had written"
        if self.reached:
            return ""
        if not state.streaming or state.lag_bytes is None or state.lag_seconds is None:
            return "the standby does not stream"
        if 0 <= self.bytes < state.lag_bytes:
            return f"the standby is {state.lag_bytes} bytes behind, at most {self.bytes} are allowed"
        if 0 <= self.seconds < state.lag_seconds:
            return f"the standby is {state.lag_seconds:.1f} s behind, at most {self.seconds:g} are allowed"
        return ""


def parse_state(line: str) -> State:
    """The answer to OBSERVE."""
    data: dict[str, Any] = json.loads(line)
    behind = data["lag_bytes"]
    lag = None if behind is None else int(behind)
    seconds = None if lag is None else 0.0 if lag == 0 else float(data["replayed"] or 0)
    streaming = data["status"] == "streaming"
    databases = tuple(data["databases"] or ())
    address = (data["host"] or "", int(data["port"] or 0), data["slot"] or "")
    ends = (int(data["position"] or 0), bool(data["held_back"]))
    return State(bool(data["standby"]), databases, int(data["tables"]), streaming, *address, lag, seconds, *ends)


def ended_at(controldata: str) -> Optional[int]:
    r"""Where the log of a stopped server ends, from what pg_controldata says; None unless it was shut down in order.

    >>> ended_at("Database cluster state:               shut down\nLatest checkpoint location:           1/2A\n")
    4294967338
    """
    clean = re.search(r"^Database cluster state: +shut down$", controldata, re.MULTILINE)
    found = re.search(r"^Latest checkpoint location: +([0-9A-F]+)/([0-9A-F]+)$", controldata, re.MULTILINE)
    return (int(found[1], 16) << 32) + int(found[2], 16) if clean and found else None
