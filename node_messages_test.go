package handover_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// say asks a worker, on a connection of its own.
func (s *service) say(path string) string {
	s.t.Helper()
	return <-s.asks(path)
}

// asks is say for an answer that takes its time. What goes wrong is the answer.
func (s *service) asks(path string) <-chan string {
	answer := make(chan string, 1)
	go func() {
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 60 * time.Second}
		resp, err := c.Get("http://" + s.addr + path)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			b = []byte(err.Error())
		}
		answer <- strings.TrimSpace(string(b))
	}()
	return answer
}

// TestNodeMessages: programs for Node talk to one another, and pass their clients'
// connections, with nothing but process.send; over upgrades nothing is lost.
func TestNodeMessages(t *testing.T) {
	s := startService(t, 2, "TEST_COMMAND="+nodeProgram(t, "messages.js"), "TEST_READY=channel")
	for _, c := range []struct{ to, typ, want string }{
		{"web/1", "note", "answer"},
		{"web/2", "note", "answer"},
		{"group:web", "news", "answer"},
		{"any:web", "job", "answer"},
		{"all", "news", "answer"},
		{"web/3", "note", "undelivered address"},
		{"moon", "note", "undelivered address"},
		{"group:moon", "note", "undelivered address"},
		{"parent", "note", "undelivered unhandled"},
		{"web/1", "", "undelivered refused"},
	} {
		if got := s.say("/ask?to=" + c.to + "&type=" + c.typ); !strings.HasPrefix(got, c.want+" ") {
			t.Errorf("%+v: %s", c, got)
		}
	}
	for text, n := range map[string]int{
		`web/1 | got note {"n":1} from web/`: 1, `web/2 | got note {"n":1} from web/`: 1, `got news {"n":1} from web/`: 4, "got job": 1,
	} {
		until(t, 10*time.Second, func() string {
			if got := s.count(has(text)); got != n {
				return fmt.Sprintf("%d of %q, not %d", got, text, n)
			}
			return ""
		})
	}
	give(t, s, "web/1")
	give(t, s, "web/2")
	for range 5 {
		from := s.mark()
		last := s.asks("/last")
		if _, err := s.waitFrom(from, has("the last one is here")); err != nil {
			t.Fatal(err)
		}
		flood := s.asks("/flood?to=web/1")
		s.upgrade()
		if got := <-flood; got != "50 50" {
			t.Errorf("flood: %s", got)
		}
		if got := <-last; !strings.HasPrefix(got, "web/") {
			t.Errorf("the last one: %s", got)
		}
		// A program that stops, as this one does, closes connections of which it has read
		// nothing.
		until(t, 30*time.Second, func() string {
			if n := len(s.workers()); n != 2 {
				return fmt.Sprintf("%d workers", n)
			}
			return ""
		})
		give(t, s, "web/1")
		give(t, s, "web/2")
	}
	s.stop()
}

// give is a request that one worker takes, and another one answers.
func give(t *testing.T, s *service, to string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", s.addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(c, "GET /give?to=%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: worker\r\n\r\n", to)
	b, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200 OK\r\n") || !strings.Contains(string(b), "\r\n"+to+"/") || !strings.Contains(string(b), " for web/") {
		t.Errorf("given to %s: %q, %v", to, b, err)
	}
}
