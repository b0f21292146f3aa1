# SPDX-License-Identifier: GPL-3.0-or-later
# frozen_string_literal: true

require_relative '../lib/settings'
require_relative '../lib/backends'

# Workers of the sample application: `worker.rb queue` works on the rows of the table jobs, `worker.rb clock` ticks each
# second, `worker.rb tick` once. What they did is in the tables done and ticks. Either system runs the same program.
class Worker
  TABLES = [
    'CREATE TABLE IF NOT EXISTS jobs (id bigserial PRIMARY KEY, made timestamptz DEFAULT clock_timestamp(), taken text)',
    'CREATE TABLE IF NOT EXISTS done (job bigint, worker text, at timestamptz DEFAULT clock_timestamp())',
    'CREATE TABLE IF NOT EXISTS ticks (worker text, began timestamptz, ended timestamptz)'
  ].freeze
  TAKE = 'UPDATE jobs SET taken = $1 WHERE id = (SELECT id FROM jobs WHERE taken IS NULL ORDER BY id LIMIT 1 ' \
         'FOR UPDATE SKIP LOCKED) RETURNING id'
  JOB = 0.2
  TICK = 0.3

  def initialize
    Settings.load_faults
    abort 'FAULT_WORKER=exit: this worker refuses to work' if ENV['FAULT_WORKER'] == 'exit'
    $stdout.sync = true
    @name = [Settings.system, Settings.release, ENV['SLIPWAY_SLOT'], Socket.gethostname, Process.pid].compact.join('/')
    trap('TSTP') { @quiet = true }
    trap('TERM') { @over = true }
    TABLES.each { |table| create(table) }
  end

  # A job that was taken is finished, whatever signal comes.
  def queue
    until @over
      job = @quiet ? nil : Database.query(TAKE, [@name]).first
      next sleep(0.1) unless job

      sleep JOB
      Database.query('INSERT INTO done (job, worker) VALUES ($1, $2)', [job['id'], @name])
    end
  end

  def clock
    until @over
      tick
      sleep 0.1 while !@over && Process.clock_gettime(Process::CLOCK_REALTIME) % 1 > 0.2
    end
  end

  def tick
    began = Database.query('SELECT clock_timestamp()::text AS now').first['now']
    sleep TICK
    Database.query('INSERT INTO ticks VALUES ($1, $2, clock_timestamp())', [@name, began])
  end

  private

  def create(table)
    Database.query(table)
  rescue PG::UniqueViolation
    nil # another process created it at the same moment
  end
end

task = ARGV.fetch(0)
abort "no such task: #{task}" unless %w[queue clock tick].include?(task)
puts "#{task} begins"
Worker.new.public_send(task)
puts "#{task} ends"
