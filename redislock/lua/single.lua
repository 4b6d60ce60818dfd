-- One request about an exclusive lock on a server without a gate, and outside of Clusters:
-- most of what is asked of a server. This script knows the plain cases: the lock is free and
-- nobody waits, it is held and the request is refused or takes its place in the queue, it is
-- given back and nobody waits, or it is given back to the first in the queue. It does what
-- lock.lua and what follows it do, at a third of the cost: no loops, no functions, few
-- arguments, which a script pays for one by one. In any other case it leaves everything as it
-- was and answers nothing, and the request is made of lock.lua.
--
-- KEYS[1]  the key of the name
-- KEYS[2]  the fence counter
-- ARGV     op, id, the caller's clock in us; to acquire also ttl in ms, inbox; see lock.lua
--
-- Reply: {word, payload...} as of lock.lua, or {}.
local op, id, key, now = ARGV[1], ARGV[2], KEYS[1], tonumber(ARGV[3])
local queue = 'holdfast.q:' .. key

if op == 'r' then
  local v = redis.pcall('GET', key)
  if v == false or type(v) == 'string' and v ~= 'holdfast:group' and not string.find(v, id, 1, true) then
    return redis.pcall('ZCARD', queue) == 0 and {'-'} or {}
  end
  if type(v) ~= 'string' or v == 'holdfast:group' then return {} end
  local head = redis.pcall('ZRANGE', queue, 0, 0, 'WITHSCORES')
  local entry = head[1]
  if not entry then
    if not head.err and redis.pcall('DEL', key) == 1 then return {'='} end
    return {} -- what the server has against it, lock.lua tells
  end
  local clock, old = redis.call('TIME'), redis.pcall('GET', KEYS[2]) or '0'
  local inbox, ttl, span, who = string.match(entry, '^PUBLISH (%S+) x 0 1 (%d+) (%d+) (.+)$')
  local age = clock[1] * 1000 + clock[2] / 1000 - head[2] / 1000
  local ears = who and redis.pcall('PUBSUB', 'NUMSUB', inbox)[2] or 0 -- see listens in queue.lua
  if ears > 0 and age <= 3000 and now <= (clock[1] + 86400) * 1000000
    and type(old) == 'string' and tonumber(old) and old + span <= now then
    local first = ARGV[3]
    local numbers = first
    if span ~= '1' then
      first = string.format('%d', now - span + 1)
      numbers = first .. '+' .. span - 1
    end
    if tonumber(ttl) > 3000 then ttl = '3000' end
    local value = who .. ' ' .. numbers .. ' ' .. clock[1] .. '.' .. clock[2]
    if redis.pcall('SET', KEYS[2], ARGV[3]).ok and redis.pcall('SET', key, value, 'PX', ttl).ok then
      local message = string.sub(who, -22) .. ' ' .. first .. ' ' .. span .. ' ' .. ttl .. ' ' .. key
      if type(redis.pcall('PUBLISH', inbox, message)) == 'number' then
        redis.call('ZREM', queue, entry)
        if age > 500 then redis.pcall('HDEL', 'holdfast.w:' .. key, entry) end
        return {'='}
      end
      redis.call('SET', key, v, 'PX', 3000) -- nobody was told: back to how it was, for lock.lua
    end
  end
  return {}
end

local span, waiting = string.sub(op, 2), redis.pcall('ZCARD', queue)
local clock = redis.call('TIME')
if waiting == 0 and now <= (clock[1] + 86400) * 1000000 then
  local old = redis.pcall('SET', KEYS[2], ARGV[3], 'GET')
  if type(old) == 'string' and not (tonumber(old) and old + span <= now) then
    redis.call('SET', KEYS[2], old) -- the counter never goes back
  elseif type(old) ~= 'table' then
    local first = ARGV[3]
    local numbers = first
    if span ~= '1' then
      first = string.format('%d', now - span + 1)
      numbers = first .. '+' .. span - 1
    end
    local r = redis.pcall('SET', key, id .. ' ' .. numbers .. ' ' .. clock[1] .. '.' .. clock[2], 'NX', 'PX', ARGV[4])
    if r and r.ok then return {first} end
  end
end

local v = redis.pcall('GET', key)
if type(v) ~= 'string' or v == 'holdfast:group' or string.find(v, string.sub(id, -22), 1, true) then return {} end
if string.byte(op) == 120 then
  return {'h' .. string.format('%d', redis.call('PTTL', key)), 'x 1 ' .. v}
end
if type(waiting) == 'table' or waiting >= 10000 then return {} end
local added = redis.pcall('ZADD', queue, 'NX', clock[1] * 1000000 + clock[2],
  'PUBLISH ' .. ARGV[5] .. ' x 0 1 ' .. ARGV[4] .. ' ' .. span .. ' ' .. id)
if added ~= 1 then return {} end
-- A queue outlives the last word of anybody in it by a minute. Its time is counted anew
-- every now and then: here, and whenever somebody asks again.
if waiting == 0 or clock[1] % 8 == 0 then redis.call('PEXPIRE', queue, 60000) end
return {'q' .. string.format('%d', redis.call('PTTL', key)) .. ',' .. (redis.call('GET', KEYS[2]) or '0'), 'x 1 ' .. v}
