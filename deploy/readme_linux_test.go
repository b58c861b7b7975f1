package deploy_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestReadme types what the README says of containers. There is no docker daemon here:
// what it would do is done by a box.
func TestReadme(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	block := match(string(readme), "(?s)```sh\n(docker build.*?)```")
	var e engine
	var did []string
	for line := range strings.Lines(block) {
		line, _, _ = strings.Cut(line, "#")
		args := strings.Fields(line)
		if len(args) < 2 || args[0] != "docker" {
			t.Fatalf("README: %s: no command of docker's", line)
		}
		e.do(t, args[1], args[2:])
		did = append(did, args[1])
	}
	if want := []string{"build", "run", "exec", "kill", "exec", "stop"}; !slices.Equal(did, want) {
		t.Errorf("the README does %q", did)
	}
	if !strings.Contains(string(readme), "(deploy/kubernetes.yaml)") { // whose tests are others
		t.Error("the README does not name the manifest")
	}
}

// engine does what docker does, as far as the README goes.
type engine struct {
	image    dockerfile
	tag      string
	box      *container
	name     string
	patience time.Duration // until stop kills
}

func (e *engine) do(t *testing.T, command string, args []string) {
	t.Helper()
	switch command {
	case "build": // -f FILE -t TAG DIRECTORY
		if len(args) != 5 || args[0] != "-f" || args[1] != "deploy/Dockerfile" || args[2] != "-t" || args[4] != "." {
			t.Fatalf("docker build %q", args)
		}
		e.image, e.tag = readDockerfile(t), args[3]
		e.image.build(t)
	case "run":
		e.run(t, args)
	case "exec":
		if args[0] != e.name {
			t.Fatalf("docker exec %q", args)
		}
		before := e.box.status().Generation
		if out, code := run(t, e.box.exec(args[1:]...)); code != 0 {
			t.Errorf("docker exec %q: exit code %d\n%s", args, code, out)
		}
		if args[2] == "upgrade" && e.box.status().Generation != before+1 {
			t.Error("it says that there was an upgrade, and there was none")
		}
	case "kill": // --signal NAME CONTAINER
		if len(args) != 3 || args[0] != "--signal" || args[2] != e.name {
			t.Fatalf("docker kill %q", args)
		}
		e.box.hup(func() { e.box.signal(t, unix.SignalNum("SIG"+args[1])) })
	case "stop":
		// Docker does not wait for longer, and the drain may need its timeout, and 4 s.
		if e.patience < 25*time.Second+4*time.Second {
			t.Errorf("docker stop kills after %v", e.patience)
		}
		e.box.signal(t, unix.SignalNum(e.image.stop))
		e.box.exits(t, 0)
		contains(t, e.box.log, "msg=stopped")
	default:
		t.Fatalf("docker %s: unknown", command)
	}
}

// run starts a container, with its options as they are written there.
func (e *engine) run(t *testing.T, args []string) {
	t.Helper()
	writable, rights := true, true
	e.patience = 10 * time.Second
	for ; len(args) > 0 && strings.HasPrefix(args[0], "-"); args = args[1:] {
		value := func() string { args = args[1:]; return args[0] }
		switch flag := args[0]; flag {
		case "-d":
		case "--name":
			e.name = value()
		case "--read-only":
			writable = false
		case "--cap-drop":
			rights = value() != "ALL"
		case "--stop-timeout":
			d, err := time.ParseDuration(value() + "s")
			if err != nil {
				t.Fatal(err)
			}
			e.patience = d
		case "-p":
			if value() != "8080:8080" {
				t.Fatalf("docker run -p %s", args[0])
			}
		default:
			t.Fatalf("docker run %s: unknown", flag)
		}
	}
	if len(args) != 1 || args[0] != e.tag || rights {
		t.Fatalf("docker run: image %q, rights: %t", args, rights)
	}
	e.box = e.image.start(t, nil, func(b *box) { b.Write = writable })
	e.box.serves()
}
