package drain

import (
	"bytes"
	"net/http"
	"os"
	"slices"
	"testing"

	"golang.org/x/net/http2"
)

// wire is what golang.org/x/net/http2 makes of frames, and where each of them ends.
func wire(write func(*http2.Framer)) (b []byte, ends []int) {
	var w countWrites
	f := http2.NewFramer(&w, nil)
	f.AllowIllegalWrites = true
	write(f)
	return w.b, w.ends
}

type countWrites struct {
	b    []byte
	ends []int
}

func (w *countWrites) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	w.ends = append(w.ends, len(w.b))
	return len(p), nil
}

func TestBoundaries(t *testing.T) {
	for _, test := range []struct {
		what  string
		write func(*http2.Framer)
		clean []int // after so many frames something may be put in
	}{
		{"nothing", func(f *http2.Framer) {}, nil},
		{"the first is SETTINGS", func(f *http2.Framer) { f.WriteSettings(); f.WriteSettingsAck() }, []int{1, 2}},
		{"it is not", func(f *http2.Framer) { f.WritePing(false, [8]byte{}); f.WriteSettings() }, nil},
		{"data of any length", func(f *http2.Framer) {
			f.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20})
			f.WriteData(1, false, nil)
			f.WriteData(1, false, make([]byte, 1<<20))
			f.WriteData(1, true, make([]byte, 1))
		}, []int{1, 2, 3, 4}},
		{"a header block", func(f *http2.Framer) {
			f.WriteSettings()
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("a")})
			f.WriteContinuation(1, false, nil)
			f.WriteContinuation(1, true, []byte("b"))
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte("a"), EndHeaders: true})
		}, []int{1, 4, 5}},
		{"a push", func(f *http2.Framer) {
			f.WriteSettings()
			f.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: []byte("a")})
			f.WriteContinuation(1, true, []byte("b"))
		}, []int{1, 3}},
		{"a block that is broken off", func(f *http2.Framer) {
			f.WriteSettings()
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("a")})
			f.WriteData(1, true, nil)
			f.WriteContinuation(1, true, nil)
		}, []int{1}},
		{"a block that nothing began", func(f *http2.Framer) {
			f.WriteSettings()
			f.WriteContinuation(1, true, nil)
			f.WritePing(false, [8]byte{})
		}, []int{1}},
		{"a kind that nobody knows", func(f *http2.Framer) {
			f.WriteSettings()
			f.WriteRawFrame(0xbe, 0xff, 1<<31-1, []byte("what"))
		}, []int{1, 2}},
	} {
		b, ends := wire(test.write)
		var want []int
		for _, n := range test.clean {
			want = append(want, ends[n-1])
		}
		for _, size := range []int{1, 2, 9, 10, len(b) + 1} {
			if got := cleanPlaces(b, size); !slices.Equal(got, want) {
				t.Errorf("%s, %d at a time: clean after %v bytes, want %v", test.what, size, got, want)
			}
		}
	}
}

// cleanPlaces finds the places where frames may be put in, reading so many bytes at a time.
func cleanPlaces(b []byte, size int) (places []int) {
	var f frames
	for at := 0; at < len(b); {
		part := b[at:min(len(b), at+size)]
		for len(part) > 0 {
			n, _, ends := f.advance(part)
			part, at = part[n:], at+n
			if f.clean() != (ends && f.clean()) {
				panic("clean inside of a frame")
			}
			if f.clean() {
				places = append(places, at)
			}
		}
	}
	return places
}

// FuzzFrames: in whatever pieces it comes, the places are the same, they are those that
// golang.org/x/net/http2 reads frames to, and boundary finds the first.
func FuzzFrames(f *testing.F) {
	b, _ := wire(func(f *http2.Framer) {
		f.WriteSettings()
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("a")})
		f.WriteContinuation(1, true, nil)
		f.WriteData(1, true, []byte("hello"))
		f.WritePing(true, [8]byte{1, 2, 3, 4, 5, 6, 7, 8})
		f.WriteGoAway(1, 0, []byte("debug"))
		f.WriteRSTStream(1, 0)
	})
	f.Add(b, uint8(3))
	f.Add(b, uint8(9))
	f.Add([]byte("HTTP/1.1 505 HTTP Version Not Supported\r\n\r\n"), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		want := cleanPlaces(b, len(b)+1)
		if got := cleanPlaces(b, int(size)+1); !slices.Equal(got, want) {
			t.Fatalf("%d at a time: %v, want %v", int(size)+1, got, want)
		}
		var fresh frames
		if at := fresh.boundary(b); len(want) > 0 && at != want[0] || len(want) == 0 && at >= 0 {
			t.Fatalf("boundary after %d, want %v", at, want)
		}
		r := bytes.NewReader(b)
		fr := http2.NewFramer(nil, r)
		fr.SetMaxReadFrameSize(1<<24 - 1)
		for len(want) > 0 {
			if _, err := fr.ReadFrame(); err != nil && !streamError(err) {
				break // it knows more of what is wrong
			}
			if at := len(b) - r.Len(); at == want[0] {
				want = want[1:]
			} else if at > want[0] {
				t.Fatalf("clean after %d, where no frame ends", want[0])
			}
		}
	})
}

func streamError(err error) bool { _, ok := err.(http2.StreamError); return ok }

func TestStreams(t *testing.T) {
	const end, headers = flagEndStream, frameHeaders
	type seen struct {
		from        side
		kind, flags byte
		stream      uint32
	}
	for _, test := range []struct {
		what string
		seen []seen
		open []uint32
		last uint32
	}{
		{"a request", []seen{{fromClient, headers, end, 1}}, []uint32{1}, 1},
		{"and its answer", []seen{{fromClient, headers, end, 1}, {fromServer, headers, 0, 1}, {fromServer, frameData, end, 1}}, nil, 1},
		{"an answer without a body", []seen{{fromClient, headers, end, 1}, {fromServer, headers, end, 1}}, nil, 1},
		{"an answer before the body", []seen{{fromClient, headers, 0, 1}, {fromServer, headers, end, 1}}, []uint32{1}, 1},
		{"which is then refused", []seen{{fromClient, headers, 0, 1}, {fromServer, headers, end, 1}, {fromServer, frameRSTStream, 0, 1}}, nil, 1},
		{"or sent", []seen{{fromClient, headers, 0, 1}, {fromServer, headers, end, 1}, {fromClient, frameData, end, 1}}, nil, 1},
		{"trailers", []seen{{fromClient, headers, 0, 1}, {fromClient, headers, end, 1}}, []uint32{1}, 1},
		{"several", []seen{{fromClient, headers, end, 1}, {fromClient, headers, end, 5}, {fromClient, headers, end, 7}, {fromServer, headers, end, 1}}, []uint32{5, 7}, 7},
		{"reset by the client", []seen{{fromClient, headers, end, 1}, {fromClient, frameRSTStream, 0, 1}, {fromServer, headers, end, 1}}, nil, 1},
		{"a push", []seen{{fromClient, headers, end, 1}, {fromServer, headers, 0, 2}, {fromServer, headers, end, 1}}, []uint32{2}, 1},
		{"which ends", []seen{{fromServer, headers, 0, 2}, {fromServer, frameData, end, 2}}, nil, 0},
		{"of the wrong side", []seen{{fromClient, headers, 0, 2}, {fromServer, headers, 0, 3}, {fromServer, frameData, end, 5}}, nil, 0},
		{"no stream", []seen{{fromClient, frameSettings, flagAck, 0}, {fromClient, framePing, flagAck, 0}}, nil, 0},
	} {
		var s streams
		for _, x := range test.seen {
			f := frame{kind: x.kind, flags: x.flags, stream: x.stream}
			s.begins(x.from, &f)
			s.ends(x.from, &f)
		}
		var open []uint32
		for _, st := range s.open {
			open = append(open, st.id)
		}
		slices.Sort(open)
		if !slices.Equal(open, test.open) || s.last() != test.last || s.none() != (len(open) == 0) {
			t.Errorf("%s: open %v, last %d, none %t, want %v, %d", test.what, open, s.last(), s.none(), test.open, test.last)
		}
	}
}

// Who opens more streams than any server allows is not followed any more.
func TestTooManyStreams(t *testing.T) {
	var s streams
	for i := range uint32(maxStreams + 1) {
		s.begins(fromClient, &frame{kind: frameHeaders, stream: 2*i + 1})
	}
	for len(s.open) > 0 {
		s.ends(fromServer, &frame{kind: frameRSTStream, stream: s.open[0].id})
	}
	if !s.lost || s.none() || cap(s.open) > 2*maxStreams {
		t.Errorf("lost %t, none %t, room for %d", s.lost, s.none(), cap(s.open))
	}
}

// What the package says, others understand.
func TestGoAwayFrames(t *testing.T) {
	data := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	want, _ := wire(func(f *http2.Framer) {
		f.WriteGoAway(lastStream, http2.ErrCodeNo, nil)
		f.WritePing(false, data)
		f.WriteGoAway(5, http2.ErrCodeNo, nil)
	})
	got := appendGoAway(appendPing(appendGoAway(nil, lastStream), data), 5)
	if !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	b, _ := wire(func(f *http2.Framer) { f.WriteSettings(); f.WritePing(true, data) })
	for _, size := range []int{1, 4, len(b)} {
		var f frames
		for p := range slices.Chunk(b, size) {
			for len(p) > 0 {
				n, _, _ := f.advance(p)
				p = p[n:]
			}
		}
		if !f.isAck(data) || f.isAck([8]byte{}) {
			t.Errorf("%d at a time: no answer to the PING: %+v", size, f.frame)
		}
	}
}

// discard is a connection on which everything can be written.
type discard struct{}

func (discard) Read(p []byte) (int, error)  { return len(p), nil }
func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestSessionNoAllocation(t *testing.T) {
	request, _ := wire(func(f *http2.Framer) {
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("a"), EndHeaders: true})
		f.WriteData(1, true, make([]byte, 1000))
	})
	answer, _ := wire(func(f *http2.Framer) {
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("a"), EndHeaders: true})
		f.WriteData(1, true, make([]byte, 1000))
	})
	s := newSession(new(conn), discard{}, 0)
	settings, _ := wire(func(f *http2.Framer) { f.WriteSettings() })
	s.took(settings)
	s.Write(settings)
	stream := uint32(1)
	if n := testing.AllocsPerRun(1000, func() {
		for _, b := range [][]byte{request, answer} { // as the next stream
			b[8], b[7], b[6] = byte(stream), byte(stream>>8), byte(stream>>16)
			d := b[frameHeader+1:]
			d[8], d[7], d[6] = byte(stream), byte(stream>>8), byte(stream>>16)
		}
		stream += 2
		s.took(request[:frameHeader])
		s.took(request[frameHeader:])
		s.Write(answer[:100])
		s.Write(answer[100:])
	}); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
	if !s.streams.none() || s.streams.last() != stream-2 {
		t.Errorf("%+v", s.streams)
	}
}

// The server says that it is idle before it has written the end of its last answer.
func TestIdleBeforeWritten(t *testing.T) {
	d, err := New(new(http.Server), newPipes(), quiet(Config{}))
	if err != nil {
		t.Fatal(err)
	}
	b, ends := wire(func(f *http2.Framer) {
		f.WriteSettings()
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("a"), EndHeaders: true, EndStream: true})
	})
	s := newSession(&conn{d: d}, discard{}, 0)
	s.c.phase.Store(idle)
	s.took(b)
	s.Write(b[:ends[0]])
	if s.shut(false) {
		t.Error("closed before the answer")
	}
	s.Write(b[ends[0] : len(b)-1])
	if s.shut(false) {
		t.Error("closed inside of the answer")
	}
	s.Write(b[len(b)-1:])
	s.c.phase.Store(busy)
	if s.shut(false) {
		t.Error("closed before the server is idle")
	}
	s.c.phase.Store(idle)
	if !s.shut(false) {
		t.Error("not closed")
	}
}

// cutShort is a connection on which so many bytes can be written, and then no more for now.
type cutShort struct {
	discard
	room int
}

func (c *cutShort) Write(p []byte) (int, error) {
	n := min(c.room, len(p))
	c.room -= n
	if n < len(p) {
		return n, os.ErrDeadlineExceeded
	}
	return n, nil
}

// The server may go on with an answer of which only a part could be written in time. What is not
// written has not ended a stream, wherever the answer was cut.
func TestAnswerCutShort(t *testing.T) {
	d, err := New(new(http.Server), newPipes(), quiet(Config{}))
	if err != nil {
		t.Fatal(err)
	}
	settings, _ := wire(func(f *http2.Framer) { f.WriteSettings() })
	request, _ := wire(func(f *http2.Framer) {
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("a"), EndHeaders: true, EndStream: true})
	})
	answer, ends := wire(func(f *http2.Framer) {
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("a"), EndHeaders: true})
		f.WriteData(1, true, []byte("hello"))
	})
	for n := range answer {
		rw := &cutShort{room: len(settings)}
		s := newSession(&conn{d: d}, rw, 0)
		s.c.phase.Store(idle)
		s.took(settings)
		s.took(request)
		s.Write(settings)
		rw.room = n
		if got, err := s.Write(answer); got != n || err == nil {
			t.Fatalf("%d written, %v", got, err)
		}
		if want := n == 0 || n == ends[0]; s.out.clean() != want {
			t.Errorf("after %d bytes of %d: clean %t", n, len(answer), !want)
		}
		if s.shut(false) {
			t.Errorf("closed after %d bytes of %d", n, len(answer))
		}
		rw.room = len(answer)
		if _, err := s.Write(answer[n:]); err != nil || !s.out.clean() || !s.shut(false) {
			t.Errorf("%d and then the rest: %v, not closed", n, err)
		}
	}
}
