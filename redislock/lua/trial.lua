-- May this user carry out the commands of the other scripts, and does the server accept
-- writes? Each command is tried on keys that nobody else uses, which are gone afterwards.
--
-- ARGV  for each command: how many arguments it has, its name included, and those. Keys are not
--       declared: one that is out of bounds would refuse the call as a whole
--
-- Reply: for each command '' or the server's error.
local replies, i = {}, 1
while i <= #ARGV do
  local n = tonumber(ARGV[i])
  local r = redis.pcall(unpack(ARGV, i + 1, i + n))
  replies[#replies + 1] = type(r) == 'table' and r.err or ''
  i = i + n + 1
end
return replies
