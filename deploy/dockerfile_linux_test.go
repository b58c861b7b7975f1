package deploy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// dockerfile is what a test needs to know of deploy/Dockerfile.
type dockerfile struct {
	command    string // that builds the program
	output     string // where it writes it
	path       string // where the image has it
	from       string // the last stage's base
	user, stop string
	entrypoint []string
	cmd        []string
	health     []string
}

// readDockerfile reads it, and fails for an instruction that it does not know.
func readDockerfile(t *testing.T) (d dockerfile) {
	t.Helper()
	b, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	stages, copies := map[string]bool{}, 0
	// exec reads the form that needs no shell, which the image does not have.
	exec := func(text string) (args []string) {
		if err := json.Unmarshal([]byte(text), &args); err != nil || len(args) == 0 {
			t.Fatalf("Dockerfile: %s: not of the exec form: %v", text, err)
		}
		return args
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		name, rest, _ := strings.Cut(line, " ")
		switch name {
		case "", "#", "WORKDIR", "EXPOSE":
		case "FROM":
			image, stage, _ := strings.Cut(rest, " AS ")
			d.from, copies = image, 0
			stages[stage] = true
		case "RUN":
			if strings.Contains(rest, "go build") {
				d.command, d.output = rest, match(rest, `-o (\S+)`)
			}
		case "COPY":
			if m := regexp.MustCompile(`^--from=(\S+) (\S+) (\S+)$`).FindStringSubmatch(rest); m != nil {
				if copies++; !stages[m[1]] || m[2] != d.output {
					t.Fatalf("Dockerfile: %s: there is no such stage, or nothing makes that file", line)
				}
				d.path = m[3]
			}
		case "USER":
			d.user = rest
		case "STOPSIGNAL":
			d.stop = rest
		case "ENTRYPOINT":
			d.entrypoint = exec(rest)
		case "CMD":
			d.cmd = exec(rest)
		case "HEALTHCHECK":
			_, text, _ := strings.Cut(rest, " CMD ")
			d.health = exec(text)
		default:
			t.Fatalf("Dockerfile: %s: unknown", line)
		}
	}
	if copies != 1 || d.path == "" {
		t.Fatalf("Dockerfile: %d files in the image", copies)
	}
	return d
}

// build runs the image's own build.
func (d dockerfile) build(t *testing.T) string {
	t.Helper()
	return build(t, d.command, d.output)
}

// container is a box in which a service is PID 1.
type container struct {
	*site
	*started
	box        box
	namespaces []*os.File // that it is in
}

// start runs the image, with other arguments than its own if there are some, as a
// container runtime does, and waits for nothing. change may change the box.
func (d dockerfile) start(t *testing.T, args []string, change func(*box)) *container {
	t.Helper()
	rooted(t)
	dir := t.TempDir()
	b := box{
		Root:  filepath.Join(dir, "root"),
		Files: map[string]string{d.path: d.build(t)},
		Args:  append(d.entrypoint, d.cmd...),
		Env:   []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=box", probation},
	}
	if _, err := fmt.Sscanf(d.user, "%d:", &b.UID); err != nil || b.UID == 0 {
		t.Fatalf("Dockerfile: USER %s: a number other than 0 is needed", d.user)
	}
	if args != nil {
		b.Args = append(d.entrypoint[:len(d.entrypoint):len(d.entrypoint)], args...)
	}
	// Everybody's port is somebody else's here.
	addr := freeAddr(t)
	for i, arg := range b.Args {
		b.Args[i] = strings.ReplaceAll(arg, "tcp://:8080", "tcp://"+addr)
	}
	if change != nil {
		change(&b)
	}
	text, err := json.Marshal(b)
	if err == nil {
		err = os.Mkdir(b.Root, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := &container{box: b, site: &site{t: t, addr: addr, log: filepath.Join(dir, "log")}}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args[0] = boxName
	cmd.Env = []string{envBox + "=" + string(text)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS}
	c.started = begin(t, cmd, c.log)
	// They stay its own, and /proc does not show them in the moment in which PID 1
	// executes another program.
	for _, name := range namespaces {
		until(t, "its namespace is seen", func() bool {
			f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", cmd.Process.Pid, name))
			if err == nil {
				c.namespaces = append(c.namespaces, f)
				t.Cleanup(func() { f.Close() })
			}
			select {
			case <-c.exited: // there is nothing to see any more
				return true
			default:
				return err == nil
			}
		})
	}
	c.ask = func(args ...string) *exec.Cmd { return c.exec(append([]string{d.path}, args...)...) }
	return c
}

// namespaces are what a container is in alone, in the order of nsenter's options in exec.
var namespaces = []string{"mnt", "pid", "ipc", "uts"}

// exec runs a command in the container, as 'docker exec', a HEALTHCHECK and a probe do.
func (c *container) exec(args ...string) *exec.Cmd {
	id := fmt.Sprint(c.box.UID)
	enter := []string{"--setuid", id, "--setgid", id}
	for i, option := range []string{"--mount", "--pid", "--ipc", "--uts"} {
		enter = append(enter, fmt.Sprintf("%s=/proc/self/fd/%d", option, 3+i))
	}
	cmd := exec.Command("nsenter", append(append(enter, "--"), args...)...)
	cmd.Env, cmd.ExtraFiles = c.box.Env, c.namespaces
	return cmd
}

// list is one of strings that a regular expression finds in a text.
func list(t *testing.T, text, re string) (l []string) {
	t.Helper()
	if err := json.Unmarshal([]byte(match(text, re)), &l); err != nil {
		t.Fatalf("%s: %v", re, err)
	}
	return l
}
