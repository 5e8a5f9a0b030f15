-- The nearest right name for a wrong one. Plain Lua, no dependencies.
local suggest = {}

-- Edit distance with transpositions of neighbours (optimal string alignment).
local function distance(a, b)
  local before, last, this = {}, {}, {}
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    this[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      local d = math.min(last[j] + 1, this[j - 1] + 1, last[j - 1] + cost)
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        d = math.min(d, before[j - 2] + 1)
      end
      this[j] = d
    end
    before, last, this = last, this, before
  end
  return last[#b]
end
suggest.distance = distance

local function starts(long, short)
  return #short >= 3 and long:sub(1, #short) == short
end

-- names: an array. nil when none is near enough to be meant.
function suggest.nearest(name, names)
  local best, best_distance
  name = name:lower():sub(1, 64)
  for _, candidate in ipairs(names) do
    local lower = candidate:lower()
    local d = distance(name, lower)
    if starts(name, lower) or starts(lower, name) then d = math.min(d, 1.5) end
    if d <= math.max(1.5, math.min(#name, #lower) / 3)
        and (not best or d < best_distance) and #lower > 0 then
      best, best_distance = candidate, d
    end
  end
  return best
end

-- "; did you mean 'x'?", or "".
function suggest.hint(name, names, quote)
  local best = suggest.nearest(name, names)
  quote = quote or "'"
  return best and "; did you mean " .. quote .. best .. quote .. "?" or ""
end

return suggest
