# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of variables in the roles' README files, made from their argument specifications."""
