# An app as puma serves one (Rack). It knows nothing of who has bound its socket.
who = "puma #{ENV["HANDOVER_WORKER"]} pid=#{Process.pid}"
run ->(env) { [200, { "content-type" => "text/plain", "x-worker" => who }, ["#{who}\n"]] }
