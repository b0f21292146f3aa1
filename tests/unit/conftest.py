# SPDX-License-Identifier: GPL-3.0-or-later
"""Examples of property tests: the same in every run, so that no run is red by chance; others with HYPOTHESIS_PROFILE=search."""

from __future__ import annotations

import os

from hypothesis import settings

# A busy machine is no failure, so no example has a deadline.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
settings.register_profile("search", derandomize=False, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
