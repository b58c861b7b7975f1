package signals

import "syscall"

// marker is the signal by which flush knows that all others have arrived: a
// real-time signal that nothing else uses.
const marker = syscall.Signal(50)
