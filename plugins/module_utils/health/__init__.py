# SPDX-License-Identifier: GPL-3.0-or-later
"""Is it healthy? Probes look once, gates decide from many looks, process watches notice a death between two looks."""
