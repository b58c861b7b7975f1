//go:build linux

package workerset_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

// envForeign makes the test binary a program that knows nothing of this module: it
// does one step after the other.
const envForeign = "TEST_FOREIGN"

func foreign(steps string) string { return envForeign + "=" + steps }

func foreignMain(steps string) {
	term := make(chan os.Signal, 8)
	for step := range strings.SplitSeq(steps, ";") {
		what, arg, _ := strings.Cut(step, " ")
		arg = strings.ReplaceAll(arg, `\n`, "\n")
		switch what {
		case "catch":
			signal.Notify(term, syscall.SIGTERM, syscall.SIGUSR2)
		case "term":
			fmt.Println("got", <-term)
		case "notify":
			notify(arg)
		case "print":
			fmt.Print(arg + "\n")
		case "part":
			fmt.Print(arg)
		case "flood":
			for {
				fmt.Println(strings.Repeat("flood ", 100))
			}
		case "error":
			fmt.Fprintln(os.Stderr, arg)
		case "pid":
			fmt.Println("pid", os.Getpid(), os.Getenv("LISTEN_PID"), os.Getenv("WATCHDOG_PID"))
		case "env":
			fmt.Println(arg, os.Getenv(arg))
		case "write":
			_, _ = foreignChannel().WriteString(arg + "\n")
		case "close":
			foreignChannel().Close()
		case "serve":
			serveForeign(arg)
		case "grow": // by so many MiB
			n, _ := strconv.Atoi(arg)
			grown = make([]byte, n<<20)
			for i := 0; i < len(grown); i += os.Getpagesize() {
				grown[i] = 1
			}
		case "crash":
			panic("crashed as asked")
		case "wait": // until there is such a file
			for {
				if _, err := os.Stat(arg); err == nil {
					break
				}
			}
		case "exit":
			n, _ := strconv.Atoi(arg)
			os.Exit(n)
		default:
			if !nodeStep(what, arg, term) {
				panic(step)
			}
		}
	}
	select {}
}

// grown is what a program has taken by "grow".
var grown []byte

func foreignChannel() *os.File {
	fd, _ := strconv.Atoi(os.Getenv("HANDOVER_CHANNEL_FD"))
	return os.NewFile(uintptr(fd), "channel")
}

func notify(text string) {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: os.Getenv("NOTIFY_SOCKET"), Net: "unixgram"})
	if err == nil {
		_, err = c.Write([]byte(text))
		c.Close()
	}
	if err != nil {
		panic(err)
	}
}

// serveForeign answers with its pid, and at /ready with 503 until there is a file of
// that name.
func serveForeign(file string) {
	ln, err := net.FileListener(os.NewFile(3, "http"))
	if err != nil { // something else comes first
		ln, err = net.FileListener(os.NewFile(4, "http"))
	}
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) { fmt.Fprintln(rw, os.Getpid()) })
	mux.HandleFunc("/ready", func(rw http.ResponseWriter, r *http.Request) {
		if _, err := os.Stat(file); file != "" && err != nil {
			http.Error(rw, "not yet", http.StatusServiceUnavailable)
		}
	})
	go func() { panic(http.Serve(ln, mux)) }()
}
