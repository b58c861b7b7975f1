//go:build unix && !linux

package main

import "context"

// pidfds is empty: services with a parent need Linux.
type pidfds struct{}

func processes(string, ...int) pidfds     { return pidfds{} }
func (pidfds) ended(context.Context) bool { return true }
func (pidfds) close()                     {}
