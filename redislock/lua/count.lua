-- Many steps of counting in one call. It follows gate.lua, and computes what Count.Apply of
-- package driver does; all numbers stay below 2^53, where floating point is exact.
--
-- KEYS[3..]  what is counted under, for each step; a key may occur more than once
-- ARGV[7..]  six for each step: rule, n, limit, burst, window in ms, times
--
-- What is kept under a key is text: 't total term', where term is the mastership in which the
-- total was proven; 'w total end'; 's before now start', start in ms; 'p due'. Other times are in us.
--
-- Reply: for each step 'total unproven passed remaining retry reset', times in us, or '!' and
-- why not; or one word alone, 'cut' or 'quiet', as in value.lua.
if phase == 'cut off' then return {'cut'} end
if phase == 'quiet' then return {'quiet'} end

local micros = clock[1] * 1000000 + clock[2]
local MOST = 9007199254740991
local BOUND = '!the total would exceed 9007199254740991'

-- Where the user may not ask for the term all masterships are one.
local current
local function mastership()
  if not current then
    local info = redis.pcall('INFO', 'replication')
    current = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or '0'
  end
  return current
end

local function floorDiv(a, b) return math.floor(a / b) end
local function ceilDiv(a, b) return math.floor((a + b - 1) / b) end

-- How many of so many times find room, where each takes up so much of it.
local function fit(room, each, times)
  if room < 0 then return 0 end
  if each == 0 then return times end
  return math.min(times, floorDiv(room, each))
end

-- Each rule gets what is kept, or nil, and returns what to keep instead, or nil, and the
-- answer: total, unproven, passed, remaining, retry, reset. A string in place of the total
-- is an error, and changes nothing.
local rules = {}

function rules.total(kept, n, limit, burst, window, times)
  n = n * times
  if not kept then return nil, 0, true end
  if kept.term ~= mastership() then return kept, kept[1], true end
  if kept[1] > MOST - n then return kept, BOUND end
  return {'t', kept[1] + n, term = kept.term}, kept[1] + n
end

function rules.raise(kept, n)
  local total = math.max(n, kept and kept[1] or 0)
  return {'t', total, term = mastership()}, total
end

-- The third result is whether the window begins with this step. A look does not begin one.
local function open(kept, span)
  if not kept or kept[2] <= micros then return 0, micros + span, true end
  return kept[1], math.min(kept[2], micros + span), false
end

function rules.window(kept, n, limit, burst, window, times)
  n = n * times
  local total, till, new = open(kept, window * 1000)
  if new and n == 0 then return nil, 0 end
  if math.abs(total + n) > MOST then return kept, BOUND end
  total = total + n
  return {'w', total, till}, total, false, 0, 0, 0, till - micros
end

function rules.fixed(kept, n, limit, burst, window, times)
  local total, till, new = open(kept, window * 1000)
  if new and n == 0 then return nil, 0, false, times, limit, 0, 0 end
  local passed, retry = fit(limit - total, n, times), 0
  total = total + n * passed
  if passed < times then retry = till - micros end
  local left = math.max(0, limit - total)
  return {'w', total, till}, total, false, passed, left, retry, till - micros
end

function rules.sliding(kept, n, limit, burst, window, times)
  local now = math.floor(micros / 1000)
  local before, count, start = 0, 0, now
  if kept then
    local age = now - kept[3]
    if age >= window and age < 2 * window then
      before, start = kept[2], kept[3] + window
    elseif age >= 0 and age < window then
      before, count, start = kept[1], kept[2], kept[3]
    end
  end
  local into = now - start
  local faded = ceilDiv(before * (window - into), window)
  local passed, retry = fit(limit - faded - count, n, times), 0
  count = count + n * passed
  if passed < times then
    local room, from, fading = limit - n - count, start, before
    if room < 0 then room, from, fading = limit - n, start + window, count end
    retry = (from + window - floorDiv(room * window, math.max(1, fading)) - now) * 1000
  end
  local left, keep, reset = math.max(0, limit - faded - count), {'s', before, count, start}, 0
  if count > 0 then
    reset = (2 * window - into) * 1000
  elseif before > 0 then
    reset = (window - into) * 1000
  else
    keep = nil
  end
  return keep, faded + count, false, passed, left, retry, reset
end

function rules.pace(kept, n, limit, burst, window, times)
  local step = ceilDiv(window * 1000, limit)
  local ahead = step * burst
  local due = math.min(math.max(kept and kept[1] or 0, micros), micros + ahead)
  local passed, retry = fit(micros + ahead - due, step * n, times), 0
  due = due + step * n * passed
  if passed < times then retry = due + step * n - ahead - micros end
  local keep
  if due > micros then keep = {'p', due} end
  return keep, 0, false, passed, floorDiv(micros + ahead - due, step), retry, due - micros
end

local letters = {total = 't', raise = 't', window = 'w', fixed = 'w', sliding = 's', pace = 'p'}

-- read returns what is kept under a key as {numbers…, letter = …, term = …}, nil, or an error.
local function read(key)
  local v = redis.pcall('GET', key)
  if not v then return nil end
  if type(v) == 'table' then return v.err end
  local letter, rest = string.match(v, '^([twsp]) (.+)$')
  local kept = {letter = letter}
  if letter == 't' then
    local total
    total, kept.term = string.match(rest, '^(%-?%d+) (%x+)$')
    kept[1] = tonumber(total)
  elseif letter then
    for number in string.gmatch(rest, '%-?%d+') do kept[#kept + 1] = tonumber(number) end
  end
  if not kept[1] or letter == 'w' and not kept[2] or letter == 's' and not kept[3] then
    return 'WRONGTYPE what is stored here was not counted by holdfast'
  end
  return kept
end

local function int(n) return string.format('%.0f', n) end

-- Every key is read once and written once, however many steps it has.
local known, words, order = {}, {}, {}
for i = 1, (#ARGV - 6) / 6 do
  local key, at = KEYS[i + 2], 6 * i
  local rule, n, limit, burst = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local window, times = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  local state = known[key]
  if not state then
    state = {kept = read(key), steps = {}}
    known[key] = state
    order[#order + 1] = key
  end
  if rule == 'forget' then
    state.kept, state.reset, state.changed = nil, 0, true
    words[i] = '0 0 0 0 0 0'
  elseif type(state.kept) == 'string' then
    words[i] = '!' .. state.kept
  elseif state.kept and state.kept.letter ~= letters[rule] then
    words[i] = '!something is counted here under another rule: give every use a name of its own'
  else
    local keep, total, unproven, passed, left, retry, reset = rules[rule](state.kept, n, limit, burst, window, times)
    if type(total) == 'string' then
      words[i] = total
    else
      if keep and keep ~= state.kept then
        local letter = table.remove(keep, 1)
        keep.letter = letter
      end
      if keep ~= state.kept then state.kept, state.reset, state.changed = keep, reset or 0, true end
      words[i] = int(total) .. ' ' .. (unproven and '1' or '0') .. ' ' .. int(passed or 0) .. ' ' .. int(left or 0) .. ' ' .. int(retry or 0) .. ' ' .. int(reset or 0)
    end
  end
  state.steps[#state.steps + 1] = i
end

for _, key in ipairs(order) do
  local state = known[key]
  local r
  if state.changed and state.kept then
    local parts = {state.kept.letter}
    for k = 1, #state.kept do parts[#parts + 1] = int(state.kept[k]) end
    parts[#parts + 1] = state.kept.term
    if state.reset > 0 then
      r = redis.pcall('SET', key, table.concat(parts, ' '), 'PX', int(ceilDiv(state.reset, 1000)))
    else
      r = redis.pcall('SET', key, table.concat(parts, ' '))
    end
  elseif state.changed then
    r = redis.pcall('DEL', key)
  end
  if type(r) == 'table' and r.err then
    for _, i in ipairs(state.steps) do words[i] = '!' .. r.err end
  end
end
return words
