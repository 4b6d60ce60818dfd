-- What a node of a quorum knows of itself. It is the first part of the scripts of a quorum.
--
-- KEYS[1]  the record: 'v1 term epoch start floor mark since constants', without a TTL
-- KEYS[2]  top: no number was ever granted or vouched for here, for any name, that is larger
-- ARGV[1]  the constants of the deployment: 'maxTTL nodes group', in ms, a count, a word
--
-- state    's'  it serves
--          'g'  it was seeded: for a grace it neither grants nor vouches
--          'f'  it forgot, or may have: the record is of another term, or top is gone. The
--               term is master_replid, new at every start and every promotion
--          'v'  it is blank: there was no record
-- epoch    what every counted answer of a round has to agree on: a random word, new with
--          every heal. On a node that is not seeded '-', followed by its state and a random
--          word once somebody has asked how it is: a seed that is late must not find a node
--          that has forgotten again since
-- start    ms at which it was seeded, 0 once the grace is over
-- floor    no number up to it is granted here: what the others knew when it was seeded
-- mark     top as it was at since, which is less than KEEP/2 ago. A counter that has run out
--          was written KEEP ago at least, so it was not above mark
-- left     ms until the grace is over
local KEEP = 3600000
local info = redis.call('INFO', 'replication')
if not string.find(info, 'role:master', 1, true) then
  -- The library drops the connection on this word.
  return redis.error_reply('READONLY this server is a replica')
end
local term = string.match(info, 'master_replid:(%x+)')
local clock = redis.call('TIME')
local ms = clock[1] * 1000 + math.floor(clock[2] / 1000)

local state, epoch, left = 'v', '-', 0
local start, floor, mark, since, constants, grace = 0, 0, 0, 0, ARGV[1], 0
local kept = redis.call('MGET', KEYS[1], KEYS[2])
local top = tonumber(kept[2] or 0) or 0

-- save returns the server's error where there is one.
local function save()
  return redis.pcall('SET', KEYS[1], string.format('v1 %s %s %d %d %d %d %s', term, epoch, start, floor, mark, since, constants)).err
end

if kept[1] then
  local of, e, a, b, c, d, rest = string.match(kept[1], '^v1 (%x+) (%S+) (%d+) (%d+) (%d+) (%d+) (.+)$')
  state = 'f'
  if rest then constants = rest end
  if of == term and string.byte(e) == 45 then
    state, epoch = string.sub(e, 2, 2), e
  elseif of == term and tonumber(kept[2] or '') then
    state, epoch = 's', e
    start, floor, mark, since = tonumber(a), tonumber(b), tonumber(c), tonumber(d)
    grace = math.ceil(tonumber(string.match(constants, '^%d+')) * 1.01) + 2
    local changed = false
    if start > ms then start, changed = ms, true end
    if start > 0 and ms >= start + grace then start, changed = 0, true end
    if start > 0 then state, left = 'g', start + grace - ms end
    if since > ms or ms - since >= KEEP / 2 then mark, since, changed = top, ms, true end
    if changed then
      local err = save()
      if err then return redis.error_reply(err) end
    end
  end
end
