-- KEYS[1]   what to set
-- ARGV[1]   the value
-- ARGV[2]   for how many ms, 0 for ever
if ARGV[2] == '0' then
	return redis.call('SET', KEYS[1], ARGV[1])
end
return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
