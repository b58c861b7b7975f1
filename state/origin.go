package state

import (
	"context"

	"github.com/handover-go/handover/message"
)

// Origin is where a Value comes from: From another process, or a *Server in this one.
type Origin interface {
	check() error
	ask(context.Context, request) (answer, error)
	join() (news <-chan struct{}, leave func())
}

// From is the value of that name that another process serves: at is its slot,
// message.Slot("agent", 1) for an agent. The process in that slot follows its *Server
// instead: a message to itself would wait until it is ready. In one process, one Value at a
// time follows it well: of two, one hears of changes only at its beat, as does the parent.
func From(e *message.Endpoint, at message.Address, name string) Origin {
	return &remote{e: e, at: at, name: name}
}

type remote struct {
	e    *message.Endpoint
	at   message.Address
	name string
}

func (r *remote) check() error {
	if r.e == nil {
		return bad("there is no endpoint")
	}
	return checkName(r.name)
}

func (r *remote) ask(ctx context.Context, q request) (a answer, err error) {
	err = r.e.Request(ctx, r.at, typeGet(r.name), q, &a)
	return a, err
}

func (r *remote) join() (news <-chan struct{}, leave func()) {
	c := make(chan struct{}, 1)
	r.e.Handle(typeNew(r.name), func(context.Context, *message.Message) (any, error) {
		poke(c)
		return nil, nil
	})
	return c, func() { r.e.Handle(typeNew(r.name), nil) }
}
