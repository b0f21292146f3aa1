# SPDX-License-Identifier: GPL-3.0-or-later
# frozen_string_literal: true

# Request durations of this process as one Prometheus histogram per status class.
class Metrics
  BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0].freeze
  NAME = 'http_request_duration_seconds'

  def initialize
    @lock = Mutex.new
    @series = Hash.new { |hash, key| hash[key] = { buckets: Array.new(BOUNDS.size, 0), count: 0, sum: 0.0 } }
  end

  def observe(status, seconds)
    @lock.synchronize do
      series = @series["#{status / 100}xx"]
      series[:count] += 1
      series[:sum] += seconds
      BOUNDS.each_with_index { |bound, i| series[:buckets][i] += 1 if seconds <= bound }
    end
  end

  def totals
    @lock.synchronize do
      count = @series.values.sum { |series| series[:count] }
      sum = @series.values.sum { |series| series[:sum] }
      { requests: count, mean_ms: count.zero? ? 0 : (sum / count * 1000).round(2) }
    end
  end

  def text(release)
    lines = ["# HELP #{NAME} Time from request to answer.", "# TYPE #{NAME} histogram"]
    @lock.synchronize do
      @series.each do |status, series|
        labels = %(release="#{release}",status="#{status}")
        BOUNDS.zip(series[:buckets]) { |le, n| lines << %(#{NAME}_bucket{#{labels},le="#{le}"} #{n}) }
        lines << %(#{NAME}_bucket{#{labels},le="+Inf"} #{series[:count]})
        lines << "#{NAME}_sum{#{labels}} #{series[:sum]}" << "#{NAME}_count{#{labels}} #{series[:count]}"
      end
    end
    "#{lines.join("\n")}\n"
  end
end
