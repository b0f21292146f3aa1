# SPDX-License-Identifier: GPL-3.0-or-later
# frozen_string_literal: true

# What a release changes in its database: `migrate.rb check` ends with 0 (nothing), 10 (expand) or 20 (contract), `migrate.rb apply`
# does it. MIGRATION=expand:NAME or contract:NAME says what; FAULT_MIGRATION=check|fail|slow:N makes it go wrong.
require_relative 'lib/settings'
require_relative 'lib/backends'

# One change, applied once by its name.
module Migration
  KEPT = 'CREATE TABLE IF NOT EXISTS slipway_migrations (kind text, name text, release text, PRIMARY KEY (kind, name))'
  # Written outside of the transaction, so that a run that failed counts, too.
  RUNS = 'CREATE TABLE IF NOT EXISTS slipway_migration_runs (id bigserial PRIMARY KEY, name text, release text, at timestamptz DEFAULT now())'
  STATUS = { 'expand' => 10, 'contract' => 20 }.freeze

  module_function

  def kind
    ENV['MIGRATION'].to_s.split(':', 2)[0]
  end

  def name
    ENV['MIGRATION'].to_s.split(':', 2)[1]
  end

  def fault
    ENV['FAULT_MIGRATION'].to_s.split(':', 2)
  end

  def pending?
    return false unless name

    Database.query('SELECT 1 FROM slipway_migrations WHERE kind = $1 AND name = $2', [kind, name]).empty?
  rescue PG::UndefinedTable
    true
  end

  def check
    raise 'FAULT_MIGRATION=check: this check does not know' if fault[0] == 'check'

    puts(pending? ? "#{kind} #{name} is pending" : 'nothing is pending')
    pending? ? STATUS.fetch(kind) : 0
  end

  def apply
    [KEPT, RUNS, Database::TABLE].each { |sql| Database.query(sql) }
    return puts('nothing is pending') unless pending?

    Database.query('INSERT INTO slipway_migration_runs (name, release) VALUES ($1, $2)', [name, Settings.release])
    puts "#{kind} #{name}: begins with #{ENV.fetch('PGOPTIONS', 'no options')}"
    Database.query('BEGIN')
    change
    Database.query('INSERT INTO slipway_migrations (name, kind, release) VALUES ($1, $2, $3)', [name, kind, Settings.release])
    Database.query('COMMIT')
    puts "#{kind} #{name}: done"
  end

  def change
    Database.query('SELECT pg_sleep($1)', [fault[1]]) if fault[0] == 'slow'
    raise "FAULT_MIGRATION=fail: could not log in to #{ENV.fetch('DATABASE_URL')}" if fault[0] == 'fail'

    Database.query('LOCK TABLE slipway_hits IN ACCESS EXCLUSIVE MODE')
    column = PG::Connection.quote_ident("by_#{name}")
    return Database.query("ALTER TABLE slipway_hits ADD COLUMN IF NOT EXISTS #{column} text") if kind == 'expand'

    Database.query("ALTER TABLE slipway_hits DROP COLUMN IF EXISTS #{column}")
  end
end

Settings.load_faults
require 'pg'
$stdout.sync = true
case ARGV
when ['check'] then exit Migration.check
when ['apply'] then Migration.apply
else abort 'usage: migrate.rb check|apply'
end
