package sdnotify

import (
	"fmt"
	"io"
	"os"
	"time"
)

// Ask sends an assignment with the one end of a pipe, and returns what the supervisor
// writes there before it closes it: nothing, if it does not know what is asked.
func Ask(assignment string, timeout time.Duration) (string, error) {
	deadline := time.Now().Add(timeout)
	r, w, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("ask the supervisor: %w", err)
	}
	defer r.Close()
	_ = r.SetReadDeadline(deadline)
	err = send(assignment, w, deadline)
	w.Close()
	var answer []byte
	if err == nil {
		answer, err = io.ReadAll(io.LimitReader(r, MaxNote))
	}
	if err != nil {
		return "", fmt.Errorf("ask the supervisor: %w", err)
	}
	return string(answer), nil
}
