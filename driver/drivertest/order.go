package drivertest

import (
	"context"

	"github.com/holdfast-go/holdfast/driver"
)

var orderCases = []testCase{
	{
		name:     "fifo",
		sentence: "serve waiting requests of a name in their order where Capabilities.FIFO says so",
		needs:    []ability{fifo},
		run:      testFIFO,
	}, {
		name: "no-overtake",
		sentence: "not let new Shared requests overtake a waiting Exclusive one where " +
			"Capabilities.FIFO says so",
		needs: []ability{fifo, shared},
		run:   testNoOvertake,
	},
}

func testFIFO(x *env) {
	engines := []driver.Engine{x.open(), x.open(), x.open()}
	for _, mode := range x.modes() {
		name := x.name()
		holder := x.take(engines[0], x.exclusive(name))
		var line []*pending
		for i := range 6 {
			req := x.request(name, mode)
			if mode == driver.Permits {
				req.Weight = req.Limit
			}
			if mode == driver.Shared && i%2 == 1 { // or all would be served at once
				req = x.exclusive(name)
			}
			line = append(line, x.queue(engines[i%len(engines)], req))
		}
		for i, p := range line {
			holder.release()
			holder = p.granted()
			if i+1 < len(line) {
				line[len(line)-1].waitsOn()
				line[i+1].waits()
			}
		}
		holder.release()
	}
}

func testNoOvertake(x *env) {
	a, b, c := x.open(), x.open(), x.open()
	name := x.name()
	reader := x.take(a, x.request(name, driver.Shared))
	writer := x.queue(b, x.exclusive(name))
	x.refused(a, x.request(name, driver.Shared))
	x.refused(c, x.request(name, driver.Shared))
	late := x.queue(c, x.request(name, driver.Shared))
	late.waitsOn()
	reader.release()
	excl := writer.granted()
	late.waitsOn()
	excl.release()
	late.granted().release()

	if !x.caps.Upgradeable {
		return
	}
	// An upgrade that waits is an Exclusive request as well.
	name = x.name()
	reader = x.take(a, x.request(name, driver.Shared))
	up := x.take(b, x.request(name, driver.Upgradeable))
	writer = x.queue(b, up.upgraded())
	x.refused(a, x.request(name, driver.Shared))
	late = x.start(context.Background(), c, x.request(name, driver.Shared))
	late.waitsOn()
	reader.release()
	excl = writer.granted()
	late.waitsOn()
	excl.release()
	late.granted().release()
}
