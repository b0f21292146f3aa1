# SPDX-License-Identifier: GPL-3.0-or-later
# frozen_string_literal: true

require 'tempfile'
require_relative 'backends'
require_relative 'settings'

# Health answers as [status, body]; each check is {status: ok|failed, …}. FAULT_HEALTH spoils the main answer.
class Health
  DISK_FLOOR_PERCENT = 5
  BACKLOG_LIMIT = 100

  def initialize(metrics)
    @metrics = metrics
    @asked = 0
    @lock = Mutex.new
  end

  def main
    checks = { disk_space: disk_space, queue: queue }
    checks[:database] = database if Database.configured?
    checks[:redis] = redis if Redis.configured?
    spoil(*answer(checks))
  end

  def complete
    checks = { app: { status: 'ok' }, cache: optional(Redis) { Redis.ping }, tmdb_api: optional(Tmdb) { Tmdb.check } }
    healthy = checks.values.all? { |check| check[:status] == 'ok' }
    [200, { status: healthy ? 'healthy' : 'degraded', checks: checks }]
  end

  def part(name)
    case name
    when 'database' then answer(database: optional(Database) { Database.query('SELECT 1') })
    when 'configuration' then answer(configuration: configuration)
    when 'performance' then answer(performance: queue.merge(@metrics.totals))
    when 'storage' then answer(storage: storage)
    when 'simple' then [200, { status: 'ok' }]
    end
  end

  def ready
    left = ENV.fetch('WARMUP', '0').to_f - Settings.uptime
    return [503, { status: 'not ready', reason: 'FAULT_READY' }] if ENV['FAULT_READY']
    return [503, { status: 'warming up', seconds_left: left.round(1) }] if left.positive?

    [200, { status: 'ready' }]
  end

  private

  def answer(checks)
    good = checks.values.all? { |check| check[:status] == 'ok' }
    [good ? 200 : 503, { status: good ? 'ok' : 'failed', checks: checks }]
  end

  def spoil(status, body)
    kind, number = ENV.fetch('FAULT_HEALTH', '').split(':')
    failed = { status: 'failed', checks: body[:checks].merge(database: { status: 'failed', error: 'FAULT_HEALTH' }) }
    case kind
    when 'lying' then [200, failed.merge(status: 'ok')]
    when '503' then [503, failed]
    when 'flap' then (nth % Integer(number)).zero? ? [503, failed] : [status, body]
    when 'slow'
      sleep Float(number)
      [status, body]
    else [status, body]
    end
  end

  def nth
    @lock.synchronize { @asked += 1 }
  end

  def optional(service)
    service.configured? ? check { yield && nil } : { status: 'ok', detail: 'not configured' }
  end

  def check
    { status: 'ok' }.merge(yield || {})
  rescue StandardError => e
    { status: 'failed', error: e.message.strip[0, 200] }
  end

  def database
    check { Database.query('SELECT 1') && nil }
  end

  def redis
    check { Redis.ping && nil }
  end

  def queue
    check do
      waiting = Puma::Server.current&.backlog.to_i
      raise "#{waiting} requests wait for a thread" if waiting > BACKLOG_LIMIT

      { backlog: waiting }
    end
  end

  def disk_space
    check do
      free = 100 - IO.popen(['df', '-P', storage_dir], &:read).lines.last.split[4].to_i
      raise "#{free}% free" if free < DISK_FLOOR_PERCENT

      { free_percent: free }
    end
  end

  def storage
    check { Tempfile.create('probe', storage_dir) { |file| file.write('x') } && nil }
  end

  def configuration
    check do
      missing = ENV.fetch('REQUIRED_ENV', '').split(',').select { |key| ['', 'changeme'].include?(ENV[key].to_s) }
      raise "not set: #{missing.join(', ')}" unless missing.empty?
    end
  end

  def storage_dir
    ENV.fetch('STORAGE_DIR', '/tmp')
  end
end
