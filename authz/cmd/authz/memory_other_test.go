//go:build !unix

package main

import "os"

// peakMemory returns 0: there is no common way to ask for it.
func peakMemory(*os.ProcessState) int64 { return 0 }
