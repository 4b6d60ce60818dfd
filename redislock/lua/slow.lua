-- Many requests in one call: those that somebody stands in the way of, and the rarer kinds.

-- holder describes one of those who hold the key, for messages.
local function holder(key, v)
  if v ~= GROUP then return 'x 1 ' .. (v or '') end
  local first = redis.call('ZRANGE', ENDS .. key, 0, 0)[1]
  return redis.call('HGET', BOOK .. key, first) or ''
end

local function pttl(key, v)
  if not v then return 0 end
  if v ~= GROUP then return redis.call('PTTL', key) end
  local first = redis.call('ZRANGE', ENDS .. key, 0, 0, 'WITHSCORES')
  return math.max(0, tonumber(first[2] or ms) - ms)
end

local function held(key, v, wait)
  if not wait then return 'h' .. string.format('%d', pttl(key, v)), holder(key, v) end
  if not stored then count(redis.pcall('GET', KEYS[2])) end
  return 'q' .. string.format('%d', pttl(key, v)) .. ',' .. string.format('%d', stored or 0), holder(key, v)
end

-- parse reads an op that asks: mode, whether it waits, span, limit, weight.
local function parse(op)
  local letter, span, cap, weight = string.match(op, '^(%a)(%d+) ?(%d*) ?(%d*)$')
  local mode = string.lower(letter)
  return mode, mode ~= letter, tonumber(span), tonumber(cap) or 0, tonumber(weight) or 1
end

local function entryOf(mode, cap, weight, ttl, span, id)
  return table.concat({ARGV[4], ARGV[5], mode, cap, weight, ttl, span, id}, ' ')
end

local function acquire(i, key, op, id, ttl)
  local mode, wait, span, cap, weight = parse(op)
  if phase == 'cut off' then return 'n' end
  if phase == 'quiet' then return 'w' .. string.format('%d', left) end
  local v, token = look(key), string.sub(id, -22)
  if type(v) == 'table' then return '!', v.err end
  local mine = owns(key, v, token)
  if mode == 'g' and not mine then return '-' end
  if mine and (mode ~= 'g' or v ~= GROUP) then
    local word, err = again(key, v, id, ttl, span)
    return word or '!', err
  end
  if mode == 'g' and redis.call('HGET', BOOK .. key, 'up') ~= token then return '-' end
  if phase == 'grace' then return 'w' .. string.format('%d', left) end

  local entry = entryOf(mode, cap, weight, ttl, span, id)
  local crowd = redis.call('EXISTS', QUEUE .. key) == 1
  if crowd and not wait and mode ~= 'g' then
    serve(key) -- the holder may have run out
    v = look(key)
    crowd = redis.call('EXISTS', QUEUE .. key) == 1
  end
  local room, inuse
  if mode == 'g' then room = alone(key, v, token) else room, inuse = fits(key, v, mode, cap, weight) end
  if inuse then return 'l' .. inuse end
  if room and (not crowd or mode == 'g') then
    local first, s = fence(span)
    if not first then return '!', s end
    local err
    if mode == 'g' then
      leave(key, entry)
      err = promote(key, id, ttl, first, s)
    else
      err = put(key, v, mode, cap, weight, id, ttl, first, s)
    end
    if err then return '!', err end
    return granted(first, s, span)
  end
  if not wait then return held(key, v) end
  local word, err = enqueue(key, entry, mode == 'g' and 0 or clock[1] * 1000000 + clock[2] + i)
  if word then return word, err end
  if not v or v == GROUP then
    word, err = serve(key, entry)
    if word then return word, err end
    v = look(key)
  end
  return held(key, v, true)
end

-- free gives back what the token holds, if anything.
local function free(key, v, token)
  if not owns(key, v, token) then return false end
  if v == GROUP then strike(key, token) else redis.call('DEL', key) end
  return true
end

-- settle lets the queue move on. In a grace nobody is served, and a copy of a request to
-- give something back must not hand over what others may still believe to hold.
local function settle(key)
  if phase == 'open' and redis.call('EXISTS', QUEUE .. key) == 1 then serve(key) end
end

local function release(key, token)
  local v = look(key)
  local done = type(v) ~= 'table' and free(key, v, token)
  local waiting = redis.call('EXISTS', QUEUE .. key) == 1 and (v == GROUP or not done) and forget(key, token)
  if done or waiting then settle(key) end
  -- A master that has just taken over may never have heard of what is given back.
  if not v and phase ~= 'open' then done = true end
  return (done or waiting) and '=' or '-'
end

local function cancel(key, op, id, ttl)
  local mode, _, span, cap, weight = parse(string.sub(op, 2))
  local v, token = look(key), string.sub(id, -22)
  local waiting = leave(key, entryOf(mode, cap, weight, ttl, span, id))
  if mode == 'g' then
    if phase == 'open' and v ~= GROUP and owns(key, v, token) then
      local word, err = again(key, v, id, ttl, span)
      return word or '!', err
    end
    settle(key) -- readers that stood behind the upgrade
    return '='
  end
  local done = type(v) ~= 'table' and free(key, v, token)
  if done or waiting then settle(key) end
  return (done or waiting) and '=' or '-'
end

local function decline(key, first, token)
  local v = look(key)
  if type(v) == 'table' or not owns(key, v, token) then return '-' end
  if v == GROUP then v = redis.call('HGET', BOOK .. key, token) end
  local _, last = string.find(v, token .. ' ' .. first, 1, true)
  if not last or string.find(v, '^%d', last + 1) then return '-' end
  free(key, redis.call('GET', key), token)
  settle(key)
  return '='
end

-- renew prolongs what the token holds. In a grace it also takes back, for a holder from
-- before the failover, what the new master never heard of; but nothing that somebody has.
local function renew(key, op, id, ttl)
  if phase == 'cut off' then return 'n' end
  if phase == 'quiet' then return 'w' .. string.format('%d', quiet) end
  local v, token = look(key), string.sub(id, -22)
  if type(v) == 'table' then return '-' end
  if owns(key, v, token) then
    if v == GROUP then
      redis.call('ZADD', ENDS .. key, ms + ttl, token)
      lift(key, ttl)
    else
      redis.call('PEXPIRE', key, ttl)
    end
    return '='
  end
  local top, mode, cap, weight = string.match(op, '^e(%d+) (%a) (%d+) (%d+)$')
  if phase ~= 'grace' or not fits(key, v, mode, tonumber(cap), tonumber(weight)) then return '-' end
  top = math.min(tonumber(top), limit)
  if not stored then
    local err = count(redis.pcall('GET', KEYS[2]))
    if err then return '!', err end
  end
  if stored < top then
    local r = redis.pcall('SET', KEYS[2], string.format('%d', top))
    if r.err then return '!', r.err end
    stored = top
  end
  local err = put(key, v, mode, tonumber(cap), tonumber(weight), id, ttl, top, 1)
  if err then return '!', err end
  return '='
end

local function holders(key, v)
  if v ~= GROUP then return 'x 1 ' .. v end
  local lines = {}
  for _, token in ipairs(redis.call('ZRANGE', ENDS .. key, 0, -1)) do
    lines[#lines + 1] = redis.call('HGET', BOOK .. key, token)
  end
  return table.concat(lines, '\n')
end

-- has says whether one of the lines has that fence among its numbers.
local function has(lines, fence)
  for first, more in string.gmatch(lines .. '\n', ' (%d+)%+?(%d*) %d+%.%d+\n') do
    first = tonumber(first)
    if first <= fence and fence <= first + (tonumber(more) or 0) then return true end
  end
  return false
end

local function breakUp(key, fence, record)
  if phase == 'cut off' then return 'n' end
  if phase ~= 'open' then return 'w' .. string.format('%d', left) end
  local v = look(key)
  if type(v) == 'table' then return '!', v.err end
  if not v then return '-' end
  local all = holders(key, v)
  if fence > 0 and not has(all, fence) then return 's', all end
  dissolve(key)
  local log = 'holdfast.audit' .. ARGV[6]
  redis.pcall('LPUSH', log, clock[1] .. ' ' .. record)
  redis.pcall('LTRIM', log, 0, 999)
  redis.pcall('EXPIRE', log, 90 * 86400)
  settle(key)
  return 'b', all
end

local function answer(i)
  local key, op, id, ttl = KEYS[i + 2], ARGV[4 + 3 * i], ARGV[5 + 3 * i], tonumber(ARGV[6 + 3 * i])
  local letter = string.sub(op, 1, 1)
  if letter == 'r' then return release(key, string.sub(id, -22)) end
  if letter == 'c' then return cancel(key, op, id, ttl) end
  if letter == 'd' then return decline(key, string.sub(op, 2), id) end
  if letter == 'e' then return renew(key, op, id, ttl) end
  if letter == 'b' then return breakUp(key, tonumber(string.sub(op, 2)), id) end
  return acquire(i, key, op, id, ttl)
end

-- attempt answers a request. Where a key is not what it should be, a call raises an error in
-- the middle: that is the end of this request only, of which a part was carried out, perhaps.
local function attempt(i)
  local ok, word, more = pcall(answer, i)
  if ok then return word, more end
  return '?', type(word) == 'table' and word.err or tostring(word)
end

-- Those that give back come first, so that a name given back can be taken in the same call.
local back = {r = true, c = true, d = true}
for _, i in ipairs(slow) do
  if back[string.sub(ARGV[4 + 3 * i], 1, 1)] then words[i], payload[i] = attempt(i) end
end
for _, i in ipairs(slow) do
  if not words[i] then words[i], payload[i] = attempt(i) end
end
return reply()
