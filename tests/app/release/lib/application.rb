# SPDX-License-Identifier: GPL-3.0-or-later
# frozen_string_literal: true

require 'json'
require 'openssl'
require 'time'
require 'uri'
require_relative 'health'
require_relative 'metrics'
require_relative 'settings'
require_relative 'websocket'

# The sample application: a plain Rack program (2 and 3 alike) that needs no gem but pg, and that only for /db.
class Application
  HEALTH = %w[/health/database /health/configuration /health/performance /health/storage /health/simple].freeze
  SLOWEST = 120
  PROBE = 'slipway-probe'

  def initialize
    Settings.load_faults
    @latency = ENV.fetch('LATENCY', '0').to_f / 1000 * ENV.fetch('FAULT_LATENCY', '1').to_f
    @errors = ENV.fetch('FAULT_ERRORS', '0').to_f
    $stdout.sync = true
    @metrics = Metrics.new
    @health = Health.new(@metrics)
    at_exit { WebSocket.drain }
  end

  def call(env)
    started = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    status, body, type = answer(env)
    return [-1, {}, []] if status == :hijacked

    log(env, status, Process.clock_gettime(Process::CLOCK_MONOTONIC) - started)
    body = JSON.generate(body) unless body.is_a?(String)
    [status, headers.merge('content-type' => type || 'application/json', 'content-length' => body.bytesize.to_s), [body]]
  end

  private

  def headers
    { 'x-release' => Settings.release }
  end

  def answer(env)
    return WebSocket.start(env, headers) && [:hijacked] if env['PATH_INFO'] == '/ws' && WebSocket.upgrade?(env)

    work unless env['HTTP_USER_AGENT'] == PROBE
    Settings.system == 'laravel' ? laravel(env) : ruby(env)
  rescue StandardError => e
    warn "#{env['PATH_INFO']}: #{e.full_message(highlight: false)}"
    [500, { error: e.class.name, message: e.message.strip[0, 200] }]
  end

  # What health checks do not see of a release.
  def work
    sleep @latency if @latency.positive?
    raise "FAULT_ERRORS=#{@errors}: this request fails" if rand < @errors
  end

  # The same program standing in for the system that is replaced.
  def laravel(env)
    case env['PATH_INFO']
    when '/api/health' then @health.main
    when %r{\A/(health|ready\z|live\z|up\z|metrics\z)} then not_found
    else common(env)
    end
  end

  def ruby(env)
    case (path = env['PATH_INFO'])
    when '/health' then @health.main
    when '/health/complete' then @health.complete
    when *HEALTH then @health.part(path.delete_prefix('/health/'))
    when '/ready' then @health.ready
    when '/live', '/up' then [200, { status: 'ok', uptime: Settings.uptime.round(1) }]
    when '/metrics' then [200, @metrics.text(Settings.release), 'text/plain; version=0.0.4']
    else common(env)
    end
  end

  def common(env)
    query = URI.decode_www_form(env['QUERY_STRING'].to_s).to_h
    case env['PATH_INFO']
    when '/' then [200, "Spotik #{Settings.release}\n", 'text/plain']
    when '/version' then [200, Settings.identity]
    when '/whoami' then [200, whoami(env)]
    when '/upload' then [200, { size: size_of(env['rack.input']) }]
    when '/slow' then slow(query.fetch('s', '1').to_f)
    when '/db' then Database.configured? ? [200, Database.hit(Settings.release)] : [503, { error: 'DATABASE_URL is not set' }]
    when '/ws' then [426, { error: 'WebSocket handshake expected' }]
    when '/api/auth/login' then login(env)
    when '/fault/error' then rand < query.fetch('rate', '1').to_f ? [500, { error: 'asked for' }] : [200, { status: 'ok' }]
    when '/fault/latency' then slow(query.fetch('ms', '100').to_f / 1000)
    else not_found
    end
  end

  def not_found
    [404, { error: 'not found' }]
  end

  def slow(seconds)
    sleep seconds.clamp(0, SLOWEST)
    [200, { slept: seconds }]
  end

  def whoami(env)
    names = %w[X_FORWARDED_FOR X_FORWARDED_PROTO X_FORWARDED_HOST X_REAL_IP HOST CONNECTION UPGRADE X_REQUEST_ID]
    names.to_h { |name| [name.downcase, env["HTTP_#{name}"]] }.merge(remote_addr: env['REMOTE_ADDR'], scheme: env['rack.url_scheme'])
  end

  def size_of(input)
    size = 0
    while (chunk = input&.read(65_536))
      size += chunk.bytesize
    end
    size
  end

  def login(env)
    return [405, { error: 'POST only' }] unless env['REQUEST_METHOD'] == 'POST'

    given = credentials(env['rack.input'].read(4096).to_s)
    wanted = [ENV['SMOKE_USER'], ENV['SMOKE_PASSWORD']]
    known = wanted.all? && wanted.zip(given).all? { |a, b| OpenSSL.secure_compare(a, b.to_s) }
    known ? [200, { user: given.first }] : [401, { error: 'wrong user or password' }]
  end

  def credentials(text)
    form = text.start_with?('{') ? JSON.parse(text) : URI.decode_www_form(text).to_h
    form.values_at('username', 'password')
  rescue JSON::ParserError, ArgumentError
    []
  end

  def log(env, status, seconds)
    @metrics.observe(status, seconds)
    puts JSON.generate(time: Time.now.utc.iso8601(3), method: env['REQUEST_METHOD'], path: env['PATH_INFO'],
                       status: status, ms: (seconds * 1000).round(1), request_id: env['HTTP_X_REQUEST_ID'])
  end
end
