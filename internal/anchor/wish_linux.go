package anchor

import "time"

// wish is a process's claim to be the service, made when the parent lived, as far as was known: a
// process that dies closes its files, by which its successor knows of its death, some time before
// the anchor is told. What the successor says meanwhile is kept until that is clear.
type wish struct {
	pid  int // 0: there is none
	said []note
	due  <-chan time.Time // when it is void
}

const (
	// wishTime is how long a wish is good for.
	wishTime = time.Second
	// maxKept bounds what is kept of what is said meanwhile.
	maxKept = maxStored
)

// wishes begins to keep what n's sender says, with n.
func (a *anchor) wishes(n *note) {
	a.refuse()
	a.wish = wish{pid: n.Pid, due: time.After(wishTime)}
	a.wish.keep(n)
}

// keep makes a note the wish's. What is too much is lost, as all is when the wish is refused.
func (w *wish) keep(n *note) {
	if len(w.said) < maxKept {
		n.strip()
		w.said = append(w.said, *n)
		n.Take()
	}
}

// grant has what was said count, now that its sender is main.
func (a *anchor) grant() {
	said := a.wish.said
	a.wish = wish{}
	for _, n := range said {
		a.takeNow(n)
	}
}

// refuse ends a wish: what its owner has said is not its to say.
func (a *anchor) refuse() {
	for _, n := range a.wish.said {
		n.Done()
	}
	a.wish = wish{}
}
