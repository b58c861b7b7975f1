//go:build !linux

package launch

// LimitNames are the resources that can be limited.
func LimitNames() []string { return nil }

func (t trampoline) jump() (code int, err error) { return exitNotExecuted, ErrUnsupported }
