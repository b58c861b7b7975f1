// Package unit writes systemd units for services: systemd.unit(5), systemd.service(5),
// systemd.socket(5), systemd.exec(5). It only makes text.
package unit

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/handover-go/handover/internal/listen"
)

// Service is what a unit is made of.
type Service struct {
	Name    string
	Start   []string // the command, with an absolute path
	Reload  []string // waits for the result of an upgrade, and fails if that did
	Sweep   []string // ends what a service has left that could not stop
	User    string   // "": one that systemd makes up (DynamicUser=)
	Dir     string   // working directory; "": none in particular
	Listen  []listen.Spec
	Sockets bool     // bound by socket units, one for each of Listen, and not by the service
	Writes  []string // directories that it writes to, beside its own in /run and /var/lib
	Reads   []string // paths that it has to see, among them the programs'

	// StartTime and StopTime are how long a start and a stop may take; the service asks for
	// more when it needs that. Watchdog is within which time it has to say that it lives;
	// 0: it need not.
	StartTime, StopTime time.Duration
	Watchdog            time.Duration
}

// File is a unit.
type File struct{ Name, Text string }

// Files are the unit of the service, and those of its sockets.
func (s Service) Files() []File {
	files := []File{{s.Name + ".service", s.service()}}
	if s.Sockets {
		for _, l := range s.Listen {
			files = append(files, File{s.socketName(l), s.socket(l)})
		}
	}
	return files
}

func (s Service) socketName(l listen.Spec) string {
	if len(s.Listen) == 1 {
		return s.Name + ".socket"
	}
	return s.Name + "-" + l.Name + ".socket"
}

// text is a unit under construction.
type text struct{ strings.Builder }

func (t *text) section(name string) {
	if t.Len() > 0 {
		t.WriteByte('\n')
	}
	fmt.Fprintf(t, "[%s]\n", name)
}

func (t *text) set(name, value string)            { fmt.Fprintf(t, "%s=%s\n", name, value) }
func (t *text) comment(line string)               { fmt.Fprintf(t, "# %s\n", line) }
func (t *text) seconds(n string, d time.Duration) { t.set(n, span(d)) }
func (t *text) yes(names ...string) {
	for _, n := range names {
		t.set(n, "yes")
	}
}

func (s Service) service() string {
	var t text
	t.section("Unit")
	t.set("Description", Escape(s.Name))
	t.set("Documentation", "https://github.com/handover-go/handover")
	t.set("After", strings.Join(append([]string{s.network()}, s.sockets()...), " "))
	if s.network() == "network-online.target" {
		t.set("Wants", s.network())
	}
	if list := s.sockets(); len(list) > 0 {
		t.set("Requires", strings.Join(list, " "))
	}
	t.comment("Whatever happens, it is started again.")
	t.set("StartLimitIntervalSec", "0")

	t.section("Service")
	t.comment("The main process names the one that takes its place, and waits until that is read.")
	t.set("Type", "notify")
	t.set("NotifyAccess", "main")
	t.set("ExecStart", Command(s.Start))
	t.comment("It ends when the upgrade has, and fails when that has: so does systemctl reload.")
	t.set("ExecReload", Command(s.Reload))
	t.set("Restart", "always")
	t.set("RestartSec", "100ms")
	t.comment("Its sockets stay open meanwhile, and what its workers are followed by (systemd 254 and later).")
	t.set("FileDescriptorStoreMax", "1024")
	t.comment("2 is a bad configuration; 130 and 143 are a stop that was to be at once.")
	t.set("RestartPreventExitStatus", "2")
	t.set("SuccessExitStatus", "130 143")
	t.comment("A stop asks the main process, which lets the workers drain. When that one dies they serve on,")
	t.comment("until the next one takes them over; what a stop has left in the end is killed.")
	t.set("KillMode", "process")
	t.set("ExecStopPost", "-"+Command(s.Sweep))
	t.seconds("TimeoutStartSec", s.StartTime)
	t.seconds("TimeoutStopSec", s.StopTime)
	if s.Watchdog > 0 {
		t.seconds("WatchdogSec", s.Watchdog)
		t.comment("A process that was stopped would keep an ABRT for later.")
		t.set("WatchdogSignal", "SIGKILL")
	}
	t.comment("A worker that the kernel kills for memory is replaced.")
	t.set("OOMPolicy", "continue")
	t.set("LimitNOFILE", "524288")
	t.set("SyslogIdentifier", Escape(s.Name))

	s.identity(&t)
	s.sandbox(&t)

	t.section("Install")
	t.set("WantedBy", "multi-user.target")
	if list := s.sockets(); len(list) > 0 {
		t.set("Also", strings.Join(list, " "))
	}
	return t.String()
}

// network is what has to be up before: an address of its own is there late.
func (s Service) network() string {
	for _, l := range s.Listen {
		host, _, err := net.SplitHostPort(l.Addr)
		ip := net.ParseIP(host)
		if err == nil && host != "" && !s.Sockets && (ip == nil || !ip.IsLoopback() && !ip.IsUnspecified()) {
			return "network-online.target"
		}
	}
	return "network.target"
}

func (s Service) sockets() (names []string) {
	if s.Sockets {
		for _, l := range s.Listen {
			names = append(names, s.socketName(l))
		}
	}
	return names
}

// identity is who the service is, and where it may write.
func (s Service) identity(t *text) {
	t.WriteByte('\n')
	if s.User == "" {
		t.yes("DynamicUser")
	} else {
		t.set("User", s.User)
	}
	if s.Dir != "" {
		t.set("WorkingDirectory", Escape(s.Dir))
	}
	t.comment("The control socket is in /run/" + s.Name + ", state of its own may be in /var/lib/" + s.Name + ".")
	t.set("RuntimeDirectory", s.Name)
	t.set("RuntimeDirectoryMode", "0755")
	t.set("StateDirectory", s.Name)
	for _, dir := range s.Writes {
		t.set("ReadWritePaths", Word(dir))
	}
	caps := ""
	if s.lowPort() {
		t.comment("For ports below 1024.")
		caps = "CAP_NET_BIND_SERVICE"
		t.set("AmbientCapabilities", caps)
	}
	t.set("CapabilityBoundingSet", caps)
}

// lowPort reports whether the service itself binds a port that needs a capability.
func (s Service) lowPort() bool {
	return !s.Sockets && slices.ContainsFunc(s.Listen, func(l listen.Spec) bool {
		_, port, err := net.SplitHostPort(l.Addr)
		n, perr := strconv.Atoi(port)
		return err == nil && perr == nil && n > 0 && n < 1024
	})
}

// sandbox takes away what a server has no use for. What would break programs of other
// languages is left: MemoryDenyWriteExecute= their compilers, ProcSubset=pid what
// they ask of the machine.
func (s Service) sandbox(t *text) {
	t.WriteByte('\n')
	t.yes("NoNewPrivileges", "PrivateTmp", "PrivateDevices")
	t.set("ProtectSystem", "strict")
	home := "yes"
	for _, path := range append(s.Reads, s.Dir) {
		if slices.ContainsFunc([]string{"/home", "/root", "/run/user"}, func(dir string) bool { return within(path, dir) }) {
			home = "read-only"
		}
	}
	t.set("ProtectHome", home)
	t.yes("ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ProtectClock", "ProtectHostname")
	t.set("ProtectProc", "invisible")
	t.yes("RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality", "RemoveIPC")
	t.set("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX AF_NETLINK")
	t.set("SystemCallArchitectures", "native")
	t.set("SystemCallFilter", "@system-service")
	t.set("SystemCallErrorNumber", "EPERM")
	t.set("UMask", "0077")
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(filepath.Clean(path), dir+"/")
}

func (s Service) socket(l listen.Spec) string {
	var t text
	t.section("Unit")
	t.set("Description", Escape(s.Name+": "+l.Name))
	t.section("Socket")
	t.set("Service", s.Name+".service")
	t.comment("The name by which the service knows it, whatever its address.")
	t.set("FileDescriptorName", l.Name)
	kind, addr := "ListenStream", l.Addr
	switch l.Kind() {
	case "udp", "unixgram":
		kind = "ListenDatagram"
	case "unixpacket":
		kind = "ListenSequentialPacket"
	}
	if host, port, err := net.SplitHostPort(l.Addr); err == nil && host == "" && (l.Kind() == "tcp" || l.Kind() == "udp") {
		switch l.Network[len(l.Kind()):] {
		case "4":
			addr = "0.0.0.0:" + port
		case "6":
			addr = "[::]:" + port
		default:
			addr = port
		}
	}
	t.set(kind, Escape(addr))
	if strings.HasSuffix(l.Network, "6") {
		t.set("BindIPv6Only", "ipv6-only")
	}
	if !l.Packet() {
		t.set("Backlog", "4096")
	}
	if strings.HasPrefix(l.Network, "unix") && strings.HasPrefix(l.Addr, "/") {
		t.yes("RemoveOnStop")
	}
	t.section("Install")
	t.set("WantedBy", "sockets.target")
	return t.String()
}

// span writes a time as systemd reads it (systemd.time(7)).
func span(d time.Duration) string {
	if d%time.Second == 0 {
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return fmt.Sprintf("%dms", (d+time.Millisecond-1)/time.Millisecond)
}
