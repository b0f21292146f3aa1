# SPDX-License-Identifier: GPL-3.0-or-later
# frozen_string_literal: true

require 'digest/sha1' # now: loaded at its first use, by several threads at once, it can fail
require 'io/wait'

# One echoing WebSocket (RFC 6455) on a hijacked connection, served by a thread of its own.
class WebSocket
  GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
  TEXT = 1
  BINARY = 2
  CLOSE = 8
  PING = 9
  PONG = 10
  LIMIT = 1 << 20
  TICK = 0.2 # seconds between two looks at the server's state
  LINGER = 1.0 # seconds a client gets to answer a close frame

  class Closed < StandardError; end

  @threads = []
  @lock = Mutex.new

  class << self
    attr_accessor :stopping

    def upgrade?(env)
      env['HTTP_UPGRADE'].to_s.casecmp?('websocket') && env['HTTP_SEC_WEBSOCKET_KEY'] && env['rack.hijack?']
    end

    def start(env, headers)
      server = Puma::Server.current
      accept = Digest::SHA1.base64digest(env['HTTP_SEC_WEBSOCKET_KEY'] + GUID)
      extra = headers.map { |name, value| "#{name}: #{value}\r\n" }.join
      greeting = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n" \
                 "sec-websocket-accept: #{accept}\r\n#{extra}\r\n"
      io = env['rack.hijack'].call
      thread = Thread.new { new(io, server).serve(greeting) }
      @lock.synchronize { @threads = @threads.select(&:alive?) << thread }
    end

    # At the end of the process: every connection sends its close frame first.
    def drain
      self.stopping = true
      @threads.each { |thread| thread.join(LINGER + TICK) }
    end
  end

  def initialize(io, server)
    @io = io
    @server = server
    @interval = ENV.fetch('WEBSOCKET_PING_INTERVAL', '20').to_f
    @parts = []
  end

  def serve(greeting)
    @io.write(greeting)
    @pinged = now
    loop do
      close(1001) if self.class.stopping || @server.shutting_down?
      ping if now - @pinged >= @interval
      receive if @io.wait_readable(TICK)
    end
  rescue Closed, SystemCallError, IOError
    nil
  ensure
    @io.close
  end

  private

  def now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end

  def ping
    @pinged = now
    send_frame(PING, 'slipway')
  end

  def receive
    first, second = read(2).bytes
    size = second & 0x7f
    size = read(2).unpack1('n') if size == 126
    size = read(8).unpack1('Q>') if size == 127
    close(1002) if second < 0x80 # a client must mask
    close(1009) if size > LIMIT
    mask = read(4).bytes
    payload = read(size).bytes.each_with_index.map { |byte, i| byte ^ mask[i % 4] }.pack('C*')
    handle(first & 0x0f, first >= 0x80, payload)
  end

  def handle(opcode, final, payload)
    case opcode
    when CLOSE then close(payload.size >= 2 ? payload.unpack1('n') : 1000)
    when PING then send_frame(PONG, payload)
    when 0, TEXT, BINARY then collect(opcode, final, payload)
    end
  end

  def collect(opcode, final, payload)
    @kind = opcode unless opcode.zero?
    @parts << payload
    return unless final

    send_frame(@kind, @parts.join)
    @parts = []
  end

  # Reads what still arrives: closing a socket with unread bytes would reset it and take the close frame along.
  def close(code)
    send_frame(CLOSE, [code].pack('n'))
    deadline = now + LINGER
    @io.readpartial(65_536) while (left = deadline - now).positive? && @io.wait_readable(left)
    raise Closed
  end

  def send_frame(opcode, payload)
    size = payload.bytesize
    head = if size < 126 then [0x80 | opcode, size].pack('CC')
           elsif size < 65_536 then [0x80 | opcode, 126, size].pack('CCn')
           else [0x80 | opcode, 127, size].pack('CCQ>')
           end
    @io.write(head + payload.b)
  end

  def read(count)
    data = count.zero? ? ''.b : @io.read(count)
    raise Closed if data.nil? || data.bytesize < count

    data
  end
end
