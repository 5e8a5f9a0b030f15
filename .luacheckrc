-- Lua 5.4; modules return tables and set no globals.
std = "lua54"
max_line_length = 100
self = false
unused_args = false
exclude_files = { "build" }

-- Secrets of the site, for its configuration and for policies that get it from there.
read_globals = { "secret" }

files["**/*.test.lua"] = { read_globals = { "test", "expect" } }
files["*.test.lua"] = { read_globals = { "test", "expect" } }
