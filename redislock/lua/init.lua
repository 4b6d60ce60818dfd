-- An operator says that no lock was ever taken here: the epoch is written as if a grace were
-- over. Refused where there are signs that it is not so.
--
-- KEYS[1]  the epoch, see gate.lua
-- KEYS[2]  the fence counter, which every grant raises
-- ARGV[1]  the constants of the deployment: 'maxTTL replicas lag'
--
-- Reply: {word, detail}
--   done      written; the grace in ms that is spared
--   open      there is an epoch, of this term and with these constants, and its grace is over
--   epoch     there is another epoch: it
--   fence     locks were taken: the counter
--   promoted  the server was a replica before: the offset at which it took over
--   master    it is no master: its role
local info = redis.call('INFO', 'replication')
local role = string.match(info, 'role:(%w+)')
if role ~= 'master' then return {'master', role} end
local term = string.match(info, 'master_replid:(%x+)')
local max, need, lag = string.match(ARGV[1], '^(%d+) (%d+) (%d+)$')
local silence = 0
if tonumber(need) > 0 then silence = (lag + 2) * 1000 end
local grace = math.ceil((max + silence) * 1.01) + 2

local clock = redis.call('TIME')
local ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local epoch = redis.call('GET', KEYS[1])
if epoch then
  local stored, start, constants = string.match(epoch, '^v1 (%x+) (%-?%d+) (.+)$')
  if stored == term and constants == ARGV[1] and start + grace <= ms then return {'open', ''} end
  return {'epoch', epoch}
end
local fence = redis.call('GET', KEYS[2])
if fence then return {'fence', fence} end
local began = string.match(info, 'second_repl_offset:(%-?%d+)')
if began ~= '-1' then return {'promoted', began} end
redis.call('SET', KEYS[1], 'v1 ' .. term .. ' ' .. string.format('%d', ms - grace) .. ' ' .. ARGV[1])
return {'done', string.format('%d', grace)}
