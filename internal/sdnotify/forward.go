package sdnotify

import "time"

// forwardTimeout is how long Forward waits for a supervisor whose queue is full.
const forwardTimeout = time.Second

// Forward is Send of a text as it is, for a process that has others to listen to
// meanwhile: it waits no longer than 1 s.
func Forward(text string) error { return send(text, nil, time.Now().Add(forwardTimeout)) }
