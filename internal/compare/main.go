//go:build unix

// Compare runs the same draintest on handover and on others that restart servers, each set up
// as its own documentation recommends for it, and writes what came of it to docs/compare.md.
// See "make compare".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/handover-go/handover/draintest"
	"github.com/handover-go/handover/draintest/load"
)

func main() {
	if mode := os.Getenv(envServer); mode != "" {
		serverMain(mode)
		return
	}
	out := flag.String("o", "docs/compare.md", "the `file` to write")
	only := flag.String("only", "", "a regular expression of the names of those that are run; nothing is written")
	rounds := flag.Int("rounds", 5, "how often each is restarted")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := compare(ctx, *out, *only, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

// compare runs them one after the other.
func compare(ctx context.Context, out, only string, rounds int) error {
	pattern, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	list := slices.DeleteFunc(peers(), func(p peer) bool { return !pattern.MatchString(p.name) })
	if err := install(ctx, list); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "compare")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // nginx's workers are somebody else
		return err
	}
	backend, err := startBackend()
	if err != nil {
		return err
	}
	defer backend.Close()
	tools, err := makeTools(ctx, dir, list)
	if err != nil {
		return err
	}
	tools.backend = backend.Addr().String()
	began := time.Now()
	var rows []row
	var errs []error
	for i, p := range list {
		fmt.Fprintf(os.Stderr, "%d of %d: %s\n", i+1, len(list), p.name)
		r, err := p.quiet(ctx, tools, filepath.Join(dir, fmt.Sprint(i)), rounds)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", p.name, err)
			fmt.Fprintln(os.Stderr, err)
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(os.Stderr, r)
		rows = append(rows, newRow(p, r, versionOf(p, tools.dir)))
	}
	text := document(rows, machine(), rounds, time.Since(began))
	if only != "" {
		fmt.Println(text)
		return errors.Join(errs...)
	}
	if len(errs) == 0 {
		errs = append(errs, os.WriteFile(out, []byte(text), 0o644))
	}
	return errors.Join(errs...)
}

// theLoad is the same for all.
func theLoad(addr string) load.Config {
	return load.Config{
		Addr: addr,
		Rate: 10,
		Clients: map[load.Kind]int{
			load.New: 4, load.Slow: 4, load.Upload: 4, load.Stream: 4, load.KeepAlive: 16,
		},
	}
}

// A run in which this machine woke a client later than that is repeated, and of all that were
// made the one with the least of it counts, whatever came of it.
const (
	quietEnough = 50 * time.Millisecond
	attempts    = 3
)

// quiet runs one until the machine was quiet enough.
func (p peer) quiet(ctx context.Context, t tools, dir string, rounds int) (best *draintest.Report, err error) {
	for n := range attempts {
		r, err := p.run(ctx, t, fmt.Sprintf("%s-%d", dir, n), rounds)
		if err != nil {
			return nil, err
		}
		if best == nil || r.Load.Behind < best.Load.Behind {
			best = r
		}
		if best.Load.Behind <= quietEnough || ctx.Err() != nil {
			break
		}
		fmt.Fprintf(os.Stderr, "the machine was busy: a client woke up %v late\n", r.Load.Behind)
	}
	return best, nil
}

// run starts one and restarts it under load.
func (p peer) run(ctx context.Context, t tools, dir string, rounds int) (*draintest.Report, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	cfg := draintest.Config{Load: theLoad(addr), Dir: dir, Rounds: rounds, Action: draintest.Signal(syscall.SIGHUP), Output: io.Discard}
	stop, err := p.setUp(ctx, &env{tools: t, dir: dir, addr: addr}, &cfg)
	if err != nil {
		return nil, err
	}
	if stop != nil {
		defer stop()
	}
	log, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cfg.Output = log
	r, err := draintest.Test(ctx, cfg)
	if err != nil {
		b, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%w\n%s", err, b[max(0, len(b)-2000):])
	}
	return r, nil
}

// install installs the Debian packages of programs that are not there.
func install(ctx context.Context, list []peer) error {
	var missing []string
	for _, p := range list {
		for program, pkg := range p.needs {
			if _, err := exec.LookPath(program); err != nil && !slices.Contains(missing, pkg) {
				missing = append(missing, pkg)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("packages are missing, and this is not root: %s", strings.Join(missing, " "))
	}
	for _, args := range [][]string{{"update"}, append([]string{"install", "-y", "--no-install-recommends"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-qq"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, out)
		}
	}
	return nil
}
