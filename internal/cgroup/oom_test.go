package cgroup

import (
	"slices"
	"testing"
)

func TestFiles(t *testing.T) {
	for name, c := range map[string]struct {
		groups, mounts string
		want           []string
	}{
		"version 2": {
			"0::/system.slice/shop.service\n",
			"29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
			[]string{"/sys/fs/cgroup/system.slice/shop.service/memory.events", "/sys/fs/cgroup/memory.events"},
		},
		"version 2, in a namespace": {
			"0::/\n",
			"610 609 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n",
			[]string{"/sys/fs/cgroup/memory.events"},
		},
		"version 1, both": {
			"9:name=systemd:/a\n4:cpu,memory:/docker/abc\n0::/b\n",
			"31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
				"32 31 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n" +
				"36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,cpu,memory\n" +
				"37 31 0:34 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			[]string{
				"/sys/fs/cgroup/memory/docker/abc/memory.oom_control", "/sys/fs/cgroup/memory/memory.oom_control",
				"/sys/fs/cgroup/unified/b/memory.events", "/sys/fs/cgroup/unified/memory.events",
			},
		},
		"version 1, in a container": {
			"4:memory:/docker/abc\n",
			"700 690 0:33 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			[]string{"/sys/fs/cgroup/memory/memory.oom_control"},
		},
		"nothing":  {"", "", nil},
		"nonsense": {"4:memory\n\n:\n", "a b c - cgroup cgroup memory\n - \n1 2 3 4 5 - cgroup2\n", nil},
	} {
		if got := memory.places(c.groups, c.mounts); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", name, got, c.want)
		}
	}
}

func TestCount(t *testing.T) {
	for text, want := range map[string]int{
		"low 0\nhigh 0\nmax 12\noom 4\noom_kill 3\noom_group_kill 0\n": 3,
		"oom_kill_disable 0\nunder_oom 0\noom_kill 7\n":                7,
		"oom_kill_disable 0\nunder_oom 0\n":                            -1, // Linux before 4.13
		"oom_kill x\n":                                                 -1,
		"":                                                             -1,
	} {
		if n, ok := count(text); ok != (want >= 0) || ok && n != want {
			t.Errorf("%q: %d, %t", text, n, ok)
		}
	}
}
