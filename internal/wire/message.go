package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// excerptLen is how many bytes of a bad line an error shows.
const excerptLen = 80

// BadMessageError matches ErrBadMessage.
type BadMessageError struct {
	Excerpt string // how the line begins, quoted
	// JSON is true when the line is valid JSON but no object. No message of
	// ours looks like that, but a Node program's process.send("ready")
	// does, and is no sign of a broken peer.
	JSON bool
}

// Error shows how the line begins.
func (e *BadMessageError) Error() string {
	if e.JSON {
		return "wire: bad message: JSON, but not an object: " + e.Excerpt
	}
	return "wire: bad message: not JSON: " + e.Excerpt
}

// Unwrap returns ErrBadMessage.
func (e *BadMessageError) Unwrap() error { return ErrBadMessage }

// Cmd returns the field "cmd" of a message. The name is matched exactly, and the
// last of several counts, as in JavaScript. A message without one, or whose cmd
// is not a string, has the cmd "": it belongs to the application. A line that
// is not a JSON object is a *BadMessageError.
func Cmd(line []byte) (string, error) {
	if cmd, ok := ownCmd(line); ok {
		return cmd, nil
	}
	line = bytes.Trim(line, " \t\r\n")
	if len(line) == 0 || line[0] != '{' {
		return "", &BadMessageError{Excerpt: excerpt(line), JSON: json.Valid(line)}
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(line, &fields) != nil {
		return "", &BadMessageError{Excerpt: excerpt(line)}
	}
	var cmd string
	if raw := fields["cmd"]; len(raw) > 0 && raw[0] == '"' {
		if json.Unmarshal(raw, &cmd) != nil {
			return "", &BadMessageError{Excerpt: excerpt(line)}
		}
	}
	return cmd, nil
}

// ownPrefix is how every command begins that this package writes.
var ownPrefix, cmdKey = []byte(`{"cmd":"NODE_HANDOVER_`), []byte(`"cmd"`)

// ownCmd is Cmd for lines as this package writes them, in a fifth of the time.
func ownCmd(line []byte) (cmd string, ok bool) {
	if !bytes.HasPrefix(line, ownPrefix) {
		return "", false
	}
	name := line[len(`{"cmd":"`):]
	end := bytes.IndexByte(name, '"')
	if end < 0 || bytes.IndexByte(name[:end], '\\') >= 0 || bytes.Contains(name[end:], cmdKey) || !json.Valid(line) {
		return "", false
	}
	return string(name[:end]), true
}

// excerpt quotes the beginning of a line for an error message.
func excerpt(line []byte) string {
	if len(line) <= excerptLen {
		return fmt.Sprintf("%q", line)
	}
	return fmt.Sprintf("%q… (%d bytes)", line[:excerptLen], len(line))
}
