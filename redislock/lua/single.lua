-- The short way for a call of one request that nobody stands in the way of, on a server
-- without a gate: most calls of a program that takes one lock at a time. It does what lock.lua
-- does, without loops and tables; where that does not do, lock.lua goes on. For KEYS and ARGV
-- see there.
if #ARGV == 9 and ARGV[1] == '' then
  local op, key = ARGV[7], KEYS[3]
  if op == 'r' then
    local v = redis.pcall('GET', key)
    if type(v) == 'string' and string.find(v, ARGV[8], 1, true)
      and redis.call('EXISTS', 'holdfast.q:' .. ARGV[6] .. key) == 0 then
      redis.call('DEL', key)
      return {'='}
    end
  elseif (op == 'x1' or op == 'X1') and redis.call('EXISTS', 'holdfast.q:' .. ARGV[6] .. key) == 0 then
    local t, fence = redis.call('TIME'), ARGV[3]
    if tonumber(fence) <= (t[1] + 86400) * 1000000 then
      local old = redis.pcall('SET', KEYS[2], fence, 'GET')
      if type(old) == 'string' and (tonumber(old) or 0) >= tonumber(fence) then
        redis.call('SET', KEYS[2], old) -- the counter never goes back
      elseif type(old) ~= 'table' then
        local r = redis.pcall('SET', key, ARGV[8] .. ' ' .. fence .. ' ' .. t[1] .. '.' .. t[2], 'NX', 'PX', ARGV[9])
        if r and r.ok then return {fence} end
      end
    end
  end
end
