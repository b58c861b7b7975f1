package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

var (
	// ErrNoService is wrapped when nobody answers on a control socket.
	ErrNoService = errors.New("no service answers")
	// ErrNoAnswer is wrapped when somebody is there who says nothing.
	ErrNoAnswer = errors.New("the service does not answer")
	// ErrRefused is wrapped when what was asked for was not even tried.
	ErrRefused = errors.New("refused")
	// ErrNoResult: the connection ended before the last event.
	ErrNoResult = errors.New("the service ended the connection before it said how it went: 'handover status' tells what has become of it")
)

// Client asks the service of one control socket.
type Client struct {
	path string
	http http.Client
}

// NewClient connects nowhere yet.
func NewClient(path string) *Client {
	c := &Client{path: path}
	c.http.Transport = &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return dial(path) },
		DisableKeepAlives: true,
		// A parent that lives answers at once, also when it is busy with an upgrade.
		ResponseHeaderTimeout: answerTime,
	}
	return c
}

// answerTime is how long an answer may take to begin.
const answerTime = 10 * time.Second

func dial(path string) (net.Conn, error) {
	if err := trust(path); err != nil {
		return nil, err
	}
	return net.DialTimeout("unix", path, 5*time.Second)
}

// busyTime is how long one waits who was turned away because there are too many, and
// busyTries how often.
const (
	busyTime  = 200 * time.Millisecond
	busyTries = 20
)

// do asks, and again as long as the process that was asked has just been replaced.
func (c *Client) do(ctx context.Context, method, path string) (*http.Response, error) {
	busy := 0
	for {
		req, err := http.NewRequestWithContext(ctx, method, "http://handover"+path, nil)
		if err != nil {
			return nil, err
		}
		resp, err := c.http.Do(req)
		if turnedAway(method, err) && busy < busyTries && ctx.Err() == nil {
			busy++
			continue
		}
		switch {
		case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
			return nil, fmt.Errorf("%w at %s", ErrNoService, c.path)
		case errors.Is(err, syscall.EACCES):
			return nil, fmt.Errorf("%s: %w: only the service's user and root may ask (or a group that --control-group lets read)", c.path, syscall.EACCES)
		case err != nil && ctx.Err() != nil:
			return nil, fmt.Errorf("%s: interrupted before there was an answer: %w", c.path, ctx.Err())
		case err != nil && isTimeout(err):
			return nil, fmt.Errorf("%w at %s within %v: is its parent stopped? What was asked for may still be done", ErrNoAnswer, c.path, answerTime)
		case err != nil:
			return nil, fmt.Errorf("%s: %w", c.path, err)
		case resp.StatusCode == http.StatusOK:
			return resp, nil
		}
		var said struct{ Error string }
		_ = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&said)
		resp.Body.Close()
		if resp.StatusCode != http.StatusServiceUnavailable {
			return nil, fmt.Errorf("%s: %w: %s: %s", c.path, ErrRefused, resp.Status, said.Error)
		}
		wait := 20 * time.Millisecond // it has just been replaced
		if resp.Header.Get("Retry-After") == retryBusy {
			wait = busyTime
			if busy++; busy > busyTries {
				return nil, fmt.Errorf("%s: %w: %s", c.path, ErrRefused, said.Error)
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %s: %w", c.path, said.Error, ctx.Err())
		}
	}
}

// turnedAway reports whether nobody can have heard what was asked, or may hear it once more.
func turnedAway(method string, err error) bool {
	switch {
	case err == nil, isTimeout(err), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EACCES):
		return false
	}
	// The connection was closed, perhaps with an answer, before there was a request.
	return errors.Is(err, syscall.EPIPE) || method == http.MethodGet
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// Status asks how the service is, and returns the answer also as it came.
func (c *Client) Status(ctx context.Context) (st Status, raw []byte, err error) {
	resp, err := c.do(ctx, http.MethodGet, "/v1/status")
	if err != nil {
		return st, nil, err
	}
	defer resp.Body.Close()
	if raw, err = io.ReadAll(resp.Body); err == nil {
		err = json.Unmarshal(raw, &st)
	}
	if err != nil {
		return st, raw, fmt.Errorf("%s: status: %w", c.path, err)
	}
	return st, raw, nil
}

// Upgrade asks for an upgrade, calls step with each event, and returns the last.
func (c *Client) Upgrade(ctx context.Context, wait Wait, step func(Event)) (Event, error) {
	return c.watched(ctx, "/v1/upgrade?wait="+string(wait), step, false)
}

// Rollback asks for the way back to the previous generation; the rest is as of Upgrade.
func (c *Client) Rollback(ctx context.Context, wait Wait, step func(Event)) (Event, error) {
	return c.watched(ctx, "/v1/rollback?wait="+string(wait), step, false)
}

// Act asks for what is wished, calls step with each event, and returns the last. The one
// of a Stop is returned when the service's parent has ended.
func (c *Client) Act(ctx context.Context, w Wish, step func(Event)) (Event, error) {
	return c.watched(ctx, w.path(), step, w.Verb == Stop)
}

func (c *Client) watched(ctx context.Context, path string, step func(Event), toEnd bool) (Event, error) {
	for {
		last, err := c.watch(ctx, path, step, toEnd)
		if err != nil || last.Result != Moved {
			return last, err
		}
	}
}

// watch is one try. toEnd waits after the last event until whoever has said it ends.
func (c *Client) watch(ctx context.Context, path string, step func(Event), toEnd bool) (Event, error) {
	resp, err := c.do(ctx, http.MethodPost, path)
	if err != nil {
		return Event{}, err
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadBytes('\n')
		var ev Event
		if err == nil {
			err = json.Unmarshal(line, &ev)
		}
		switch {
		case ctx.Err() != nil:
			return ev, fmt.Errorf("it goes on, 'handover status' tells what has become of it: %w", ctx.Err())
		case err != nil:
			return ev, ErrNoResult
		case ev.Result != "":
			if toEnd && ev.Result != Moved {
				_, _ = io.Copy(io.Discard, lines)
			}
			return ev, nil
		}
		step(ev)
	}
}
