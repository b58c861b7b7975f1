package state

import (
	"encoding/json"
	"fmt"
)

// memory is what a follower has and knows: the decisions, pure.
type memory struct {
	good entry  // the last value that could be used; Version "": none
	seen string // the version that came last, whether it could be used or not
	bad  error  // why it can't be used
	at   int64  // when the newest that is known was looked at
	err  error  // why good is not the newest, or nobody can tell
	none bool   // the agent has nothing, not even of others
}

// request is what to ask next.
func (m *memory) request() request {
	r := request{Version: m.seen}
	if m.none && m.good.Version != "" {
		r.Offer = &m.good
	}
	return r
}

// take takes in an answer. use decodes a value and keeps it. It returns whether there is
// another value now.
func (m *memory) take(a answer, now int64, use func(json.RawMessage) error) (changed bool) {
	m.none = a.None
	if a.None {
		m.err = ErrNone
		if a.Err != "" {
			m.err = fmt.Errorf("%w: %w: %s", ErrNone, ErrSource, a.Err)
		}
		return false
	}
	a.At = min(a.At, now)
	switch {
	case a.Version == "":
		m.err = fmt.Errorf("%w: its answer has no version", ErrAgent)
		return false
	case a.At < m.at, a.At == m.at && a.Version != m.seen:
		// Late, or of an agent that sees less than another did; or both have seen
		// something at the same moment, and the first one stands.
	case a.Version == m.seen:
		m.at = a.At
	case len(a.Value) == 0 && a.Version != m.good.Version:
		m.err = fmt.Errorf("%w: version %q without a value", ErrAgent, a.Version)
		return false
	case a.Version == m.good.Version:
		m.at, m.seen, m.bad = a.At, a.Version, nil
	default:
		m.at, m.seen, m.bad = a.At, a.Version, nil
		if err := use(a.Value); err != nil {
			m.bad = fmt.Errorf("%w: version %q: %w", ErrDecode, a.Version, err)
			break
		}
		m.good, changed = a.entry, true
	}
	if m.bad == nil && m.seen != "" {
		m.good.At = m.at
	}
	m.err = m.bad
	if a.Err != "" {
		m.err = fmt.Errorf("%w: %s", ErrSource, a.Err)
	}
	return changed
}

// failed takes in that the agent could not be asked.
func (m *memory) failed(err error) { m.err = fmt.Errorf("%w: %w", ErrAgent, err) }
