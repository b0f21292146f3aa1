# SPDX-License-Identifier: GPL-3.0-or-later
# frozen_string_literal: true

require 'socket'

# What this process was told by its environment and its release directory.
module Settings
  ROOT = File.expand_path('..', __dir__)
  BOOT = Process.clock_gettime(Process::CLOCK_MONOTONIC)

  module_function

  # Faults baked into a release: KEY=VALUE lines; the environment wins.
  def load_faults
    File.foreach(File.join(ROOT, 'faults.env'), chomp: true) do |line|
      key, value = line.split('=', 2)
      ENV[key] ||= value if value
    end
  rescue Errno::ENOENT
    nil
  end

  def release
    @release ||= ENV['SLIPWAY_RELEASE'] || baked_release
  end

  def baked_release
    File.read(File.join(ROOT, 'RELEASE')).strip
  rescue Errno::ENOENT
    'unknown'
  end

  def system
    ENV.fetch('SYSTEM', 'ruby')
  end

  def threads
    Integer(ENV.fetch('RAILS_MAX_THREADS', '5'))
  end

  # Seconds since boot.
  def uptime
    Process.clock_gettime(Process::CLOCK_MONOTONIC) - BOOT
  end

  def identity
    { release: release, pid: Process.pid, host: Socket.gethostname, slot: ENV['SLIPWAY_SLOT'], system: system }
  end
end
