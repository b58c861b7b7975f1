package launch

import (
	"slices"
	"testing"
)

func TestEnviron(t *testing.T) {
	for _, c := range []struct{ in, want []string }{
		{nil, nil},
		{[]string{"A=1", "B=2"}, []string{"A=1", "B=2"}},
		{[]string{"A=1", "B=2", "A=3"}, []string{"B=2", "A=3"}},
		{[]string{"A=1", "A="}, []string{"A="}},
		{[]string{"A=x=y", "A=z=y"}, []string{"A=z=y"}},
		{[]string{"A", "A=1", "AB=1"}, []string{"A=1", "AB=1"}},
	} {
		in := slices.Clone(c.in)
		if got := Environ(in); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
		if !slices.Equal(in, c.in) {
			t.Errorf("%q was changed to %q", c.in, in)
		}
	}
}

// What was there before may be used by others.
func TestTitledLeavesEnvironment(t *testing.T) {
	env := make([]string, 1, 10)
	_, a := Titled("a", env)
	_, b := Titled("b", append(env, "X=1"))
	if len(a) != 2 || len(b) != 3 || a[1] == "X=1" {
		t.Errorf("%q, %q", a, b)
	}
}

func TestStatusString(t *testing.T) {
	for _, c := range []struct {
		want string
		Status
	}{
		{"exit status unknown", Status{Code: -1}},
		{"exit status 0", Status{Known: true}},
		{"exit status 255", Status{Known: true, Code: 255}},
		{"killed by " + signalName(9), Status{Known: true, Code: -1, Signal: 9}},
		{"killed by " + signalName(11) + " (core dumped)", Status{Known: true, Code: -1, Signal: 11, Core: true}},
	} {
		if got := c.String(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
		if c.Success() != (c.want == "exit status 0") {
			t.Errorf("%s: success %t", c.want, c.Success())
		}
	}
}
