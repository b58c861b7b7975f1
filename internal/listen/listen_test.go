package listen

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	for in, want := range map[string]Spec{
		"tcp://:8080":                   {"http", "tcp", ":8080"},
		"web=tcp4://127.0.0.1:0":        {"web", "tcp4", "127.0.0.1:0"},
		"a.b-c_d=tcp6://[::1]:80":       {"a.b-c_d", "tcp6", "[::1]:80"},
		"tcp://[fe80::1%eth0]:80":       {"http", "tcp", "[fe80::1%eth0]:80"},
		"tcp://no-such-host.invalid:80": {"http", "tcp", "no-such-host.invalid:80"}, // asked for when it is bound
		"unix:///run/shop.sock":         {"http", "unix", "/run/shop.sock"},
		"x=unix://shop.sock":            {"x", "unix", "shop.sock"},
		"x=unix:///run/100%25=a":        {"x", "unix", "/run/100%=a"},
		"unix://@shop":                  {"http", "unix", "@shop"},
		"dns=udp://127.0.0.1:5353":      {"dns", "udp", "127.0.0.1:5353"},
		"udp4://:domain":                {"http", "udp4", ":domain"},
		"udp6://[::1]:53":               {"http", "udp6", "[::1]:53"},
		"log=unixgram:///run/x%25.sock": {"log", "unixgram", "/run/x%.sock"},
		"s=unixpacket://@y":             {"s", "unixpacket", "@y"},
	} {
		got, err := Parse(in)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
		if again, err := Parse(got.String()); err != nil || again != got {
			t.Errorf("%q: %q is read as %+v, %v", in, got, again, err)
		}
	}
}

func TestParseBad(t *testing.T) {
	long := strings.Repeat("x", 108)
	for in, want := range map[string]string{
		"":                                `listen address "": write it as [NAME=]NETWORK://ADDRESS, for example http=tcp://127.0.0.1:8080`,
		":8080":                           `listen address ":8080": write it as [NAME=]NETWORK://ADDRESS, for example http=tcp://127.0.0.1:8080`,
		"web=:8080":                       `listen address "web=:8080": write it as [NAME=]NETWORK://ADDRESS, for example http=tcp://127.0.0.1:8080`,
		"=tcp://:80":                      `socket without a name (tcp://:80): give it one`,
		"a b=tcp://:80":                   `socket name "a b": ' ' is not allowed, use letters, digits, '.', '-' and '_'`,
		"a:b=tcp://:80":                   `socket name "a:b": ':' is not allowed, use letters, digits, '.', '-' and '_'`,
		"ä=tcp://:80":                     `socket name "ä": 'ä' is not allowed, use letters, digits, '.', '-' and '_'`,
		long + long + long + "=tcp://:80": `socket name of 324 characters: at most 255`,
		"http://:80":                      `socket http=http://:80: unknown network "http", use ` + Networks,
		"TCP://:80":                       `socket http=TCP://:80: unknown network "TCP", use ` + Networks,
		"ip://:80":                        `socket http=ip://:80: unknown network "ip", use ` + Networks,
		"udp46://:80":                     `socket http=udp46://:80: unknown network "udp46", use ` + Networks,
		"unix4:///s":                      `socket http=unix4:///s: unknown network "unix4", use ` + Networks,
		"udp://":                          `socket http=udp://: an address is needed, such as 127.0.0.1:8080 or :8080`,
		"udp://:domaine":                  `socket http=udp://:domaine: port "domaine": use a number from 0 to 65535`,
		"udp4://[::1]:80":                 `socket http=udp4://[::1]:80: ::1 is no IPv4 address, use udp6`,
		"udp6://127.0.0.1:80":             `socket http=udp6://127.0.0.1:80: 127.0.0.1 is no IPv6 address, use udp4`,
		"unixgram://":                     `socket http=unixgram://: a path of 1 to 107 bytes is needed, this one has 0`,
		"unixgram:///a%00b":               `socket http=unixgram://"/a\x00b": a path must not contain a zero byte`,
		"unixpacket://" + long:            `socket http=unixpacket://` + long + `: a path of 1 to 107 bytes is needed, this one has 108`,
		"tcp://":                          `socket http=tcp://: an address is needed, such as 127.0.0.1:8080 or :8080`,
		"tcp://127.0.0.1":                 `socket http=tcp://127.0.0.1: address 127.0.0.1: missing port in address`,
		"tcp://::1:80":                    `socket http=tcp://::1:80: address ::1:80: too many colons in address`,
		"tcp://:80/":                      `socket http=tcp://:80/: port "80/": use a number from 0 to 65535`,
		"tcp://:65536":                    `socket http=tcp://:65536: port "65536": use a number from 0 to 65535`,
		"tcp://:-1":                       `socket http=tcp://:-1: port "-1": use a number from 0 to 65535`,
		"tcp://a b:80":                    `socket http=tcp://a b:80: host "a b": neither an IP address nor a host name`,
		"tcp4://[::1]:80":                 `socket http=tcp4://[::1]:80: ::1 is no IPv4 address, use tcp6`,
		"tcp6://127.0.0.1:80":             `socket http=tcp6://127.0.0.1:80: 127.0.0.1 is no IPv6 address, use tcp4`,
		"unix://":                         `socket http=unix://: a path of 1 to 107 bytes is needed, this one has 0`,
		"unix://" + long:                  `socket http=unix://` + long + `: a path of 1 to 107 bytes is needed, this one has 108`,
		"unix:///a%00b":                   `socket http=unix://"/a\x00b": a path must not contain a zero byte`,
		"unix:///a%zz":                    `listen address "unix:///a%zz": invalid URL escape "%zz"`,
	} {
		if _, err := Parse(in); err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", in, err, want)
		}
	}
}

func TestParseAll(t *testing.T) {
	specs, err := ParseAll([]string{"tcp://:80", "admin=tcp://:81"})
	if err != nil || len(specs) != 2 || specs[1] != (Spec{"admin", "tcp", ":81"}) {
		t.Errorf("%v, %v", specs, err)
	}
	_, err = ParseAll([]string{"tcp://:80", "http=tcp://:81"})
	want := `listen addresses "tcp://:80" and "http=tcp://:81" have the same name "http": give one of them another, NAME=tcp://:81`
	if err == nil || err.Error() != want {
		t.Errorf(" got %v\nwant %s", err, want)
	}
	if _, err = ParseAll([]string{"tcp://:80", "nonsense"}); err == nil {
		t.Error("nonsense was taken")
	}
}

// FuzzParse checks that whatever is accepted is valid, and written so that it is
// read as the same again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"tcp://:8080", "a=tcp6://[::1%25x]:80", "unix:///a%25b", "unix://@x", "=", "a=b=c://", "x=unix://%00", "tcp://h:http",
		"udp4://:53", "unixgram:///a%2fb", "s=unixpacket://@%41",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		spec, err := Parse(in)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error that says nothing")
			}
			return
		}
		if err := spec.Validate(); err != nil {
			t.Errorf("%q was read as %+v, which is invalid: %v", in, spec, err)
		}
		if again, err := Parse(spec.String()); err != nil || again != spec {
			t.Errorf("%q was read as %+v, written as %q, and that was read as %+v, %v", in, spec, spec, again, err)
		}
	})
}
