package workerset

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/wire"
)

const (
	// probeEvery is how long after an answer that was none the next one is asked for.
	probeEvery = 20 * time.Millisecond
	// probeTime is how long an answer may take.
	probeTime = 5 * time.Second
)

// probe asks a worker over HTTP until it answers, or is gone. A library worker is
// asked on a connection that it is sent; of another program it has to be found out
// which process has accepted, since its siblings accept from the same socket.
func (s *Set) probe(in *incarnation) {
	if in.probing != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	in.probing = cancel
	dial := s.dialer(in, in.as.socketsOf(in.slot)[0])
	path := in.as.Ready.Path
	s.wg.Go(func() {
		for {
			err := getOnce(ctx, dial, path)
			if ctx.Err() != nil || !s.send(event{in: in, probed: true, lost: err}) || err == nil {
				return
			}
			select {
			case <-time.After(probeEvery):
			case <-ctx.Done():
				return
			}
		}
	})
}

// dial makes a connection.
type dial func(context.Context) (net.Conn, error)

// dialer makes connections to one worker, of one of its sockets.
func (s *Set) dialer(in *incarnation, socket string) dial {
	if in.foreign() {
		fd := s.cfg.Sockets[socket]
		return func(ctx context.Context) (net.Conn, error) { return dialProcess(ctx, fd, in.proc.Pid) }
	}
	return func(context.Context) (net.Conn, error) { return s.connect(in, socket) }
}

// connect makes a connection to a library worker, by its channel.
func (s *Set) connect(in *incarnation, socket string) (net.Conn, error) {
	ours, theirs, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	defer theirs.Close()
	if err := in.out.Urge(wire.Connect{Cmd: wire.CmdConnect, Socket: socket}, theirs); err != nil {
		return nil, err
	}
	return net.FileConn(ours)
}

// getOnce asks for a path on a connection of its own.
func getOnce(ctx context.Context, dial dial, path string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	tr := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableKeepAlives: true,
	}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode >= 400 {
		return fmt.Errorf("%s answers %s", path, resp.Status)
	}
	return nil
}

// errSibling: the connection was accepted by another process than was asked for.
var errSibling = errors.New("another process has accepted")

// dialProcess connects to a listening socket and returns the connection if the
// process pid, or one that descends from it, has accepted it.
func dialProcess(ctx context.Context, fd, pid int) (net.Conn, error) {
	addr, err := tcpAddr(fd)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	// A server accepts at once, before it is sent anything.
	for {
		switch inode, err := accepted(c); {
		case err != nil:
			c.Close()
			return nil, err
		case inode == "":
		case owns(pid, inode):
			return c, nil
		default:
			c.Close()
			return nil, errSibling
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			c.Close()
			return nil, errors.New("nobody accepts")
		}
	}
}

// tcpAddr is where a listening socket is reached from here.
func tcpAddr(fd int) (string, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return "", os.NewSyscallError("getsockname", err)
	}
	host, port := "", 0
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		host, port = net.IP(a.Addr[:]).String(), a.Port
		if a.Addr == [4]byte{} {
			host = "127.0.0.1"
		}
	case *unix.SockaddrInet6:
		host, port = net.IP(a.Addr[:]).String(), a.Port
		if a.Addr == [16]byte{} {
			host = "::1"
		}
	default:
		return "", errors.New("not a TCP socket")
	}
	return net.JoinHostPort(host, fmt.Sprint(port)), nil
}
