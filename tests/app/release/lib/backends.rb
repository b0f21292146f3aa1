# SPDX-License-Identifier: GPL-3.0-or-later
# frozen_string_literal: true

require 'io/wait'
require 'net/http'
require 'openssl'
require 'socket'
require 'timeout'
require 'uri'

# PostgreSQL through DATABASE_URL, one connection per thread. exec_params only: it uses the unnamed statement,
# which a transaction-pooling pgbouncer can serve; named prepared statements it cannot.
module Database
  TABLE = 'CREATE TABLE IF NOT EXISTS slipway_hits (id bigserial PRIMARY KEY, release text, at timestamptz DEFAULT now())'

  module_function

  def configured?
    !ENV['DATABASE_URL'].to_s.empty?
  end

  def query(sql, params = [])
    require 'pg'
    connection = Thread.current[:database]
    # Nothing is to be read from an idle connection but its end.
    connection = nil if connection && (connection.finished? || connection.socket_io.wait_readable(0))
    connection ||= PG.connect(ENV.fetch('DATABASE_URL'), connect_timeout: 3, tcp_user_timeout: 5000)
    Thread.current[:database] = connection
    connection.exec_params(sql, params).to_a
  rescue PG::ConnectionBad, PG::UnableToSend
    Thread.current[:database] = nil
    raise
  end

  def hit(release)
    id = insert(release)
    row = query('SELECT count(*) AS hits, pg_backend_pid() AS backend_pid, ' \
                "current_setting('statement_timeout') AS statement_timeout FROM slipway_hits").first
    { id: id, hits: row['hits'].to_i, backend_pid: row['backend_pid'].to_i, statement_timeout: row['statement_timeout'] }
  end

  def insert(release)
    query('INSERT INTO slipway_hits (release) VALUES ($1) RETURNING id', [release]).first['id'].to_i
  rescue PG::UndefinedTable
    begin
      query(TABLE)
    rescue PG::UniqueViolation
      nil # another process created it at the same moment
    end
    retry
  end
end

# Just enough of the Redis protocol for a health check.
module Redis
  module_function

  def configured?
    !ENV['REDIS_URL'].to_s.empty?
  end

  def ping
    url = URI(ENV.fetch('REDIS_URL'))
    Timeout.timeout(3) do
      Socket.tcp(url.host, url.port || 6379) do |tcp|
        io = url.scheme == 'rediss' ? OpenSSL::SSL::SSLSocket.new(tcp).tap(&:connect) : tcp
        login = [url.user, url.password].reject { |part| part.to_s.empty? }
        command(io, 'AUTH', *login.map { |part| URI.decode_www_form_component(part) }) unless login.empty?
        command(io, 'PING')
      end
    end
  end

  def command(io, *words)
    io.write("*#{words.size}\r\n", *words.map { |word| "$#{word.bytesize}\r\n#{word}\r\n" })
    reply = io.gets("\r\n").to_s.chomp
    raise "Redis refused #{words.first}: #{reply[0, 80]}" unless reply.start_with?('+')

    reply
  end
end

# The external service of the sample application.
module Tmdb
  module_function

  def configured?
    !ENV['TMDB_URL'].to_s.empty?
  end

  def check
    url = URI(ENV.fetch('TMDB_URL'))
    options = { use_ssl: url.scheme == 'https', open_timeout: 2, read_timeout: 2 }
    answer = Net::HTTP.start(url.host, url.port, **options) { |http| http.get(url.request_uri) }
    raise "TMDB answered #{answer.code}" unless answer.code == '200'
  end
end
