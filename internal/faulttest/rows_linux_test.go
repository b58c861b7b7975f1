package faulttest_test

import "slices"

// rows are all faults of the machine, in the order in which docs/faults.md has them.
var rows = slices.Concat(diskRows, limitRows, memoryRows, binaryRows, workerRows, outputRows, clockRows)
