-- tern.smtp.probe, as policies see it: what it gives, and what is wrong with a call.
local sim = require "tern.sim"
local tern = require "tern"
local route = require "tern.route"

local probe = {} -- what the next session's HELO asks, and what came of it
local function world()
  probe = {}
  return sim.world {
    zone = [[
      example.com.      MX 10 mx1.example.com.
      example.com.      MX 20 mx.isp.example.
      mx1.example.com.  A  192.0.2.1
      null.example.     MX 0 .
    ]],
    config = {
      hostname = "mx.isp.example",
      policies = { { name = "asks", helo = function()
        probe.answer, probe.failure = tern.smtp.probe(probe.request)
      end } },
    },
  }
end

local function ask(w, request)
  probe.request, probe.answer, probe.failure = request, nil, nil
  local s = w:session {}
  local reply = s:line "EHLO client.example"
  s:close()
  return probe.answer, probe.failure, reply
end

test("what the host says of a recipient", function()
  local w = world()
  local h = w:host "192.0.2.3":reject { ["v@y.example"] = { 550, "5.1.1", "no such user" } }
  local answer = ask(w, { host = "192.0.2.3:25", recipient = "u@y.example" })
  expect(answer.code).equal(250)
  expect(answer.stage).equal "RCPT TO"
  expect(answer.host).equal "192.0.2.3"
  expect(answer.address).equal "192.0.2.3"
  answer = ask(w, { host = { "192.0.2.3" }, recipient = "v@y.example" })
  expect(answer.code).equal(550)
  expect(answer.enhanced).equal "5.1.1"
  expect(answer.text).equal "no such user"
  h:reject { mail = { 501, "5.5.4", "no such senders" } }
  answer = ask(w, { host = "192.0.2.3", recipient = "u@y.example", sender = "a@b.example" })
  expect(answer.code).equal(501)
  expect(answer.stage).equal "MAIL FROM"
  w:advance "1m"
  expect(h:inbox()).size(0)
end)

test("only whether it answers", function()
  local w = world()
  local answer = ask(w, { host = "192.0.2.3" })
  expect(answer.code).equal(250)
  expect(answer.stage).equal "HELO"
  w:host("192.0.2.3"):greet { 554, "5.7.1", "go away" }
  w:advance "1m"
  local none, failure = ask(w, { host = "192.0.2.3" })
  expect(none).equal(nil)
  expect(failure.kind).equal "host"
  expect(failure.code).equal(554)
  expect(failure.text).contains "go away"
  expect(failure.stage).equal "greeting"
end)

test("the hosts of a route, as a delivery would find them", function()
  local w = world()
  local to = route.mx { domain = "example.com", below = "self" }
  expect(ask(w, { route = to, recipient = "u@example.com" }).host).equal "mx1.example.com"
  local _, failure = ask(w, { route = route.mx { domain = "null.example" } })
  expect(failure.kind).equal "dns"
  expect(failure.code).equal(556)
end)

test("TLS as the route wants it", function()
  local w = world()
  w:host("192.0.2.3"):starttls "none"
  expect(ask(w, { host = "192.0.2.3", tls = "require" })).equal(nil)
  expect(probe.failure.stage).equal "STARTTLS"
  w:host("192.0.2.4"):starttls "offered"
  expect(ask(w, { host = "192.0.2.4", tls = "require" }).code).equal(250)
  w:host("192.0.2.5"):starttls "broken"
  expect(ask(w, { host = "192.0.2.5" }).code).equal(250)
end)

test("it ends in time, and leaves its hook time to go on", function()
  local w = world()
  w:host("192.0.2.3"):slow "5m"
  local began = w:now()
  local _, failure, reply = ask(w, { host = "192.0.2.3", timeout = "3s" })
  expect(failure.kind).equal "timeout"
  expect(failure.text).equal "timeout (greeting)"
  expect(w:now() - began).below(4)
  expect(reply.code).equal(250)
  _, failure, reply = ask(w, { host = "192.0.2.3", timeout = "1h" })
  expect(failure.kind).equal "timeout"
  expect(reply.code).equal(250)
  expect(w:now() - began).below(34)
end)

test("a host that does not know an address's kind is not asked", function()
  local w = world()
  w:host("192.0.2.4"):without "SMTPUTF8"
  local _, failure = ask(w, { host = "192.0.2.4", recipient = "bücher@y.example" })
  expect(failure.kind).equal "unsupported"
  _, failure = ask(w, { host = "192.0.2.3", recipient = "u@y.example>\r\nDATA" })
  expect(failure.kind).equal "unsupported"
end)

test("mistakes are told", function()
  for _, case in ipairs {
    { { recipient = "u@y.example" }, "needs host or route" },
    { { host = "192.0.2.3", route = route.mx { domain = "y.example" } }, "and not both" },
    { { host = "192.0.2.3", recipient = "" }, "'recipient' is empty" },
    { { host = "192.0.2.3", recipent = "u@y.example" }, "did you mean 'recipient'" },
    { { route = route.hold {} }, "must lead to hosts" },
  } do
    local w = world()
    local _, _, reply = ask(w, case[1])
    expect(reply.code).equal(451)
    expect(w:events "policy_error"[1].message).contains(case[2])
  end
  expect(function() tern.smtp.probe { host = "192.0.2.3" } end).fails "inside of a hook"
end)

test("what one host could not do says nothing of the next one's TLS", function()
  local w = world()
  w:host("192.0.2.3"):starttls("broken"):named "mx.isp.example"
  w:host("192.0.2.4"):starttls "none"
  local answer = ask(w, { route = route.hosts { { "192.0.2.3" },
    { "192.0.2.4", tls = "require" } } })
  expect(answer).equal(nil)
end)
