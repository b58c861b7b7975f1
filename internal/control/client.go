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

// ErrNoService is wrapped when nobody answers on a control socket.
var ErrNoService = errors.New("no service answers")

// ErrNoResult: the connection ended before the upgrade's last event.
var ErrNoResult = errors.New("the service ended the connection before the upgrade's result: 'handover status' tells what has become of it")

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

func dial(path string) (net.Conn, error) { return net.DialTimeout("unix", path, 5*time.Second) }

// do asks, and again as long as the process that was asked has just been replaced.
func (c *Client) do(ctx context.Context, method, path string) (*http.Response, error) {
	for {
		req, err := http.NewRequestWithContext(ctx, method, "http://handover"+path, nil)
		if err != nil {
			return nil, err
		}
		resp, err := c.http.Do(req)
		switch {
		case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
			return nil, fmt.Errorf("%w at %s", ErrNoService, c.path)
		case errors.Is(err, syscall.EACCES):
			return nil, fmt.Errorf("%s: %w: only the service's user and root may ask", c.path, syscall.EACCES)
		case err != nil && ctx.Err() != nil:
			return nil, fmt.Errorf("%s: interrupted before there was an answer: %w", c.path, ctx.Err())
		case err != nil && isTimeout(err):
			return nil, fmt.Errorf("%w at %s within %v: is its parent stopped?", ErrNoService, c.path, answerTime)
		case err != nil:
			return nil, fmt.Errorf("%s: %w", c.path, err)
		case resp.StatusCode == http.StatusOK:
			return resp, nil
		}
		var said struct{ Error string }
		_ = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&said)
		resp.Body.Close()
		if resp.StatusCode != http.StatusServiceUnavailable {
			return nil, fmt.Errorf("%s: %s: %s", c.path, resp.Status, said.Error)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %s: %w", c.path, said.Error, ctx.Err())
		}
	}
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
	return c.watched(ctx, "/v1/upgrade?wait="+string(wait), step)
}

// Rollback asks for the way back to the previous generation; the rest is as of Upgrade.
func (c *Client) Rollback(ctx context.Context, wait Wait, step func(Event)) (Event, error) {
	return c.watched(ctx, "/v1/rollback?wait="+string(wait), step)
}

func (c *Client) watched(ctx context.Context, path string, step func(Event)) (Event, error) {
	for {
		last, err := c.watch(ctx, path, step)
		if err != nil || last.Result != Moved {
			return last, err
		}
	}
}

func (c *Client) watch(ctx context.Context, path string, step func(Event)) (Event, error) {
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
			return ev, fmt.Errorf("the upgrade goes on, 'handover status' tells what has become of it: %w", ctx.Err())
		case err != nil:
			return ev, ErrNoResult
		case ev.Result != "":
			return ev, nil
		}
		step(ev)
	}
}
