package deploy_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// installed puts a release in a directory, for a supervisor to start.
func installed(t *testing.T) (s *site, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sup") // short enough for the paths of sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s = &site{t: t, addr: freeAddr(t), bin: filepath.Join(dir, "handover"), log: filepath.Join(dir, "log")}
	good := handover(t)
	replace(t, s.bin, good, 0o755)
	s.ask = func(args ...string) *exec.Cmd {
		cmd := exec.Command(good, args...)
		cmd.Env = environment(dir)
		return cmd
	}
	return s, dir
}

// environment is that of a service: its control socket is in dir.
func environment(dir string) []string {
	return append(os.Environ(), "RUNTIME_DIRECTORY="+dir, "TERM=screen", "NOTIFY_SOCKET=", probation)
}

// documented is a block of docs/deploy.md that begins with a line, for the release in s.
func documented(t *testing.T, s *site, first string) string {
	t.Helper()
	b, err := os.ReadFile("../docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	block := match(string(b), "(?s)```[a-z]+\n("+regexp.QuoteMeta(first)+"\n.*?)```")
	if block == "" {
		t.Fatalf("docs/deploy.md has no block of %s", first)
	}
	return strings.NewReplacer("/opt/shop/handover", s.bin, "tcp://:8080", "tcp://"+s.addr, "/var/log/shop.log", s.log).Replace(block)
}

func write(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// must runs a supervisor's command.
func must(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = env
	out, code := run(t, cmd)
	if code != 0 {
		t.Errorf("%q: exit code %d\n%s", args, code, out)
	}
	return out
}

func TestSupervisord(t *testing.T) {
	needs(t, "supervisord", "supervisor")
	s, dir := installed(t)
	conf := filepath.Join(dir, "supervisord.conf")
	write(t, conf, fmt.Sprintf(`[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
pidfile=%[1]s/supervisord.pid
[unix_http_server]
file=%[1]s/supervisord.ctl
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://%[1]s/supervisord.ctl
%[2]s`, dir, documented(t, s, "[program:shop]")), 0o644)
	cmd := exec.Command("supervisord", "-c", conf)
	cmd.Env = environment(dir)
	told := filepath.Join(dir, "supervisord.log")
	p := begin(t, cmd, told)
	ctl := func(args ...string) string {
		return must(t, cmd.Env, append([]string{"supervisorctl", "-c", conf}, args...)...)
	}
	s.serves()
	anchor := s.status().Anchor
	s.upgrades()
	s.hup(func() { ctl("signal", "HUP", "shop") })
	if pid := strings.TrimSpace(ctl("pid", "shop")); pid != fmt.Sprint(anchor) || s.status().Anchor != anchor {
		t.Errorf("supervisord watches %s, the anchor was %d, and is %d", pid, anchor, s.status().Anchor)
	}
	ctl("stop", "shop")
	contains(t, s.log, "msg=stopped")
	if alive(anchor) {
		t.Error("stopped, but there")
	}
	// Ended by itself and in order, it is not started anew.
	ctl("start", "shop")
	again := func() bool {
		return strings.Count(contains(t, s.log, ""), `msg="generation serves" generation=1 `) == 2
	}
	until(t, "a second start", again)
	must(t, nil, "kill", "-TERM", fmt.Sprint(s.status().Anchor))
	out := contains(t, told, "(exit status 0; expected)")
	if n := strings.Count(out, "INFO spawned: 'shop'"); n != 2 {
		t.Errorf("started %d times, not twice", n)
	}
	cmd = exec.Command("supervisorctl", "-c", conf, "shutdown")
	cmd.Env = environment(dir)
	run(t, cmd)
	p.exits(t, 0)
}

func TestRunit(t *testing.T) {
	needs(t, "runsv", "runit")
	s, dir := installed(t)
	p := supervised(t, s, dir, "runsv")
	sv := func(args ...string) string {
		return must(t, nil, append(append([]string{"sv", "-w", "40"}, args...), dir+"/shop")...)
	}
	s.serves()
	anchor := s.status().Anchor
	s.upgrades()
	s.hup(func() { sv("hup") })
	if out := sv("status"); !strings.Contains(out, fmt.Sprintf("(pid %d)", anchor)) {
		t.Errorf("runit watches %s, not %d", out, anchor)
	}
	sv("stop")
	stopped(t, s, dir, anchor)
	sv("exit")
	p.exits(t, 0)
}

func TestS6(t *testing.T) {
	needs(t, "s6-supervise", "s6")
	s, dir := installed(t)
	p := supervised(t, s, dir, "s6-supervise")
	svc := func(args ...string) { must(t, nil, append(append([]string{"s6-svc"}, args...), dir+"/shop")...) }
	s.serves()
	anchor := s.status().Anchor
	s.upgrades()
	s.hup(func() { svc("-h") })
	if out := must(t, nil, "s6-svstat", "-o", "pid", dir+"/shop"); strings.TrimSpace(out) != fmt.Sprint(anchor) {
		t.Errorf("s6 watches %s, not %d", out, anchor)
	}
	svc("-wD", "-T", "40000", "-d")
	stopped(t, s, dir, anchor)
	svc("-x")
	p.exits(t, 0)
}

// supervised starts a supervisor of one service directory, whose files runit and s6 have
// in common.
func supervised(t *testing.T, s *site, dir, supervisor string) *started {
	t.Helper()
	shop := filepath.Join(dir, "shop")
	if err := os.Mkdir(shop, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, shop+"/run", documented(t, s, "#!/bin/sh"), 0o755)
	write(t, shop+"/finish", "#!/bin/sh\necho \"ended $1\" >>"+dir+"/ended\n", 0o755)
	cmd := exec.Command(supervisor, shop)
	cmd.Env = environment(dir)
	return begin(t, cmd, s.log)
}

// stopped checks that a service has ended once, and in order.
func stopped(t *testing.T, s *site, dir string, anchor int) {
	t.Helper()
	contains(t, s.log, "msg=stopped")
	contains(t, dir+"/ended", "\n")
	if b, _ := os.ReadFile(dir + "/ended"); string(b) != "ended 0\n" {
		t.Errorf("%s", b)
	}
	if alive(anchor) {
		t.Error("stopped, but there")
	}
}

func alive(pid int) bool { s := stat(pid, 0); return s != "" && s != "Z" }

// TestTmux: in the foreground of a shell, in a real terminal.
func TestTmux(t *testing.T) {
	needs(t, "tmux", "tmux")
	s, dir := installed(t)
	env := append(environment(dir), "TMUX_TMPDIR="+dir, "TMUX=", "HISTFILE=", "PS1=$ ", "SHELL=/bin/bash")
	tmux := func(args ...string) string {
		return must(t, env, append([]string{"tmux", "-f", "/dev/null"}, args...)...)
	}
	tmux("new-session", "-d", "-x", "150", "-y", "50", "exec bash --norc --noprofile")
	t.Cleanup(func() { tmux("kill-server") })
	shell := 0
	fmt.Sscan(tmux("display-message", "-p", "#{pane_pid}"), &shell)
	foreground := func() string { return stat(shell, 5) } // the terminal's process group
	tmux("send-keys", fmt.Sprintf("%s run --name shop --listen http=tcp://%s >>%s 2>&1", s.bin, s.addr, s.log), "Enter")
	s.serves()
	anchor := s.status().Anchor
	if got := foreground(); got != fmt.Sprint(anchor) {
		t.Errorf("the terminal's process group is %s, not %d", got, anchor)
	}
	s.upgrades()
	if got := foreground(); got != fmt.Sprint(anchor) {
		t.Errorf("after upgrades the terminal's process group is %s, not %d", got, anchor)
	}

	st := s.status()
	tmux("send-keys", "C-z")
	until(t, "anchor and parent are suspended", func() bool { return stat(anchor, 0) == "T" && stat(st.Pid, 0) == "T" })
	until(t, "the shell has its terminal", func() bool { return foreground() == fmt.Sprint(shell) })
	if out, err := s.get("/"); err != nil || !strings.Contains(out, fmt.Sprintf("generation=%d ", st.Generation)) {
		t.Errorf("while suspended: %s, %v", out, err)
	}
	tmux("send-keys", "fg; echo code $? >>"+s.log, "Enter")
	until(t, "the service has the terminal", func() bool { return foreground() == fmt.Sprint(anchor) && stat(anchor, 0) != "T" })
	if out, code := s.handover("upgrade", "--wait", "serve"); code != 0 {
		t.Errorf("upgrade: exit code %d\n%s", code, out)
	}
	s.settles()

	l := s.load()
	ctx := t.Context()
	if err := l.WaitRequests(ctx, 20); err != nil {
		t.Error(err)
	}
	check(t, l)
	tmux("send-keys", "C-c")
	out := contains(t, s.log, "code ")
	if !strings.Contains(out, "msg=stopped") || !strings.HasSuffix(out, "code 0\n") {
		t.Errorf("Ctrl-C: %s", out[max(0, len(out)-400):])
	}
}
