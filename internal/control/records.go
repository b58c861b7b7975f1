package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/handover-go/handover/internal/history"
	"github.com/handover-go/handover/internal/logs"
)

// Records is what a service remembers.
type Records interface {
	History() []history.Entry
	Logs() *logs.Book
	// Unkept are workers that run, of which nothing is kept that they print.
	Unkept(context.Context) ([]logs.Worker, error)
}

// History is what has happened, the newest last.
type History struct {
	Entries []history.Entry `json:"entries"`
}

// Logs are lines of workers, the newest last.
type Logs struct {
	Lines []logs.Line `json:"lines"`
	// Last is the number of the newest line that there is, of whatever worker.
	Last int `json:"last"`
	// Unkept are those of the workers that run, and are asked for, of which nothing is kept.
	Unkept []logs.Worker `json:"unkept,omitempty"`
}

// Followed is a line of a stream: what a worker has printed, or that lines are missing.
type Followed struct {
	logs.Line
	// Missed, if set, is all that it says: how many lines have been left out here, because
	// they were not read in time.
	Missed int `json:"missed,omitempty"`
}

// defaultLines is how many lines of logs are told where nobody says how many.
const defaultLines = 100

// answerRecords is the part of a Server that tells what has been.
func (srv *Server) answerRecords(mux *http.ServeMux, s Records) {
	mux.HandleFunc("GET /v1/history", func(w http.ResponseWriter, r *http.Request) {
		list, err := chosen(s.History(), r.URL.Query())
		if err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		answer(w, History{Entries: list})
	})
	mux.HandleFunc("GET /v1/logs", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		sel, err := ParseSelector(q.Get("worker"))
		n, nerr := number(q, "n", defaultLines)
		after, aerr := number(q, "after", 0)
		if err = errors.Join(err, nerr, aerr); err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		if follow := q.Get("follow"); follow != "" && follow != "0" {
			srv.follow(w, r, s.Logs().Follow(sel.Matches, after, n))
			return
		}
		unkept, err := s.Unkept(r.Context())
		if err != nil {
			again(w, err)
			return
		}
		l := Logs{Unkept: slices.DeleteFunc(unkept, func(o logs.Worker) bool { return !sel.Matches(o) })}
		l.Lines, l.Last = s.Logs().Lines(sel.Matches, after, n)
		answer(w, l)
	})
}

// chosen is the part of a history that a query is about.
func chosen(list []history.Entry, q url.Values) ([]history.Entry, error) {
	sel, err := ParseSelector(q.Get("worker"))
	limit, lerr := number(q, "limit", math.MaxInt)
	entry, eerr := number(q, "entry", 0)
	if err = errors.Join(err, lerr, eerr); err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(append([]history.Entry{}, list...), func(e history.Entry) bool {
		if entry > 0 && e.N != entry {
			return true
		}
		if d := e.Death; d != nil {
			return !sel.Matches(logs.Worker{Group: d.Group, Slot: d.Slot, ID: d.ID, Generation: d.Generation, Pid: d.Pid})
		}
		return !sel.all() // upgrades are no worker's
	})
	return list[max(0, len(list)-limit):], nil
}

// number reads a number from 0.
func number(q url.Values, name string, otherwise int) (int, error) {
	if !q.Has(name) {
		return otherwise, nil
	}
	n, err := strconv.Atoi(q.Get(name))
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s=%q: a number from 0 is needed", name, q.Get(name))
	}
	return n, nil
}

// answer answers as a person reads it best.
func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v)
}

// again refuses what the process that replaces this one can answer.
func again(w http.ResponseWriter, err error) {
	w.Header().Set("Retry-After", "0")
	refuse(w, http.StatusServiceUnavailable, err)
}

// follow writes what a follower gets, until it goes or the server is closed, so that it
// asks the next one. Nobody waits but this goroutine when it does not read.
func (srv *Server) follow(w http.ResponseWriter, r *http.Request, f *logs.Follower) {
	defer f.Close()
	rc := http.NewResponseController(w)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(srv.closing, func() {
		_ = rc.SetWriteDeadline(time.Now().Add(giveTime)) // it may be what is waited for
		cancel()
	})()
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	_ = rc.SetWriteDeadline(time.Time{}) // it may take as long as one likes
	enc := json.NewEncoder(w)
	for err := rc.Flush(); err == nil; err = rc.Flush() {
		lines, missed, err := f.Next(ctx)
		for _, line := range lines {
			err = errors.Join(err, enc.Encode(line))
		}
		if missed > 0 {
			err = errors.Join(err, enc.Encode(map[string]int{"missed": missed}))
		}
		if err != nil {
			return
		}
	}
}
