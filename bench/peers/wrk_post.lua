-- Posts one body again and again, and writes the result as one line of JSON.
--   BODY                 file with the request's body
--   JSON_BYTE_SIZE       length of the JSON part of a binary body; empty when the body is all JSON
--   PATHS                optional: paths to post to in turn, separated by spaces, instead of the address's own
local file = assert(io.open(os.getenv("BODY"), "rb"))
local body = file:read("*a")
file:close()

wrk.method = "POST"
wrk.body = body
local json_byte_size = os.getenv("JSON_BYTE_SIZE") or ""
if json_byte_size == "" then
  wrk.headers["Content-Type"] = "application/json"
else
  wrk.headers["Content-Type"] = "application/octet-stream"
  wrk.headers["Inference-Header-Content-Length"] = json_byte_size
end

local paths = os.getenv("PATHS") or ""
if paths ~= "" then
  local requests, turn = {}, 0
  init = function()
    for path in paths:gmatch("%S+") do
      requests[#requests + 1] = wrk.format("POST", path, nil, body)
    end
  end
  request = function()
    turn = turn % #requests + 1
    return requests[turn]
  end
end

done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format('\nJSON{"requests":%d,"duration_us":%d,"p50_us":%.1f,"p99_us":%.1f,"errors":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
