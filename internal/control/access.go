package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
)

// This file says who may ask for what.

// LetRead lets everybody who may connect read: those of a group, if the socket is
// theirs, too. Call it before Serve.
func (s *Server) LetRead() { s.readers = true }

type peerKey struct{}

// peer is who has connected.
type peer struct {
	uid int
	err error // it is not known who it is
}

// withPeer looks who has connected.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	uid, err := peerUID(c)
	return context.WithValue(ctx, peerKey{}, peer{uid, err})
}

// access refuses what somebody may not ask for.
func (s *Server) access(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := r.Context().Value(peerKey{}).(peer)
		if !ok {
			p.err = errors.New("it is not known who asks")
		}
		err := p.err
		if err == nil {
			err = may(p.uid, os.Geteuid(), s.readers, r.Method)
		}
		if err != nil {
			refuse(w, http.StatusForbidden, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// may returns why a user may not ask in that way, if that is so. me is the service's.
func may(uid, me int, readers bool, method string) error {
	reads := method == http.MethodGet || method == http.MethodHead
	switch {
	case uid == 0 || uid == me || readers && reads:
		return nil
	case readers:
		return fmt.Errorf("user %d may only read here, not act: only user %d and root may", uid, me)
	}
	return fmt.Errorf("user %d may not control this service, only user %d and root may", uid, me)
}

// bodiless refuses requests that have a body: nothing here takes one, and a connection
// that becomes a stream may have nothing left to read.
func bodiless(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			w.Header().Set("Connection", "close")
			refuse(w, http.StatusBadRequest, errors.New("nothing here takes a body: send none"))
			return
		}
		next.ServeHTTP(w, r)
	})
}
