-- Headers removed on the way out, and what stays.
local sim = require "tern.sim"
local strip_headers = require "policies.strip_headers"
local relay_to_host = require "policies.relay_to_host"

local INSIDE, OUTSIDE = "10.1.1.1", "203.0.113.5"

local function world(policy)
  local w = sim.world {
    zone = "mx.y.example. A 192.0.2.80",
    config = {
      hostname = "mx.isp.example",
      relay_from = { "10.0.0.0/8" },
      domains = { ["y.example"] = relay_to_host { "192.0.2.80" } },
      policies = { policy },
    },
  }
  return w, w:host "192.0.2.80"
end

-- What arrives of that, below our Received.
local function passed(policy, content, client)
  local w, host = world(policy)
  expect(w:send { from = "a@x.example", to = "u@y.example", content = content,
    client = client or INSIDE }.code).equal(250)
  w:advance "1m"
  expect(host:inbox()).size(1)
  return host:inbox()[1].content:match "^Received: from .- %+0000\r?\n(.*)$":gsub("\r", ""), w
end

local MAIL = [[
Received: from pc7 (pc7.intern [10.1.2.3])
	by relay.intern with SMTP; Mon, 1 Jan 2024 00:00:00 +0000
Received: from [10.9.9.9] ([203.0.113.77]) by out.example; Mon, 1 Jan 2024 00:00:00 +0000
Received: from v6 ([IPv6:fd00::7]) by x; Mon, 1 Jan 2024 00:00:00 +0000
Received: by relay.intern (nobody [10.1.2.3])
X-Originating-IP: [10.1.2.3]
x-internal-id: 4711
Subject:  odd   blanks
 and folds~~
X-Internals: stays
X-INTERNAL-:
To: u@y.example

X-Internal-Id: this is text
]]
MAIL = MAIL:gsub("~", " ")

test("named fields go, all others stay as they are", function()
  expect((passed(strip_headers { "X-Originating-IP", "X-Internal-*" }, MAIL))).equal((MAIL
    :gsub("X%-Originating%-IP: .-\n", ""):gsub("x%-internal%-id: .-\n", "")
    :gsub("X%-INTERNAL%-:\n", "")))
end)

test("Received fields go that tell of internal clients", function()
  expect((passed(strip_headers { received_from = { "10.0.0.0/8", "fd00::/8" } }, MAIL)))
    .equal((MAIL:gsub("Received: from pc7.-%+0000\n", ""):gsub("Received: from v6.-%+0000\n", "")))
end)

test("our own Received stays: loops are found by it", function()
  local ours = "Received: from pc7 ([10.1.2.3])\n\tby mx.isp.example with SMTP;\n x\n\nbody\n"
  local content, w = passed(strip_headers { "Received", received_from = "10.0.0.0/8" }, ours)
  expect(content).equal(ours)
  expect(w:events "headers_changed").size(0)
  expect(w:events "policy_error").size(0)
end)

test("mail from outside is left alone, unless it is meant", function()
  local content = "X-Mailer: x\n\nbody\n"
  expect((passed(strip_headers { "X-Mailer" }, content, OUTSIDE))).equal(content)
  expect((passed(strip_headers { "X-Mailer", clients = "strangers" }, content, OUTSIDE)))
    .equal "\nbody\n"
  expect((passed(strip_headers { "X-Mailer", clients = "strangers" }, content, INSIDE)))
    .equal(content)
  expect((passed(strip_headers { "X-Mailer", clients = "all" }, content, INSIDE)))
    .equal "\nbody\n"
end)

test("what was removed can be seen, with its line", function()
  local w, host = world(strip_headers { "X-Mailer", "X-*" })
  host:down()
  w:send { from = "a@x.example", to = "u@y.example", client = INSIDE,
    content = "X-Mailer: x\nX-One: 1\nx-one: 2\nSubject: s\n\nbody\n" }
  local entry = w:queue()[1]
  expect(entry.changes).size(2)
  expect(entry.changes[1].op).equal "removed"
  expect(entry.changes[2].name).equal "X-One"
  expect(entry.changes[2].count).equal(2)
  expect(entry.changes[1].place).matches "policies/strip_headers%.lua:%d+$"
  expect(w:events "headers_changed"[1].what).matches "^removed X%-Mailer at .+, removed 2 X%-One at"
  expect(w:content(entry)).matches "%+0000\r\nSubject: s\r\n\r\nbody\r\n$"
  expect(#w:content(entry)).equal(entry.size)
  w:restart()
  expect(w:queue()[1].changes).equal(entry.changes)
end)

test("what is wrong with its options is said", function()
  expect(function() strip_headers { received_from = "10.0.0.1/8" } end).fails "received_from"
  expect(function() strip_headers { 7 } end).fails "strip_headers"
  expect(function() strip_headers { clients = "me" } end).fails "clients"
end)
