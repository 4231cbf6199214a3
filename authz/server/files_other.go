//go:build !unix

package server

// fileLimit returns how many files the process can have open, or 0 if that is unknown.
func fileLimit() int { return 0 }
