//go:build unix

package main

import (
	"context"
	"embed"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/handover-go/handover/draintest"
)

// files are the peers' programs and configurations.
//
//go:embed peers
var files embed.FS

// A peer is one of those that are compared.
type peer struct {
	name    string
	restart string            // how it is restarted, in words
	needs   map[string]string // program: Debian package
	version []string          // a command that prints it, in the directory of the tools
	setUp   func(ctx context.Context, e *env, cfg *draintest.Config) (stop func(), err error)
}

// tools are what several of them need.
type tools struct {
	dir      string
	handover string // the command
	pm2      string // the directory that it is installed in
	backend  string // address of a server that stays the same, behind proxies
}

// env is where one of them runs.
type env struct {
	tools
	dir, addr string
}

func peers() []peer {
	node := map[string]string{"node": "nodejs", "npm": "npm"}
	nginx := map[string]string{"nginx": "nginx-light"}
	return []peer{
		{"handover, library, 2 workers", "HUP", nil, nil, self("handover")},
		{"handover, library, one process", "HUP", nil, nil, self("solo")},
		{"handover run, Python", "HUP", map[string]string{"/usr/bin/python3": "python3"}, []string{"/usr/bin/python3", "--version"},
			handoverRun("server.py", "notify", "/usr/bin/python3")},
		{"handover run, Node", "HUP", node, []string{"node", "--version"}, handoverRun("server.js", "channel", "node")},
		{"tableflip", "HUP", nil, nil, self("tableflip")},
		{"nginx, reload", "HUP", nginx, []string{"nginx", "-v"}, nginxReload},
		{"nginx, binary upgrade", "USR2, WINCH, QUIT", nginx, []string{"nginx", "-v"}, nginxUpgrade},
		{"HAProxy, reload", "USR2 to the master", map[string]string{"haproxy": "haproxy"}, []string{"haproxy", "-v"}, haproxy},
		{"Node cluster", "HUP, one worker after the other", node, []string{"node", "--version"}, nodeCluster},
		{"pm2, reload", "pm2 reload", node, []string{"node", "-p", "'pm2 ' + require('./pm2/node_modules/pm2/package.json').version"}, pm2},
		{"gunicorn", "HUP", map[string]string{"gunicorn": "gunicorn"}, []string{"gunicorn", "--version"}, gunicorn},
		{"puma, phased restart", "USR1", map[string]string{"puma": "puma"}, []string{"puma", "--version"}, puma},
	}
}

// makeTools builds and installs what the list needs.
func makeTools(ctx context.Context, dir string, list []peer) (tools, error) {
	t := tools{dir: dir, handover: filepath.Join(dir, "handover"), pm2: filepath.Join(dir, "pm2")}
	commands := [][]string{{"go", "build", "-o", t.handover, "github.com/handover-go/handover/cmd/handover"}}
	if slices.ContainsFunc(list, func(p peer) bool { return strings.HasPrefix(p.name, "pm2") }) {
		commands = append(commands, []string{"npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", t.pm2, "pm2"})
	}
	for _, c := range commands {
		if out, err := exec.CommandContext(ctx, c[0], c[1:]...).CombinedOutput(); err != nil {
			return t, fmt.Errorf("%s: %w\n%s", strings.Join(c, " "), err, out)
		}
	}
	return t, nil
}

// write puts files where the peer runs. They may name its addresses.
func (e *env) write(names ...string) error {
	for _, name := range names {
		text, err := template.ParseFS(files, "peers/"+name)
		if err != nil {
			return err
		}
		f, err := os.Create(filepath.Join(e.dir, name))
		if err != nil {
			return err
		}
		err = text.Execute(f, map[string]string{"Addr": e.addr, "Backend": e.backend, "Dir": e.dir})
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *env) port() string {
	_, port, _ := net.SplitHostPort(e.addr)
	return port
}

// self is one of this program's own servers.
func self(mode string) func(context.Context, *env, *draintest.Config) (func(), error) {
	return func(_ context.Context, e *env, cfg *draintest.Config) (func(), error) {
		exe, err := os.Executable()
		cfg.Command, cfg.Env = []string{exe}, []string{envServer + "=" + mode, envAddr + "=" + e.addr}
		cfg.PIDFile = filepath.Join(e.dir, "pid")
		return nil, err
	}
}

// handoverRun is "handover run" of a program in another language.
func handoverRun(file, ready string, interpreter ...string) func(context.Context, *env, *draintest.Config) (func(), error) {
	return func(_ context.Context, e *env, cfg *draintest.Config) (func(), error) {
		cfg.Command = slices.Concat([]string{e.handover, "run", "--workers", "2", "--control", "none", "--listen", "http=tcp://" + e.addr,
			"--ready", ready, "--"}, interpreter, []string{file})
		return nil, e.write(file)
	}
}

func nginxReload(_ context.Context, e *env, cfg *draintest.Config) (func(), error) {
	cfg.Command = []string{"nginx", "-p", e.dir, "-c", "nginx.conf", "-e", "error.log", "-g", "daemon off;"}
	return nil, e.write("nginx.conf")
}

// nginxUpgrade is of a daemon: nginx takes no USR2 below the process that has started it. It
// executes what it was executed as, without a look at PATH.
func nginxUpgrade(ctx context.Context, e *env, cfg *draintest.Config) (func(), error) {
	if err := e.write("nginx.conf", "nginx-upgrade.sh"); err != nil {
		return nil, err
	}
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "nginx", "-p", e.dir, "-c", "nginx.conf", "-e", "error.log")
	cmd.Args[0] = nginx
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	cfg.PIDFile = filepath.Join(e.dir, "nginx.pid")
	cfg.Action = draintest.Shell("sh " + filepath.Join(e.dir, "nginx-upgrade.sh"))
	return func() {
		_ = exec.Command("nginx", "-p", e.dir, "-c", "nginx.conf", "-e", "error.log", "-s", "quit").Run()
		for range 1000 { // until it is no more
			if _, err := os.Stat(cfg.PIDFile); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}, nil
}

func haproxy(_ context.Context, e *env, cfg *draintest.Config) (func(), error) {
	cfg.Command = []string{"haproxy", "-W", "-f", "haproxy.cfg"}
	cfg.Action = draintest.Signal(syscall.SIGUSR2)
	return nil, e.write("haproxy.cfg")
}

func nodeCluster(_ context.Context, e *env, cfg *draintest.Config) (func(), error) {
	cfg.Command, cfg.Env = []string{"node", "cluster.js"}, []string{"PORT=" + e.port()}
	return nil, e.write("cluster.js", "app.js")
}

// pm2 is a daemon of its own, in a directory of its own.
func pm2(ctx context.Context, e *env, cfg *draintest.Config) (func(), error) {
	if err := e.write("ecosystem.config.js", "app.js"); err != nil {
		return nil, err
	}
	home := filepath.Join(e.dir, "home")
	program := filepath.Join(e.tools.pm2, "node_modules", ".bin", "pm2")
	command := func(ctx context.Context, args ...string) error {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Dir = e.dir
		cmd.Env = append(os.Environ(), "PM2_HOME="+home, "PORT="+e.port())
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("pm2 %s: %w\n%s", args[0], err, out)
		}
		return nil
	}
	stop := func() { _ = command(context.Background(), "kill") }
	if err := command(ctx, "start", "ecosystem.config.js"); err != nil {
		stop()
		return nil, err
	}
	cfg.PIDFile = filepath.Join(home, "pm2.pid")
	cfg.Action = draintest.Call("pm2 reload", func(ctx context.Context, _ int) error { return command(ctx, "reload", "app") })
	return stop, nil
}

func gunicorn(_ context.Context, e *env, cfg *draintest.Config) (func(), error) {
	cfg.Command = []string{"gunicorn", "--workers", "2", "--worker-class", "gthread", "--threads", "32", "--bind", e.addr, "wsgi:app"}
	return nil, e.write("wsgi.py")
}

func puma(_ context.Context, e *env, cfg *draintest.Config) (func(), error) {
	cfg.Command = []string{"puma", "--workers", "2", "--threads", "32:32", "--environment", "production", "--bind", "tcp://" + e.addr, "config.ru"}
	cfg.Action = draintest.Signal(syscall.SIGUSR1)
	return nil, e.write("config.ru")
}

// freeAddr is an address on which nobody listens, of a port that no client is given: ip(7),
// ip_local_port_range.
func freeAddr() (string, error) {
	for range 100 {
		if ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))); err == nil {
			defer ln.Close()
			return ln.Addr().String(), nil
		}
	}
	return "", fmt.Errorf("no free port")
}
