-- At which line of a source text a key of a table stands. A light scanner, not a parser: it follows
-- braces, keys and positions, and steps over strings, comments and function bodies. Plain Lua.
local locate = {}

local opens = { ["function"] = true, ["do"] = true, ["if"] = true, ["repeat"] = true }
local closes = { ["end"] = true, ["until"] = true }

-- Returns a function that gives kind ("name", "string", "number", or the symbol itself), text,
-- line.
local function scanner(src)
  local at, line = 1, 1

  local function count(from, to)
    for _ in src:sub(from, to):gmatch("\n") do line = line + 1 end
  end

  local function long_bracket(from)
    local level = src:match("^%[(=*)%[", from)
    if not level then return nil end
    local _, stop = src:find("]" .. level .. "]", from, true)
    return stop or #src, #level
  end

  local function short_string(from)
    local quote, i = src:sub(from, from), from + 1
    while i <= #src do
      local c = src:sub(i, i)
      if c == "\\" then i = i + 1
      elseif c == quote or c == "\n" then break end
      i = i + 1
    end
    return i
  end

  return function()
    while true do
      local stop = select(2, src:find("^%s+", at))
      if stop then
        count(at, stop)
        at = stop + 1
      elseif src:find("^%-%-", at) then
        stop = long_bracket(at + 2) or (src:find("\n", at, true) or #src + 1) - 1
        count(at, stop)
        at = stop + 1
      else
        break
      end
    end
    if at > #src then return nil end
    local from, began = at, line
    local word = src:match("^[%a_][%w_]*", at)
    if word then
      at = at + #word
      return "name", word, began
    end
    local c = src:sub(at, at)
    if c == '"' or c == "'" then
      local stop = short_string(at)
      count(at, stop)
      at = stop + 1
      return "string", src:sub(from + 1, stop - 1), began
    end
    local stop, level = long_bracket(at)
    if stop then
      count(at, stop)
      at = stop + 1
      return "string", src:sub(from + level + 2, stop - level - 2), began
    end
    local number = src:match("^%d[%w%.]*", at)
    if number then
      at = at + #number
      return "number", number, began
    end
    local symbol = src:match("^[=~<>]=", at) or c
    at = at + #symbol
    return symbol, symbol, began
  end
end

-- The line where the longest known part of `path` (keys, and positions of items) is written, and
-- how many of its steps were found; tables behind `return` are preferred. nil: not even the
-- first.
function locate.path(src, path)
  local next_token = scanner(src)
  local levels, score, found, depth = {}, 0, nil, 0
  local returned, blocks = false, 0 -- blocks: of functions and statements outside of any table
  local kind, text, line = next_token()

  local function advance()
    kind, text, line = next_token()
  end

  -- Notes that the item `key` of the innermost table begins at this line.
  local function item(key, at_line)
    local n = #levels
    levels[n].key = key
    if n > #path then return end
    for i = 1, n do
      if levels[i].key ~= path[i] then return end
    end
    local s = 2 * n + (levels[1].returned and 1 or 0)
    if s > score then score, found, depth = s, at_line, n end
  end

  -- At the start of an item: is it keyed?
  local function begin_item(level)
    level.fresh = false
    local first, first_text, first_line = kind, text, line
    if first == "name" and not opens[first_text] then
      advance()
      if kind == "=" then
        item(first_text, first_line)
        return advance()
      end
    elseif first == "[" then
      advance()
      local key, key_kind = text, kind
      advance()
      if kind == "]" and (key_kind == "string" or key_kind == "number") then
        item(key_kind == "number" and tonumber(key) or key, first_line)
        return advance()
      end
    end
    level.index = level.index + 1
    item(level.index, first_line)
  end

  while kind do
    local level = levels[#levels]
    if level and level.fresh and kind ~= "}" then
      begin_item(level)
    elseif kind == "{" then
      levels[#levels + 1] = { index = 0, fresh = true, inside = 0, returned = returned }
      advance()
    elseif kind == "}" then
      levels[#levels] = nil
      advance()
    else
      if level then
        if kind == "(" or kind == "[" or (kind == "name" and opens[text]) then
          level.inside = level.inside + 1
        elseif kind == ")" or kind == "]" or (kind == "name" and closes[text]) then
          level.inside = level.inside - 1
        elseif (kind == "," or kind == ";") and level.inside == 0 then
          level.fresh = true
        end
      end
      if not level and kind == "name" then
        blocks = blocks + (opens[text] and 1 or closes[text] and -1 or 0)
      end
      returned = kind == "name" and text == "return" and blocks == 0
      advance()
    end
  end
  return found, depth
end

-- The first line, from `from` on, where `key =` is written.
function locate.key(src, key, from)
  local next_token = scanner(src)
  local kind, text, line = next_token()
  while kind do
    local was, where = kind == "name" and text == key, line
    kind, text, line = next_token()
    if was and kind == "=" and where >= (from or 1) then return where end
  end
  return nil
end

-- The line of the last `return` that is no part of a function.
function locate.last_return(src)
  local next_token = scanner(src)
  local kind, text, line = next_token()
  local blocks, last = 0, nil
  while kind do
    if kind == "name" then
      if text == "return" and blocks == 0 then last = line end
      blocks = blocks + (opens[text] and 1 or closes[text] and -1 or 0)
    end
    kind, text, line = next_token()
  end
  return last
end

return locate
