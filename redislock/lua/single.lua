-- The short ways for a call of one request about an exclusive lock: it is free and nobody
-- waits, it is held and the request is refused or takes its place in the queue, it is given
-- back and nobody waits, or it is given back to the first in the queue. They do what lock.lua
-- and what follows it do, without loops, tables and functions, which would cost more than the
-- rest. Where they do not do they leave things as they were, and lock.lua goes on. For KEYS and
-- ARGV see there, for the entries of the queue see queue.lua.
if #ARGV == 9 and phase == 'open' then
  local op, id, key = ARGV[7], ARGV[8], KEYS[3]
  local code, queue = string.byte(op), 'holdfast.q:' .. ARGV[6] .. key
  if code == 114 then -- r
    local v = redis.pcall('GET', key)
    if type(v) == 'string' and string.find(v, string.sub(id, -22), 1, true) then
      local head = redis.pcall('ZRANGE', queue, 0, 0, 'WITHSCORES')
      local entry = head[1]
      if not entry and not head.err then
        local n = redis.pcall('DEL', key) -- what the server has against it, lock.lua tells
        if type(n) == 'number' then return {mark .. '='} end
      end
      local inbox, ttl, span, who = string.match(entry or '', '^(%S+) x 0 1 (%d+) (%d+) (.+)$')
      local age, now, old = ms - (head[2] or 0) / 1000, tonumber(ARGV[3]), redis.pcall('GET', KEYS[2]) or '0'
      if who and age <= 3000 and type(old) == 'string' and now <= (clock[1] + 86400) * 1000000 and tonumber(old) and old + span <= now then
        local numbers, first = ARGV[3], ARGV[3]
        if span ~= '1' then
          first = string.format('%d', now - span + 1)
          numbers = first .. '+' .. span - 1
        end
        if tonumber(ttl) > 3000 then ttl = '3000' end
        local value = who .. ' ' .. numbers .. ' ' .. clock[1] .. '.' .. clock[2]
        if redis.pcall('SET', KEYS[2], ARGV[3]).ok and redis.pcall('SET', key, value, 'PX', ttl).ok then
          local ears = redis.pcall(ARGV[4], inbox, string.sub(who, -22) .. ' ' .. first .. ' ' .. span .. ' ' .. ttl .. ' ' .. key)
          if type(ears) == 'number' and ears > 0 then
            redis.call('ZREM', queue, entry)
            if age > 500 then redis.pcall('HDEL', 'holdfast.w:' .. ARGV[6] .. key, entry) end
            return {mark .. '='}
          end
          redis.call('SET', key, v, 'PX', 1000) -- nobody listens: lock.lua gives it back
        end
      end
    end
  elseif code == 120 or code == 88 then -- x X
    local span, waited = string.sub(op, 2), redis.call('EXISTS', queue) == 1
    local now = tonumber(ARGV[3])
    if not waited and now <= (clock[1] + 86400) * 1000000 then
      local old = redis.pcall('SET', KEYS[2], ARGV[3], 'GET')
      if type(old) == 'string' and not (tonumber(old) and old + span <= now) then
        redis.call('SET', KEYS[2], old) -- the counter never goes back
      elseif type(old) ~= 'table' then
        local first, numbers = ARGV[3], ARGV[3]
        if span ~= '1' then
          first = string.format('%d', now - span + 1)
          numbers = first .. '+' .. span - 1
        end
        local r = redis.pcall('SET', key, id .. ' ' .. numbers .. ' ' .. clock[1] .. '.' .. clock[2], 'NX', 'PX', ARGV[9])
        if r and r.ok then return {mark .. first} end
      end
    end
    local v = redis.pcall('GET', key)
    if type(v) == 'string' and v ~= 'holdfast:group' and not string.find(v, string.sub(id, -22), 1, true) then
      if code == 120 then return {mark .. 'h' .. string.format('%d', redis.call('PTTL', key)), 'x 1 ' .. v} end
      local entry = ARGV[5] .. ' x 0 1 ' .. ARGV[9] .. ' ' .. span .. ' ' .. id
      local added = redis.pcall('ZADD', queue, 'NX', clock[1] * 1000000 + clock[2], entry)
      if added == 1 and (not waited or redis.call('ZCARD', queue) <= 10000) then
        redis.call('PEXPIRE', queue, 60000)
        return {mark .. 'q' .. string.format('%d', redis.call('PTTL', key)) .. ',' .. (redis.call('GET', KEYS[2]) or '0'), 'x 1 ' .. v}
      elseif added == 1 then
        redis.call('ZREM', queue, entry) -- it is full, which lock.lua tells
      end
    end
  end
end
