// Package tickets shares the keys of TLS session tickets among processes, so that a client
// that comes back resumes its session (RFC 8446, section 2.2; RFC 5077) whichever of them
// it reaches: one that was started later, of a newer binary, or beside the one that it knew.
//
// The keys are in a file without a name, which travels like a socket does. In one process
// that package upgrader replaces (the example is the whole of it):
//
//	f, err := up.KeptFile("tickets", tickets.File)
//	keys, err := tickets.New(f, tickets.Config{})
//	defer keys.Close()
//	cfg = keys.TLS("https", cfg) // for http.Server.ServeTLS, credentials.NewTLS, or anything
//
// Workers have worker.Worker.TLS.
//
// Nobody is in charge. Every process looks at the file at each ticket that it makes or
// opens, which takes a microsecond; whoever finds that it is time for a new key takes a
// lock and writes it, before anything was encrypted by it. So whoever is shown a ticket
// can know its key. If something is wrong with the file, tickets are not what stops a
// server: the process goes on with keys of its own, its clients with full handshakes, and
// an error is logged.
//
// Who has the keys can read and forge tickets, and pretend to be a client whose certificate
// was checked before. Every process that shares them has them in its memory, in this design
// as in any other, and so has a file descriptor of it. On Linux they are never on a disk,
// unless it is one that memory is swapped to.
package tickets

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Defaults of a Config.
const (
	DefaultEvery = 12 * time.Hour
	DefaultKeep  = 24 * time.Hour
)

// Config says how long keys live. The zero value is good.
type Config struct {
	// Every is how long a key encrypts before there is a new one. Default 12 h, or half of
	// Keep if that is less.
	Every time.Duration
	// Keep is how long a key still opens tickets after that, at most 6 times Every. It is
	// gone for good with the next key after that. Default 24 h, or twice Every if that is
	// less; more than 7 days are of no use, crypto/tls resumes no older session.
	//
	// Processes that share a file should agree on both: who has the smaller ones decides.
	Keep time.Duration
	// Logger gets what has no caller to return to. Default slog.Default().
	Logger *slog.Logger
	// now is the clock, sinceBoot but in tests.
	now func() time.Time
}

// Validate says which part of the configuration can't work.
func (c Config) Validate() error {
	switch c = c.withDefaults(); {
	case c.Every <= 0 || c.Keep <= 0:
		return fmt.Errorf("tickets: a new key every %v, kept for %v: both must be positive, or 0 for %v and %v", c.Every, c.Keep, DefaultEvery, DefaultKeep)
	case (c.Keep-1)/c.Every >= maxKeys-2:
		return fmt.Errorf("tickets: a new key every %v, kept for %v: keep it at most %d times as long", c.Every, c.Keep, maxKeys-2)
	}
	return nil
}

func (c Config) withDefaults() Config {
	switch {
	case c.Every == 0 && c.Keep == 0:
		c.Every, c.Keep = DefaultEvery, DefaultKeep
	case c.Every == 0:
		c.Every = min(DefaultEvery, c.Keep/2)
	case c.Keep == 0:
		c.Keep = min(DefaultKeep, 2*c.Every)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.now == nil {
		c.now = sinceBoot
	}
	return c
}

// firstWait is how long New waits for another process that is writing just now.
const firstWait = time.Second

// Keys are the keys that this process shares with others. Its methods may be called from
// any goroutine.
type Keys struct {
	cfg  Config
	quit chan struct{}
	stop sync.Once
	done sync.WaitGroup

	mu    sync.Mutex
	file  *os.File   // nil: the keys are this process's own
	seen  [size]byte // what ring was made of
	ring  ring
	names map[string]*tls.Config // that have the keys
}

// New shares the keys in f with all who have that file: see File. f is the Keys' from then
// on, also if there is an error, which is one of the configuration. Have one of a file in a
// process: its lock is the process's (fcntl(2), "Advisory record locking").
//
// Close ends it.
func New(f *os.File, cfg Config) (*Keys, error) {
	if err := cfg.Validate(); err != nil {
		f.Close()
		return nil, err
	}
	k := &Keys{cfg: cfg.withDefaults(), quit: make(chan struct{}), file: f, names: map[string]*tls.Config{}}
	for end := time.Now().Add(firstWait); !k.look() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	k.mu.Lock()
	if len(k.ring) == 0 { // who writes is stopped: until it goes on
		k.take(k.ring.next(k.cfg.now(), k.cfg.Keep, secret()))
	}
	k.mu.Unlock()
	k.done.Go(k.rotate)
	return k, nil
}

// Close ends what New began, and closes the file. Configs that TLS has returned go on with
// the keys that there are.
func (k *Keys) Close() {
	k.stop.Do(func() { close(k.quit) })
	k.done.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.file != nil {
		k.file.Close()
	}
	k.file = nil
}

// TLS returns a copy of cfg, or of an empty one if it is nil, whose session tickets are
// encrypted by the shared keys. It stays good when it is cloned, as net/http does.
//
// The name says which tickets are good for it: those of configs of this name, in whatever
// process. Give configs of different ClientAuth or ClientCAs different names, or clients of
// the one are clients of the other.
//
// The copy has WrapSession and UnwrapSession. If cfg has one of them, or SessionTicketsDisabled,
// it stays as it is. The configs that a GetConfigForClient returns are treated in the same way,
// so that keys of SetSessionTicketKeys are not used.
func (k *Keys) TLS(name string, cfg *tls.Config) *tls.Config {
	k.mu.Lock()
	live := k.names[name]
	if live == nil {
		live = &tls.Config{}
		k.names[name] = live
		k.give(name, live)
	}
	k.mu.Unlock()

	share := func(c *tls.Config) *tls.Config {
		if c == nil || c.SessionTicketsDisabled || c.WrapSession != nil || c.UnwrapSession != nil {
			return c
		}
		c = c.Clone()
		c.WrapSession = func(cs tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
			k.look()
			return live.EncryptTicket(cs, s)
		}
		c.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
			k.look()
			return live.DecryptTicket(ticket, cs)
		}
		return c
	}
	cfg = cfg.Clone()
	if cfg == nil {
		cfg = &tls.Config{}
	}
	if choose := cfg.GetConfigForClient; choose != nil {
		cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			c, err := choose(hello)
			return share(c), err
		}
	}
	return share(cfg)
}

// give gives a config the keys of that name. The caller holds mu.
func (k *Keys) give(name string, live *tls.Config) {
	keys := make([][32]byte, len(k.ring))
	for i, key := range k.ring {
		b, err := hkdf.Expand(sha256.New, key.secret[:], "handover session tickets: "+name, len(keys[i]))
		if err != nil {
			panic(err) // of a length that is constant
		}
		copy(keys[i][:], b)
	}
	live.SetSessionTicketKeys(keys)
}

// take makes r the ring. The caller holds mu.
func (k *Keys) take(r ring) {
	k.ring, k.seen = r, r.format()
	for name, live := range k.names {
		k.give(name, live)
	}
}

// rotate sees to it that there is a new key in time, also when nobody comes: what could be
// decrypted by an old one should be safe by then.
func (k *Keys) rotate() {
	for {
		k.mu.Lock()
		wait := k.ring.until(k.cfg.now(), k.cfg.Every)
		k.mu.Unlock()
		if wait <= 0 { // somebody else is writing
			wait = min(k.cfg.Every, time.Second)
		}
		// Timers stand still while the machine sleeps.
		t := time.NewTimer(min(wait, time.Hour))
		select {
		case <-t.C:
			k.look()
		case <-k.quit:
			t.Stop()
			return
		}
	}
}

// look takes what is in the file, and writes a new key there if it is time. It reports
// whether there are keys.
func (k *Keys) look() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.cfg.now()
	if k.file == nil {
		k.own(now)
		return true
	}
	if err := k.read(); err == nil && !k.ring.due(now, k.cfg.Every) {
		return true
	}
	unlock, err := lock(k.file)
	if err == nil {
		err = k.write(now)
		unlock()
	}
	if err != nil && !errors.Is(err, errLocked) {
		k.cfg.Logger.Error("session ticket keys can't be shared: this process has its own, and its clients do full handshakes with others", "error", err)
		k.file.Close()
		k.file = nil
		k.own(now)
	}
	return len(k.ring) > 0
}

// own rotates keys that nobody else has.
func (k *Keys) own(now time.Time) {
	if k.ring.due(now, k.cfg.Every) {
		k.take(k.ring.next(now, k.cfg.Keep, secret()))
	}
}

// read takes the ring from the file. An error may be one of the moment, while somebody
// writes.
func (k *Keys) read() error {
	b, err := read(k.file)
	if err != nil || len(k.ring) > 0 && bytes.Equal(b[:], k.seen[:]) {
		return err
	}
	r, err := parse(b)
	if err == nil {
		k.take(r)
	}
	return err
}

// write brings the file up to date, under its lock.
func (k *Keys) write(now time.Time) error {
	switch err := k.read(); {
	case errors.Is(err, errFormat):
		k.cfg.Logger.Error("session ticket keys can't be read: they are written anew", "error", err)
	case err != nil:
		return err
	case !k.ring.due(now, k.cfg.Every):
		return nil // another one was faster
	}
	r := k.ring
	if r.due(now, k.cfg.Every) {
		r = r.next(now, k.cfg.Keep, secret())
	}
	if err := write(k.file, r.format()); err != nil {
		return err
	}
	k.take(r)
	return nil
}

func secret() (s [32]byte) {
	_, _ = rand.Read(s[:]) // never fails
	return s
}

// fresh is a ring with a first key.
func fresh() ring { return ring(nil).next(sinceBoot(), 0, secret()) }

// File returns a new file with a first key, which nobody else has: what New wants, after it
// has been shared. Its descriptor is closed on exec. It is a memfd (memfd_create(2)); where
// there is no such thing, a file in os.TempDir whose name is removed at once.
func File() (*os.File, error) {
	f, err := open()
	if err != nil {
		return nil, fmt.Errorf("file of session ticket keys: %w", err)
	}
	if err := write(f, fresh().format()); err != nil {
		f.Close()
		return nil, fmt.Errorf("file of session ticket keys: %w", err)
	}
	return f, nil
}
