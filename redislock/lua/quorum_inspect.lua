-- Who holds these names at this node of a quorum? Changes nothing.
--
-- KEYS  the keys of the names
--
-- Reply: for each key {pttl, waiters, value}, where waiters counts processes; {} where the key
-- is free; {type} where it is of another type.
local all = {}
for i, key in ipairs(KEYS) do
  local v = redis.pcall('GET', key)
  if type(v) == 'table' then
    all[i] = {redis.call('TYPE', key).ok}
  elseif v then
    all[i] = {redis.call('PTTL', key), redis.call('ZCARD', 'holdfast.i:' .. key), v}
  else
    all[i] = {}
  end
end
return all
