package mysqllock

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/ledger"
)

// A fence is made of a ticket, a number that UUID_SHORT draws in the statement that takes the
// lock, after the lock. The server counts tickets in memory, one by one for all of its clients,
// so whoever gets a lock later draws a larger one, and drawing one writes nothing.
//
// The counter's row says how tickets become fences for as long as that server process lives
// (conn: which, since: what is added), and how far fences may go (fence): who draws one above
// that raises it, by many at once, before anybody is told of the fence. A server that was started
// again begins above that, and not below its clock. So fences grow over crashes as the row does.
const (
	// perTicket is how many numbers a ticket stands for: as many as a process hands over a lock
	// in a row by default.
	perTicket = 64

	// ahead is how many numbers the row is raised by.
	ahead = 4096 * perTicket

	// ticketMask takes away the server's id, which stands above the time of its start.
	ticketMask = 1<<56 - 1

	// maxClock bounds what the server's clock may drive fences to, so that a clock that was
	// absurdly wrong for a moment leaves numbers to count on with.
	maxClock = ledger.MaxFence - 1<<50
)

// fences is what a session knows of the counter's row.
type fences struct {
	server  uint64 // the process of the server, 0 while nothing is known
	offset  int64
	ceiling int64
	permits bool // there are, or were, permits
}

// first is the first of the numbers of a ticket.
func (f *fences) first(ticket uint64) int64 {
	return f.offset + int64(ticket&ticketMask)*perTicket + 1
}

var (
	errForgot   = errors.New("the row that fences come from was changed by something else, or by another server: what was locked under the old one is given up")
	errNoFences = errors.New("there are no fences left: they end at 2^53")
	errYoung    = errors.New("the server has been started less than two seconds ago: try again")
	errClockSet = errors.New("the server's clock is being set, so that it cannot be told from another one: try again")
)

// settleFences learns how tickets become fences, and settles it if this server process is a new
// one. The connection is ours, and the row is there.
func (s *session) settleFences(ctx context.Context) error {
	server, ticket, err := s.serverProcess(ctx)
	if err != nil {
		return err
	}
	_, err = s.exec(fmt.Sprintf("UPDATE %s SET since=IF(conn=%d,since,GREATEST(fence,LEAST(%s,%d))-%d),conn=%[2]d WHERE k=''",
		s.e.cfg.quoted(), server, serverMicros, int64(maxClock), int64(ticket&ticketMask)*perTicket), 0)
	if err != nil {
		return err
	}
	s.fences = fences{}
	f, err := s.readFences()
	if err == nil && f.server != server {
		err = errForgot
	}
	if err == nil {
		s.fences = f
	}
	return err
}

// serverProcess returns a number that tells the process of the server from all others, and a ticket.
// It is made of when the process was started, which the server says as its age by its own clock, so both
// have to be read in the same second; and of what cannot change while it runs: where it is, and the id
// that it began with, which is in its tickets.
//
// One that was started less than two seconds ago is waited for: had it granted anything by then, and been
// ended and started again within the second in which it began, the next could not be told from it, and
// would draw its tickets a second time.
func (s *session) serverProcess(ctx context.Context) (server, ticket uint64, err error) {
	const tries, settled = 20, 2
	for try := 0; try < tries; try++ {
		var before, after, uptime int64
		var name, node string
		if err := s.query("SELECT UNIX_TIMESTAMP()", &before); err != nil {
			return 0, 0, err
		}
		if err := s.conn.QueryRowContext(ctx, "SHOW GLOBAL STATUS LIKE 'Uptime'").Scan(&name, &uptime); err != nil {
			return 0, 0, err
		}
		if uptime < settled {
			if err := s.grow(ctx); err != nil {
				return 0, 0, err
			}
			try--
			continue
		}
		if err := s.query("SELECT UNIX_TIMESTAMP(),CONCAT_WS(':',@@hostname,@@port),UUID_SHORT()", &after, &node, &ticket); err != nil {
			return 0, 0, err
		}
		if before == after {
			sum := sha256.Sum256(fmt.Appendf(nil, "%s:%d:%d", node, ticket>>56, after-uptime))
			return binary.BigEndian.Uint64(sum[:8])>>1 | 1, ticket, nil // never 0
		}
	}
	return 0, 0, driver.Fail(driver.Unavailable, errClockSet)
}

// grow waits for a moment, with a statement: the server ends connections that are silent.
func (s *session) grow(ctx context.Context) error {
	if ctx.Err() != nil {
		return driver.Fail(driver.Unavailable, errYoung)
	}
	var zero int
	return s.query("SELECT SLEEP(0.1)", &zero)
}

func (s *session) readFences() (f fences, err error) {
	var weight int64
	err = s.query("SELECT conn,since,fence,weight FROM "+s.e.cfg.quoted()+" WHERE k=''", &f.server, &f.offset, &f.ceiling, &weight)
	f.permits = weight > 0
	return f, err
}

// raise sees to it that numbers up to top outlive the server before they are told to anybody, and
// learns whether there are permits.
func (s *session) raise(top int64) error {
	if top <= s.fences.ceiling {
		return nil
	}
	if top > ledger.MaxFence {
		return driver.Fail(driver.Unavailable, errNoFences)
	}
	return s.changeCounter(fmt.Sprintf("fence=GREATEST(fence,%d)", min(top+ahead, ledger.MaxFence)))
}

// changeCounter changes the counter's row and reads it. Where the row is gone it is made again, as
// this session knew it.
func (s *session) changeCounter(set string) error {
	text := fmt.Sprintf("UPDATE %s SET %s WHERE k='' AND conn=%d AND since=%d", s.e.cfg.quoted(), set, s.fences.server, s.fences.offset)
	for repeat := 0; ; repeat++ {
		var f fences
		_, err := s.exec(text, 0)
		if err == nil {
			f, err = s.readFences()
		}
		switch {
		case repeat == 0 && (errors.Is(err, sql.ErrNoRows) || codeOf(err) == codeNoTable):
			if err := s.settleSchema(); err != nil {
				return err
			}
		case err != nil:
			return err
		case f.server != s.fences.server || f.offset != s.fences.offset:
			return errForgot
		default:
			s.fences = f
			return nil
		}
	}
}

// announcePermits sees to it that whoever locks a name from now on looks for permits of it.
//
// The row says so first. Sessions that have not read it since know of numbers up to a ceiling that
// is no higher than the one that is read here: once tickets are above that, they have to raise it,
// and read the row, before they grant anything.
func (s *session) announcePermits() error {
	if s.announced {
		return nil
	}
	if err := s.changeCounter("weight=1"); err != nil {
		return err
	}
	for {
		var ticket uint64
		if err := s.query("SELECT UUID_SHORT()", &ticket); err != nil {
			return err
		}
		missing := s.fences.ceiling - s.fences.first(ticket)
		if missing < 0 {
			s.announced = true
			return nil
		}
		const most = 1 << 20 // in one statement, of some 50 ms
		var zero int
		if err := s.query(fmt.Sprintf("SELECT BENCHMARK(%d,UUID_SHORT())", min(missing/perTicket+1, most)), &zero); err != nil {
			return err
		}
	}
}
