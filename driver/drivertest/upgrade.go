package drivertest

import "github.com/holdfast-go/holdfast/driver"

var upgradeCases = []testCase{
	{
		name: "upgrade",
		sentence: "with Request.Upgrade, turn the token's Upgradeable share into an Exclusive one " +
			"once all Shared ones are gone",
		needs: []ability{upgradeable, shared},
		run:   testUpgrade,
	}, {
		name:     "upgrade-keep",
		sentence: "keep the Upgradeable share when an upgrade fails or is cancelled",
		needs:    []ability{upgradeable, shared},
		run:      testUpgradeKeep,
	},
}

// upgraded returns the request that upgrades s.
func (s *share) upgraded() driver.Request {
	req := s.req
	req.Mode, req.Upgrade = driver.Exclusive, true
	return req
}

func testUpgrade(x *env) {
	a, b, c := x.open(), x.open(), x.open()

	// Without readers.
	name := x.name()
	up := x.take(a, x.request(name, driver.Upgradeable))
	excl := x.take(a, up.upgraded())
	if excl.grant.Fence <= up.top() {
		x.Errorf("the upgrade has fence %d, want more than %d", excl.grant.Fence, up.top())
	}
	x.refused(b, x.request(name, driver.Shared))
	again := x.take(a, up.upgraded()) // its reply may have been lost
	x.refused(b, x.request(name, driver.Shared))
	again.alive()
	again.release()
	x.free(b, name)

	// With readers, who leave one after the other.
	name = x.name()
	first := x.take(b, x.request(name, driver.Shared))
	second := x.take(c, x.request(name, driver.Shared))
	up = x.take(a, x.request(name, driver.Upgradeable))
	x.refused(a, up.upgraded())
	waiting := x.queue(a, up.upgraded())
	first.release()
	waiting.waitsOn()
	second.alive()
	second.release()
	excl = waiting.granted()
	x.refused(b, x.request(name, driver.Shared))
	excl.alive()
	excl.release()
	x.free(c, name)
}

func testUpgradeKeep(x *env) {
	a, b := x.open(), x.open()
	name := x.name()
	reader := x.take(b, x.request(name, driver.Shared))
	up := x.take(a, x.request(name, driver.Upgradeable))
	kept := func() {
		x.Helper()
		up.alive()
		x.refused(b, x.request(name, driver.Upgradeable))
		x.take(b, x.request(name, driver.Shared)).release() // it is not Exclusive
	}
	x.refused(a, up.upgraded())
	kept()
	x.queue(a, up.upgraded()).canceled()
	kept()
	reader.release()
	kept() // an upgrade that was given up must not come true
	excl := x.take(a, up.upgraded())
	excl.release()
	x.free(b, name)
}
