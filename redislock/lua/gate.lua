-- The gate: may this server grant, and whom? It is the first part of the script
-- for everything that single.lua does not do.
--
-- ARGV[1]  '' for a server on its own, where the gate costs nothing, or the constants of the
--          deployment: 'maxTTL replicas lag', in ms, a count, and seconds
-- ARGV[2]  '' or 'term ms': for how long the caller has had answers from that term
-- KEYS[1]  the epoch: 'v1 term start constants', without a TTL
--
-- phase    'open'    everything is granted
--          'grace'   who held something before may take it again, nobody new gets anything
--          'quiet'   nothing at all is confirmed: the predecessor may not have fallen silent
--          'cut off' too few replicas acknowledge: things are given back, and that is all
-- left     ms until the phase is 'open', or in 'quiet' what a renewal has to wait for
-- term     the mastership that answers, new at every start and every promotion; mark is how a
--          reply begins with it. When cut off it does not: a term is known from its first live
--          answer, for then its graces begin and not before
--
-- Reply of a gate that is shut to everybody: the error READONLY, or {'!constants', stored}.
local phase, left, quiet, mark = 'open', 0, 0, ''
local clock = redis.call('TIME')
local ms = clock[1] * 1000 + math.floor(clock[2] / 1000)

if ARGV[1] ~= '' then
  local info = redis.call('INFO', 'replication')
  if not string.find(info, 'role:master', 1, true) then
    -- The library drops the connection on this word, and asks anew who is master.
    return redis.error_reply('READONLY this server is a replica')
  end
  local term = string.match(info, 'master_replid:(%x+)')
  local max, need, lag = string.match(ARGV[1], '^(%d+) (%d+) (%d+)$')
  max, need, lag = tonumber(max), tonumber(need), tonumber(lag)

  -- An acknowledgement counts if it was given in this term: one from before the promotion
  -- says nothing about whom that replica follows now.
  local began = tonumber(string.match(info, 'second_repl_offset:(%-?%d+)'))
  local acks, old = 0, 0
  for state, offset, late in string.gmatch(info, 'slave%d+:[^\r\n]*state=([%a_]+)[^\r\n]*,offset=(%d+)[^\r\n]*,lag=(%d+)') do
    if state == 'online' and tonumber(late) <= lag then
      if tonumber(offset) >= began then acks = acks + 1 else old = old + 1 end
    end
  end
  if acks < need then
    phase = 'cut off'
    -- An idle master sends its replicas nothing that they could acknowledge.
    if acks + old >= need then redis.pcall('SET', 'holdfast.poke' .. ARGV[6], '1', 'PX', 1000) end
  else
    mark = '@' .. term .. ' '
    local silence = 0 -- until when the predecessor may go on answering
    if need > 0 then silence = (lag + 2) * 1000 end
    local grace = math.ceil((max + silence) * 1.01) + 2

    local epoch = redis.call('GET', KEYS[1])
    local stored, start, constants
    if epoch then stored, start, constants = string.match(epoch, '^v1 (%x+) (%-?%d+) (.+)$') end
    if stored and constants ~= ARGV[1] then return {'!constants', constants} end
    start = tonumber(start)
    if stored ~= term or start > ms then
      start = ms
      local known, since = string.match(ARGV[2], '^(%x+) (%d+)$')
      if not epoch and known == term and tonumber(since) >= grace then start = ms - grace end
      local r = redis.pcall('SET', KEYS[1], 'v1 ' .. term .. ' ' .. string.format('%d', start) .. ' ' .. ARGV[1])
      if r.err then return redis.error_reply(r.err) end
    end
    if ms < start + silence then
      phase, left, quiet = 'quiet', start + grace - ms, start + silence - ms
    elseif ms < start + grace then
      phase, left = 'grace', start + grace - ms
    end
  end
end
