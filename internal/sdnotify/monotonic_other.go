//go:build !unix

package sdnotify

func monotonic() []string { return nil }
