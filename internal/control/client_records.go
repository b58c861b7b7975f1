package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// get asks for JSON, and returns the answer also as it came.
func (c *Client) get(ctx context.Context, path string, q url.Values, v any) (raw []byte, err error) {
	resp, err := c.do(ctx, http.MethodGet, path+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if raw, err = io.ReadAll(resp.Body); err == nil {
		err = json.Unmarshal(raw, v)
	}
	if err != nil {
		return raw, fmt.Errorf("%s: %s: %w", c.path, path, err)
	}
	return raw, nil
}

// History asks what has happened to the workers that are meant (see ParseSelector), at
// most limit things, 0 for all.
func (c *Client) History(ctx context.Context, worker string, limit int) (h History, raw []byte, err error) {
	q := url.Values{"worker": {worker}}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	raw, err = c.get(ctx, "/v1/history", q, &h)
	return h, raw, err
}

// Entry asks for one entry of the history, by its number.
func (c *Client) Entry(ctx context.Context, n int) (h History, raw []byte, err error) {
	raw, err = c.get(ctx, "/v1/history", url.Values{"entry": {strconv.Itoa(n)}}, &h)
	return h, raw, err
}

// Logs asks for the last n lines that the workers that are meant have printed.
func (c *Client) Logs(ctx context.Context, worker string, n int) (l Logs, raw []byte, err error) {
	raw, err = c.get(ctx, "/v1/logs", url.Values{"worker": {worker}, "n": {strconv.Itoa(n)}}, &l)
	return l, raw, err
}

// Follow calls line with every line after the one of that number, until ctx ends or there
// is no service any more. It goes on with the next parent where the one before has
// stopped.
func (c *Client) Follow(ctx context.Context, worker string, after int, line func(Followed)) error {
	for {
		err := c.followOne(ctx, worker, &after, line)
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// followOne follows until the process that was asked ends its answer.
func (c *Client) followOne(ctx context.Context, worker string, after *int, line func(Followed)) error {
	q := url.Values{"worker": {worker}, "after": {strconv.Itoa(*after)}, "n": {strconv.Itoa(1 << 30)}, "follow": {"1"}}
	resp, err := c.do(ctx, http.MethodGet, "/v1/logs?"+q.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for {
		text, err := lines.ReadBytes('\n')
		if err != nil {
			return nil // what counts is whether somebody answers the next time
		}
		var f Followed
		if err := json.Unmarshal(text, &f); err != nil {
			return fmt.Errorf("%s: logs: %w", c.path, err)
		}
		*after = max(*after, f.N)
		line(f)
	}
}
