package protocols_test

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/worker"
)

// Packets that are read by one worker at a time, as something with a state has to be.
// Without the lock all workers read, each packet being one worker's.
func Example_packets() {
	handover.Main(handover.Config{Name: "counter", Listen: []string{"stats=udp://:8125"}}, servePackets)
}

func servePackets(ctx context.Context, w *worker.Worker) error {
	c, err := w.PacketConn("stats")
	if err != nil {
		return err
	}
	defer c.Close()
	turn, err := lock(ctx, lockFile()) // leave it out, and all workers read
	if err != nil {
		return err
	}
	defer turn.Close()
	var answers sync.WaitGroup
	defer answers.Wait() // what was read is answered, then it is another worker's turn
	b := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return err // the drain has begun: what is in the queue is for another worker
		}
		packet := string(b[:n])
		answers.Go(func() { answer(c, from, packet, who(w)) })
	}
}

// lock waits until no other process has the file's lock (flock(2)), and has it until the
// file is closed, or the process dies.
func lock(ctx context.Context, name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return nil, err
	}
	locked := make(chan error)
	go func() {
		select {
		case locked <- syscall.Flock(int(f.Fd()), syscall.LOCK_EX):
		case <-ctx.Done():
			f.Close()
		}
	}()
	select {
	case err := <-locked:
		return f, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// answer is the app's.
var answer = func(c net.PacketConn, to net.Addr, packet, who string) {
	_, _ = c.WriteTo([]byte(packet+" "+who), to)
}
