// Package sdtest boots systemd, the real one, for tests of what runs under it: as PID 1
// of a namespace of its own, with the host's files or those of another distribution
// below a layer that is forgotten. It takes half a second, and needs root.
//
// A package whose tests use it stops what was booted when they have run:
//
//	func TestMain(m *testing.M) {
//		code := m.Run()
//		if err := sdtest.Stop(); err != nil { … }
//		os.Exit(code)
//	}
//
//	func TestReload(t *testing.T) {
//		sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
//			dir := m.TempDir(t) // put a program there
//			m.Install(t, map[string]string{"shop.service": "[Service]\n…"})
//			out, code := m.Systemctl("start", "shop.service")
//			…
//		})
//	}
//
// Each version of systemd is booted once in a test binary. The machine has the host's
// network, so that clients reach it, and everything else of its own: mounts, processes,
// cgroups, host name, IPC, journal. Of a test binary that is killed nothing lives on;
// its empty cgroups and its directory are removed by the next one.
//
// [EnvRoots] names directories with other versions than the host's, made by
//
//	debootstrap --variant=minbase --include=systemd trixie DIR
package sdtest
