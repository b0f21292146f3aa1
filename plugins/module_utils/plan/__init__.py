# SPDX-License-Identifier: GPL-3.0-or-later
"""From what the inventory says to what every role does: pure functions, no input or output."""
