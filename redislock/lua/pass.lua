-- An exclusive lock that is given back and taken anew by the next goroutine of the same
-- process, on a server without a gate, and outside of Clusters. It does what lock.lua does
-- with a release and a request for the same key, where nobody else waits, at a third of the
-- cost; see single.lua. In any other case it leaves everything as it was and answers nothing.
--
-- KEYS[1]  the key of the name
-- KEYS[2]  the fence counter
-- ARGV     the token that gives back; the request's op, id, the caller's clock in us, ttl in ms
--
-- Reply: {'+<fence>'} as of lock.lua, or {}.
local key, proposed, call = KEYS[1], ARGV[4], redis.pcall
local v, now, clock = call('GET', key), tonumber(proposed), redis.call('TIME')
if type(v) ~= 'string' or not string.find(v, ARGV[1], 1, true) or call('ZCARD', 'holdfast.q:' .. key) ~= 0 or
  now > (clock[1] + 86400) * 1000000 then return {} end
local old = call('SET', KEYS[2], proposed, 'GET')
if type(old) == 'table' then return {} end
local count, span = tonumber(old or 0), string.sub(ARGV[2], 2)
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
local r = call('SET', key, ARGV[3] .. ' ' .. numbers .. ' ' .. clock[1] .. '.' .. clock[2], 'PX', ARGV[5])
if r.ok then return {'+' .. first} end
return {}
