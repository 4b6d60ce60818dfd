-- Who holds these names? Changes nothing.
--
-- KEYS     the keys of the names, all in one slot
-- ARGV[1]  the hash tag of that slot, or ''
--
-- Reply: for each key {pttl, waiters, limit, line, ms, line, ms …} with one line 'mode weight
-- value' for each holder and the ms until its share ends, -1 for never; {} where the key is
-- free; {type} where it is of another type.
local clock = redis.call('TIME')
local ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local all = {}
for i, key in ipairs(KEYS) do
  local v = redis.pcall('GET', key)
  local out = {}
  if type(v) == 'table' then
    out[1] = redis.call('TYPE', key).ok
  elseif v then
    out = {redis.call('PTTL', key), redis.call('ZCARD', 'holdfast.q:' .. ARGV[1] .. key), 0}
    if v == 'holdfast:group' then
      local book, ends = 'holdfast.g:' .. ARGV[1] .. key, 'holdfast.e:' .. ARGV[1] .. key
      out[3] = tonumber(redis.call('HGET', book, 'limit')) or 0
      local members = redis.call('ZRANGEBYSCORE', ends, ms, '+inf', 'WITHSCORES')
      if #members == 0 then out[3] = 0 end -- the time of all of them is over, if only just
      for m = 1, #members, 2 do
        out[#out + 1] = redis.call('HGET', book, members[m]) or ''
        out[#out + 1] = members[m + 1] - ms
      end
      -- The key lives for up to a millisecond longer than the last of them.
      if #members == 0 and redis.call('ZCARD', ends) > 0 then out = {} end
    else
      out[4], out[5] = 'x 1 ' .. v, out[1]
    end
  end
  all[i] = out
end
return all
