//go:build unix

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// crowd fills the only worker of a service, and makes sure that one connection more waits until
// there is room: crowd SOCKET FILE LIMIT. The file is the service's log.
func crowd(ts *testscript.TestScript, neg bool, args []string) {
	limit, err := strconv.Atoi(args[len(args)-1])
	if neg || len(args) != 3 || err != nil {
		ts.Fatalf("usage: crowd SOCKET FILE LIMIT")
	}
	var guests []guest
	for range limit {
		g := enter(ts, args[0])
		defer g.Close()
		ts.Check(g.ask())
		guests = append(guests, g)
	}
	last := enter(ts, args[0])
	defer last.Close()
	answered := make(chan error, 1)
	go func() { answered <- last.ask() }()
	const said = `msg="as many connections are open as may be: none is accepted until there are fewer"`
	waits := func() bool {
		b, err := os.ReadFile(ts.MkAbs(args[1]))
		ts.Check(err)
		return strings.Contains(string(b), said) && strings.Contains(string(b), fmt.Sprintf(" limit=%d\n", limit))
	}
	for n := 0; n < 20 || !waits(); n++ { // the others are served on
		for _, g := range guests {
			ts.Check(g.ask())
		}
		select {
		case err := <-answered:
			ts.Fatalf("connection %d was served beside %d others, %v", limit+1, limit, err)
		case <-time.After(time.Millisecond):
		}
		if n > 10000 {
			ts.Fatalf("the log does not say that there are %d connections", limit)
		}
	}
	guests[0].Close()
	ts.Check(<-answered)
}

// guest is a connection that is kept.
type guest struct {
	net.Conn
	r *bufio.Reader
}

func enter(ts *testscript.TestScript, socket string) guest {
	c, err := net.Dial("unix", ts.MkAbs(socket))
	for end := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(end); {
		<-time.After(5 * time.Millisecond) // nobody serves it yet
		c, err = net.Dial("unix", ts.MkAbs(socket))
	}
	ts.Check(err)
	ts.Check(c.SetDeadline(time.Now().Add(time.Minute)))
	return guest{c, bufio.NewReader(c)}
}

// ask makes a request.
func (g guest) ask() error {
	if _, err := io.WriteString(g, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(g.r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK || resp.Close {
		return fmt.Errorf("%s, closes %t, %v", resp.Status, resp.Close, err)
	}
	return nil
}
