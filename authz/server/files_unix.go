//go:build unix

package server

import (
	"math"
	"syscall"
)

// fileLimit returns how many files the process can have open, or 0 if that is unknown.
func fileLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(uint64(limit.Cur), math.MaxInt32))
}
