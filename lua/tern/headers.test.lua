-- Headers, body and parts as policies see them, and what comes of changes.
local sim = require "tern.sim"
local tern = require "tern"
local relay_to_host = require "policies.relay_to_host"

local function world(policies, more)
  local config = {
    hostname = "mx.isp.example",
    domains = { ["y.example"] = relay_to_host { "192.0.2.80" } },
    policies = policies,
  }
  for k, v in pairs(more or {}) do config[k] = v end
  local w = sim.world { zone = "mx.y.example. A 192.0.2.80", config = config }
  return w, w:host "192.0.2.80"
end

local function send(w, content)
  return w:send { from = "a@x.example", to = "u@y.example", content = content }
end

-- What arrives below our Received.
local function arrived(w, host)
  w:advance "1m"
  local inbox = host:inbox()
  return (inbox[#inbox].content:match "^Received: from .- %+0000\r\n(.*)$")
end

test("policies change one after another, and see what was changed before", function()
  local seen
  local w, host = world {
    { data = function(ctx)
      ctx.message.headers:prepend("X-First", "1")
      ctx.message.headers:add("X-Last", "1")
    end },
    { data = function(ctx)
      local names = {}
      for name in ctx.message.headers:each() do names[#names + 1] = name end
      seen = table.concat(names, " ")
      ctx.message.headers:set("x-first", "2")
    end },
  }
  send(w, "Subject:  odd \nTo: you\n\nbody\n")
  expect(arrived(w, host))
    .equal "x-first: 2\r\nSubject:  odd \r\nTo: you\r\nX-Last: 1\r\n\r\nbody\r\n"
  expect(seen).equal "X-First Subject To X-Last"
  expect(w:events "headers_changed"[1].changes).equal(3)
end)

test("a policy that fails has changed nothing", function()
  local failing = { data = function(ctx)
    ctx.message.headers:remove "Subject"
    error "no"
  end }
  local w, host = world({ { data = function(ctx) ctx.message.headers:add("X", "1") end }, failing },
    { on_error = "ignore" })
  expect(send(w, "Subject: s\n\nbody\n").code).equal(250)
  expect(arrived(w, host)).equal "Subject: s\r\nX: 1\r\n\r\nbody\r\n"
  w = world { failing }
  expect(send(w, "Subject: s\n\nbody\n").code).equal(451)
  expect(w:queue()).size(0)
end)

test("large messages are read in pieces, and stay as they are", function()
  local lines, digest, size
  local w, host = world { { data = function(ctx)
    local body = ctx.message.body
    lines, size = 0, 0
    for line, whole in body:lines() do
      lines, size = lines + 1, size + #line + 2
      assert(whole)
    end
    assert(size == body.size)
    digest = body:sha256()
    ctx.message.headers:replace("Subject", "large", -1)
  end } }
  local half = ("a line of text, as there are many\n"):rep(30000) -- string.rep makes a MiB at most
  local body = half .. half
  expect(send(w, "Subject: s\n\n" .. body).code).equal(250)
  expect(lines).equal(60000)
  expect(digest).matches "^%x+$"
  local crlf = body:gsub("\n", "\r\n")
  expect(arrived(w, host) == "Subject: large\r\n\r\n" .. crlf).equal(true)
end)

local function attachment(disposition)
  return ([[
Content-Type: multipart/mixed; boundary="b"
MIME-Version: 1.0

--b

see what I have
--b
Content-Type: application/octet-stream
Content-Disposition: %s
Content-Transfer-Encoding: base64

TVqQAAMAAAAEAAAA
--b--
]]):format(disposition)
end

test("attachments are refused by their names, however these are written", function()
  local w = world { { data = function(ctx)
    local parts, all = ctx.message:parts()
    assert(all and #parts == 2 and parts[1].type == "text/plain" and parts[2].size == 16)
    assert(parts[2].encoding == "base64")
    if (parts[2].filename or ""):lower():find "%.exe$" then
      return tern.reject { 554, "5.7.1", "no programs" }
    end
  end } }
  for _, name in ipairs { 'attachment; filename="a.EXE"', "attachment; filename*=utf-8''%c3%bc.exe",
    'attachment; filename*0="a.e"; filename*1=xe', 'inline; filename="=?utf-8?q?=C3=BC.exe?="' } do
    expect(send(w, attachment(name)).code).equal(554)
  end
  expect(send(w, attachment 'attachment; filename="a.exe.txt"').code).equal(250)
end)

test("what a header may not hold is an error at its line", function()
  local said = {}
  local w = world { { data = function(ctx)
    local headers = ctx.message.headers
    local function try(name, value)
      local ok, why = pcall(function() headers:add(name, value) end)
      said[#said + 1] = ok and "ok" or why
    end
    try("X", "a\r\nY: b")
    try("X:", "a")
    try("X", "\xff")
    try("From", "J\u{f6}rg <j@x.example>")
    try("From", tern.mime.encode "J\u{f6}rg" .. " <j@x.example>")
    try("X", ("x"):rep(1000))
    try("X", ("words "):rep(9000))
    try("X", ("words "):rep(9000))
  end } }
  send(w, "Subject: s\n\nbody\n")
  for i, part in ipairs { "CR, LF or NUL", "printable ASCII", "must be UTF-8", "tern.mime.encode",
    "ok", "998 octets", "ok", "64 KiB" } do
    expect(said[i]).contains(part)
    if part ~= "ok" then
      expect(said[i]).matches "headers%.test%.lua:%d+: the header cannot be changed"
    end
  end
  expect(w:content(w:queue()[1])).contains "\r\nFrom: =?utf-8?q?J=C3=B6rg?= <j@x.example>\r\n"
end)
