-- AUTH as policies see it: credentials in, accept{identity=, password=} or reject out.
local sim = require "tern.sim"
local tern = require "tern"

local PENCIL = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,"
  .. "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
local ALL = { "PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256" }

local function world_with(auth, more)
  local policy = { name = "users", auth = auth }
  for k, v in pairs(more or {}) do policy[k] = v end
  return sim.world {
    config = { hostname = "mx.example", policies = { policy },
      auth = { mechanisms = ALL, without_tls = true } },
    zone = "other.example. MX 10 mx.other.example.\nmx.other.example. A 192.0.2.1",
  }
end

local function greeted(world)
  local session = world:session()
  expect(session:line("EHLO client.example").code).equal(250)
  return session
end

test("the hook sees mechanism, user and, where it is told, the password", function()
  local seen = {}
  local world = world_with(function(ctx)
    local c = ctx.credentials
    seen[c.mechanism] = { c.user, c.password or "nil", ctx.session.identity or "nil" }
    return tern.accept { password = "pencil" }
  end)
  for _, mechanism in ipairs(ALL) do
    expect(greeted(world):auth { mechanism = mechanism, user = "ana", password = "pencil" }.code)
      .equal(235)
  end
  expect(seen).equal {
    PLAIN = { "ana", "pencil", "nil" }, LOGIN = { "ana", "pencil", "nil" },
    ["CRAM-MD5"] = { "ana", "nil", "nil" }, ["SCRAM-SHA-256"] = { "ana", "nil", "nil" },
  }
end)

test("a password that the hook gives must be known, as text or as an entry", function()
  local world = world_with(function(ctx)
    return tern.accept { password = ctx.credentials.user == "hash" and PENCIL or "pencil" }
  end)
  for _, user in ipairs { "hash", "text" } do
    for _, mechanism in ipairs { "PLAIN", "SCRAM-SHA-256" } do
      local session = greeted(world)
      local refused = session:auth { mechanism = mechanism, user = user, password = "pen" }
      expect(refused.code).equal(535)
      expect(refused.enhanced).equal("5.7.8")
      expect(session:auth { mechanism = mechanism, user = user, password = "pencil" }.code)
        .equal(235)
    end
  end
end)

test("the identity is what later hooks see, and may relay", function()
  local seen
  local world = world_with(function(ctx)
    if ctx.credentials.password == "pencil" then
      return tern.accept { identity = ctx.credentials.user .. "@example.com" }
    end
  end, { mail = function(ctx)
    seen = { ctx.session.identity, ctx.session.may_relay }
  end })
  local session = greeted(world)
  expect(session:auth { user = "ana", password = "wrong" }.code).equal(535)
  expect(session:auth { user = "ana", password = "pencil" }.code).equal(235)
  expect(session:line("MAIL FROM:<ana@example.com>").code).equal(250)
  expect(seen).equal { "ana@example.com", true }
  expect(session:line("RCPT TO:<u@other.example>").code).equal(250)
  local event = world:events("authenticated")[1]
  expect(event.identity).equal("ana@example.com")
  expect(event.policy).contains("auth.test.lua:")
end)

test("reject and defer end the exchange; the log names the user and not the password", function()
  local world = world_with(function(ctx)
    if ctx.credentials.user == "spam" then return tern.reject { 535, "5.7.8", "not you" } end
    if ctx.credentials.user == "ban" then return tern.reject() end
    return tern.defer { 454, "4.7.0", "the directory is down" }
  end)
  local session = greeted(world)
  expect(tostring(session:auth { user = "spam", password = "hidden" })).equal("535 5.7.8 not you")
  expect(session:auth { user = "ban", password = "hidden" }.code).equal(535)
  expect(session:auth { user = "u", password = "hidden" }.code).equal(454)
  local failed = world:events("auth_failed")
  expect(#failed).equal(3)
  expect(failed[1].user).equal("spam")
  for _, event in ipairs(failed) do
    for _, value in pairs(event) do expect(tostring(value)).never.contains("hidden") end
  end
end)

test("accepting a proof without a password to check it by is a refusal", function()
  local world = world_with(function() return tern.accept() end)
  expect(greeted(world):auth { user = "u", password = "p" }.code).equal(235)
  local said = greeted(world):auth { mechanism = "SCRAM-SHA-256", user = "u", password = "p" }
  expect(said.code).equal(535)
end)

test("a hook that waits is waited for", function()
  local world = world_with(function()
    tern.sleep "3s"
    return tern.accept()
  end)
  local before = world:now()
  expect(greeted(world):auth { user = "u", password = "p" }.code).equal(235)
  expect(world:now() - before >= 3).equal(true)
end)

test("a hook that fails costs a temporary failure", function()
  local world = world_with(function() error "boom" end)
  expect(greeted(world):auth { user = "u", password = "p" }.code).equal(451)
end)

test("who is given in another hook is an error there", function()
  local world = world_with(nil, { mail = function() return tern.accept { identity = "ana" } end })
  local session = greeted(world)
  expect(session:line("MAIL FROM:<a@b.example>").code).equal(451)
  expect(world:events("policy_error")[1].message).contains("for the hook 'auth'")
end)
