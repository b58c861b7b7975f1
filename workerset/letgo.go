package workerset

// Why the set lets a worker go: Worker.Let.
const (
	letUpgrade = "upgrade"
	letRestart = "restart"
	letScale   = "scale"
	letDropped = "dropped"
	letStop    = "stop"
)

// letGo notes why the set lets a worker go. The first reason stays, also over an upgrade.
func (s *Set) letGo(in *incarnation) {
	if in.let != "" {
		return
	}
	g := in.group
	switch {
	case s.stopping:
		in.let = letStop
	case g.dropped:
		in.let = letDropped
	case in.slot > g.Count:
		in.let = letScale
	case in.stale && in.generation < s.cfg.Generation:
		in.let = letUpgrade
	case in.stale:
		in.let = letRestart
	}
}
