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
local BOUND = 'the total would exceed 9007199254740991'

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

-- Each rule gets what is kept, whose letter is nil where that is nothing, and changes it. It
-- returns total, unproven, passed, remaining, retry, reset. A string in place of the total is
-- an error, and nothing was changed.
local rules = {}

function rules.total(kept, n, limit, burst, window, times)
  if not kept.letter then return 0, true end
  if kept[2] ~= mastership() then return kept[1], true end
  if kept[1] > MOST - n * times then return BOUND end
  kept[1] = kept[1] + n * times
  return kept[1]
end

function rules.raise(kept, n)
  local total = math.max(n, kept.letter and kept[1] or 0)
  kept.letter, kept[1], kept[2] = 't', total, mastership()
  return total
end

-- The third result is whether the window begins with this step. A look does not begin one.
local function open(kept, span)
  if not kept.letter or kept[2] <= micros then return 0, micros + span, true end
  return kept[1], math.min(kept[2], micros + span), false
end

function rules.window(kept, n, limit, burst, window, times)
  local total, till, new = open(kept, window * 1000)
  if new and n == 0 then
    kept.letter = nil
    return 0
  end
  total = total + n * times
  if math.abs(total) > MOST then return BOUND end
  kept.letter, kept[1], kept[2] = 'w', total, till
  return total, false, 0, 0, 0, till - micros
end

function rules.fixed(kept, n, limit, burst, window, times)
  local total, till, new = open(kept, window * 1000)
  if new and n == 0 then
    kept.letter = nil
    return 0, false, times, limit
  end
  local passed, retry = fit(limit - total, n, times), 0
  total = total + n * passed
  if passed < times then retry = till - micros end
  kept.letter, kept[1], kept[2] = 'w', total, till
  return total, false, passed, math.max(0, limit - total), retry, till - micros
end

function rules.sliding(kept, n, limit, burst, window, times)
  local now = math.floor(micros / 1000)
  local before, count, start = 0, 0, now
  if kept.letter then
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
  local reset = 0
  kept.letter, kept[1], kept[2], kept[3] = 's', before, count, start
  if count > 0 then
    reset = (2 * window - into) * 1000
  elseif before > 0 then
    reset = (window - into) * 1000
  else
    kept.letter = nil
  end
  return faded + count, false, passed, math.max(0, limit - faded - count), retry, reset
end

function rules.pace(kept, n, limit, burst, window, times)
  local step = ceilDiv(window * 1000, limit)
  local ahead = step * burst
  local due = math.min(math.max(kept.letter and kept[1] or 0, micros), micros + ahead)
  local passed, retry = fit(micros + ahead - due, step * n, times), 0
  due = due + step * n * passed
  if passed < times then retry = due + step * n - ahead - micros end
  kept.letter, kept[1] = due > micros and 'p' or nil, due
  return 0, false, passed, floorDiv(micros + ahead - due, step), retry, due - micros
end

local letters = {total = 't', raise = 't', window = 'w', fixed = 'w', sliding = 's', pace = 'p'}

-- What is kept, by its letter: how it is read, and how it is written.
local patterns = {t = '^t (%-?%d+) (%x+)$', w = '^w (%-?%d+) (%-?%d+)$', s = '^s (%-?%d+) (%-?%d+) (%-?%d+)$', p = '^p (%-?%d+)$'}
local formats = {t = 't %d %s', w = 'w %d %d', s = 's %d %d %d', p = 'p %d'}

-- read returns what is kept under a key: {numbers…, letter = …, text = …}, a total's term as
-- the second; with an error where it cannot be read.
local function read(key)
  local text = redis.pcall('GET', key)
  if not text then return {} end
  if type(text) == 'table' then return {text = '', error = text.err} end
  local letter = string.sub(text, 1, 1)
  local a, b, c
  if patterns[letter] then a, b, c = string.match(text, patterns[letter]) end
  if not a then return {text = text, error = 'WRONGTYPE what is stored here was not counted by holdfast'} end
  if letter ~= 't' then b = tonumber(b) end
  return {tonumber(a), b, tonumber(c), letter = letter, text = text}
end

-- Every key is read once and written once, however many steps it has, and not written where
-- nothing changed.
local known, words, order = {}, {}, {}
for i = 1, (#ARGV - 6) / 6 do
  local key, at = KEYS[i + 2], 6 * i
  local rule = ARGV[at + 1]
  local kept = known[key]
  if not kept then
    kept = read(key)
    known[key], kept.steps = kept, {}
    order[#order + 1] = key
  end
  if rule == 'forget' then
    kept.letter, kept.error = nil, nil
    words[i] = '0 0 0 0 0 0'
  elseif kept.error then
    words[i] = '!' .. kept.error
  elseif kept.letter and kept.letter ~= letters[rule] then
    words[i] = '!something is counted here under another rule: give every use a name of its own'
  else
    local total, unproven, passed, left, retry, reset = rules[rule](kept, tonumber(ARGV[at + 2]),
      tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6]))
    if type(total) == 'string' then
      words[i] = '!' .. total
    else
      kept.reset = reset
      words[i] = string.format('%d %d %d %d %d %d', total, unproven and 1 or 0, passed or 0, left or 0, retry or 0, reset or 0)
    end
  end
  kept.steps[#kept.steps + 1] = i
end

for _, key in ipairs(order) do
  local kept = known[key]
  local text, r = nil, nil
  if kept.error then
    text = kept.text
  elseif kept.letter then
    text = string.format(formats[kept.letter], kept[1], kept[2], kept[3])
  end
  if text == kept.text then
    r = nil
  elseif not text then
    r = redis.pcall('DEL', key)
  elseif kept.reset then
    r = redis.pcall('SET', key, text, 'PX', string.format('%d', ceilDiv(kept.reset, 1000)))
  else
    r = redis.pcall('SET', key, text)
  end
  if type(r) == 'table' and r.err then
    -- A replica has done nothing of the call, and the library drops the connection on this word.
    if string.find(r.err, '^READONLY') then return redis.error_reply(r.err) end
    for _, i in ipairs(kept.steps) do words[i] = '!' .. r.err end
  end
end
return words
