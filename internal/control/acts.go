package control

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/handover-go/handover/workerset"
)

// Verb is what can be asked for, beside an upgrade.
type Verb string

const (
	Restart Verb = "restart" // new workers of the same version: one, or all
	Scale   Verb = "scale"   // another number of workers
	Drain   Verb = "drain"   // one worker goes, when another serves
	Kill    Verb = "kill"    // one worker ends at once, and is replaced
	Stop    Verb = "stop"    // the service ends
	Reopen  Verb = "reopen"  // workers open their logs anew
)

// Wish is what somebody asks for. It also travels to the next parent, and is versioned by
// adding fields only.
type Wish struct {
	Verb   Verb   `json:"verb"`
	Worker string `json:"worker,omitempty"` // see workerset.ParseWhich; of a Restart it may be "", all
	Group  string `json:"group,omitempty"`  // of a Scale; "" is the main one
	Count  int    `json:"count,omitempty"`  // of a Scale
	Now    bool   `json:"now,omitempty"`    // of a Stop: nothing drains
}

// parameters are those that a verb has.
var parameters = map[Verb][]string{
	Restart: {"worker"}, Scale: {"group", "count"}, Drain: {"worker"}, Kill: {"worker"}, Stop: {"now"}, Reopen: nil,
}

// Validate says which part of a wish can't be meant, whatever the service is.
func (w Wish) Validate() error {
	if _, ok := parameters[w.Verb]; !ok {
		return fmt.Errorf("%q is nothing that can be asked for", w.Verb)
	}
	if w.Verb == Scale && w.Count < 1 {
		return fmt.Errorf("scale to %d: at least 1 worker is needed", w.Count)
	}
	if w.Worker == "" && (w.Verb == Drain || w.Verb == Kill) {
		return fmt.Errorf("%s: which worker is missing: GROUP/SLOT, such as web/1, or its pid", w.Verb)
	}
	if w.Worker != "" {
		if _, err := workerset.ParseWhich(w.Worker); err != nil {
			return err
		}
	}
	return nil
}

// path is that of the request.
func (w Wish) path() string {
	q := url.Values{}
	for _, name := range parameters[w.Verb] {
		value := map[string]string{"worker": w.Worker, "group": w.Group, "count": strconv.Itoa(w.Count), "now": strconv.FormatBool(w.Now)}[name]
		if value != "" && value != "false" {
			q.Set(name, value)
		}
	}
	if len(q) == 0 {
		return "/v1/" + string(w.Verb)
	}
	return "/v1/" + string(w.Verb) + "?" + q.Encode()
}

// parseWish reads a request's parameters. One that nobody knows may be a mistake in
// one that somebody means.
func parseWish(verb Verb, q url.Values) (w Wish, err error) {
	w.Verb = verb
	for _, name := range parameters[verb] {
		values, ok := q[name]
		delete(q, name)
		switch {
		case !ok:
			continue
		case len(values) > 1:
			return w, fmt.Errorf("%s: the parameter %s stands there twice", verb, name)
		}
		switch value := values[0]; name {
		case "worker":
			w.Worker = value
			if value == "" {
				err = errors.New("worker=: write GROUP/SLOT, such as web/1, or its pid")
			}
		case "group":
			w.Group = value
		case "count":
			if w.Count, err = strconv.Atoi(value); err != nil {
				err = fmt.Errorf("count=%q is no number of workers", value)
			}
		case "now":
			if w.Now, err = strconv.ParseBool(value); err != nil {
				err = fmt.Errorf("now=%q: true or false", value)
			}
		}
		if err != nil {
			return w, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(q)) {
		return w, fmt.Errorf("%s: there is no parameter %q: it has %q", verb, name, parameters[verb])
	}
	return w, w.Validate()
}

// acts are the routes of all verbs.
func (s *Server) acts(mux *http.ServeMux, service Service) {
	for verb := range parameters {
		mux.HandleFunc("POST /v1/"+string(verb), func(w http.ResponseWriter, r *http.Request) {
			q, err := url.ParseQuery(r.URL.RawQuery)
			var wish Wish
			if err == nil {
				wish, err = parseWish(verb, q)
			}
			if err != nil {
				refuse(w, http.StatusBadRequest, err)
				return
			}
			s.stream(w, func(watcher *Watcher) { service.Act(wish, watcher) })
		})
	}
}
