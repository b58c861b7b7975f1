//go:build !linux

package state

func childrenLeft() string { return "" }
