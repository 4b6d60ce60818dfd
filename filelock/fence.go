package filelock

import (
	"encoding/binary"
	"hash/crc32"
	"io"
)

// What a process writes outlives the process at once, in the page cache, but not a power
// failure, after which the file may be as old as its last sync. Fences that were given out
// since then would be given out again if the clock was set back as well. Syncing every grant
// would cost milliseconds each.
//
// So a ceiling is kept: a number in a record of its own that is synced before any number up
// to it is given out. As fences count microseconds, one sync is enough for as long as
// ceilingLead. Only when the machine was restarted, which a different boot id shows, numbers
// go on above the ceiling; otherwise what the file says is as new as can be, however many
// processes have died.
//
// Boot ids can mislead: containers on one kernel may see different ones, and some systems
// have none. So the state also names a witness, the member that raised the ceiling or went on
// after a restart. While it lives, the machine has not been restarted. In doubt, numbers are
// skipped, which harms nobody; shares are never dropped for a boot id, only because the
// member that has them is dead.
//
// There are two records. One that is confirmed, by a state that names its ceiling, was synced
// and is never written over: the other one is. A process that is killed or a machine that
// fails in the middle leaves the confirmed one.
const (
	ceilingAt   = 2 * slotSize
	ceilingStep = 512 // the records are in different sectors
	recordSize  = 4 + 1 + 1 + 2 + 8 + memberIDSize + maxBootID + 4
	prepared    = bodyAt

	// ceilingLead is how far the ceiling is ahead, in microseconds.
	ceilingLead = 60_000_000
)

var recordMagic = [4]byte{'H', 'F', 'L', 'C'}

// record is a stored ceiling. The zero record is none.
type record struct {
	ceiling int64
	boot    string
	witness memberID
}

func (r *record) encode() (b [recordSize]byte) {
	copy(b[:], recordMagic[:])
	b[4], b[5] = formatVersion, byte(len(r.boot))
	binary.LittleEndian.PutUint64(b[8:], uint64(r.ceiling))
	copy(b[16:], r.witness[:])
	copy(b[32:32+maxBootID], r.boot)
	binary.LittleEndian.PutUint32(b[recordSize-4:], crc32.Checksum(b[:recordSize-4], castagnoli()))
	return b
}

// decodeRecord returns the zero record for anything that encode did not write.
func decodeRecord(b []byte) (r record) {
	if len(b) < recordSize || [4]byte(b) != recordMagic || b[4] != formatVersion || b[5] > maxBootID ||
		binary.LittleEndian.Uint32(b[recordSize-4:]) != crc32.Checksum(b[:recordSize-4], castagnoli()) {
		return record{}
	}
	r.ceiling = int64(binary.LittleEndian.Uint64(b[8:]))
	copy(r.witness[:], b[16:])
	r.boot = string(b[32 : 32+int(b[5])])
	return r
}

// records are both records of a file.
type records [2]record

func readRecords(r io.ReaderAt) (recs records, err error) {
	var b [ceilingStep + recordSize]byte
	n, err := r.ReadAt(b[:], ceilingAt)
	if err != nil && err != io.EOF {
		return recs, err
	}
	recs[0] = decodeRecord(b[:n])
	recs[1] = decodeRecord(b[min(ceilingStep, n):n])
	return recs, nil
}

func (recs *records) top() int64 { return max(recs[0].ceiling, recs[1].ceiling) }

// sameBoot reports whether the machine has run without a restart since the state was written.
func (b *book) sameBoot() bool {
	st := &b.st
	return st.boot != "" && st.boot == b.e.boot || b.alive(string(st.witness[:]))
}

// afterCrash reports whether both copies of the state may be damaged because the machine
// failed while they were on their way to the disk. Within one run of the machine that cannot
// happen, whatever is killed when.
func (b *book) afterCrash() bool {
	recs, err := readRecords(b.file)
	if err != nil || recs.top() == 0 || b.e.boot == "" {
		return false
	}
	for _, r := range recs {
		if r.ceiling > 0 && (r.boot == "" || r.boot == b.e.boot || b.alive(string(r.witness[:]))) {
			return false
		}
	}
	return true
}

// resume begins to count in a new file, or after the machine may have been restarted: above
// everything that can have been given out. The first number that is granted is above the
// ceiling, so that the ceiling is raised in the name of this run.
func (b *book) resume() error {
	recs, err := readRecords(b.file)
	if err != nil {
		return err
	}
	b.touch()
	st := &b.st
	st.ceiling = max(st.ceiling, recs.top())
	st.fences.Last = max(st.fences.Last, st.ceiling)
	st.boot, st.witness = b.e.boot, b.me.id
	return nil
}

// raise makes the disk know a ceiling above the last number. It is called before the state
// with that number is stored, and the number is answered only after both.
func (b *book) raise() error {
	recs, err := readRecords(b.file)
	if err != nil {
		return err
	}
	if recs.top() == 0 {
		if err := b.prepareFile(); err != nil {
			return err
		}
	}
	st := &b.st
	r := record{
		ceiling: max(st.fences.Last+ceilingLead, recs.top()),
		boot:    b.e.boot,
		witness: b.me.id,
	}
	slot := 0
	if recs[0].ceiling == st.ceiling {
		slot = 1
	}
	bytes := r.encode()
	if _, err := b.file.WriteAt(bytes[:], ceilingAt+int64(slot)*ceilingStep); err != nil {
		return err
	}
	if err := b.file.Sync(); err != nil {
		return err
	}
	st.ceiling, st.boot, st.witness = r.ceiling, r.boot, r.witness
	return nil
}

// prepareFile gives a new file its blocks, so that a disk that fills up later keeps nobody
// from releasing, and makes its entry in the folder durable: a file that has a ceiling is
// there after a power failure.
func (b *book) prepareFile() error {
	if b.st.gen == 0 {
		var zeros [prepared]byte
		if _, err := b.file.WriteAt(zeros[:], 0); err != nil {
			return err
		}
	}
	return syncDir(b.e.books.folder)
}
