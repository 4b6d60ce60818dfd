-- One request about an exclusive lock on a server without a gate, and outside of Clusters:
-- most of what is asked of a server. This script knows the plain cases: the lock is free and
-- nobody waits, it is held and the request is refused or takes its place in the queue, it is
-- given back and nobody waits, or it is given back to the first in the queue. It does what
-- lock.lua and what follows it do, at a third of the cost: no loops, no functions, few
-- arguments, which a script pays for one by one, and few commands. Numbers go to commands as
-- text, for Redis spells them out in 17 digits and reads them again. In any other case it leaves everything as it
-- was and answers nothing, and the request is made of lock.lua.
--
-- KEYS[1]  the key of the name
-- KEYS[2]  the fence counter
-- ARGV     op, id, the caller's clock in us; to acquire also ttl in ms, inbox; see lock.lua
--
-- Reply: {word, payload...} as of lock.lua, or {}.
local op, id, key, proposed, call = ARGV[1], ARGV[2], KEYS[1], ARGV[3], redis.pcall
local queue = 'holdfast.q:' .. key

if op == 'r' then
  local v = call('GET', key)
  if v == false or type(v) == 'string' and v ~= 'holdfast:group' and not string.find(v, id, 1, true) then
    return call('ZCARD', queue) == 0 and {'-'} or {}
  end
  if type(v) ~= 'string' or v == 'holdfast:group' then return {} end
  local head = call('ZRANGE', queue, '0', '0', 'WITHSCORES')
  local entry = head[1]
  if not entry then
    if not head.err and call('DEL', key) == 1 then return {'='} end
    return {} -- what the server has against it, lock.lua tells
  end
  local inbox, ttl, span, who = string.match(entry, '^PUBLISH (%S+) x 0 1 (%d+) (%d+) (.+)$')
  if not who or (call('PUBSUB', 'NUMSUB', inbox)[2] or 0) == 0 then return {} end -- see listens in queue.lua
  local clock, now = redis.call('TIME'), tonumber(proposed)
  local age = clock[1] * 1000 + clock[2] / 1000 - head[2] / 1000
  if age > 3000 or now > (clock[1] + 86400) * 1000000 then return {} end
  local old = call('SET', KEYS[2], proposed, 'GET')
  if type(old) == 'table' then return {} end
  local count = tonumber(old or 0)
  if not count or count + span > now then
    redis.call('SET', KEYS[2], old or '0') -- the counter never goes back
    return {}
  end
  local first = proposed
  local numbers = first
  if span ~= '1' then
    first = string.format('%d', now - span + 1)
    numbers = first .. '+' .. span - 1
  end
  if tonumber(ttl) > 3000 then ttl = '3000' end
  if call('SET', key, who .. ' ' .. numbers .. ' ' .. clock[1] .. '.' .. clock[2], 'PX', ttl).ok then
    local message = string.sub(who, -22) .. ' ' .. first .. ' ' .. span .. ' ' .. ttl .. ' ' .. key
    if type(call('PUBLISH', inbox, message)) == 'number' then
      redis.call('ZREM', queue, entry)
      if age > 500 then call('HDEL', 'holdfast.w:' .. key, entry) end
      return {'='}
    end
    redis.call('SET', key, v, 'PX', '3000') -- nobody was told: back to how it was, for lock.lua
  end
  return {}
end

local span, waiting, clock = string.sub(op, 2), call('ZCARD', queue), redis.call('TIME')
local v, counter
if waiting == 0 then
  local now = tonumber(proposed)
  if now <= (clock[1] + 86400) * 1000000 then
    local old = call('SET', KEYS[2], proposed, 'GET')
    local count = type(old) ~= 'table' and tonumber(old or 0)
    if count and count + span <= now then
      local first = proposed
      local numbers = first
      if span ~= '1' then
        first = string.format('%d', now - span + 1)
        numbers = first .. '+' .. span - 1
      end
      local r = call('SET', key, id .. ' ' .. numbers .. ' ' .. clock[1] .. '.' .. clock[2], 'NX', 'PX', ARGV[4])
      if r and r.ok then return {first} end
    elseif type(old) ~= 'table' then
      redis.call('SET', KEYS[2], old or '0') -- the counter never goes back
    end
  end
  v = call('GET', key)
else
  local both = call('MGET', key, KEYS[2])
  v, counter = both[1], both[2]
end

if type(v) ~= 'string' or v == 'holdfast:group' or string.find(v, string.sub(id, -22), 1, true) then return {} end
if string.byte(op) == 120 then
  return {'h' .. string.format('%d', redis.call('PTTL', key)), 'x 1 ' .. v}
end
if type(waiting) == 'table' or waiting >= 10000 then return {} end
local added = call('ZADD', queue, 'NX', string.format('%s%06d', clock[1], clock[2]),
  'PUBLISH ' .. ARGV[5] .. ' x 0 1 ' .. ARGV[4] .. ' ' .. span .. ' ' .. id)
if added ~= 1 then return {} end
-- A queue outlives the last word of anybody in it by a minute. Its time is counted anew
-- every now and then: here, and whenever somebody asks again.
if waiting == 0 or clock[1] % 8 == 0 then redis.call('PEXPIRE', queue, '60000') end
return {'q' .. string.format('%d', redis.call('PTTL', key)) .. ',' .. (counter or redis.call('GET', KEYS[2]) or '0'), 'x 1 ' .. v}
