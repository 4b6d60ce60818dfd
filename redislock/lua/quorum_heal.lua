-- How a node of a quorum is, and the two steps of a heal. It follows quorum_node.lua, which
-- says KEYS[1,2] and ARGV[1].
--
-- ARGV[2]  'status'  tell. A node that is not seeded gets a word to be known by
--          'raise'   into a new epoch, so that no round of the epoch before it is counted any
--                    more. Only a node that is seeded, and still in the epoch that was seen
--          'seed'    into a new epoch with a floor; a grace begins. Only a node that is still
--                    in the epoch that was seen, or unseeded under the same word
-- ARGV[3]  a random word that was never used before: the new epoch
-- ARGV[4]  the epoch that was seen, with its '-' where the node is not seeded
-- ARGV[5]  the floor
-- ARGV[6]  'none' for no grace: an operator says that no lock was ever taken
-- ARGV[7]  'regroup' to replace the constants, which have to be the same otherwise
--
-- Reply: {word, state, epoch, top, left, us, constants, term}, as they are now; us is the
-- node's clock, constants are '' on a blank node. The word is 'done', or 'seen' where nothing
-- was done.
local word, op = 'seen', ARGV[2]
local seeded = state == 's' or state == 'g'
local agreed = state == 'v' or constants == ARGV[1] or ARGV[7] == 'regroup'

if op == 'status' and epoch == '-' then
  -- With the clock, for the word of a copy of this call is no new one.
  epoch = '-' .. state .. ARGV[3] .. '.' .. clock[1] .. '.' .. clock[2]
  local err = save()
  if err then return redis.error_reply(err) end
elseif op ~= 'status' and agreed and epoch ~= '-' and epoch == ARGV[4] and (op == 'seed' or seeded) then
  constants, epoch = ARGV[1], ARGV[3]
  if op == 'seed' then
    floor = math.max(tonumber(ARGV[5]), floor)
    top = math.max(top, floor)
    grace = math.ceil(tonumber(string.match(constants, '^%d+')) * 1.01) + 2
    state, start, left = 'g', ms, grace
    if ARGV[6] == 'none' then state, start, left = 's', 0, 0 end
    mark, since = top, ms
    local r = redis.pcall('SET', KEYS[2], string.format('%d', top))
    if r.err then return redis.error_reply(r.err) end
  end
  local err = save()
  if err then return redis.error_reply(err) end
  word = 'done'
end

local function number(n) return string.format('%d', n) end
return {word, state, epoch, number(top), number(left), number(clock[1] * 1000000 + clock[2]),
  state == 'v' and '' or constants, term}
