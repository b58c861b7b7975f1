package tickets

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/handover-go/handover/internal/clock"
)

// maxKeys is how many keys a ring can have: one that encrypts, and those before it.
const maxKeys = 8

// A ring is written as
//
//	magic (7 bytes), version (1), count (1), zero (7)
//	count times: when it began to encrypt, see sinceBoot, in ns (8, big endian), secret (32)
//	zero, up to maxKeys
//	SHA-256 of all that (32)
//
// It has one size, so that nothing of a longer one is left behind it.
const (
	version = 1
	entry   = 8 + 32
	body    = 16 + maxKeys*entry
	size    = body + sha256.Size
)

var magic = [7]byte{'t', 'i', 'c', 'k', 'e', 't', 's'}

var (
	// errFormat: it is no ring, or only half of one.
	errFormat = errors.New("not a ring of session ticket keys")
	// errVersion: it is one that another version of this package has written.
	errVersion = errors.New("session ticket keys of another version")
)

// key is one of a ring.
type key struct {
	from   int64 // when it began to encrypt, in ns
	secret [32]byte
}

// ring are the keys, the newest first, which encrypts. None is changed once it is made.
type ring []key

// sinceBoot is the time by a clock that all processes of the machine share, that nobody sets, and
// that goes on while it sleeps. As a time.Time it counts from 1970.
func sinceBoot() time.Time { return time.Unix(0, int64(clock.SinceBoot())) }

// age of the newest key, negative if another clock was used.
func (r ring) age(now time.Time) time.Duration { return now.Sub(time.Unix(0, r[0].from)) }

// due reports whether it is time for a new key. One from the future is as old as one from
// the past: it was made by another clock, that of an older version or the time of day where
// there is none but that.
func (r ring) due(now time.Time, every time.Duration) bool {
	return len(r) == 0 || r.age(now) >= every || r.age(now) <= -every
}

// until is how long the newest key may go on.
func (r ring) until(now time.Time, every time.Duration) time.Duration {
	if r.due(now, every) {
		return 0
	}
	return every - r.age(now)
}

// next is the ring with a new key, without those that have not encrypted for as long as
// keep.
func (r ring) next(now time.Time, keep time.Duration, secret [32]byte) ring {
	n := ring{{from: now.UnixNano(), secret: secret}}
	for _, k := range r {
		// It has encrypted until the one before it in the ring began to.
		idle := now.Sub(time.Unix(0, n[len(n)-1].from))
		if len(n) == maxKeys || idle >= keep && len(n) > 1 {
			break
		}
		k.from = min(k.from, n[len(n)-1].from) // which may be from the future
		n = append(n, k)
	}
	return n
}

func (r ring) format() (b [size]byte) {
	copy(b[:], magic[:])
	b[7], b[8] = version, byte(len(r))
	for i, k := range r {
		e := b[16+i*entry:]
		binary.BigEndian.PutUint64(e, uint64(k.from))
		copy(e[8:], k.secret[:])
	}
	sum := sha256.Sum256(b[:body])
	copy(b[body:], sum[:])
	return b
}

// parse reads what format has written, and nothing else.
func parse(b [size]byte) (ring, error) {
	bad := func(what string) (ring, error) { return nil, fmt.Errorf("%w: %s", errFormat, what) }
	if !bytes.Equal(b[:7], magic[:]) {
		return bad("it begins with something else")
	}
	if b[7] != version {
		return nil, fmt.Errorf("%w: %d, this one is %d", errVersion, b[7], version)
	}
	n := int(b[8])
	if n < 1 || n > maxKeys {
		return bad(fmt.Sprintf("%d keys", n))
	}
	r := make(ring, n)
	for i := range r {
		e := b[16+i*entry:]
		r[i].from = int64(binary.BigEndian.Uint64(e))
		copy(r[i].secret[:], e[8:])
		if r[i].secret == [32]byte{} {
			return bad(fmt.Sprintf("key %d is zero", i+1))
		}
		if i > 0 && r[i].from > r[i-1].from {
			return bad(fmt.Sprintf("key %d is newer than the one before it", i+1))
		}
	}
	if r.format() != b {
		return bad("the checksum does not fit, or there is something between the keys")
	}
	return r, nil
}
