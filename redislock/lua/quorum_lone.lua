-- The plainest case of quorum_plain.lua: one exclusive lock for one fence is asked for, of a
-- node that serves, by who does not stand in line; the lock is free or held by others. It takes
-- a node two thirds of the time. The caller has read the node's record before, and made sure of
-- what the record says once: that the node serves, in the caller's epoch and with its constants,
-- and that the number is above the floor and the mark. Here it has to be the same record still.
--
-- KEYS[1,2]  as of quorum_node.lua
-- KEYS[3]    the key of the name
-- ARGV[1]    the record as the caller knows it
-- ARGV[2]    'master_replid:<term>\r', with the term of that record
-- ARGV[3]    us, the caller's clock, which is proposed as the fence: 16 digits
-- ARGV[4]    the value, 'id us seconds.micros': since when, it says by the caller's clock
-- ARGV[5,6]  the ttl of the lock, and that of its counter, in ms
--
-- Reply: {us} or {'h<pttl>', 'x 1 ' holder} as of quorum.lua. Or nothing was done, and the
-- request is one for that script: {'~'}, {'~', record} where the record is another one.
local try, find = redis.pcall, string.find
local kept = redis.call('MGET', KEYS[1], KEYS[2])
if kept[1] ~= ARGV[1] then return {'~', kept[1] or ''} end
local top, info = tonumber(kept[2] or ''), redis.call('INFO', 'replication')
if not top or not find(info, ARGV[2], 1, true) or not find(info, 'role:master', 1, true) then return {'~'} end

-- A clock that is far ahead must not use up the numbers for everybody. What is not above top
-- uses up none, so the server's own is not asked for then.
local key, us, clock = KEYS[3], ARGV[3], nil
local last = tonumber(us)
if last > top then
  clock = redis.call('TIME')
  if last > (clock[1] + 3600) * 1000000 then return {'~'} end
end

local r = try('SET', key, ARGV[4], 'NX', 'PX', ARGV[5])
if not r then
  local v = try('GET', key)
  if type(v) ~= 'string' or find(v, string.match(ARGV[4], '^(.*) %d+ %S+$'), 1, true) then return {'~'} end
  return {'h' .. string.format('%d', redis.call('PTTL', key)), 'x 1 ' .. v}
end
if r.err then return {'~'} end

-- Nobody sees what is written from here on until the script ends.
local counter = 'holdfast.c:' .. key
local c, fits = try('SET', counter, us, 'PX', ARGV[6], 'GET'), false
if type(c) == 'string' then
  fits = (tonumber(c) or last) < last
elseif c == false then
  -- It has run out, or never was: it was not above the mark, if that was taken lately.
  clock = clock or redis.call('TIME')
  local age = clock[1] * 1000 + clock[2] / 1000 - string.match(ARGV[1], '^v1 %x+ %S+ %d+ %d+ %d+ (%d+)')
  fits = age >= 0 and age < 1800000
end
if fits and (last <= top or try('SET', KEYS[2], string.format('%d', last + 10000)).ok) then return {us} end
if type(c) == 'string' then
  redis.call('SET', counter, c, 'PX', ARGV[6]) -- the counter never goes back
elseif c == false then
  redis.call('DEL', counter)
end
redis.call('DEL', key)
return {'~'}
