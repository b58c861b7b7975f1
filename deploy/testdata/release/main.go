// Command release is a release of a program that is no good, and one that leaves
// orphans: the tests put it in a service's place, or run it below one.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

func main() {
	last := os.Args[len(os.Args)-1]
	switch last {
	case "orphans":
		orphans()
	case "middle":
		start("leaf")
	case "leaf":
	default:
		fmt.Fprintln(os.Stderr, "no database")
		os.Exit(3)
	}
}

// orphans leaves fifty behind, which end whenever they like, and stays.
func orphans() {
	for range 50 {
		if err := start("middle").Wait(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	fmt.Println("left")
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	<-term
}

func start(what string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", what)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return cmd
}
