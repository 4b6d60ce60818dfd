-- The queue of a name: who waits, in the order of arrival.
--
-- QUEUE .. key  sorted set: 'publish inbox mode limit weight ttl span owner token' by the us
--               of its arrival; an upgrade, which goes before everybody, has 0. The command
--               stands there since who gives back need not know how others listen
-- SEEN .. key   hash: entry to the ms at which it was last heard of, if later than its arrival
-- Both end by themselves when nobody asks for a while.
local SEEN = 'holdfast.w:' .. ARGV[6]
local SILENT = 3000  -- ms without a word after which a waiter has lost its place
local OFFER = 3000   -- ms that a waiter has to take up what it was granted
local KEEP = 60000   -- ms that a queue outlives the last word of anybody in it
local LONGEST = 10000

local function leave(key, entry)
  redis.call('HDEL', SEEN .. key, entry)
  return redis.call('ZREM', QUEUE .. key, entry) == 1
end

-- forget takes the token's entry out, wherever it is.
local function forget(key, token)
  for _, entry in ipairs(redis.call('ZRANGE', QUEUE .. key, 0, -1)) do
    if string.sub(entry, -22) == token then return leave(key, entry) end
  end
  return false
end

-- enqueue puts the entry at the end, or notes that it was heard of. It returns the server's
-- error, or 'f' when the queue is full.
local function enqueue(key, entry, order)
  local r = redis.pcall('ZADD', QUEUE .. key, 'NX', order, entry)
  if type(r) == 'table' then return '!', r.err end
  if r == 1 and redis.call('ZCARD', QUEUE .. key) > LONGEST then
    leave(key, entry)
    return 'f'
  end
  if r == 0 or order == 0 then -- the time of its arrival is not its order, or long ago
    redis.pcall('HSET', SEEN .. key, entry, ms)
    redis.call('PEXPIRE', SEEN .. key, KEEP)
  end
  redis.call('PEXPIRE', QUEUE .. key, KEEP)
end

local function heard(key, entry, order)
  if ms - order / 1000 <= SILENT then return true end
  local seen = redis.call('HGET', SEEN .. key, entry)
  return seen and ms - tonumber(seen) <= SILENT
end

-- listens says whether somebody who is connected to this very server hears the inbox. That is
-- asked before anything is granted, and not learnt from how many a message reached: replicas
-- repeat messages, nodes of a Cluster before 7.0 spread them, and who has listened at the old
-- master since before a failover believes what nobody here has heard. So what was said stays.
local function listens(publish, inbox)
  local ears = redis.pcall('PUBSUB', publish == 'SPUBLISH' and 'SHARDNUMSUB' or 'NUMSUB', inbox)
  return (ears[2] or 0) > 0
end

-- offer grants to an entry of another caller and tells it. The share is entered before the
-- message leaves, so a message always means a share. It returns whether the entry has been
-- dealt with.
local function offer(key, v, entry)
  local publish, inbox, mode, cap, weight, ttl, span, id =
    string.match(entry, '^(%S+) (%S+) (%a) (%d+) (%d+) (%d+) (%d+) (.+)$')
  local told = listens(publish, inbox)
  if not told and mode ~= 'g' then return false end
  local first, s = fence(tonumber(span))
  if not first then return nil, s end
  local token, err = string.sub(id, -22)
  if mode == 'g' then
    -- Its holder renews the share and asks again: no need to take it back, or to hurry.
    err = promote(key, id, ttl, first, s)
  else
    ttl = math.min(tonumber(ttl), OFFER)
    err = put(key, v, mode, tonumber(cap), tonumber(weight), id, ttl, first, s)
  end
  if err then return nil, err end
  local message = token .. ' ' .. string.format('%d', first) .. ' ' .. s .. ' ' .. ttl .. ' ' .. key
  if told and type(redis.pcall(publish, inbox, message)) == 'number' then
    leave(key, entry)
    return true
  end
  if mode == 'g' then return true end -- else it may not publish, and nobody was told
  if mode == 'x' then redis.call('DEL', key) else strike(key, token) end
  return false
end

-- serve grants to those who are next for as long as they fit. An entry of which nothing was
-- heard for long loses its place, one that just now nobody listens for keeps it and is
-- passed over. It returns the answer for the caller's own entry if it was its turn.
local function serve(key, own)
  local skip, answer, problem = 0
  for _ = 1, 64 do
    local head = redis.call('ZRANGE', QUEUE .. key, skip, skip, 'WITHSCORES')
    local entry = head[1]
    if not entry then break end
    if entry ~= own and not heard(key, entry, tonumber(head[2])) then
      leave(key, entry)
    else
      local v = look(key)
      local mode, cap, weight, ttl, span, id = string.match(entry, '^%S+ %S+ (%a) (%d+) (%d+) (%d+) (%d+) (.+)$')
      local room
      if mode == 'g' then
        room = alone(key, v, string.sub(id, -22))
        if not room and not owns(key, v, string.sub(id, -22)) then leave(key, entry) room = 'gone' end
      else
        room = type(v) ~= 'table' and fits(key, v, mode, tonumber(cap), tonumber(weight))
      end
      if not room then break end
      if room == true and entry == own then
        local first, s = fence(tonumber(span))
        if not first then return '!', s end
        if mode == 'g' then
          problem = promote(key, id, ttl, first, s)
        else
          problem = put(key, v, mode, tonumber(cap), tonumber(weight), id, tonumber(ttl), first, s)
        end
        if problem then return '!', problem end
        leave(key, entry)
        answer = granted(first, s, tonumber(span))
      elseif room == true then
        local done, err = offer(key, v, entry)
        if err then break end
        if not done then skip = skip + 1 end
      end
    end
  end
  return answer
end
