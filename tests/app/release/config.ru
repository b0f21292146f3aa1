# SPDX-License-Identifier: GPL-3.0-or-later
# frozen_string_literal: true

require_relative 'lib/application'

run Application.new
