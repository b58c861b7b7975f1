package handover_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestReadmePrograms builds the README's programs outside the checkout, by the
// README's own commands, and runs each: serve, upgrade, stop.
func TestReadmePrograms(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	programs := regexp.MustCompile("(?s)```go\n(package main.*?)```").FindAllSubmatch(readme, -1)
	names := []string{"workers", "one process", "groups", "messages", "shared state"}
	if len(programs) != len(names) {
		t.Fatalf("the README has %d programs, not %d", len(programs), len(names))
	}
	edit := match(string(readme), `\n(go mod edit .*)\n`)
	if edit == "" {
		t.Fatal("the README does not say how to use a checkout")
	}
	for i, p := range programs {
		t.Run(names[i], func(t *testing.T) {
			dir := t.TempDir()
			addr := freeAddr(t)
			other := freeAddr(t)
			source := bytes.ReplaceAll(p[1], []byte("127.0.0.1:8080"), []byte(addr))
			source = bytes.ReplaceAll(source, []byte("127.0.0.1:8081"), []byte(other))
			if err := os.WriteFile(filepath.Join(dir, "main.go"), source, 0o644); err != nil {
				t.Fatal(err)
			}
			greeting := filepath.Join(dir, "greeting.txt")
			if err := os.WriteFile(greeting, []byte("hello"), 0o644); err != nil {
				t.Fatal(err)
			}
			shell(t, dir, "go mod init shop")
			shell(t, dir, strings.Replace(edit, "PATH/TO/CHECKOUT", here, 1))
			// Versions come from this module, so that nothing has to be looked up.
			sum, err := os.ReadFile("go.sum")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o644); err != nil {
				t.Fatal(err)
			}
			shell(t, dir, "go mod tidy")
			shell(t, dir, "go build -o shop .")

			cmd := exec.Command("./shop")
			cmd.Dir = dir
			out, err := os.Create(filepath.Join(dir, "out")) // which both processes may have
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			cmd.Stdout, cmd.Stderr = out, out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if t.Failed() {
					_ = cmd.Process.Kill()
					_ = cmd.Wait()
					b, _ := os.ReadFile(out.Name())
					t.Logf("%s", b)
				}
			}()
			// One process: the first one ends when it has been replaced, and the
			// PID file says who is next.
			pid := func() int { return cmd.Process.Pid }
			if i == 1 {
				pid = func() int { return readPid(t, filepath.Join(dir, "shop.pid")) }
			}
			eventually(t, addr, "generation 1\n")
			if i == 1 {
				// A first generation accepts when it likes, also before that.
				awaitFile(t, filepath.Join(dir, "shop.pid"))
			}
			if err := syscall.Kill(pid(), syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			eventually(t, addr, "generation 2\n")
			if i == 2 {
				eventually(t, other, "hello from admin/1, started with \"--use admin\", of generation 2\n")
			}
			if i == 4 {
				if err := errors.Join(os.WriteFile(greeting+".new", []byte("good evening"), 0o644), os.Rename(greeting+".new", greeting)); err != nil {
					t.Fatal(err)
				}
				eventually(t, addr, "ago: good evening from generation 2\n")
			}
			last := pid()
			ends := func() {
				if err := cmd.Wait(); err != nil {
					t.Error(err)
				}
			}
			if i == 1 {
				ends() // else it might be the one that asks how the second process has ended
			}
			if err := syscall.Kill(last, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if i != 1 {
				ends()
			} else { // an orphan by now, and ours, since this test is the subreaper
				var ws syscall.WaitStatus
				if _, err := syscall.Wait4(last, &ws, 0, nil); err != nil || ws.ExitStatus() != 0 {
					t.Errorf("the second process: %v, %v", err, ws)
				}
			}
		})
	}
}

// TestReadmeHandler: the README's handler of connections is the one that is tested.
func TestReadmeHandler(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("drain/example_stream_test.go")
	if err != nil {
		t.Fatal(err)
	}
	code := match(string(readme), "(?s)```go\n(// count answers .*?\n})\n```")
	if code == "" || !bytes.Contains(example, []byte(code)) {
		t.Errorf("drain/example_stream_test.go does not have\n%s", code)
	}
}

// TestReadmeCommand types the README's first command, sends ten HUPs to the pid
// that it prints, and Ctrl-C.
func TestReadmeCommand(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	command := match(string(readme), "```sh\n(go run .*)\n```")
	if command == "" {
		t.Fatal("the README has no first command")
	}
	// Port 8080 may be somebody's.
	args := append(strings.Fields(command), "--listen", "http=tcp://127.0.0.1:0")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"XDG_RUNTIME_DIR=" + t.TempDir()} // a service of this name may run here
	s := startCommand(t, cmd)
	s.await(has("drain and stop"))
	text := s.tail(1000)
	s.pid, _ = strconv.Atoi(match(text, `kill -HUP (\d+)`))
	s.addr = match(text, `serves http://([0-9.:]+)/`)
	if s.pid == 0 || s.addr == "" || !strings.Contains(text, "curl http://"+s.addr+"/") {
		t.Fatalf("what is printed does not say what to try:\n%s", text)
	}
	l := s.load(10)
	for i := range 10 {
		s.upgrade()
		answered(t, l, fmt.Sprintf("generation=%d", i+2))
	}
	check(t, l)
	// Ctrl-C is SIGINT to the terminal's whole foreground process group.
	if err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	s.awaitExit(1) // go run's own, after an interrupt, whatever the program says
	if !strings.Contains(s.tail(20), "msg=stopped") {
		t.Error("the service did not stop in order")
	}
}

// eventually asks until the answer ends in want. Only a server that does not
// listen yet is forgiven.
func eventually(t *testing.T, addr, want string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	deadline := time.Now().Add(20 * time.Second)
	last := ""
	for time.Now().Before(deadline) {
		resp, err := client.Get("http://" + addr + "/")
		if err != nil {
			last = err.Error()
			<-time.After(5 * time.Millisecond)
			continue
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if last = string(b); strings.HasSuffix(last, want) {
			return
		}
	}
	t.Fatalf("no answer that ends in %q within 20 s; the last: %s", want, last)
}

func shell(t *testing.T, dir, command string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// TestReadmeDraintest types the README's tests of restarts: of this project's own service,
// and of nginx.
func TestReadmeDraintest(t *testing.T) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed (Debian: apt-get install nginx-light)")
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile("(?m)^./handover draintest .*$").FindAllString(string(readme), -1)
	if len(commands) != 2 {
		t.Fatalf("the README has %d tests of restarts, not 2", len(commands))
	}
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	shell(t, ".", "go build ./cmd/handover && mv handover "+dir)
	draintest := func(command string) (out string, code int) {
		t.Helper()
		// On a busy machine the load has holes.
		cmd := exec.Command("sh", "-c", "exec "+command+" --rounds 2 --max-behind 1m")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0")
		b, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(b), cmd.ProcessState.ExitCode()
	}
	addr := freeAddr(t)
	own := strings.Replace(commands[0], " -- ", " --rounds 2 --max-behind 1m -- ", 1)
	own = strings.ReplaceAll(own, "127.0.0.1:8080", addr) + " --listen http=tcp://" + addr + " #"
	if out, code := draintest(own); code != 0 || !strings.Contains(out, "PASS: ./handover run ") {
		t.Errorf("exit code %d\n%s", code, out)
	}

	// The package's nginx has a configuration of its own.
	addr = freeAddr(t)
	conf, pid := filepath.Join(dir, "nginx.conf"), filepath.Join(dir, "nginx.pid")
	err = errors.Join(
		os.WriteFile(conf, fmt.Appendf(nil, `
worker_processes 2;
pid %s;
error_log stderr;
events {}
http { access_log off; server { listen %s; location / { return 200 "hello"; } } }
`, pid, addr), 0o644),
		os.WriteFile(filepath.Join(dir, "nginx"), fmt.Appendf(nil, "#!/bin/sh\nexec %s -p %s -c %s \"$@\"\n", nginx, dir, conf), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	s := startCommand(t, exec.Command(filepath.Join(dir, "nginx"), "-g", "daemon off;"))
	awaitFile(t, pid)
	theirs := strings.NewReplacer("http://127.0.0.1/", "http://"+addr+"/", "/run/nginx.pid", pid).Replace(commands[1])
	for command, want := range map[string]int{theirs: 1, theirs + " --allow-closed-idle -1 --allow-failed -1": 0} {
		out, code := draintest(command)
		if code != want || want == 1 && !strings.Contains(out, "closed while idle") {
			t.Errorf("%s: exit code %d\n%s", command, code, out)
		}
	}
	s.pid = s.cmd.Process.Pid
	s.stop()
}

// TestReadmeNode runs the README's program in another language by the README's own
// commands.
func TestReadmeNode(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not installed")
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(re string) string {
		m := match(string(readme), "(?s)"+re)
		if m == "" {
			t.Fatalf("the README has no %s", re)
		}
		return m
	}
	dir, addr := t.TempDir(), freeAddr(t)
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("RUNTIME_DIRECTORY", "")
	if err := os.WriteFile(filepath.Join(dir, "server.js"), []byte(block("```js\n(.*?)```")), 0o644); err != nil {
		t.Fatal(err)
	}
	build, run, _ := strings.Cut(block("```sh\n(go build ./cmd/handover\n.*?)```"), "\n")
	shell(t, ".", build+" && mv handover "+dir)
	run = strings.ReplaceAll(strings.TrimSpace(run), "127.0.0.1:8080", addr)
	cmd := exec.Command("sh", "-c", "exec "+run)
	cmd.Dir = dir
	s := startCommand(t, cmd)
	s.await(has(`msg="generation serves"`, "generation=1 "))
	eventually(t, addr, "/1\n") // GROUP/SLOT/ID/GENERATION
	for line := range strings.Lines(block("```sh\n(./handover status\n.*?)```")) {
		shell(t, dir, line)
	}
	eventually(t, addr, "/2\n")
	s.pid = cmd.Process.Pid
	s.stop()
}

// TestReadmeMetrics types the README's questions to a service.
func TestReadmeMetrics(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(readme), "\n## Metrics and logs\n")
	section, _, _ = strings.Cut(section, "\n## ")
	run := match(section, "```sh\n(handover run .*)\n```")
	questions := regexp.MustCompile("(?m)^curl .*$").FindAllString(section, -1)
	answers := []string{"handover_generation 1", "handover_generation 1", `"service": "shop"`, ""}
	if run == "" || len(questions) != len(answers) {
		t.Fatalf("the README says how to run %q and to ask %q", run, questions)
	}
	dir, addr := t.TempDir(), freeAddr(t)
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	shell(t, ".", "go build ./cmd/handover && mv handover "+dir)
	cmd := exec.Command("sh", "-c", "exec "+strings.ReplaceAll(run, "127.0.0.1:9090", addr)+" --listen http=tcp://127.0.0.1:0")
	cmd.Dir = dir
	s := startCommand(t, cmd)
	s.await(has(`msg="generation serves"`, "generation=1 "))
	for i, q := range questions {
		out, err := exec.Command("sh", "-c", strings.ReplaceAll(q, "127.0.0.1:9090", addr)+" --fail --no-progress-meter").CombinedOutput()
		if err != nil || !strings.Contains(string(out), answers[i]) {
			t.Errorf("%s: %v\n%s", q, err, out)
		}
	}
	s.pid = cmd.Process.Pid
	s.stop()
}

// awaitFile waits until there is such a file.
func awaitFile(t *testing.T, name string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		if _, err := os.Stat(name); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
