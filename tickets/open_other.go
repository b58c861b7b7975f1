//go:build !linux

package tickets

import "os"

func open() (*os.File, error) {
	f, err := os.CreateTemp("", "tickets")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
