-- Stands before a script that writes: refuses a holder that is not the one registered.
--
-- KEYS      those of the script, then the fence of each
-- ARGV      those of the script, then the holder's fence, for how many ms fences are kept
--           after their last use, how many fences there are
--
-- The script sees its own KEYS and ARGV only. Answers the error STALEFENCE with the fence that
-- is registered, 0 for none.
do
	local count = tonumber(table.remove(ARGV))
	local keep, fence = table.remove(ARGV), table.remove(ARGV)
	local fences = {}
	for i = 1, count do
		fences[i] = table.remove(KEYS)
	end
	for i = 1, count do
		local stored = redis.call('GET', fences[i])
		if stored ~= fence then
			return redis.error_reply('STALEFENCE ' .. (stored or '0'))
		end
	end
	for i = 1, count do
		redis.call('PEXPIRE', fences[i], keep)
	end
end
