# SPDX-License-Identifier: GPL-3.0-or-later
"""The continuous client: judges a deployment by what clients see. Standard library only, Python >= 3.11."""
