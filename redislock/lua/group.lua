-- Shares that are held by several at once, and the questions that all kinds of shares answer.
--
-- While readers or permits hold a name its key is GROUP, so that clients that only know
-- exclusive locks are kept out. The books are two companions that end with it:
--   BOOK .. key  hash: limit, held (their weights), up (the upgradeable reader's token), and
--                for each token 'mode weight ' and what an exclusive lock has as its value
--   ENDS .. key  sorted set: token by the ms at which its share ends
-- The key is the truth: companions of a key that is not GROUP are left-overs, and a GROUP
-- without them keeps others out until it runs out.
local BOOK, ENDS = 'holdfast.g:' .. ARGV[6], 'holdfast.e:' .. ARGV[6]

-- fence raises the counter for one grant and returns its first number and the span.
local function fence(span)
  if not stored then
    local err = count(redis.pcall('GET', KEYS[2]))
    if err then return nil, err end
  end
  span = math.max(1, math.min(span, now - stored))
  local top = math.max(stored + span, now)
  local r = redis.pcall('SET', KEYS[2], string.format('%d', top))
  if r.err then return nil, r.err end
  stored = top
  return top - span + 1, span
end

local function line(id, first, span)
  local numbers = string.format('%d', first)
  if span > 1 then numbers = numbers .. '+' .. span - 1 end
  return id .. ' ' .. numbers .. ' ' .. stamp
end

local function granted(first, span, asked)
  local word = string.format('%d', first)
  if span ~= asked then word = word .. '/' .. span end
  return word
end

local function dissolve(key) redis.call('DEL', key, BOOK .. key, ENDS .. key) end

-- strike takes the token out of the group, and the group away with its last member.
local function strike(key, token)
  local line = redis.call('HGET', BOOK .. key, token)
  if not line then return false end
  local mode, weight = string.match(line, '^(%a) (%d+)')
  redis.call('HDEL', BOOK .. key, token)
  redis.call('ZREM', ENDS .. key, token)
  if mode == 'u' then redis.call('HDEL', BOOK .. key, 'up') end
  if redis.call('HINCRBY', BOOK .. key, 'held', -weight) <= 0 then dissolve(key) end
  return true
end

-- look returns the value of the key, false for none, once members of a group whose time is
-- over have been struck off; or the error table of a key that is no string.
local function look(key)
  local v = redis.pcall('GET', key)
  if v ~= GROUP then return v end
  -- ms is rounded down: a share that began late in its first ms lives through its last.
  local over = redis.call('ZRANGEBYSCORE', ENDS .. key, '-inf', '(' .. ms)
  if #over == 0 then return v end
  for _, token in ipairs(over) do strike(key, token) end
  return redis.call('GET', key)
end

-- owns says whether the token holds the share, or a part of it.
local function owns(key, v, token)
  if v == GROUP then return redis.call('HEXISTS', BOOK .. key, token) == 1 end
  return type(v) == 'string' and string.find(v, token, 1, true) ~= nil
end

-- fits says whether there is room for a share beside those that are held. The second result
-- is the limit in use when that is the reason.
local function fits(key, v, mode, cap, weight)
  if not v then return true end
  if v ~= GROUP or mode == 'x' then return false end
  local b = redis.call('HMGET', BOOK .. key, 'limit', 'held', 'up')
  local inuse = tonumber(b[1])
  if not inuse then return false end
  if inuse ~= cap then
    if inuse > 0 and cap > 0 then return false, inuse end
    return false
  end
  if mode == 'u' then return not b[3] end
  return mode == 's' or tonumber(b[2]) + weight <= cap
end

-- lift makes the key and its companions live for ttl at least. Time stands still in a script:
-- of a key that was made in it just as much is left, and its companions have no end yet.
local function lift(key, ttl)
  if redis.call('PTTL', key) <= tonumber(ttl) then
    redis.call('PEXPIRE', key, ttl)
    redis.call('PEXPIRE', BOOK .. key, ttl)
    redis.call('PEXPIRE', ENDS .. key, ttl)
  end
end

-- put enters a share that fits. It returns the server's error where there is one.
local function put(key, v, mode, cap, weight, id, ttl, first, span)
  local value, r = line(id, first, span)
  if mode == 'x' then
    r = redis.pcall('SET', key, value, 'NX', 'PX', ttl)
    return not r and 'the key is in use' or r.err
  end
  local token = string.sub(id, -22)
  if not v then
    r = redis.pcall('SET', key, GROUP, 'NX', 'PX', ttl)
    if not r or r.err then return not r and 'the key is in use' or r.err end
    redis.call('DEL', BOOK .. key, ENDS .. key)
    r = redis.pcall('HSET', BOOK .. key, 'limit', cap, 'held', 0)
    if type(r) == 'table' then dissolve(key) return r.err end
  end
  r = redis.pcall('ZADD', ENDS .. key, ms + ttl, token)
  if type(r) == 'table' then return r.err end
  r = redis.pcall('HSET', BOOK .. key, token, mode .. ' ' .. weight .. ' ' .. value)
  if type(r) == 'table' then
    redis.call('ZREM', ENDS .. key, token)
    return r.err
  end
  redis.call('HINCRBY', BOOK .. key, 'held', weight)
  if mode == 'u' then redis.call('HSET', BOOK .. key, 'up', token) end
  lift(key, ttl)
end

-- again grants anew what the token holds: the reply to the first grant may have been lost.
local function again(key, v, id, ttl, span)
  local first, s = fence(span)
  if not first then return nil, s end
  local value, r = line(id, first, s)
  if v == GROUP then
    local token = string.sub(id, -22)
    local head = string.match(redis.call('HGET', BOOK .. key, token), '^%a %d+ ')
    r = redis.pcall('HSET', BOOK .. key, token, head .. value)
    if type(r) == 'table' then return nil, r.err end
    redis.call('ZADD', ENDS .. key, ms + ttl, token)
    lift(key, ttl)
  else
    r = redis.pcall('SET', key, value, 'PX', ttl)
    if r.err then return nil, r.err end
  end
  return granted(first, s, span)
end

-- promote turns the only reader of a group, the upgradeable one, into the exclusive holder.
local function promote(key, id, ttl, first, span)
  redis.call('DEL', BOOK .. key, ENDS .. key)
  return redis.pcall('SET', key, line(id, first, span), 'PX', ttl).err
end

-- alone says whether the token's upgradeable share is the only one.
local function alone(key, v, token)
  if v ~= GROUP then return false end
  local b = redis.call('HMGET', BOOK .. key, 'held', 'up')
  return b[2] == token and tonumber(b[1]) == 1
end
