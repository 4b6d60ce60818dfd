-- Registers a holder at a key that it is going to read or to write.
--
-- KEYS[1]   the fence of that key
-- ARGV[1]   the holder's fence
-- ARGV[2]   for how many ms a fence is kept after its last use
--
-- Answers OK, or the error STALEFENCE with the larger fence that is registered.
--
-- Fences stay below 2^53, so they can be compared as numbers. They are stored as they came:
-- Lua would write large numbers as 1.76e+15.
local stored = redis.call('GET', KEYS[1])
if stored then
	local number = tonumber(stored)
	if not number then
		return redis.error_reply('NOFENCE there is something other than a fence under ' .. KEYS[1])
	end
	if number > tonumber(ARGV[1]) then
		return redis.error_reply('STALEFENCE ' .. stored)
	end
end
return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
