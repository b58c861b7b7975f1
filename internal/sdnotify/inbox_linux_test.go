package sdnotify

import "testing"

// What is queued is read to its end, which comes also when more is sent all the time.
func TestEach(t *testing.T) {
	in, err := NewInbox()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	t.Setenv(Env, in.Addr())
	in.Each(func(n Note, err error) { t.Errorf("nobody has sent %q (%v)", n.Text, err) })
	send := func(text string) {
		if err := Send(text); err != nil {
			t.Fatal(err)
		}
	}
	send("A=1")
	send("B=1")
	var got string
	in.Each(func(n Note, err error) { got += n.Text })
	if got != "A=1B=1" {
		t.Errorf("read: %q", got)
	}
	send("MORE=1")
	read := 0
	in.Each(func(Note, error) { read++; send("MORE=1") })
	if read != maxQueued {
		t.Errorf("%d read", read)
	}
}
