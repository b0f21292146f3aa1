# SPDX-License-Identifier: GPL-3.0-or-later
# frozen_string_literal: true

require_relative '../lib/settings'

Settings.load_faults
abort 'FAULT_BOOT=exit: this release refuses to boot' if ENV['FAULT_BOOT'] == 'exit'
if (seconds = ENV['CRASH_AFTER'])
  Thread.new do
    sleep Float(seconds)
    warn "CRASH_AFTER=#{seconds}: this release crashes now"
    exit! 1
  end
end

directory File.expand_path('..', __dir__)
bind "tcp://#{ENV.fetch('BIND', '127.0.0.1')}:#{ENV.fetch('PORT', '3000')}"
size = Settings.threads
threads size, size
processes = ENV.fetch('WEB_CONCURRENCY', '0').to_i
workers(processes > 1 ? processes : 0)
raise_exception_on_sigterm false # a graceful end is exit status 0
drain_on_shutdown # connections already accepted by the kernel are answered, too
max_fast_inline 1 # a thread must not wait 0.2 s on an idle connection while another one has a request
persistent_timeout 75 # longer than the proxy keeps idle connections, so that only the proxy closes them

# Puma installs its own handlers after this file, in the master and again in each worker.
deaf = lambda do
  Thread.new do
    loop do
      trap('TERM') { nil }
      sleep 0.5
    end
  end
end
if ENV['FAULT_SIGTERM'] == 'ignore'
  deaf.call
  on_worker_boot(&deaf) if processes > 1
end
