-- docs/hostile-input.md, where time has to pass.
local sim   = require "tern.sim"

test("I907: an hour without DNS: mail is taken, nothing is returned, and all goes out", function()
  local zone = {}
  for n = 1, 20 do
    zone[#zone + 1] = ("d%d.example. MX 1 mx%d.example.\nmx%d.example. A 192.0.2.%d")
      :format(n, n, n, n)
  end
  local w = sim.world {
    zone = table.concat(zone, "\n"),
    config = { hostname = "mx.isp.example", relay_from = { "0.0.0.0/0" } },
  }
  for n = 1, 20 do w:dns { name = ("d%d.example"):format(n), status = "timeout" } end
  for minute = 1, 60 do
    local to = ("u@d%d.example"):format(minute % 20 + 1)
    local reply = w:send { from = "x@sender.example", to = to, body = "hello" }
    expect(reply.code).equal(250)
    w:advance "1m"
  end
  expect(w:queue()).size(60)
  expect(w:events "bounced").size(0)
  for n = 1, 20 do w:dns { name = ("d%d.example"):format(n), status = "ok" } end
  w:advance "2h"
  expect(w:queue()).size(0)
  expect(w:events "delivered").size(60)
  expect(w:events "bounced").size(0)
end)
