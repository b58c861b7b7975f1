# What every peer serves, as a Rack application.
require "digest"

class Parts
  def initialize(seconds)
    @seconds = seconds
  end

  def each
    10.times do
      yield "part\n"
      sleep @seconds / 10
    end
  end
end

run(lambda do |env|
  seconds = env["QUERY_STRING"][/ms=(\d+)/, 1].to_i / 1000.0
  head = { "X-Worker" => Process.pid.to_s, "X-Request-Id" => env["HTTP_X_REQUEST_ID"].to_s }
  case env["PATH_INFO"]
  when "/stream"
    [200, head, Parts.new(seconds)]
  when "/upload"
    body = env["rack.input"].read
    [200, head, ["#{body.bytesize} #{Digest::SHA256.hexdigest(body)}\n"]]
  else
    sleep seconds
    [200, head, ["hello\n"]]
  end
end)
