//go:build !unix

package sdnotify

import (
	"errors"
	"os"
	"time"
)

// send has nobody to talk to here.
func send(msg string, f *os.File, deadline time.Time) error {
	addr, err := address()
	if addr == "" || err != nil {
		return err
	}
	return errors.New("notifying a supervisor needs a unix system: unset " + Env)
}
